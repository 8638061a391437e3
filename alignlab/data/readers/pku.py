"""PKU-SafeRLHF and what is written in its columns: two responses, ranked by one column an objective."""

from collections import Counter
from collections.abc import Sequence

from alignlab.config.schema import DatasetConfig
from alignlab.data.readers.fields import Row, choice_of, flag_of, text_of
from alignlab.data.readers.prompt_columns import SYSTEM, system_and
from alignlab.data.readers.source import Source, categories_of, labels, ranked_two
from alignlab.data.records import RankedRow
from alignlab.data.report import BadRow

TEXTS = ("prompt", "response_0", "response_1")
SAFE = ("is_response_0_safe", "is_response_1_safe")
"""Whether each response is safe, judged on its own."""
SAFER = "safer_response_id"
CATEGORIES = ("category", "response_0_harm_category", "response_1_harm_category")
"""C2-EVAL's category of a request, or PKU-SafeRLHF's of each response."""
PUBLISHED = (
    "prompt_source",
    "response_0_source",
    "response_1_source",
    "response_0_severity_level",
    "response_1_severity_level",
    "response_0_sha256",
    "response_1_sha256",
    "better_response_id",
    "safer_response_id",
    "briefer_response_id",
)


def _columns(config: DatasetConfig) -> Sequence[str]:
    return [*TEXTS, *labels(config)]


def _read(row: Row, config: DatasetConfig, notes: Counter[str]) -> list[RankedRow]:
    prompt, first, second = (text_of(row, column) for column in TEXTS)
    scores: dict[str, tuple[float | None, ...]] = {}
    for name, objective in config.objectives.items():
        if objective.label is not None:
            better = choice_of(row, objective.label)
            scores[name] = ranked_two(better)
            if objective.label == SAFER:
                _check_safer(row, better)
    safe = tuple(None if row.get(column) is None else flag_of(row, column) for column in SAFE)
    return [RankedRow(system_and(row, prompt), (first, second), scores, categories=row_categories(row), safe=safe)]


def row_categories(row: Row) -> tuple[str, ...]:
    """Every category that the request or a response is said to be of."""
    return tuple(sorted({name for column in CATEGORIES for name in categories_of(row.get(column))}))


def _check_safer(row: Row, safer: int) -> None:
    """The two labels of safety must agree where both are there."""
    if any(row.get(column) is None for column in SAFE):
        return
    safe = [flag_of(row, column) for column in SAFE]
    if safe[1 - safer] and not safe[safer]:
        reason = f"is {safer}, but response_{safer} is marked unsafe and response_{1 - safer} safe"
        raise BadRow("contradictory", SAFER, reason)


PKU_SAFERLHF = Source(columns=_columns, read=_read, also=(*SAFE, *SYSTEM, *CATEGORIES), published=PUBLISHED)
