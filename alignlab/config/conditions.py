"""When an algorithm reads a key: conditions, and the sets of keys that algorithms share. See config/uses.py."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.config.names import MADE_REWARDS, SMOOTHED_LOSSES
from alignlab.config.objectives import objectives_of, rewards_of
from alignlab.config.uses import Reason, Uses, always, not_here, value_at

if TYPE_CHECKING:
    from alignlab.config.schema.dataset import DatasetConfig
    from alignlab.config.schema.reward import RewardConfig
    from alignlab.config.schema.run import RunConfig

Reads = Mapping[str, Reason]


def both(first: Reason, second: Reason) -> Reason:
    """Read where both conditions say so."""
    return lambda config: first(config) or second(config)


def either(first: Reason, second: Reason) -> Reason:
    """Read where one condition says so; the second gives the reason where neither does."""
    return lambda config: None if first(config) is None else second(config)


def when(condition: Reason, reads: Reads) -> dict[str, Reason]:
    """The same keys, read only under a condition."""
    return {key: both(condition, own) for key, own in reads.items()}


def if_value(key: str, test: Callable[[Any], bool], why: str) -> Reason:
    """Read where a key's value passes a test.

    Args:
        key: dotted.
        test: of its value, None where the run has no such key.
        why: the reason where it fails; `{value}` stands for the value.
    """

    def condition(config: "RunConfig") -> str | None:
        value = value_at(config, key)
        return None if test(value) else why.format(value=value)

    return condition


def unless_set(key: str, shown: str = "={value}") -> Reason:
    """Read unless another key is set."""
    return if_value(key, lambda value: not value, f"with {key}{shown}")


def if_kind(key: str, *kinds: object) -> Reason:
    """Read where a key has one of these values."""
    return if_value(key, lambda value: value in kinds, f"with {key}={{value}}")


def _if(test: Callable[["RunConfig"], bool], why: str) -> Reason:
    return lambda config: None if test(config) else why.format(config=config)


def _rewards(config: "RunConfig") -> "dict[str, RewardConfig]":
    return {name: one.settings for name, one in rewards_of(config, objectives_of(config)).items()}


def _made_kinds(reward: "RewardConfig") -> set[str]:
    """The kinds of what reward_model runs make for a reward: its own, or its members'."""
    members: dict[str, RewardConfig] = value_at(reward, "members") or {}
    if members:
        return set().union(*map(_made_kinds, members.values()))
    path = value_at(reward, "adapter" if reward.kind == "implicit" else "path")
    return {reward.kind} if reward.kind in MADE_REWARDS and path is None else set()


def _makes(*kinds: str, scorers: bool = False) -> Reason:
    """Read where a reward, or a scorer, of one of these kinds is made."""
    return _if(
        lambda config: any(
            _made_kinds(one).intersection(kinds) for one in (config.scorers if scorers else _rewards(config)).values()
        ),
        "on algorithm={config.algorithm.name}, which trains nothing here",
    )


def makes_pairs(uses: Uses, dataset: "DatasetConfig") -> bool:
    """Whether an algorithm trains on pairs that its model makes first."""
    return dataset.kind == "prompts" and uses.data == "preferences" and (uses.trains or bool(uses.rewards))


def _makes_pairs(why: str) -> Reason:
    shown = f"on dataset={{config.dataset.name}}{why}"
    return _if(lambda config: makes_pairs(config.algorithm.uses, config.dataset), shown)


epochs = if_value("trainer.max_steps", lambda steps: steps <= 0, "with trainer.max_steps={value}")
"""Epochs count where no number of steps is given."""
smoothed = if_value("algorithm.loss_type", SMOOTHED_LOSSES.__contains__, "on algorithm.loss_type={value}")
"""Some losses only know smoothed labels."""
gold_rewards = _if(
    lambda config: all(objective.gold for objective in config.dataset.objectives.values()),
    "on dataset={config.dataset.name}, whose metrics need no samples",
)
"""Responses are sampled where gold rewards score them."""

on_toy = _if(lambda config: config.dataset.kind == "toy", "on dataset={config.dataset.name}")
off_prompts = _if(lambda config: config.dataset.kind != "prompts", "on dataset={config.dataset.name}")
off_toy = _if(lambda config: config.dataset.kind != "toy", "on dataset={config.dataset.name}")
repeats = _makes_pairs(": only dataset=prompts has its pairs made anew")
from_prompts = _makes_pairs(", which ranks responses itself")
scratch = _if(lambda config: config.model.kind == "scratch", "on algorithm={config.algorithm.name}")
others = _if(lambda config: bool(_rewards(config)), "at w={config.w}, where no other objective weighs anything")
scored = _if(lambda config: bool(config.scorers), "without scorers")
named = _if(lambda config: bool(value_at(config, "algorithm.rewards")), "without algorithm.rewards")
_TRAINED_REWARDS = tuple(kind for kind in MADE_REWARDS if kind != "probe")
"""Made by the trainer; a probe is fitted without it."""
trains_scorers = _makes(*_TRAINED_REWARDS, scorers=True)
trains_rewards = _makes(*_TRAINED_REWARDS)
makes = _makes(*MADE_REWARDS)
makes_implicit = _makes("implicit")
trains_at_w = _if(
    lambda config: objectives_of(config).weights[objectives_of(config).trained] > 0, "at w={config.w}, trains nothing"
)
extrapolates = _if(
    lambda config: any(weight < 0 for weight in objectives_of(config).weights.values()),
    "at w={config.w}, which holds nothing below 0",
)
adapter = _if(lambda config: bool(value_at(config, "algorithm.adapter")), "without algorithm.adapter")
no_card = _if(
    lambda config: not (Path(str(value_at(config, "algorithm.adapter"))) / "alignlab.json").is_file(),
    "with algorithm.adapter, whose card says it",
)
one_process = _if(lambda config: False, "on algorithm={config.algorithm.name}, which trains on one process")

trains = either(
    _if(lambda config: config.algorithm.uses.trains, "on algorithm={config.algorithm.name}, which trains nothing here"),
    either(_makes(*MADE_REWARDS, scorers=True), makes),
)

_HUB = ("hub", "revision", "subset", "data_dir", "train_split", "test_split")
FILES: Reads = {
    **{f"dataset.{key}": unless_set("dataset.path", ", which is read in the hub's place") for key in _HUB},
    "dataset.max_bad_share": if_kind("dataset.on_bad_row", "drop"),
}
"""Where rows come from."""

UNMEASURED: Reads = {"dataset.benign": not_here, "dataset.text": not_here}
"""Files on which only scored policies are measured."""

PREFERENCES: Reads = {
    "dataset": always,
    **FILES,
    "dataset.requests": not_here,
    "dataset.exact_samples": not_here,
    "dataset.keep": trains,
    "dataset.pairs": either(off_prompts, from_prompts),
    **UNMEASURED,
    "scorers": from_prompts,
}
"""Preferences by each objective."""

OWN_PAIRS: Reads = {"generator": from_prompts, "generator.samples": not_here}
"""How the model is sampled for pairs on prompts alone; dataset.pairs.samples says how often."""

REQUESTS: Reads = {
    "dataset": always,
    **FILES,
    "dataset.test_share": off_toy,
    **{f"dataset.{key}": both(off_toy, scratch) for key in ("pairs", "exact_samples", "min_score_ratio")},
    "dataset.keep": not_here,
    **UNMEASURED,
    "dataset.objectives": scratch,
    "dataset.use": scratch,
    "dataset.unlabelled": scratch,
    "trainer.max_length": scratch,
}
"""Requests with a harmful response each; a reference that is trained from scratch learns from the same rows."""

MODEL: Reads = {"model": always, "hardware.device": always, "hardware.bf16": always, "paths": always, "force": always}
"""The base model; a reference that is trained from scratch on the data reads these too."""

SCRATCH: Reads = {
    "dataset": scratch,
    "dataset.keep": not_here,
    **UNMEASURED,
    "trainer.max_length": scratch,
    **when(scratch, FILES),
}
"""The rows that a reference is trained on from scratch, of an algorithm that reads no data itself."""

TRAINING: Reads = {
    "peft": always,
    "trainer": always,
    "trainer.num_train_epochs": epochs,
    "hardware.processes": always,
    "hardware.nodes": always,
    "hardware.fsdp": always,
    "tracker": always,
    "seed": always,
}
"""Training an adapter on preference pairs."""

OF_PAIRS = ("trainer.sets_per_step", "trainer.max_tokens_per_forward")
"""Keys that only preference training reads."""

ON_ONE_PROCESS: Reads = dict.fromkeys(("hardware.processes", "hardware.nodes", "hardware.fsdp"), one_process)

MEASURED: Reads = {"dataset.benign": scored, "dataset.text": scored}
"""What scored policies are measured on beside the held-out prompts."""

SCORING: Reads = {
    "scorers": always,
    **MEASURED,
    "generator": either(gold_rewards, scored),
    "generator.samples": either(scored, gold_rewards),
    "generator.prompts": both(scored, off_toy),
}
"""A policy whose samples on held-out prompts are scored."""

SAMPLING: Reads = {
    "generator": either(from_prompts, gold_rewards),
    "generator.samples": gold_rewards,
    "generator.prompts": not_here,
    "dataset.exact_samples": both(gold_rewards, on_toy),
}
"""Sampling the policy where the data knows its true rewards."""

LOSS: Reads = {"algorithm": always, "algorithm.label_smoothing": smoothed}

BALANCE: Reads = {"w": always, "weights": always}
"""What each objective weighs."""
