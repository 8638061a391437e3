"""Sets of human votes on forum texts: SHP, stack-exchange-paired, summarize_from_feedback."""

from collections import Counter

from alignlab.config.schema import DatasetConfig, ShpConfig
from alignlab.data.readers.fields import Row, choice_of, list_of, number_of, object_of, text_of, wrong_type
from alignlab.data.readers.source import Source, by_objective, ranked_two
from alignlab.data.records import RankedRow
from alignlab.data.report import BadRow, LeftOut


def _shp(row: Row, config: ShpConfig, notes: Counter[str]) -> list[RankedRow]:
    prompt, first, second = (text_of(row, column) for column in ("history", "human_ref_A", "human_ref_B"))
    first_is_better = choice_of(row, "labels")
    if row.get("score_A") is not None and row.get("score_B") is not None:
        votes = number_of(row, "score_A"), number_of(row, "score_B")
        if votes[first_is_better] > votes[1 - first_is_better]:
            raise BadRow(
                "contradictory", "labels", f"is {first_is_better}, but the votes are {votes[0]:g} to {votes[1]:g}"
            )
    if config.min_score_ratio is not None and number_of(row, "score_ratio") < config.min_score_ratio:
        raise LeftOut("score ratio below dataset.min_score_ratio")
    return [RankedRow(prompt, (first, second), by_objective(config, ranked_two(1 - first_is_better)))]


def _shp_columns(config: ShpConfig) -> tuple[str, ...]:
    ratio = () if config.min_score_ratio is None else ("score_ratio",)
    return ("history", "human_ref_A", "human_ref_B", "labels", *ratio)


def _stack_exchange(row: Row, config: DatasetConfig, notes: Counter[str]) -> list[RankedRow]:
    prompt, better, worse = (text_of(row, column) for column in ("question", "response_j", "response_k"))
    return [RankedRow(prompt, (better, worse), by_objective(config, (1.0, 0.0)))]


def _summarize(row: Row, config: DatasetConfig, notes: Counter[str]) -> list[RankedRow]:
    info, summaries = object_of(row, "info"), list_of(row, "summaries")
    if info.get("post") is None and info.get("article") is not None:
        raise LeftOut("news articles, which have no post")
    post = _inside(info, "post", "info")
    if len(summaries) != 2:
        raise BadRow("bad_value", "summaries", f"must hold two, holds {len(summaries)}")
    texts = []
    for index, summary in enumerate(summaries):
        if not isinstance(summary, dict):
            raise wrong_type(f"summaries.{index}", "an object with text", summary)
        texts.append(_inside(summary, "text", f"summaries.{index}").strip())
    return [RankedRow(post.strip(), tuple(texts), by_objective(config, ranked_two(choice_of(row, "choice"))))]


def _inside(part: Row, field: str, where: str) -> str:
    try:
        return text_of(part, field)
    except BadRow as bad:
        raise BadRow(bad.kind, f"{where}.{field}", bad.reason) from None


SHP = Source(
    columns=_shp_columns,
    read=_shp,
    prompt="history",
    responses=("human_ref_A", "human_ref_B"),
    also=("score_A", "score_B"),
    published=(
        "post_id",
        "domain",
        "upvote_ratio",
        "c_root_id_A",
        "c_root_id_B",
        "created_at_utc_A",
        "created_at_utc_B",
        "seconds_difference",
        "score_ratio",
    ),
)
STACK_EXCHANGE_PAIRED = Source(
    columns=lambda config: ("question", "response_j", "response_k"),
    read=_stack_exchange,
    prompt="question",
    responses=("response_j", "response_k"),
    published=("qid", "date", "metadata"),
)
SUMMARIZE_FROM_FEEDBACK = Source(
    columns=lambda config: ("info", "summaries", "choice"),
    read=_summarize,
    prompt="info.post",
    responses=("summaries.0.text", "summaries.1.text"),
    published=("worker", "batch", "split", "extra"),
)
