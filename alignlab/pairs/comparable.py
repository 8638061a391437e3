"""Answers that can be compared: empty ones and near copies of one prompt are counted and left out."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from alignlab.data.near_duplicates import NearDuplicateIndex
from alignlab.data.texts import canonical, is_blank
from alignlab.errors import ConfigError

MOST_EMPTY = 0.9
"""Largest fraction of answers that may be empty: more are a broken model, or a wrong template."""
EMPTY, COPY, LONE = "empty answers", "copies and near copies of another answer", "prompts with one answer that is left"


@dataclass
class Comparable:
    """Prompt id -> its answers, as records, in the order of their ids."""

    by_prompt: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def answers(self) -> list[dict[str, Any]]:
        """All of them, prompt by prompt."""
        return [answer for answers in self.by_prompt.values() for answer in answers]


def comparable(answers: Iterable[Mapping[str, Any]], near_duplicates: float | None) -> Comparable:
    """The answers that can be compared.

    Args:
        answers: records, sorted by id.
        near_duplicates: similarity from which on two answers of a prompt are copies; None counts equal ones alone.

    Raises:
        ConfigError: if nearly all answers are empty, or no prompt has two that differ.
    """
    found, total = Comparable(), 0
    gathered: dict[str, list[dict[str, Any]]] = {}
    for answer in answers:
        total += 1
        if is_blank(answer["response"]):
            found.left_out[EMPTY] += 1
        else:
            gathered.setdefault(answer["prompt_id"], []).append(dict(answer))
    if found.left_out[EMPTY] > MOST_EMPTY * total:
        cause = "look for NaN in the model's weights, and compare model.prompt_template with the one of its training"
        raise ConfigError(f"generator: {found.left_out[EMPTY]} of {total} answers are empty; {cause}")
    for prompt_id, own in sorted(gathered.items()):
        kept = _without_copies(own, near_duplicates)
        found.left_out[COPY] += len(own) - len(kept)
        if len(kept) > 1:
            found.by_prompt[prompt_id] = kept
        else:
            found.left_out[LONE] += 1
    if not found.by_prompt:
        counts = ", ".join(f"{count} {reason}" for reason, count in found.left_out.items() if count)
        raise ConfigError(f"generator: no prompt has two different answers ({counts}); raise generator.temperature")
    return found


def _without_copies(answers: list[dict[str, Any]], near_duplicates: float | None) -> list[dict[str, Any]]:
    once = {canonical(answer["response"]): answer for answer in reversed(answers)}
    distinct = [answer for answer in answers if once[canonical(answer["response"])] is answer]
    if near_duplicates is None:
        return distinct
    index = NearDuplicateIndex(near_duplicates)
    return [answer for answer in distinct if index.add(answer["response"])]
