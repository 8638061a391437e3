"""The reward of an objective: built as the config names it, or made by a reward_model run."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alignlab.config.identity import reward_of, run_folder
from alignlab.config.schema import (
    AuditConfig,
    BeaverConfig,
    ClassifierConfig,
    GoldConfig,
    HttpConfig,
    ImplicitConfig,
    LengthConfig,
    PreferenceConfig,
    PythonConfig,
    RewardConfig,
    RewardModelConfig,
    RunConfig,
)
from alignlab.engine.cache.scores import ScoreCache
from alignlab.errors import ConfigError
from alignlab.models.adapters import adapter_for
from alignlab.models.base import Base
from alignlab.rewards.base import Reward
from alignlab.rewards.beaver import beaver_id, beaver_source, load_beaver
from alignlab.rewards.classifier import classifier_source, load_classifier
from alignlab.rewards.endpoint import EndpointReward
from alignlab.rewards.gold import GoldReward
from alignlab.rewards.implicit import ImplicitReward
from alignlab.rewards.length import LengthReward
from alignlab.rewards.programs import ProgramReward
from alignlab.rewards.scorer import ScorerReward
from alignlab.runs.progress import say


@dataclass(frozen=True)
class _Asked:
    """What a reward is built for."""

    config: RunConfig
    objective: str
    base: Base
    cache: ScoreCache

    @property
    def key(self) -> str:
        return f"algorithm.rewards.{self.objective}"

    @property
    def batch_size(self) -> int:
        return self.config.trainer.per_device_eval_batch_size

    @property
    def loading(self) -> dict[str, Any]:
        """Where and how a network of its own scores."""
        device, label = self.config.hardware.device, f"scores of {self.objective}"
        return {"device": device, "batch_size": self.batch_size, "label": label}

    @property
    def keeping(self) -> dict[str, Any]:
        """Where its scores are kept, and what reads tokens back."""
        return {"cache": self.cache, "encoder": self.base.encoder, "name": self.objective}


def reward(config: RunConfig, objective: str, base: Base, cache: ScoreCache) -> Reward:
    """The reward of one objective, in its own unit; an implicit one or a classifier that no one names is made.

    Raises:
        ConfigError: naming objective and key.
    """
    settings = reward_of(config, objective)
    asked = _Asked(config, objective, base, cache)
    try:
        return _BUILDERS[type(settings)](asked, settings)
    except ConfigError as error:
        raise _under(asked.key, error) from None


def reward_adapter(config: RunConfig, objective: str, base: Base) -> tuple[Path, float]:
    """Folder and beta of an objective's implicit reward; made by a reward_model run when none is named.

    Raises:
        ConfigError: if a named adapter was trained on another base or template, or at another beta than is given.
    """
    settings, key = reward_of(config, objective), f"algorithm.rewards.{objective}"
    assert isinstance(settings, ImplicitConfig)
    if settings.adapter is None:
        assert isinstance(config.algorithm, PreferenceConfig | AuditConfig)
        beta = settings.beta or config.algorithm.beta
        return _made(config, objective, "implicit", beta) / "adapter", beta
    template = config.model.prompt_template
    found = adapter_for(
        f"{key}.adapter", settings.adapter, base_id=base.id, template=template, beta=settings.beta, needs_beta=True
    )
    card, limit = found.policy_card, config.trainer.max_length
    if card is not None and card.max_length not in (None, limit):
        say(f"{key}: was trained on {card.max_length} tokens at most, now reads {limit}")
    assert found.beta is not None, "needs_beta"
    return found.folder, found.beta


def _made(config: RunConfig, objective: str, kind: str, beta: float) -> Path:
    """The folder of the reward_model run that makes a reward; it runs unless it has."""
    from alignlab.runs.runner import run_in_folder

    algorithm = RewardModelConfig(
        name="reward_model",
        objective=objective,
        beta=beta,
        loss_type="sigmoid",
        label_smoothing=0.0,
        kind=kind,
        full=False,
    )
    needed = dataclasses.replace(config, algorithm=algorithm, force=False)
    folder = Path(config.paths.runs) / run_folder(needed)
    say(f"needs a reward for {objective}")
    run_in_folder(needed, folder, wait=True)
    return folder


def _implicit(asked: _Asked, settings: ImplicitConfig) -> Reward:
    adapter, beta = reward_adapter(asked.config, asked.objective, asked.base)
    name = asked.objective
    return ImplicitReward(asked.base, adapter, beta=beta, cache=asked.cache, batch_size=asked.batch_size, name=name)


def _gold(asked: _Asked, settings: GoldConfig) -> Reward:
    gold = asked.config.dataset.objectives[asked.objective].gold
    assert gold is not None
    return GoldReward(gold, asked.base.encoder)


def _classifier(asked: _Asked, settings: ClassifierConfig) -> Reward:
    path = settings.path
    if path is None:
        algorithm = asked.config.algorithm
        assert isinstance(algorithm, PreferenceConfig | AuditConfig)
        path = str(_made(asked.config, asked.objective, "classifier", algorithm.beta) / "reward")
    source = classifier_source(asked.key, settings, path, asked.base)
    load = _naming(asked.key, partial(load_classifier, source, **asked.loading))
    return ScorerReward(source.id, load, sign=-1.0 if settings.negate else 1.0, **asked.keeping)


def _beaver(asked: _Asked, settings: BeaverConfig) -> Reward:
    source = beaver_source(settings)
    load = _naming(asked.key, partial(load_beaver, source, settings, **asked.loading))
    return ScorerReward(beaver_id(source, settings), load, sign=source.sign, **asked.keeping)


def _length(asked: _Asked, settings: LengthConfig) -> Reward:
    return LengthReward(asked.base.encoder, unit=settings.unit, scale=settings.scale)


def _program(asked: _Asked, settings: PythonConfig) -> Reward:
    return ProgramReward(str(settings.function), asked.base.encoder, negate=settings.negate)


def _endpoint(asked: _Asked, settings: HttpConfig) -> Reward:
    return EndpointReward(settings, **asked.keeping)


def _naming(key: str, load: Callable[[], Any]) -> Callable[[], Any]:
    """The same, with the objective's key in its errors."""

    def named() -> Any:
        try:
            return load()
        except ConfigError as error:
            raise _under(key, error) from None

    return named


def _under(key: str, error: ConfigError) -> ConfigError:
    text = str(error)
    return ConfigError(f"{key}.{text.removeprefix('reward.')}" if text.startswith("reward.") else text)


_BUILDERS: dict[type[RewardConfig], Callable[[_Asked, Any], Reward]] = {
    ImplicitConfig: _implicit,
    GoldConfig: _gold,
    ClassifierConfig: _classifier,
    BeaverConfig: _beaver,
    LengthConfig: _length,
    PythonConfig: _program,
    HttpConfig: _endpoint,
}
