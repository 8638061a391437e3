"""The audit as a page: agreement and spread of every reward, and the labels in doubt with their texts, folded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignlab.config.objectives import Objectives
from alignlab.data.records import Pair, prompt_as_json
from alignlab.evaluation.audit import QUANTILES, Scored, Suspect
from alignlab.pages import Column, Folded, Link, Section, Table, facts, prompt_text, write_report
from alignlab.pages.parts import interval, number

MOST_SUSPECTS = 200
"""Labels in doubt of a page; the listed ones are in mislabelled.jsonl."""
SPREAD = ("weight", "mean", "95 % interval", "pairs", "std", *(f"{level:.0%}" for level in QUANTILES), "scale")
_ABOUT_SPREAD = (
    "Reward of chosen minus rejected, by the labels of the trained objective. "
    "Scale: what a reward must be multiplied by to be the log-odds of its own labels."
)


@dataclass(frozen=True)
class Audited:
    """What the page is of."""

    data: str
    model: str
    objectives: Objectives
    scored: Scored
    doubted: Sequence[Suspect]
    """The listed ones, the most decided of each objective first."""
    metrics: Mapping[str, Mapping[str, Any]]
    """Of result.json."""
    contradicted: Mapping[tuple[str, str], int]
    """Objective and what contradicts its labels (`reward` or `policy`) -> how many of them, listed or not."""
    notes: Sequence[str]
    """A line for each reward whose sign deserves a look."""


def write_audit_page(folder: Path, audited: Audited, *, links: Sequence[Link] = (), private: bool = True) -> Path:
    """Write index.html atomically and return its path.

    Args:
        folder: the run's.
        audited: what the page is of.
        links: to other pages.
        private: whether only the owner may read the file, because it holds texts of real data.
    """
    metrics, rewards = audited.metrics, list(audited.scored.margins_B2)
    own = [(name, f"{name}_agreement{part}", where) for name in rewards for part, where in _PARTS]
    agreements = [(name, where, *interval(metrics[key])) for name, key, where in own]
    counts = {_COUNTED[name]: count for name, count in audited.scored.counts().items()}
    for (name, by), count in audited.contradicted.items():
        counts[f"labels of {name} that the {by} contradicts"] = count
    sections = [
        Section("Data", facts=facts({"data": audited.data, "model": audited.model, **counts})),
        Section("Agreement of each reward with its own labels", tables=[_table(_AGREEMENT, agreements)]),
        Section("Spread", texts=[_ABOUT_SPREAD], tables=[_table(("reward", *SPREAD), _spread(audited, rewards))]),
    ]
    if "loss" in metrics:
        of_policy = [(name, *interval(metrics[name])) for name in ("loss", "accuracy")]
        sections.append(Section("Policy", tables=[_table(("metric", *_MEASURED), of_policy)]))
    shown = audited.doubted[:MOST_SUSPECTS]
    responses = _Responses(audited.scored)
    folded = [_folded(suspect, responses.of(suspect)) for suspect in shown]
    total = sum(audited.contradicted.values())
    heading = f"Labels in doubt: {len(shown)} of {total}" if total else "Labels in doubt: none"
    sections.append(Section(heading, texts=[_FOLDED] if shown else [], folded=folded))
    return write_report(
        folder / "index.html",
        sections,
        title=f"Audit of {audited.data} by {audited.model}",
        warnings=audited.notes,
        links=[*links, *(Link(name, name) for name in ("pairs.jsonl", "mislabelled.jsonl", "result.json"))],
        private=private,
    )


_COUNTED = {
    "pairs": "pairs",
    "too_long": "not scored, too long",
    "cut": "with a response that is cut",
    "merged": "merged with the prompt's end",
}
_PARTS = (("", "held out"), ("_all", "all pairs"))
_MEASURED = ("mean", "95 % interval", "pairs")
_AGREEMENT = ("reward", "of", *_MEASURED)
_FOLDED = "The most decided first. Every text is folded; open only what you want to read."


def _table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table whose first column is text, and whose second one is where it says `of`."""
    return Table([Column(name, index > 0 and name != "of") for index, name in enumerate(names)], rows)


def _spread(audited: Audited, rewards: Sequence[str]) -> list[tuple[object, ...]]:
    rows = []
    for name in rewards:
        metric = audited.metrics[f"{name}_margin"]
        numbers = [metric["std"], *metric["quantiles"].values(), metric.get("scale")]
        rows.append((name, audited.objectives.weights[name], *interval(metric), *map(number, numbers)))
    return rows


class _Responses:
    """The texts of a pair, chosen and rejected by the labels of any objective."""

    def __init__(self, scored: Scored) -> None:
        self._pairs = {pair.id: pair for pair in scored.pairs}
        self._index_of = {pair.id: index for index, pair in enumerate(scored.encoded.pairs)}
        self._margins_B2 = scored.margins_B2

    def of(self, suspect: Suspect) -> tuple[Pair, bool] | None:
        """The pair by the trained objective's labels, and whether the suspect's labels choose the other response.

        Both orders have the same reward margin but for its sign. None where the pair was not scored.
        """
        pair, index = self._pairs.get(suspect.id), self._index_of.get(suspect.id)
        if pair is None or pair.objective == suspect.objective:
            return None if pair is None else (pair, False)
        if index is None or suspect.objective not in self._margins_B2:
            return None
        chosen, rejected = self._margins_B2[suspect.objective][index].tolist()
        return pair, (chosen - rejected) * suspect.gap < 0


def _chance(value: float) -> str:
    """A probability as people read it."""
    return "below 0.001" if value < 0.001 else number(value)


def _folded(suspect: Suspect, found: tuple[Pair, bool] | None) -> Folded:
    probability = suspect.as_record()["label_probability"]
    summary = (
        f"{suspect.objective} by the {suspect.by}: chosen minus rejected {number(suspect.gap)}, "
        f"probability of the label {_chance(float(str(probability)))}, pair {suspect.id}"
    )
    if found is None:
        return Folded(summary, [])
    pair, swapped = found
    chosen, rejected = (pair.rejected, pair.chosen) if swapped else (pair.chosen, pair.rejected)
    texts = [("prompt", prompt_text(prompt_as_json(pair.prompt))), ("chosen", chosen), ("rejected", rejected)]
    return Folded(summary, texts)
