"""The rows of a run: read from files or the hub, or sampled in the embedded world."""

from collections.abc import Sequence

from alignlab.config.plan import RowSource
from alignlab.data.records import RankedRow
from alignlab.data.sources import load, read_ranked_rows, select_split, split_notice
from alignlab.data.worlds import toy
from alignlab.io.hashes import text_id
from alignlab.models.base import Base
from alignlab.prerequisites.toy_pairs import toy_pairs_file
from alignlab.runs.progress import say


def ranked_rows(source: RowSource, base: Base, split: str | None) -> list[RankedRow]:
    """The rows of one split; the toy's are sampled from the reference first, and a pairs run has made own pairs.

    Args:
        source: of the data.
        base: the reference.
        split: its name.
    """
    made = None if source.toy is None else toy_pairs_file(source.toy, base, source.cache)
    if source.made_by is not None:
        made = source.made_by.folder / "rows"
    rows = read_ranked_rows(source.settings, made, max_length=source.max_length)
    return select_split(rows, source.settings, split)


def training_rows(source: RowSource, base: Base) -> list[RankedRow]:
    """The rows of dataset.split."""
    return ranked_rows(source, base, source.settings.split)


def held_out_rows(source: RowSource, base: Base) -> list[RankedRow]:
    """The rows of dataset.eval_split; none where dataset.split=null takes all rows for training."""
    settings = source.settings
    return [] if settings.split is None else ranked_rows(source, base, settings.eval_split)


def data_report(source: RowSource) -> dict[str, object]:
    """`data` of result.json: what the data check counted. A hub's rows are checked here, before a model is loaded.

    Nothing for rows that are made.
    """
    if source.toy is not None or source.made_by is not None:
        return {}
    loaded = load(source.settings, max_length=source.max_length)
    notice = split_notice(loaded.rows, source.settings)
    for line in (*loaded.report.notices(), *([notice] if notice else [])):
        say(line)
    return {"data": loaded.as_record()}


def data_name(source: RowSource) -> str:
    """Hash of the data's file, its hub id, or the version of the toy world."""
    return source.identity if source.toy is None else f"toy world {toy.WORLD_VERSION}"


def data_inputs(source: RowSource, rows: Sequence[RankedRow]) -> dict[str, str]:
    """`dataset`: what is evaluated on, the same for all seeds; `pairs`: what is trained on."""
    return {"dataset": data_name(source), "pairs": text_id(*(f"{row.id} {row.scores}" for row in rows))}
