"""The reward of an objective: built as the config names it, or made by a reward_model run."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alignlab.config.names import HELD_OUT
from alignlab.config.parts import RewardSource
from alignlab.config.plan import MakeRun
from alignlab.config.schema import (
    BeaverConfig,
    ClassifierConfig,
    CostConfig,
    GoldConfig,
    HttpConfig,
    ImplicitConfig,
    JoinedConfig,
    JudgedConfig,
    LengthConfig,
    ProbeConfig,
    PythonConfig,
    RewardConfig,
)
from alignlab.engine.cache.scores import ScoreCache
from alignlab.engine.cache.states import StateCache
from alignlab.errors import ConfigError
from alignlab.judges import load_judge
from alignlab.judges.reward import JudgeReward
from alignlab.models.adapters import adapter_for
from alignlab.models.base import Base
from alignlab.rewards.base import Reward
from alignlab.rewards.beaver import beaver_id, beaver_source, load_beaver
from alignlab.rewards.classifier import classifier_source, load_classifier, trained_source
from alignlab.rewards.endpoint import EndpointReward
from alignlab.rewards.gold import GoldReward
from alignlab.rewards.implicit import ImplicitReward
from alignlab.rewards.joined import JoinedReward
from alignlab.rewards.length import LengthReward
from alignlab.rewards.probe import load_probe, probe_source
from alignlab.rewards.programs import ProgramReward
from alignlab.rewards.scorer import ScorerReward
from alignlab.runs.progress import say


@dataclass(frozen=True)
class RewardParts:
    """What rewards are built with: the base model, the cache of scores, and who runs what has to be made first."""

    base: Base
    cache: ScoreCache
    make_run: MakeRun


def reward(source: RewardSource, parts: RewardParts) -> Reward:
    """The reward of one objective, in its own unit; implicit ones, classifiers and probes without a path are made.

    Raises:
        ConfigError: naming objective and key.
    """
    return _BUILDERS[type(source.settings)](source, parts, source.settings)


def reward_adapter(source: RewardSource, settings: ImplicitConfig, parts: RewardParts) -> tuple[Path, float]:
    """Folder and beta of an implicit reward's adapter; made by a reward_model run when none is named.

    Args:
        source: of the reward.
        settings: of its kind.
        parts: base, cache and what makes prerequisites.

    Raises:
        ConfigError: if a named adapter was trained on another base or template, or at another beta than is given.
    """
    if settings.adapter is None:
        return _made(source, parts) / "adapter", source.beta
    found = adapter_for(
        f"{source.key}.adapter",
        settings.adapter,
        base_id=parts.base.id,
        template=source.prompt_template,
        beta=settings.beta,
        needs_beta=True,
    )
    card = found.policy_card
    if card is not None and card.max_length not in (None, source.max_length):
        say(f"{source.own_key}: was trained on {card.max_length} tokens at most, now reads {source.max_length}")
    assert found.beta is not None, "needs_beta"
    return found.folder, found.beta


def implicit_adapter(source: RewardSource, parts: RewardParts) -> tuple[Path, float]:
    """Folder and beta of the policy behind an implicit reward.

    Raises:
        ConfigError: if the reward is of another kind, or its adapter does not fit.
    """
    match source.settings:
        case ImplicitConfig() as settings:
            return reward_adapter(source, settings, parts)
    raise ConfigError(f"{source.key}.kind={source.settings.kind}: must be implicit, there is no policy behind it")


def _made(source: RewardSource, parts: RewardParts) -> Path:
    """The folder of the reward_model run that makes a reward; it runs unless it has."""
    if source.made_by is None:
        raise ConfigError(f"{source.key}: must name a reward; this algorithm makes none")
    say(f"needs a reward for {source.objective}")
    return parts.make_run(source.made_by)


def _loading(source: RewardSource) -> dict[str, Any]:
    """Where and how a network of its own scores."""
    return {"device": source.device, "batch_size": source.batch_size, "label": f"scores of {source.objective}"}


def _keeping(source: RewardSource, parts: RewardParts) -> dict[str, Any]:
    """Where scores are kept, and what reads tokens back."""
    return {"cache": parts.cache, "encoder": parts.base.encoder, "name": source.objective}


def _implicit(source: RewardSource, parts: RewardParts, settings: ImplicitConfig) -> Reward:
    adapter, beta = reward_adapter(source, settings, parts)
    name, size, key = source.objective, source.batch_size, f"{source.key}.adapter"
    return ImplicitReward(parts.base, adapter, beta=beta, cache=parts.cache, batch_size=size, name=name, key=key)


def _gold(source: RewardSource, parts: RewardParts, settings: GoldConfig) -> Reward:
    return GoldReward(str(source.gold), parts.base.encoder)


def _classifier(source: RewardSource, parts: RewardParts, settings: ClassifierConfig) -> Reward:
    path = settings.path or str(_made(source, parts) / "reward")
    found = classifier_source(source.key, settings, path, parts.base)
    load = partial(load_classifier, found, key=source.key, **_loading(source))
    return ScorerReward(found.id, load, sign=-1.0 if settings.negate else 1.0, **_keeping(source, parts))


def _cost(source: RewardSource, parts: RewardParts, settings: CostConfig) -> Reward:
    folder = Path(settings.path) if settings.path else _made(source, parts) / "reward"
    found = trained_source(source.key, folder, parts.base, dtype=settings.dtype)
    load = partial(load_classifier, found, key=source.key, **_loading(source))
    return ScorerReward(found.id, load, sign=1.0, **_keeping(source, parts))  # its head gives minus the cost


def _probe(source: RewardSource, parts: RewardParts, settings: ProbeConfig) -> Reward:
    found = probe_source(source.key, settings.path or str(_made(source, parts) / "reward"))
    states = state_cache(parts.cache)
    load = partial(load_probe, source.key, found, parts.base, states, **_loading(source))
    return ScorerReward(found.id, load, sign=1.0, **_keeping(source, parts))


def state_cache(scores: ScoreCache) -> StateCache:
    """Hidden states lie beside the scores of all runs."""
    return StateCache(scores.root.with_name("states"))


def _beaver(source: RewardSource, parts: RewardParts, settings: BeaverConfig) -> Reward:
    found = beaver_source(settings, key=source.key)
    load = partial(load_beaver, found, settings, **_loading(source))
    return ScorerReward(beaver_id(found, settings), load, sign=found.sign, **_keeping(source, parts))


def _length(source: RewardSource, parts: RewardParts, settings: LengthConfig) -> Reward:
    return LengthReward(parts.base.encoder, unit=settings.unit, scale=settings.scale)


def _program(source: RewardSource, parts: RewardParts, settings: PythonConfig) -> Reward:
    return ProgramReward(str(settings.function), parts.base.encoder, negate=settings.negate, key=source.key)


def _joined(source: RewardSource, parts: RewardParts, settings: JoinedConfig) -> Reward:
    members = {name: reward(one, parts) for name, one in source.members.items()}
    name = f"{source.objective}_{HELD_OUT}" if source.held_out else source.objective
    return JoinedReward(name, source.key, members, settings.join)


def _endpoint(source: RewardSource, parts: RewardParts, settings: HttpConfig) -> Reward:
    return EndpointReward(settings, key=source.key, **_keeping(source, parts))


def _judged(source: RewardSource, parts: RewardParts, settings: JudgedConfig) -> Reward:
    cache, device = parts.cache.root.parent, source.device
    load = partial(load_judge, settings.settings, cache=cache, device=device, key=source.key)
    return JudgeReward(load, parts.base.encoder)


_BUILDERS: dict[type[RewardConfig], Callable[[RewardSource, RewardParts, Any], Reward]] = {
    ImplicitConfig: _implicit,
    GoldConfig: _gold,
    ClassifierConfig: _classifier,
    CostConfig: _cost,
    ProbeConfig: _probe,
    BeaverConfig: _beaver,
    LengthConfig: _length,
    PythonConfig: _program,
    HttpConfig: _endpoint,
    JudgedConfig: _judged,
    JoinedConfig: _joined,
}
