"""The rewards of a run before it trains on them: normalised, checked against their objectives' own labels, recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from alignlab.config.names import MADE_REWARDS
from alignlab.config.objectives import Objectives
from alignlab.config.parts import RewardSource
from alignlab.config.schema import ClassifierConfig, HttpConfig, PythonConfig, RewardConfig
from alignlab.data.records import RankedRow, pairs_by
from alignlab.engine.scoring.rows import encode_what_fits, fit
from alignlab.errors import ConfigError
from alignlab.models.base import Base
from alignlab.models.prompts import Encoded
from alignlab.prerequisites.rewards import RewardParts, reward
from alignlab.rewards.agreement import Agreement, Sign, agreement, not_shown
from alignlab.rewards.base import Reward
from alignlab.rewards.implicit import ImplicitReward
from alignlab.rewards.joined import JoinedReward
from alignlab.rewards.normalise import (
    STATISTICS,
    Normalised,
    Statistics,
    read_statistics,
    statistics_of,
    write_statistics,
)
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome
from alignlab.stats import Interval

FOREIGN_SCALE = 5.0
"""A scale this many times too large or too small is said aloud."""
FEWEST_PAIRS = 100
"""Pairs below which nothing is said of a scale."""


@dataclass(frozen=True)
class RewardContext:
    """What the rewards of a run are prepared with."""

    sources: Mapping[str, RewardSource]
    parts: RewardParts
    folder: Path
    """The run's; keeps the statistics of normalised rewards."""
    max_length: int
    """Longest prompt plus response that is trained on, tokens."""
    on_long: str
    """Whether pairs over that are left out (`drop`) or cut."""
    refuse_reversed: bool
    """Whether a reward that contradicts its labels ends the run, or is only warned of."""


def prepared_rewards(
    context: RewardContext,
    outcome: Outcome,
    *,
    ranked: Sequence[RankedRow],
    held_out: Sequence[RankedRow],
    also_in: Sequence[Path] = (),
) -> dict[str, Reward]:
    """Every reward that a run needs, normalised where asked for, checked, and recorded under `rewards` in result.json.

    Args:
        context: settings and parts.
        outcome: takes the report.
        ranked: the training rows.
        held_out: the rows of the test split.
        also_in: other runs' folders whose statistics are taken over, the policy's own above all.

    Raises:
        ConfigError: for a reward that its own objective's labels contradict, unless algorithm.check_rewards=false.
    """
    rewards = {name: reward(source, context.parts) for name, source in context.sources.items()}
    for name, one in rewards.items():
        if isinstance(one, JoinedReward):
            rows = _responses(ranked, context.parts.base, context.max_length)
            rewards[name] = one.scaled(rows, context.folder, also_in)
    known = {name: one for folder in (*also_in, context.folder) for name, one in read_statistics(folder).items()}
    rewards = normalised(context, outcome, known, rewards, ranked)
    for name, one in rewards.items():
        parts = {"train": ranked, "held_out": held_out}
        found = {part: _agreement(context, one, context.sources[name].objective, rows) for part, rows in parts.items()}
        record: dict[str, object] = {"kind": context.sources[name].settings.kind, "id": one.id}
        record |= {part: agreed and agreed.as_record() for part, agreed in found.items()}
        outcome.extra.setdefault("rewards", {})[name] = record
        _judge(context, name, one, found)
        if len(rewards) > 1:
            one.release()  # two of 7B at once are too much for most machines
    return rewards


def record_tilts(outcome: Outcome, columns: Mapping[str, Tensor], weights: Mapping[str, float], beta: float) -> None:
    """How far each reward tilts the reference on the trained pairs: deviation of (w/beta) * (chosen - rejected), nats.

    Args:
        outcome: takes it, beside each reward's report.
        columns: each reward's scores of all chosen, then all rejected responses.
        weights: of the objectives.
        beta: KL strength of the run, 1/nat.
    """
    said = []
    for name, scores in columns.items():
        tilt = _difference_std(scores)
        value = None if tilt is None else tilt * weights[name] / beta
        outcome.extra.setdefault("rewards", {}).setdefault(name, {})["tilt_nats"] = value
        said += [] if value is None else [f"{name} (w={weights[name]:g}) by {value:.2f} nats"]
    if said:
        say(f"tilt of the reference between a pair's responses (standard deviation): {', '.join(said)}")


def record_learnt_tilt(
    outcome: Outcome, log_ratios_B: Tensor, columns: Mapping[str, Tensor], objectives: Objectives, beta: float
) -> None:
    """How far the policy has come by its trained objective, whose labels have no unit of their own.

    That is the deviation, over held-out pairs, of the policy's log-ratio difference without the others' tilt.

    Args:
        outcome: takes it as `trained`.
        log_ratios_B: log pi/pi_ref of all chosen, then all rejected responses, nats.
        columns: the other objectives' rewards of the same responses.
        objectives: the weights, and which objective is trained.
        beta: KL strength of the run, 1/nat.
    """
    tilt_B = sum((objectives.weights[name] * scores.double() / beta for name, scores in columns.items()), start=0.0)
    learnt = _difference_std(log_ratios_B - tilt_B)
    outcome.extra["trained"] = {"objective": objectives.trained, "tilt_nats": learnt, "pairs": len(log_ratios_B) // 2}
    if learnt is not None:
        weight = objectives.trained_weight
        say(f"{objectives.trained} (w={weight:g}) was learnt as a tilt by {learnt:.2f} nats, on held-out pairs")


def _difference_std(scores_B: Tensor) -> float | None:
    """Standard deviation of chosen minus rejected, of all chosen, then all rejected; None of fewer than two pairs."""
    chosen, rejected = scores_B.double().chunk(2)
    return float((chosen - rejected).std()) if len(chosen) > 1 else None


def normalised(
    context: RewardContext,
    outcome: Outcome,
    known: Mapping[str, Statistics],
    rewards: dict[str, Reward],
    ranked: Sequence[RankedRow],
) -> dict[str, Reward]:
    """Rewards as z-scores where asked for, by known statistics or the training rows'; the folder gets them.

    Args:
        context: says which rewards are normalised, and keeps their statistics.
        outcome: names the file.
        known: statistics of earlier runs, which count for a reward of the same id.
        rewards: objective -> reward, in its own unit.
        ranked: the training rows.
    """
    wanted = [name for name in rewards if context.sources[name].settings.normalise]
    if not wanted:
        return rewards
    statistics: dict[str, Statistics] = {}
    rows = _responses(ranked, context.parts.base, context.max_length)
    for name in wanted:
        if name in known and known[name].id == rewards[name].id:
            statistics[name] = known[name]
        else:
            statistics[name] = statistics_of(context.sources[name].own_key, rewards[name], rows)
    write_statistics(context.folder, statistics)
    outcome.artifacts["rewards"] = STATISTICS
    return rewards | {name: Normalised(rewards[name], statistics[name]) for name in wanted}


def _responses(rows: Sequence[RankedRow], base: Base, limit: int) -> list[Encoded]:
    """Every response of the rows that the limit leaves something of, once."""
    texts = dict.fromkeys((row.prompt, text) for row in rows for text in row.responses)
    encoded = base.encoder.encode_all(list(texts))
    return [fit(row, limit) for row in encoded if len(row.prompt_ids) < limit]


def _agreement(context: RewardContext, one: Reward, objective: str, rows: Sequence[RankedRow]) -> Agreement | None:
    """How a reward agrees with its own objective's labels on these rows; None where no labelled pair fits."""
    fitting = encode_what_fits(
        pairs_by(rows, objective), context.parts.base.encoder, max_length=context.max_length, on_long=context.on_long
    )
    return agreement(one, fitting.pairs) if fitting.pairs else None


def _judge(context: RewardContext, name: str, one: Reward, found: Mapping[str, Agreement | None]) -> None:
    """Says how a reward agrees with its labels, and refuses one of the wrong sign.

    Raises:
        ConfigError: if it agrees significantly less than half the time, on training or on held-out pairs.
    """
    key = context.sources[name].own_key
    for part, agreed in found.items():
        if agreed is None or agreed.sign is not Sign.REVERSED:
            continue
        told = f"{key}: agrees with its own labels on {_shown(agreed.share)} of {agreed.share.n} pairs ({part})"
        if context.refuse_reversed:
            cure = _cure(context.sources[name].settings, key)
            raise ConfigError(
                f"{told}; the sign is probably wrong; {cure}, or let it pass: algorithm.check_rewards=false"
            )
        say(f"warning: {told}; the sign is probably wrong")
    best = found["held_out"] or found["train"]
    if best is None:
        say(f"{key}: no labels of {context.sources[name].objective} to check it by")
        return
    told = f"{key}: agrees with its labels on {_shown(best.share)} of {best.share.n} pairs"
    say(f"warning: {told}: {not_shown(best.share)}" if best.sign is Sign.NOT_SHOWN else told)
    _say_scale(context.sources[name].settings, key, one, best)


def _say_scale(settings: RewardConfig, key: str, one: Reward, agreed: Agreement) -> None:
    """Names a learned reward whose differences are far from the labels' log-odds."""
    scale, learned = agreed.scale, settings.kind in MADE_REWARDS
    if scale is None or not learned or settings.normalise or agreed.share.n < FEWEST_PAIRS:
        return
    if 1 / FOREIGN_SCALE < scale < FOREIGN_SCALE:
        return
    hint = f"; was it trained at beta={one.beta * scale:.2g}?" if isinstance(one, ImplicitReward) else ""
    say(f"warning: {key}: fits its labels best when multiplied by {scale:.2g}{hint}")


def _cure(settings: RewardConfig, key: str) -> str:
    if isinstance(settings, ClassifierConfig | PythonConfig | HttpConfig):
        return f"give {key}.negate={str(not settings.negate).lower()}"
    return "negate it"


def _shown(share: Interval) -> str:
    known = share.mean is not None and share.low is not None and share.high is not None
    return f"{share.mean:.2f} [{share.low:.2f}, {share.high:.2f}]" if known else "an unknown share"
