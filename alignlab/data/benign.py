"""Harmless prompts on which a refusal is a mistake, and texts of one's own: what else a policy must not lose.

XSTest's columns are read (arXiv 2308.01263): `prompt`, `type`, and `label`, of which the rows that say `unsafe` are
left out; where there is no label, the contrast types are the unsafe ones.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alignlab.config.schema import DatasetConfig, ToyConfig
from alignlab.data.files import data_files, located_rows
from alignlab.data.readers.fields import Row
from alignlab.data.readers.prompts import prompt_in
from alignlab.data.records import Prompt, prompt_as_json, prompt_text
from alignlab.data.report import BadRow
from alignlab.data.texts import blank_text, is_blank
from alignlab.data.worlds import toy
from alignlab.errors import ConfigError
from alignlab.io.hashes import text_id

SAFE, UNSAFE = ("safe", "benign", "harmless"), ("unsafe", "harmful")
CONTRAST = "contrast_"
"""XSTest's types of unsafe prompts begin so."""
CSV = ".csv"


@dataclass(frozen=True)
class BenignPrompt:
    """A harmless prompt."""

    id: str
    prompt: Prompt
    type: str | None = None


@dataclass(frozen=True)
class Document:
    """A text whose loss is measured."""

    id: str
    text: str


def check_quality_files(settings: DatasetConfig) -> None:
    """Read the files that dataset.benign and dataset.text name.

    Raises:
        ConfigError: for what cannot be used; for a prompt that is not of the toy's grammar, on the toy.
    """
    if settings.text is not None:
        documents(Path(settings.text))
    if settings.benign is None:
        return
    for one in benign_prompts(Path(settings.benign)):
        if isinstance(settings, ToyConfig):
            try:
                toy.parse_prompt(prompt_text(one.prompt))
            except ValueError as error:
                raise ConfigError(f"dataset.benign={settings.benign}: {error}; the toy knows its own words") from None


def benign_prompts(path: Path) -> list[BenignPrompt]:
    """The harmless prompts of a CSV, JSON Lines or Parquet file, each once, in the file's order.

    Raises:
        ConfigError: `dataset.benign=FILE: ...` for a row without a prompt, an unknown label, or no harmless prompt.
    """
    key = f"dataset.benign={path}"
    found: dict[str, BenignPrompt] = {}
    for location, row in _rows("dataset.benign", path):
        try:
            if isinstance(row, BadRow):
                raise row
            if not _is_safe(row):
                continue
            prompt = prompt_in({name: value for name, value in row.items() if value not in (None, "")})
            if is_blank(last := prompt if isinstance(prompt, str) else prompt[-1].content):
                raise BadRow("empty", "prompt", blank_text(last))
        except BadRow as bad:
            raise ConfigError(f"{key}: {location} {bad.column}: {bad.reason}") from None
        kind = row.get("type")
        name = text_id(str(prompt_as_json(prompt)))
        found.setdefault(name, BenignPrompt(name, prompt, str(kind) if kind else None))
    if not found:
        raise ConfigError(f"{key}: holds no prompt that is marked safe")
    return list(found.values())


def _is_safe(row: Row) -> bool:
    label, kind = row.get("label"), str(row.get("type") or "")
    if label is None:
        return not kind.startswith(CONTRAST)
    said = str(label).strip().lower()
    if said not in (*SAFE, *UNSAFE):
        raise BadRow("bad_value", "label", f"must be safe or unsafe, is {said!r:.40}")
    return said in SAFE


def documents(path: Path) -> list[Document]:
    """The documents of a file: blocks between blank lines of a .txt, else the rows' `text`.

    Raises:
        ConfigError: `dataset.text=FILE: ...` where there is no text.
    """
    key = f"dataset.text={path}"
    if path.suffix == ".txt":
        try:
            texts = [(f"block {number}", block.strip()) for number, block in enumerate(_blocks(path), 1)]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{key}: cannot be read as text ({error})") from None
    else:
        texts = [(location, _text(key, location, row)) for location, row in _rows("dataset.text", path)]
    found = {text_id(text): Document(text_id(text), text) for _, text in texts if not is_blank(text)}
    if not found:
        raise ConfigError(f"{key}: holds no text")
    return list(found.values())


def _blocks(path: Path) -> Iterator[str]:
    block: list[str] = []
    for line in [*path.read_text(encoding="utf-8").split("\n"), ""]:
        if line.strip():
            block.append(line)
        elif block:
            yield "\n".join(block)
            block = []


def _text(key: str, location: str, row: Row | BadRow) -> str:
    if isinstance(row, BadRow):
        raise ConfigError(f"{key}: {location} {row.column}: {row.reason}")
    if not isinstance(row.get("text"), str):
        raise ConfigError(f"{key}: {location} text: must be text")
    return str(row["text"])


def _rows(key: str, path: Path) -> Iterator[tuple[str, Row | BadRow]]:
    if path.suffix == CSV and path.is_file():
        try:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                for number, line in enumerate(csv.DictReader(stream), 2):
                    yield f"{path.name}:{number}", dict(line)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(f"{key}={path}: cannot be read as CSV ({error})") from None
        return
    for file in data_files(path, key=key):
        for number, row in located_rows(file.path):
            yield f"{file.shown}:{number}", row
