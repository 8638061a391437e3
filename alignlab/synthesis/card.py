"""The card of a synthesised data set: what it holds, where it comes from, and that it holds harmful text."""

from collections.abc import Mapping
from typing import Any

import yaml

from alignlab.data.licences import LICENCES

_SOURCES = {
    "toy": "alignlab's embedded toy world (made-up words, harmless)",
    "pku_saferlhf": "PKU-Alignment/PKU-SafeRLHF, or a file in its columns",
    "c2_eval": "rows in the columns of PKU-Alignment/PKU-SafeRLHF",
}

_WARNING = (
    "This data set holds harmful text.",
    "Each set ends with a harmful response, and its corrected responses begin with\nparts of it. "
    "It is made to train and to measure safety. Do not imitate the `rejected` column, nor show it unasked.",
)
_TOY_WARNING = (
    "A data set of this form holds harmful text.",
    "This one does not: it is made of the toy world's made-up words.",
)


def warning(kind: str) -> tuple[str, str]:
    """What a reader must know first, and its reason.

    Args:
        kind: dataset.kind of the requests.
    """
    return _TOY_WARNING if kind == "toy" else _WARNING


def card(*, kind: str, settings: Mapping[str, Any], counts: Mapping[str, Any], strategy: str) -> str:
    """The card, as Markdown with the hub's YAML header; the same for the same run.

    Args:
        kind: dataset.kind of the requests.
        settings: what the set was made with.
        counts: what `SynthesisStats.record` says, and what came before it.
        strategy: which pairs the pair files hold.
    """
    header = {
        "license": LICENCES.get(kind, "other"),
        "task_categories": ["text-generation"],
        "tags": ["preference", "dpo", "course-correction", "synthetic", "alignlab", *_audience(kind)],
        "configs": [
            {"config_name": "pairs", "data_files": "pairs.parquet", "default": True},
            *(
                [{"config_name": "control", "data_files": "control_pairs.parquet"}]
                if "benign" in counts["sets"]
                else []
            ),
            {"config_name": "ranked", "data_files": "ranked.jsonl"},
        ],
    }
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        "# Course corrections",
        "**{}** {}".format(*warning(kind)),
        about(kind),
        f"## Counts\n\n{_table(('what', 'number'), count_rows(counts))}",
        f"Pairs: `{strategy}`. Length: {counts['length_bias']['note']}.",
        *(f"### Lengths in tokens, {name} requests\n\n{_lengths(rows)}" for name, rows in counts["lengths"].items()),
        _COLUMNS,
        f"## Settings\n\n```yaml\n{yaml.safe_dump(dict(settings), sort_keys=True)}```",
    ]
    return "\n\n".join(parts) + "\n"


def _audience(kind: str) -> list[str]:
    return [] if kind == "toy" else ["not-for-all-audiences"]


def about(kind: str) -> str:
    """Where the requests come from, and how a set is made.

    Args:
        kind: dataset.kind of the requests.
    """
    return (
        f"Requests and harmful responses: {_SOURCES.get(kind, 'see the settings below')}. Licence of that source: "
        f"{LICENCES.get(kind, 'unknown, see the source')}; what is derived from it is bound by it.\n\n"
        "Per harmful request, from best to worst: a safe response, responses that begin to comply and correct their "
        "course (cut early first), the harmful response. Per harmless request, where there are some: the helpful "
        "response, responses that correct what was no mistake (cut late first), a refusal. One affirmative prefix "
        "begins all responses of a set that comply at first; affirmative prefixes and correction phrases are those of "
        "training, which alignlab's evaluation never uses. After arXiv 2407.16637."
    )


def count_rows(counts: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Name and number of sets, pairs, and what was left out."""
    rows = [(f"{name} sets", count) for name, count in counts["sets"].items()]
    rows += [(f"{name} pairs", count) for name, count in counts["pairs"].items()]
    rows += [(f"left out: {reason}", count) for reason, count in counts["left_out"].items()]
    rows += [(f"turned down by the judge: {what}", count) for what, count in counts["dropped"].items()]
    rows += [(f"cut at the length limit: {role}", count) for role, count in counts["cut_at_limit"].items()]
    return rows


LENGTHS = ("rank", "responses", "mean", "median")
"""Columns of `SynthesisStats.lengths`."""


def _lengths(rows: list[Mapping[str, Any]]) -> str:
    return _table(LENGTHS, [tuple(row[name] for name in LENGTHS) for row in rows])


def _table(names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [names, tuple("---" for _ in names), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


_COLUMNS = """\
## Files

- `ranked.jsonl`: a set a line, `id, request_id, kind, prompt, responses` (best first), one value a response in `rank,
  role, cut_tokens, at_clause, tokens, correction_start, affirmative_prefix, correction_phrase, finish`; `seed,
  generator, revision` say who wrote it. `correction_start`: characters before the correction, 0 for a response that
  is good as a whole, null for one with nothing to learn; from there on a likelihood term counts.
- `pairs.jsonl`, `pairs.parquet`: TRL's `prompt, chosen, rejected`, with `id, request_id, group, kind, chosen_rank,
  rejected_rank`; `control_pairs.*`: those of harmless requests, where there are some. `group` is shared by all
  pairs of one prompt: split by it, never by pair.
- `responses.jsonl`: every response that was written, also those of no set; `requests.jsonl`: the requests."""
