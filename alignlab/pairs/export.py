"""Pairs as files: rows with scores and labels by objective, TRL's pairs, and a data card."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from alignlab.io.atomic import write_jsonl, write_text
from alignlab.io.hashes import text_id
from alignlab.pairs.select import LabelledPair

ROWS, CARD = "rows", "README.md"


@dataclass(frozen=True)
class PairRow:
    """Two answers to one prompt."""

    answers: tuple[Mapping[str, Any], Mapping[str, Any]]
    scores: Mapping[str, tuple[float | None, float | None]]
    better: Mapping[str, int | None]
    """Objective -> 0 or 1; None where it says nothing."""

    def as_row(self) -> dict[str, Any]:
        """The columns of dataset=scored; `labels` take the place of the scores where they were drawn."""
        first = self.answers[0]
        return {
            "id": text_id(*(answer["id"] for answer in self.answers)),
            "prompt": first["prompt"],
            "responses": [answer["response"] for answer in self.answers],
            "scores": {name: list(pair) for name, pair in self.scores.items()},
            "labels": {name: _as_labels(better) for name, better in self.better.items()},
            "answers": [answer["id"] for answer in self.answers],
            "finish": [answer["finish"] for answer in self.answers],
        }

    def as_trl(self, objective: str) -> dict[str, Any] | None:
        """TRL's prompt, chosen and rejected by one objective; None where it says nothing."""
        better = self.better[objective]
        if better is None:
            return None
        chosen, rejected = self.answers[better], self.answers[1 - better]
        scores = self.scores[objective]
        return {
            "id": text_id(*(answer["id"] for answer in self.answers)),
            "prompt": chosen["prompt"],
            "chosen": chosen["response"],
            "rejected": rejected["response"],
            "score_chosen": scores[better],
            "score_rejected": scores[1 - better],
        }


def _as_labels(better: int | None) -> list[float | None]:
    return [None, None] if better is None else [1.0 - better, float(better)]


def pair_row(
    answers: Sequence[Mapping[str, Any]],
    scores: Sequence[Sequence[float | None]],
    one: LabelledPair,
    names: Sequence[str],
) -> PairRow:
    """A pair with its texts and scores.

    Args:
        answers: of the prompt.
        scores: of each answer, one an objective.
        one: the pair.
        names: of the objectives.
    """
    first, second = one.pair
    return PairRow(
        (answers[first], answers[second]),
        {name: (scores[first][m], scores[second][m]) for m, name in enumerate(names)},
        dict(zip(names, one.better, strict=True)),
    )


@dataclass
class PairCounts:
    """What the card and result.json say of the pairs."""

    prompts: int
    answers: int
    left_out: Counter[str]
    pairs: int = 0
    labelled: Counter[str] = field(default_factory=Counter)
    """Objective -> pairs that it ranks."""
    agree: Counter[str] = field(default_factory=Counter)
    """`ONE, OTHER` -> pairs that both rank alike."""
    both: Counter[str] = field(default_factory=Counter)
    """`ONE, OTHER` -> pairs that both rank."""
    tokens: dict[str, dict[str, float]] = field(default_factory=dict)
    """Objective -> mean length of chosen and rejected answers, tokens."""
    cut: dict[str, dict[str, float]] = field(default_factory=dict)
    """Objective -> fraction of chosen and rejected answers that the limit cut."""

    def as_record(self) -> dict[str, Any]:
        """The shape of result.json."""
        own = vars(self)
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in own.items()}


def count_pairs(rows: Sequence[PairRow], counts: PairCounts) -> None:
    """Fill in what the pairs are like."""
    counts.pairs = len(rows)
    names = list(rows[0].better) if rows else []
    for index, name in enumerate(names):
        ranked = [row for row in rows if row.better[name] is not None]
        counts.labelled[name] = len(ranked)
        sides = {
            "chosen": [row.answers[row.better[name] or 0] for row in ranked],
            "rejected": [row.answers[1 - (row.better[name] or 0)] for row in ranked],
        }
        if ranked:
            counts.tokens[name] = {side: fmean(one["tokens"] for one in found) for side, found in sides.items()}
            counts.cut[name] = {
                side: fmean(one["finish"] == "length" for one in found) for side, found in sides.items()
            }
        for other in names[index + 1 :]:
            both = [row for row in ranked if row.better[other] is not None]
            counts.both[f"{name}, {other}"] = len(both)
            counts.agree[f"{name}, {other}"] = sum(row.better[name] == row.better[other] for row in both)


def export(rows: Sequence[PairRow], folder: Path, *, card: str) -> dict[str, str]:
    """Write rows by split, TRL's pairs by objective, and the card; names of the files by what they are.

    Args:
        rows: the pairs.
        folder: the run's.
        card: its text.
    """
    by_split: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_split.setdefault(row.answers[0]["split"], []).append(row.as_row())
    for split, found in by_split.items():
        write_jsonl(folder / ROWS / f"{split}.jsonl", found)
    files = {"rows": ROWS, "card": CARD}
    for name in rows[0].better if rows else ():
        made = [pair for row in rows if (pair := row.as_trl(name)) is not None]
        files[f"pairs_{name}"] = f"pairs_{name}.jsonl"
        write_jsonl(folder / files[f"pairs_{name}"], made)
    write_text(folder / CARD, card)
    return files


def pairs_card(counts: PairCounts, settings: Mapping[str, Any], notes: Mapping[str, Mapping[str, float]]) -> str:
    """The card, as Markdown with the hub's YAML header; the same for the same run.

    Args:
        counts: of the pairs.
        settings: what they were made with.
        notes: title -> name -> number: correlations of the scorers with each other and with length.
    """
    header = {"tags": ["preference", "dpo", "on-policy", "synthetic", "alignlab"]}
    table = [("what", "number"), ("---", "---"), ("prompts", counts.prompts), ("answers", counts.answers)]
    table += [("pairs", counts.pairs), *((f"ranked by {name}", count) for name, count in counts.labelled.items())]
    table += [(f"left out: {reason}", count) for reason, count in counts.left_out.items() if count]
    for names, both in counts.both.items():
        table.append((f"ranked alike by {names}", f"{counts.agree[names]} of {both}"))
    for name, sides in counts.tokens.items():
        table += [(f"mean tokens, {side} by {name}", f"{value:.1f}") for side, value in sides.items()]
        table += [(f"cut at the limit, {side} by {name}", f"{value:.0%}") for side, value in counts.cut[name].items()]
    for title, found in notes.items():
        table += [(f"{title}, {name}", f"{value:.2f}") for name, value in found.items()]
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        "# Preference pairs of a policy's own answers",
        "**The answers are a language model's, unread by anyone; they may hold harmful text.**",
        "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in table),
        _LABELS[str(settings["algorithm"]["labels"])],
        _FILES,
        f"## Settings\n\n```yaml\n{yaml.safe_dump(dict(settings), sort_keys=True)}```",
    ]
    return "\n\n".join(parts) + "\n"


_LABELS = {
    "best": "Labels: the higher score is called better. DPO on such labels has no KL-regularised optimum: it pushes "
    "log-ratios apart without end, whatever the scores' difference.",
    "bradley_terry": "Labels: drawn with probability sigmoid(score difference / temperature). DPO's optimum on them is "
    "the reference times exp(score / (temperature * beta)), the KL-regularised one.",
}
_FILES = """\
## Files

- `rows/SPLIT.jsonl`: `prompt, responses` (two), `scores` and `labels` by objective, as `dataset=scored` reads them.
- `pairs_OBJECTIVE.jsonl`: TRL's `prompt, chosen, rejected`, with both scores."""
