"""Adds a LoRA adapter into its base model and writes an ordinary model folder."""

from dataclasses import asdict
from pathlib import Path

import torch

from alignlab.config.errors import ConfigError
from alignlab.config.schema import MergeConfig, RunConfig
from alignlab.jobs.prerequisites import forget_models, reference
from alignlab.models.adapted import adapter_fingerprint, adapter_settings
from alignlab.models.base import Base
from alignlab.models.cards import CARD, read_card
from alignlab.models.merge import MergeReport, load_classifier, merge_adapter
from alignlab.runs.atomic import new_folder, write_json
from alignlab.runs.folder import Outcome, RunFolder
from alignlab.runs.progress import say


def run(config: RunConfig, run: RunFolder, outcome: Outcome) -> None:
    """Merges, casts, saves with the tokenizer; `model=hf model.path=RUN/model` then loads it as any other model."""
    algorithm = config.algorithm
    assert isinstance(algorithm, MergeConfig)
    adapter = Path(str(algorithm.adapter))
    with run.stage("prerequisites"):
        base = reference(config)
    _check_base(adapter, base)
    outcome.inputs |= {"model": base.id, "revision": base.revision, "adapter": adapter_fingerprint(adapter)}
    dtype = getattr(torch, algorithm.dtype) if algorithm.dtype else base.model.dtype
    forget_models()  # the merge uses the resident model up
    with run.stage("merging"):
        is_classifier = adapter_settings(adapter).get("task_type") == "SEQ_CLS"
        model = load_classifier(base.model, adapter) if is_classifier else base.model
        merged, report = merge_adapter(model, adapter, dtype=dtype)
    name = str(dtype).removeprefix("torch.")
    card = {
        "base": base.id,
        "adapter": outcome.inputs["adapter"],
        "dtype": name,
        "prompt_template": config.model.prompt_template,
    }
    with run.stage("saving"), new_folder(run.path / "model") as folder:
        merged.save_pretrained(folder)
        base.tokenizer.save_pretrained(folder)
        write_json(folder / CARD, {"merged": card})
    outcome.artifacts["model"] = "model"
    outcome.extra["cast"] = _cast_record(report, name)
    _say_loss(report, name)


def _check_base(adapter: Path, base: Base) -> None:
    """Refuses an adapter that says that it was trained on another model.

    Raises:
        ConfigError: naming both.
    """
    card = read_card(adapter)
    if card is not None and card.base != base.id:
        key = f"algorithm.adapter={adapter}"
        raise ConfigError(f"{key}: was trained on another base model ({card.base}, not {base.id})")


def _cast_record(report: MergeReport, dtype: str) -> dict[str, object]:
    """What result.json keeps: the whole, and each layer."""
    whole = {"dtype": dtype, "max_lost": report.max_lost, "share_lost": report.share_lost}
    layers = [{**asdict(layer), "share_lost": layer.share_lost} for layer in report.layers]
    return {**whole, "share_unmoved": report.share_unmoved, "layers": layers}


def _say_loss(report: MergeReport, dtype: str) -> None:
    if not report.share_lost:
        say(f"merged in float32, kept as {dtype}: nothing of the adapter is lost")
        return
    assert report.worst is not None
    say(
        f"merged in float32, cast to {dtype}: the error is {report.share_lost:.2%} of the adapter's change (in "
        f"{report.worst.name} {report.worst.share_lost:.2%}), {report.max_lost:.2g} at most on one weight; "
        f"{report.share_unmoved:.2%} of the changed weights are back at the base model's value"
    )
