"""Scores by the categories that the data put their prompts in, such as kinds of harm."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.data.records import RankedRow
from alignlab.evaluation.scored import Said, columns_of
from alignlab.io.text import printable
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome
from alignlab.stats import mean_interval, share_interval


def categories_of(rows: Sequence[RankedRow]) -> dict[str, tuple[str, ...]]:
    """Group -> the categories that the data put its prompt or its responses in, of those that have any."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.categories:
            found.setdefault(row.group, {}).update(dict.fromkeys(row.categories))
    return {group: tuple(names) for group, names in found.items()}


def record_categories(
    said: Sequence[Said], folder: Path, outcome: Outcome, categories: Mapping[str, Sequence[str]], shares: set[str]
) -> None:
    """Every scorer's mean in each category, as `by_category`; nothing where the data has none.

    A prompt of several categories counts in each.

    Args:
        said: the responses.
        folder: the run's, with the scores in its scores.jsonl.
        outcome: takes the means.
        categories: group -> its categories.
        shares: objectives whose scores are shares of yes.
    """
    rows = columns_of(folder)
    found: dict[str, dict[str, Any]] = {}
    for category in sorted({name for row in said for name in categories.get(row.group, ())}):
        part = [row for row in said if category in categories.get(row.group, ())]
        groups = [row.group for row in part]
        shown = []
        for name in outcome.extra.get("scorers", {}):
            interval = share_interval if name in shares else mean_interval
            one = interval([rows[row.id].get(f"{name}_reward") for row in part], groups)
            found.setdefault(category, {})[f"{name}_reward"] = one.as_record()
            shown.append(f"{name} unknown" if one.mean is None else f"{name} {one.mean:.3g}")
        say(f"category {printable(category)}: {', '.join(shown)} ({len(set(groups))} prompts)")
    if found:
        outcome.extra["by_category"] = found
