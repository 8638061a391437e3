"""Sources that hold one response a row: BeaverTails, HelpSteer. Responses of one prompt meet over the whole source."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from alignlab.config.schema import BeaverTailsConfig, DatasetConfig
from alignlab.data.readers.fields import Row, flag_of, number_of, prompt_from, text_of
from alignlab.data.readers.source import Source, by_objective, categories_of, labels
from alignlab.data.records import Prompt, RankedRow, Turn
from alignlab.data.report import BadRow, Report

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
OVERALL = "overall"
GOOD_IN_THEMSELVES = ("helpfulness", "correctness", "coherence")
"""`overall` is the mean of these. Complexity and verbosity say what a response is like, not how good it is; their sum
with the others, which has been used as an overall score, counts length as a merit."""
_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")


def _by_prompt(rows: Iterable[RankedRow]) -> list[list[RankedRow]]:
    """The rows of each prompt and split, in the order of the source."""
    groups: dict[tuple[str | None, Prompt], list[RankedRow]] = defaultdict(list)
    for row in rows:
        groups[row.split, row.prompt].append(row)
    return list(groups.values())


def joined(rows: Sequence[RankedRow]) -> RankedRow:
    """One row of single responses to one prompt."""
    return replace(
        rows[0],
        responses=tuple(row.responses[0] for row in rows),
        categories=tuple(sorted({name for row in rows for name in row.categories})),
        scores={name: tuple(row.scores[name][0] for row in rows) for name in rows[0].scores},
    )


def _gather(rows: Iterable[RankedRow], config: DatasetConfig, report: Report) -> list[RankedRow]:
    groups = _by_prompt(rows)
    several = [group for group in groups if len(group) > 1]
    _count_lone(len(groups) - len(several), report)
    return [joined(group) for group in several]


def _count_lone(lone: int, report: Report) -> None:
    if lone:
        report.left_out["prompts with one response"] += lone


def _helpsteer_columns(config: DatasetConfig) -> list[str]:
    wanted = {name for label in labels(config) for name in (GOOD_IN_THEMSELVES if label == OVERALL else (label,))}
    return ["prompt", "response", *sorted(wanted)]


def _helpsteer(row: Row, config: DatasetConfig, notes: Counter[str]) -> list[RankedRow]:
    prompt, response = helpsteer_prompt(text_of(row, "prompt")), text_of(row, "response")
    scores: dict[str, tuple[float | None, ...]] = {}
    for name, objective in config.objectives.items():
        if objective.label is not None:
            parts = GOOD_IN_THEMSELVES if objective.label == OVERALL else (objective.label,)
            ratings = [number_of(row, part) for part in parts]
            for part, rating in zip(parts, ratings, strict=True):
                if not 0 <= rating <= 4:
                    raise BadRow("bad_value", part, f"must be between 0 and 4, is {rating:g}")
            scores[name] = (sum(ratings) / len(ratings),)
    return [RankedRow(prompt, (response,), scores)]


def helpsteer_prompt(text: str) -> Prompt:
    """HelpSteer2 writes conversations with `<extra_id_1>` before each turn but the first."""
    pieces = _TURN.split(text)
    roles = ["user", *(role.lower() for role in pieces[1::2])]
    return prompt_from((Turn(role, said) for role, said in zip(roles, pieces[::2], strict=True)), "prompt")


def _beavertails(row: Row, config: DatasetConfig, notes: Counter[str]) -> list[RankedRow]:
    prompt, response = text_of(row, "prompt"), text_of(row, "response")
    return [
        RankedRow(
            prompt,
            (response,),
            by_objective(config, (float(flag_of(row, "is_safe")),)),
            categories=categories_of(row.get("category")),
        )
    ]


def _gather_beavertails(rows: Iterable[RankedRow], config: BeaverTailsConfig, report: Report) -> list[RankedRow]:
    """Safe above unsafe responses to the same prompt; a response is what most of its annotators called it."""
    ranked = []
    for group in _by_prompt(rows):
        votes: dict[str, list[RankedRow]] = defaultdict(list)
        for row in group:
            votes[row.responses[0]].append(row)
        safe: list[RankedRow] = []
        unsafe: list[RankedRow] = []
        for labelled in votes.values():
            share = sum(_is_safe(row) for row in labelled) / len(labelled)
            report.notes["responses labelled more than once"] += len(labelled) > 1
            report.notes["responses whose annotators were divided evenly"] += share == 0.5
            if share != 0.5:
                (safe if share > 0.5 else unsafe).append(
                    replace(labelled[0], scores=by_objective(config, (float(share > 0.5),)))
                )
        if not safe or not unsafe:
            report.left_out["prompts without both a safe and an unsafe response"] += 1
        elif config.pairs == "all":
            ranked.append(joined([*safe, *unsafe]))
        else:
            ranked += [joined(pair) for pair in zip(safe, unsafe, strict=False)]
    return ranked


def _is_safe(row: RankedRow) -> bool:
    return any(scores[0] for scores in row.scores.values())


HELPSTEER = Source(
    columns=_helpsteer_columns, read=_helpsteer, responses=("response",), gather=_gather, published=ATTRIBUTES
)
BEAVERTAILS = Source(
    columns=lambda config: ("prompt", "response", "is_safe"),
    read=_beavertails,
    responses=("response",),
    also=("category",),
    gather=_gather_beavertails,
    repeats=True,
)
