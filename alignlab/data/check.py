"""The data check: every row of a source, before any model is loaded. What passes are the rows that jobs use."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from alignlab.config.schema import DatasetConfig, FileConfig
from alignlab.data.located import Located
from alignlab.data.readers import SOURCES
from alignlab.data.readers.fields import check_responses
from alignlab.data.readers.source import Source
from alignlab.data.records import Prompt, RankedRow, prompt_text, ranked_pairs
from alignlab.data.report import SPELLINGS, TEMPLATED, BadRow, LeftOut, Report
from alignlab.data.splits import split_key
from alignlab.data.texts import DIFFERENCE, blank_text, folded, is_blank
from alignlab.errors import ConfigError

CHARACTERS_A_TOKEN = 16
"""No tokenizer makes text of fewer tokens than one in so many characters, blanks aside, or of fewer than one a word;
what is too long by this is too long for certain, and the rest is counted when it is tokenised."""

_RENDERED = re.compile(r"<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|\[INST\]|<\|(?:user|assistant)\|>")
"""What chat templates write and hardly a request does."""

MOST_BAD = 10_000
"""Bad rows after which a source is not read on, where the first of them refuses it."""

Key = tuple[str | None, Prompt, frozenset[str]]
"""Split, prompt and responses, folded: in two splits the prompt is the fault, not the repetition."""


def checked_rows(
    config: DatasetConfig,
    located: Iterable[Located],
    report: Report,
    *,
    max_length: int | None,
    most_bad: int = MOST_BAD,
) -> list[RankedRow]:
    """The ranked rows of a source, in its order; what is wrong with the others is in the report.

    Args:
        config: the dataset.
        located: its raw rows.
        report: filled in.
        max_length: tokens of prompt and response together; None checks no length.
        most_bad: reading ends once more rows are bad, as the source is refused then.
    """
    source = SOURCES[config.kind]
    rows: list[RankedRow] = []
    seen: dict[Key, RankedRow] = {}
    for location, raw, split in located:
        report.rows += 1
        try:
            if isinstance(raw, BadRow):
                raise raw
            made = [replace(row, location=location, split=split) for row in source.read(raw, config, report.notes)]
            for row in made:
                _check_texts(row, source, max_length)
            if not source.repeats:
                _check_repeated(made, seen, config)
            rows += made
        except BadRow as bad:
            report.add(location, bad)
            if report.bad.total() > most_bad:
                report.stopped = True
                return []
        except LeftOut as left_out:
            report.left_out[left_out.why] += 1
    if source.gather is not None:
        rows = source.gather(rows, config, report)
    rows = _without_overlap(rows, report)
    report.notes[SPELLINGS] += num_spellings(row.prompt for row in rows)
    report.notes[TEMPLATED] += sum(_RENDERED.search(prompt_text(row.prompt)) is not None for row in rows)
    report.notes = +report.notes  # without those that count nothing
    report.records = len(rows)
    return rows


def _check_texts(row: RankedRow, source: Source[Any], max_length: int | None) -> None:
    """Refuses empty texts, equal responses, and a prompt that leaves no room for a response."""
    last = row.prompt if isinstance(row.prompt, str) else row.prompt[-1].content
    if is_blank(last):
        raise BadRow("empty", source.prompt, blank_text(last))
    for number, turn in enumerate(() if isinstance(row.prompt, str) else row.prompt, 1):
        if is_blank(turn.content) and turn.content.strip("\t\n\v\f\r "):  # many sets write an empty turn for none
            raise BadRow("empty", source.prompt, f"turn {number} ({turn.role}) {blank_text(turn.content)}")
    if source.responses:
        check_responses(row.responses, source.responses)
    if max_length is not None and is_too_long(row.prompt, max_length):
        words = len(prompt_text(row.prompt).split())
        reason = f"has {words:,} words, which is too long for trainer.max_length={max_length} tokens"
        raise BadRow("too_long", source.prompt, reason)


def is_too_long(prompt: Prompt, max_length: int) -> bool:
    """Whether a prompt takes max_length tokens by any tokenizer."""
    text = prompt_text(prompt)
    if len(text) < 2 * max_length - 1:  # words of one letter, a blank between them
        return False
    words = text.split()
    return len(words) >= max_length or sum(map(len, words)) >= CHARACTERS_A_TOKEN * max_length


def _check_repeated(made: Sequence[RankedRow], seen: dict[Key, RankedRow], config: DatasetConfig) -> None:
    """Refuses a row whose prompt and responses came before, and says whether its labels turn them round."""
    keys = [(row.split, _folded(row.prompt), frozenset(map(folded, row.responses))) for row in made]
    for key, row in zip(keys, made, strict=True):
        first = seen.get(key)
        if first is None:
            continue
        turned = next((name for name in row.scores if _is_turned(row, first, name)), None)
        if turned is not None:
            column = str(config.objectives[turned].label)
            raise BadRow("contradictory", column, f"ranks the two responses of {first.location} the other way round")
        same = row.prompt == first.prompt and {*row.responses} == {*first.responses}
        but = "" if same else f", but for their {DIFFERENCE}"
        reason = f"is repeated with its responses from {first.location}{but}"
        raise BadRow("duplicate", SOURCES[config.kind].prompt, reason)
    seen.update(zip(keys, made, strict=True))


def _folded(prompt: Prompt) -> Prompt:
    if isinstance(prompt, str):
        return folded(prompt)
    return tuple(replace(turn, content=folded(turn.content)) for turn in prompt)


def _is_turned(row: RankedRow, first: RankedRow, objective: str) -> bool:
    """Whether two rows of the same responses rank some two of them oppositely by an objective."""
    here, there = (
        {tuple(folded(ranked.responses[one]) for one in pair) for pair in ranked_pairs(ranked, objective)}
        for ranked in (row, first)
    )
    return any((worse, better) in there for better, worse in here)


def num_spellings(prompts: Iterable[Prompt]) -> int:
    """Distinct prompts that are the same as an earlier one when folded; they stay prompts of their own."""
    distinct = dict.fromkeys(prompts)
    return len(distinct) - len({_folded(prompt) for prompt in distinct})


def _without_overlap(rows: list[RankedRow], report: Report) -> list[RankedRow]:
    """The rows without those of the training files whose prompt a held-out file holds too, each a fault."""
    if not any(row.split not in (None, "train") for row in rows):
        return rows
    held_out = {split_key(row.prompt): row for row in reversed(rows) if row.split != "train"}
    test: dict[str, RankedRow] = {split_key(row.prompt): row for row in rows if row.split == "test"}
    kept = []
    for row in rows:
        other = held_out if row.split == "train" else test if row.split == "dev" else {}
        twin = other.get(split_key(row.prompt))
        if twin is None:
            kept.append(row)
        else:
            report.add(row.location, BadRow("overlap", "prompt", f"is also in {twin.location}, another split"))
    return kept


def check_objectives(config: DatasetConfig, rows: Sequence[RankedRow], source: str) -> None:
    """Refuses an objective whose label says nothing of any response.

    Args:
        config: of the dataset.
        rows: of all splits.
        source: file or hub id, for errors.

    Raises:
        ConfigError: naming the objective.
    """
    for name, objective in config.objectives.items():
        if objective.label is None:
            continue
        if not any(score is not None for row in rows for score in row.scores[name]):
            key = f"dataset.objectives.{name}.label={objective.label}"
            raise ConfigError(f"{key}: scores no response in {len(rows):,} rows of {source}")


def check_report(config: FileConfig, report: Report) -> None:
    """Refuses the source when its report breaks the config's rules."""
    report.check(
        drop=config.on_bad_row == "drop", max_share=config.max_bad_share, drop_overlap=config.overlap == "drop"
    )
