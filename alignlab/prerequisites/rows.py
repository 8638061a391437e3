"""The rows of a run: read from files or the hub, or sampled in the embedded world."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

from alignlab.config.parts import ModelSource, RowSource
from alignlab.data.consistent import consistent_rows
from alignlab.data.records import RankedRow
from alignlab.data.sources import load, made_rows, read_ranked_rows, select_split, split_notice
from alignlab.data.worlds import toy
from alignlab.errors import ConfigError
from alignlab.io.hashes import text_id
from alignlab.models.base import Base
from alignlab.models.prompts import PromptEncoder
from alignlab.models.rendering import TemplateError
from alignlab.prerequisites.models import prompt_encoder, reference
from alignlab.prerequisites.toy_pairs import toy_pairs_file
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome


def ranked_rows(source: RowSource, base: Base, split: str | None) -> list[RankedRow]:
    """The rows of one split; the toy's are sampled from the reference first, and a pairs run has made own pairs.

    Args:
        source: of the data.
        base: the reference.
        split: its name.
    """
    settings = source.settings
    if source.toy is not None:
        rows = made_rows(settings, toy_pairs_file(source.toy, base, source.cache))
    elif source.made_by is not None:
        rows = made_rows(settings, source.made_by.folder / "rows")
    else:
        rows = read_ranked_rows(source.file, max_length=source.max_length)
    return select_split(rows, settings, split)


@dataclass(frozen=True)
class ModelAndRows:
    """Base model and rows of a run."""

    source: RowSource
    base: Base
    ranked: list[RankedRow]
    """Of dataset.split; none for a run that trains nothing."""
    held_out: list[RankedRow]
    """Of dataset.eval_split."""


def model_and_held_out(model: ModelSource, source: RowSource, outcome: Outcome) -> ModelAndRows:
    """Check the data, then load the base model, and the rows of dataset.eval_split alone.

    Args:
        model: of the run.
        source: of the data.
        outcome: takes what the data check counted.
    """
    outcome.extra |= data_report(source, model)
    base = reference(model)
    return ModelAndRows(source, base, [], held_out_rows(source, base))


def model_and_rows(model: ModelSource, source: RowSource, outcome: Outcome) -> ModelAndRows:
    """The same with the rows of both splits.

    Args:
        model: of the run.
        source: of the data.
        outcome: takes what the data check counted.
    """
    loaded = model_and_held_out(model, source, outcome)
    return replace(loaded, ranked=training_rows(source, loaded.base))


def model_and_kept_rows(model: ModelSource, source: RowSource, outcome: Outcome) -> ModelAndRows:
    """The same with the pairs that dataset.keep leaves, recorded as the run's inputs.

    Args:
        model: of the run.
        source: of the data.
        outcome: takes counts and inputs.
    """
    loaded = model_and_rows(model, source, outcome)
    ranked = kept_rows(loaded.ranked, source, outcome)
    record_inputs(outcome, loaded.base, source, ranked)
    return replace(loaded, ranked=ranked)


def record_inputs(outcome: Outcome, base: Base, source: RowSource, ranked: Sequence[RankedRow]) -> None:
    """Record the model, the data and the rows that are trained on.

    Args:
        outcome: takes them.
        base: of the run.
        source: of the data.
        ranked: the rows.
    """
    outcome.inputs |= {"model": base.id, "revision": base.revision, **data_inputs(source, ranked)}


def training_rows(source: RowSource, base: Base) -> list[RankedRow]:
    """The rows of dataset.split."""
    return ranked_rows(source, base, source.settings.split)


def kept_rows(
    rows: list[RankedRow], source: RowSource, outcome: Outcome, *, rewarded: Iterable[str] = ()
) -> list[RankedRow]:
    """The training rows with the pairs that dataset.keep leaves; says how many there are.

    Args:
        rows: of dataset.split; an objective without labels has the scores of its reward.
        source: where they are from.
        outcome: takes the counts.
        rewarded: objectives without labels that a reward scored.

    Raises:
        ConfigError: if no pair is left.
    """
    settings = source.settings
    if settings.keep == "all":
        return rows
    asked = [name for name, one in settings.objectives.items() if one.label is not None or name in rewarded]
    kept, found = consistent_rows(rows, asked)
    outcome.extra["kept"] = {"keep": settings.keep, "objectives": asked, **asdict(found)}
    unasked = [name for name in settings.objectives if name not in asked]
    left_out = f"; {', '.join(unasked)} not asked, having neither labels nor a reward here" if unasked else ""
    say(
        f"dataset.keep={settings.keep}: {found.alike} pairs ranked alike by {', '.join(asked)}; left out: "
        f"{found.opposite} ranked in opposite ways, {found.unranked} not ranked by all{left_out}"
    )
    if not kept:
        raise ConfigError(f"dataset.keep={settings.keep}: no pair is ranked alike by all of {', '.join(asked)}")
    return kept


def with_safety(rows: list[RankedRow], source: RowSource) -> list[RankedRow]:
    """The rows with each response's safety; on the toy a response is safe where its gold safety is not below 0."""
    if source.toy is None:
        return rows
    return [replace(row, safe=tuple(toy.safe(str(row.prompt), text) >= 0 for text in row.responses)) for row in rows]


def held_out_rows(source: RowSource, base: Base) -> list[RankedRow]:
    """The rows of dataset.eval_split; none where dataset.split=null takes all rows for training."""
    settings = source.settings
    return [] if settings.split is None else ranked_rows(source, base, settings.eval_split)


def data_report(source: RowSource, model: ModelSource) -> dict[str, object]:
    """`data` of result.json: what the data check counted. A hub's rows are checked here, before a model is loaded.

    Nothing for rows that are made.

    Args:
        source: of the data.
        model: whose chat template must take the roles that the rows hold.

    Raises:
        ConfigError: naming the bad rows, or the first row of roles that the template refuses.
    """
    if source.toy is not None or source.made_by is not None:
        return {}
    loaded = load(source.file, max_length=source.max_length)
    if model.settings.prompt_template is None:
        _check_roles(loaded.rows, source, prompt_encoder(model))
    notice = split_notice(loaded.rows, source.settings)
    for line in (*loaded.report.notices(), *([notice] if notice else [])):
        say(line)
    return {"data": loaded.as_record()}


def _check_roles(rows: list[RankedRow], source: RowSource, encoder: PromptEncoder) -> None:
    """Refuse roles that the chat template refuses or drops, by the first row of the run's splits that has them.

    Raises:
        TemplateError: naming the row, the template and the remedy.
    """
    settings = source.settings
    first: dict[tuple[str, ...], RankedRow] = {}
    for split in dict.fromkeys((settings.split, settings.eval_split if settings.split else None)):
        for row in select_split(rows, settings, split):
            roles = () if isinstance(row.prompt, str) else tuple(turn.role for turn in row.prompt)
            first.setdefault(roles, row)
    for row in first.values():
        try:
            encoder.prompt_ids(row.prompt)
        except TemplateError as error:
            raise TemplateError(f"{row.location}: {error}") from None


def data_name(source: RowSource) -> str:
    """Hash of the data's file, its hub id, or the version of the toy world."""
    return source.identity if source.toy is None else f"toy world {toy.WORLD_VERSION}"


def data_inputs(source: RowSource, rows: Sequence[RankedRow]) -> dict[str, str]:
    """`dataset`: what is evaluated on, the same for all seeds; `pairs`: what is trained on."""
    return {"dataset": data_name(source), "pairs": text_id(*map(_data_of, rows))}


def _data_of(row: RankedRow) -> str:
    """What a row's pairs follow from."""
    return f"{row.id} {row.scores}" if row.only is None else f"{row.id} {row.scores} {sorted(row.only)}"
