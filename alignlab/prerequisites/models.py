"""The base model of a run, which is its reference: loaded once a process, trained from random weights if need be."""

import json
from dataclasses import asdict
from pathlib import Path

from alignlab.config.parts import ModelSource
from alignlab.models.base import Base, load_base, load_encoder
from alignlab.models.prompts import PromptEncoder
from alignlab.prerequisites.scratch import scratch_folder

_resident: dict[str, Base] = {}
"""The base model that the last job of this process used: a sweep loads it once."""


def reference(source: ModelSource) -> Base:
    """The base model; a small one that does not exist yet is trained first."""
    folder = _folder(source)
    key = _key(source, folder)
    if key not in _resident:
        _resident.clear()
        _resident[key] = load_base(source.settings, folder=folder, device=source.device, autocast=source.bf16)
    return _resident[key]


def prompt_encoder(source: ModelSource) -> PromptEncoder:
    """The tokenizer and template, without the model, which a server has."""
    folder = _folder(source)
    resident = _resident.get(_key(source, folder))
    return resident.encoder if resident is not None else load_encoder(source.settings, folder=folder)


def _key(source: ModelSource, folder: Path | None) -> str:
    return json.dumps([asdict(source.settings), str(folder), source.device, source.bf16, source.files])


def forget_models() -> None:
    """Drop the resident base model; the next job loads it again."""
    _resident.clear()


def _folder(source: ModelSource) -> Path | None:
    return None if source.scratch is None else scratch_folder(source.scratch)
