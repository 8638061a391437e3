"""Settings that a user typed and that change nothing in the runs at hand. Imports no torch."""

from collections.abc import Sequence
from dataclasses import fields

from alignlab.config.objectives import objectives_of, rewards_of, why_no_reward
from alignlab.config.schema import RunConfig
from alignlab.config.uses import Uses, why_unused
from alignlab.errors import masked

FRONT = "alignlab.jobs.front"
"""`after_sweep` of the algorithms whose sweeps end in a front."""

_SWEEP_ONLY = ("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweep")


def draws_front(uses: Uses, *, is_sweep: bool) -> bool:
    """Whether a run ends in a front beside its own result, as a sweep over trained or evaluated policies does.

    Args:
        uses: its algorithm's.
        is_sweep: whether it is one of a sweep's.
    """
    return uses.after_run or (is_sweep and uses.after_sweep == FRONT)


def _why_idle(config: RunConfig, key: str) -> str | None:
    objectives = objectives_of(config)
    rewarded = rewards_of(config, objectives)
    return why_unused(config, key) or why_no_reward(key, config.w, objectives, rewarded)


def without_effect(configs: Sequence[RunConfig], overrides: Sequence[str], *, is_sweep: bool) -> list[str]:
    """One line for each override that has no effect on any of the runs: `w=0.3: has no effect on algorithm=dpo`.

    Args:
        configs: every run of the command line.
        overrides: as typed.
        is_sweep: whether the command line is a sweep, which takes settings of Hydra that a single run does not.
    """
    groups = {item.name for item in fields(RunConfig)}
    lines = []
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        reasons: list[str | None] = []
        if key == "algorithm":
            continue  # the choice itself
        if key.partition(".")[0] in groups:
            reasons = [_why_idle(config, key) for config in configs]
            fronts = (draws_front(config.algorithm.uses, is_sweep=is_sweep) for config in configs)
            if key.partition(".")[0] == "target" and any(fronts):
                reasons = [None]
        elif not is_sweep and key.startswith(_SWEEP_ONLY):
            reasons = ["without -m"]
        elif is_sweep and key == "hydra.run.dir":
            reasons = ["on a sweep; paths.runs and hydra.sweep.dir say where its folders go"]
        if reasons and all(reasons):
            lines.append(masked(f"{override.lstrip('+')}: has no effect {reasons[0]}"))
    return list(dict.fromkeys(lines))
