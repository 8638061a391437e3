"""The metadata that travels with an adapter or a classifier. Imports no torch, so that a check can read it."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from alignlab.errors import ConfigError
from alignlab.io.atomic import write_json
from alignlab.io.hashes import changed_files, hashes_below, sealed, unsealed
from alignlab.runs.result import recorded_fault

CARD = "alignlab.json"


@dataclass(frozen=True)
class AdapterCard:
    """What a DPO-trained adapter is; without it an implicit reward has no scale."""

    objective: str
    """Whose labels it was trained on; empty where it learnt rewards alone."""
    beta: float
    base: str
    """Base.id of the model that it was trained on."""
    prompt_template: str | None
    dataset: str
    weights: dict[str, float]
    max_length: int | None = None
    """Longest prompt plus response that it was trained on, tokens."""
    scales: dict[str, float] = field(default_factory=dict)
    """What the rewards of some objectives were divided by before they were weighed."""
    data: str = ""
    """Hash of the rows and labels that it was trained on."""
    algorithm: str = ""
    seed: int | None = None
    loss_type: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    """What else tells policies of one w apart."""
    conditioned: bool = False
    """Whether it is a function of w; `weights` are then none."""
    ranks: dict[str, int] = field(default_factory=dict)
    """Of a conditioned adapter: objective -> rank of its block, in the blocks' order."""
    shared_rank: int = 0
    """Rank of the last block, which is the same for every w."""
    rewards: dict[str, str] = field(default_factory=dict)
    """Objective -> id of the reward that it was trained on: a score by the same reward flatters it."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file beside the card, as it was saved."""


@dataclass(frozen=True)
class ClassifierCard:
    """What a classifier that was trained here reads, and on what it was trained."""

    kind: str
    objective: str
    base: str
    template: str | None
    eos: bool
    max_length: int
    dataset: str
    data: str
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file beside the card, as it was saved."""


@dataclass(frozen=True)
class ProbeCard:
    """Which hidden states a probe reads, and on what it was fitted."""

    kind: str
    objective: str
    base: str
    """Base.id of the model whose hidden states it reads."""
    base_path: str
    base_revision: str | None
    dtype: str
    """Of the base's weights."""
    attn_implementation: str
    template: str | None
    max_length: int
    layers: list[int]
    """Counted from 1."""
    pooling: str
    length_term: str
    ridge: float
    dataset: str
    data: str
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file beside the card, as it was saved."""


AnyCard = AdapterCard | ClassifierCard | ProbeCard
Card = TypeVar("Card", AdapterCard, ClassifierCard, ProbeCard)


def save_card(folder: Path, card: AnyCard) -> None:
    """Write the card beside the files of an adapter or a model, with their hashes and its own."""
    write_json(folder / CARD, sealed(asdict(replace(card, files=file_hashes(folder)))))


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder, by its path there; the card itself and hidden files apart."""
    return {name: digest for name, digest in hashes_below(folder, [""]).items() if Path(name).name != CARD}


def check_recorded_files(what: str, folder: Path, card: AnyCard) -> None:
    """Refuse a folder whose files are not those that its card recorded; a card without hashes passes.

    Args:
        what: `KEY=FOLDER`, which the error begins with.
        folder: the card's.
        card: says what the files were when they were saved.

    Raises:
        ConfigError: naming the file that is gone or changed.
    """
    fault = changed_file(folder, card.files)
    if fault is not None:
        raise ConfigError(f"{what}: {fault}; train it again (force=true), or restore the file")


def require_as_saved(key: str, folder: Path) -> None:
    """Refuse an adapter that is not the one that its run or its card recorded; one made elsewhere has neither.

    Args:
        key: what it stands under.
        folder: its folder.

    Raises:
        ConfigError: `KEY=FOLDER: ...`, naming the file that is gone or changed.
    """
    fault = recorded_fault(folder)
    if fault is not None:
        raise ConfigError(f"{key}={folder}: {fault}; run what made it again, or restore the file")
    card = read_card(folder)
    if card is not None:
        check_recorded_files(f"{key}={folder}", folder, card)


def changed_file(folder: Path, files: dict[str, str]) -> str | None:
    """The first file that is gone or not the one recorded, in words; None where all are as recorded."""
    return next((f"{name} {fault}" for name, fault in changed_files(folder, files)), None)


def read_card(folder: Path) -> AdapterCard | None:
    """The card of an adapter, or None when it was made elsewhere.

    Raises:
        ConfigError: if there is a card that cannot be read.
    """
    found = _read(folder)
    return None if found is None else _typed(AdapterCard, found, folder)


def read_classifier_card(folder: Path) -> ClassifierCard | None:
    """The card of a classifier, or None when it was made elsewhere.

    Raises:
        ConfigError: if there is a card that cannot be read.
    """
    found = _read(folder)
    return None if found is None else _typed(ClassifierCard, found, folder)


def read_probe_card(folder: Path) -> ProbeCard | None:
    """The card of a probe, or None where there is none.

    Raises:
        ConfigError: if there is a card that cannot be read, or it is not a probe's.
    """
    found = _read(folder)
    return None if found is None else _typed(ProbeCard, found, folder)


def _read(folder: Path) -> dict[str, Any] | None:
    file = folder / CARD
    if not file.exists():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: must be a JSON object")
    try:
        return unsealed(found)
    except ValueError as error:
        raise ConfigError(f"{file}: {error}; train it again (force=true), or restore the file") from None


def _typed(kind: type[Card], found: dict[str, Any], folder: Path) -> Card:
    try:
        return kind(**found)
    except TypeError as error:
        what = {AdapterCard: "an adapter", ClassifierCard: "a classifier", ProbeCard: "a probe"}[kind]
        raise ConfigError(f"{folder / CARD}: not {what}'s card: {error}") from None
