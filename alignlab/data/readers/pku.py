"""PKU-SafeRLHF and what is written in its columns: two responses, ranked by one column an objective."""

from collections import Counter
from collections.abc import Sequence

from alignlab.config.schema import DatasetConfig
from alignlab.data.readers.fields import Row, choice_of, flag_of, text_of
from alignlab.data.readers.source import Source, labels, ranked_two
from alignlab.data.records import RankedRow
from alignlab.data.report import BadRow

TEXTS = ("prompt", "response_0", "response_1")
SAFE = ("is_response_0_safe", "is_response_1_safe")
"""Whether each response is safe, judged on its own."""
SAFER = "safer_response_id"


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
    return [RankedRow(prompt, (first, second), scores)]


def _check_safer(row: Row, safer: int) -> None:
    """The two labels of safety must agree where both are there."""
    if any(row.get(column) is None for column in SAFE):
        return
    safe = [flag_of(row, column) for column in SAFE]
    if safe[1 - safer] and not safe[safer]:
        reason = f"is {safer}, but response_{safer} is marked unsafe and response_{1 - safer} safe"
        raise BadRow("contradictory", SAFER, reason)


PKU_SAFERLHF = Source(columns=_columns, read=_read, also=SAFE)
