"""What an algorithm reads, writes and ends in: the one table that identity, warnings, checks and reports follow."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from alignlab.config.schema.run import RunConfig

Reason = Callable[["RunConfig"], str | None]
"""Why a key changes nothing in a run (`with trainer.max_steps=3`), or None where it does."""


def always(config: object) -> None:
    """Read in every run of the algorithm."""


def not_here(config: "RunConfig") -> str | None:
    """Read in no run of the algorithm."""
    return f"on algorithm={config.algorithm.name}"


@dataclass(frozen=True)
class Uses:
    """What one algorithm uses.

    `reads` maps a key or group to a condition; of the entries that a key begins with the longest decides, and a key
    without an entry is not read.
    """

    reads: Mapping[str, Reason]
    data: Literal["preferences", "requests", "prompts"] | None = None
    """What the algorithm takes from `dataset`: preferences, prompts, or requests with a harmful response each."""
    trains: bool = False
    """Whether it trains a policy or a reward, so that its result is of the run's own objectives."""
    weighs: bool = False
    """Whether it balances several objectives by w, which then stands in the run folder's name."""
    labels: bool = True
    """Whether an objective's labels say which response of a pair is chosen; else every objective enters as a reward."""
    trained: int = 0
    """Index, among the labelled objectives, of the one that is trained on unless algorithm.objective names one."""
    rewards: frozenset[Literal["others", "named", "policies", "endpoints"]] = frozenset()
    """Whose rewards it needs: of the objectives that weigh something and whose labels it does not train on, or of those
    that algorithm.rewards names; `policies` if it needs the policies behind them, which a scorer has none of;
    `endpoints` are the policies behind the implicit rewards of what weighs something."""
    makes_rewards: bool = False
    """Whether a reward without a path or an adapter is trained first, by a reward_model run."""
    samples: Reason = not_here
    """Whether it samples the run's own model in this process."""
    picks_by_scorers: bool = False
    """Whether the scorers decide what the run's policy says, so that they are part of its identity."""
    judges: Reason = not_here
    """Whether it asks a judge."""
    collects: Reason = not_here
    """Whether the run looks at other runs, whatever they are by now, so that it is never done before."""
    writes: tuple[str, ...] = ()
    """Files and folders that force=true removes from the run folder, beside those that every run has."""
    after_run: bool = False
    """Whether its job has an `after_run(plan, folder)`, called after a run, also one that was done before."""
    after_sweep: str | None = None
    """Module whose `after_sweep(plans)` puts together what a sweep's runs left."""


EVERY_RUN_WRITES = (
    "result.json",
    "metrics.jsonl",
    "progress.json",
    "processes.log",
    "checkpoints",
    "stage",
    "records",
    "wandb_id",
    "wandb_id.told",
    "tensorboard",
)

NOT_IN_RUN_ID = (
    "force",
    "scorers",
    "paths",
    "tracker",
    "trainer.save_steps",
    "trainer.logging_steps",
    "trainer.per_device_eval_batch_size",
    "trainer.max_tokens_per_forward",
    "trainer.gradient_checkpointing",
    "hardware.device",
    "hardware.processes",
    "hardware.nodes",
    "hardware.fsdp",
    "generator.batch_size",
    "generator.api_key_env",
    "generator.workers",
    "generator.timeout_s",
    "generator.deadline_s",
    "generator.backoff_s",
    "dataset.benign",
    "dataset.text",
    "dataset.on_bad_row",
    "dataset.max_bad_share",
    "dataset.overlap",
    "algorithm.check_rewards",
    "algorithm.export_at",
    "judge.api_key_env",
    "judge.workers",
    "judge.timeout_s",
    "judge.deadline_s",
    "judge.backoff_s",
    "judge.on_no_answer",
    "judge.dry_run",
    "judge.max_usd",
    "judge.usd_per_million_input_tokens",
    "judge.usd_per_million_output_tokens",
    "judge.batch_size",
)
"""Keys that change where, how fast or how carefully a run computes, not what: read, but no part of its identity."""

NOT_IN_REWARD_ID = ("api_key_env", "batch_size", "workers", "timeout_s", "deadline_s", "backoff_s")
"""The same of a reward's settings."""

SOURCE_OF = {
    "model.learning_rate": ("trainer.learning_rate",),
    "dataset.beta": ("algorithm.reward_beta", "algorithm.beta"),
    "dataset.sft_weight": ("algorithm.sft_weight",),
    "dataset.num_train_epochs": ("trainer.num_train_epochs",),
    "dataset.k": ("algorithm.k",),
}
"""Keys that only recommend a value for another key: the first of these that the run has."""


def value_at(config: Any, key: str) -> Any:
    """The value of a dotted key in a config or a mapping, None where there is none."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else vars(config).get(part)
        if config is None:
            return None
    return config


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key -> value of everything below a mapping; an empty mapping is a value."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def why_unused(config: "RunConfig", key: str) -> str | None:
    """Why a key or a group changes nothing in a run, as the end of `KEY: has no effect ...`; None where it is read."""
    if key in SOURCE_OF:
        *rest, last = SOURCE_OF[key]
        target = next((name for name in rest if value_at(config, name) is not None), last)
        if value_at(config, target) != value_at(config, key):
            return f"with {target}={value_at(config, target)}"
        return why_unused(config, target)
    reads = config.algorithm.uses.reads
    parts = key.split(".")
    if key.startswith("dataset.objectives.") and parts[2] not in config.dataset.objectives:
        return f"on dataset.use={list(config.dataset.objectives)}, which leaves {parts[2]} out"
    for length in range(len(parts), 0, -1):
        condition = reads.get(".".join(parts[:length]))
        if condition is not None:
            return condition(config)
    below = [condition(config) for name, condition in reads.items() if name.startswith(f"{key}.")]
    return None if None in below else next(iter(below), f"on algorithm={config.algorithm.name}")


def changes_result(key: str) -> bool:
    """Whether a key, where it is read, changes what a run computes, so that it is part of the run's identity."""
    operational = any(key == name or key.startswith(f"{name}.") for name in NOT_IN_RUN_ID)
    return not operational and key not in SOURCE_OF
