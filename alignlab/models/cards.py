"""The metadata that travels with an adapter or a classifier. Imports no torch, so that a check can read it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from alignlab.errors import ConfigError
from alignlab.io.atomic import write_json

CARD = "alignlab.json"


@dataclass(frozen=True)
class AdapterCard:
    """What a DPO-trained adapter is; without it an implicit reward has no scale."""

    objective: str
    beta: float
    base: str
    """Base.id of the model that it was trained on."""
    prompt_template: str | None
    dataset: str
    weights: dict[str, float]
    max_length: int | None = None
    """Longest prompt plus response that it was trained on, tokens."""
    data: str = ""
    """Hash of the rows and labels that it was trained on."""


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


Card = TypeVar("Card", AdapterCard, ClassifierCard)


def save_card(folder: Path, card: AdapterCard | ClassifierCard) -> None:
    """Writes the card beside the weights."""
    write_json(folder / CARD, asdict(card))


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
    return found


def _typed(kind: type[Card], found: dict[str, Any], folder: Path) -> Card:
    try:
        return kind(**found)
    except TypeError as error:
        what = "an adapter's card" if kind is AdapterCard else "a classifier's card"
        raise ConfigError(f"{folder / CARD}: not {what}: {error}") from None
