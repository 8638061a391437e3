"""What every round of a run came to: its policy's rewards, KL and length on the same held-out prompts. No torch."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignlab.config.names import ROUNDS_PICTURE
from alignlab.config.plan import MakeRun, Plan
from alignlab.front.figures import save_figure
from alignlab.front.rounds import rounds_figure
from alignlab.runs.progress import say
from alignlab.runs.result import Metrics, read_result, write_result

_OF_RESPONSES = ("kl", "tokens", "cut")
_SHOWN = (("kl", "KL", "nats"), ("tokens", "length", "tokens"))


def after_rounds(plan: Plan[Any], folder: Path, make_run: MakeRun) -> None:
    """Measure the policy of every round, keep it under `rounds` in result.json, and draw it.

    Args:
        plan: the run of the last round.
        folder: where it is recorded.
        make_run: runs evaluations unless that has been done.
    """
    rounds = [_measured(0, make_run(plan.evaluation(None)), folder)]
    runs = [(plan, folder)]
    while (earlier := runs[0][0].previous) is not None:
        runs.insert(0, (earlier, earlier.folder))
    for number, (each, where) in enumerate(runs, start=1):
        rounds.append(_measured(number, make_run(each.evaluation(where / "adapter")), folder))
    for one in rounds:
        say(_shown(one["round"], one["metrics"]))
    result, picture = read_result(folder), folder / ROUNDS_PICTURE
    assert result is not None, "the run has ended"
    if result.extra.get("rounds") != rounds or not picture.exists():
        save_figure(rounds_figure({one["round"]: one["metrics"] for one in rounds}), picture)
        write_result(folder, replace(result, extra={**result.extra, "rounds": rounds}))
    say(f"rounds: {picture}")


def _measured(number: int, evaluation: Path, folder: Path) -> dict[str, Any]:
    """One round's record: round 0 is the reference."""
    result = read_result(evaluation)
    assert result is not None, "the evaluation has ended"
    kept = (*(f"{name}_{end}" for name in result.extra["scorers"] for end in ("reward", "gain")), *_OF_RESPONSES)
    metrics = {name: result.metrics[name] for name in kept if name in result.metrics}
    return {"round": number, "evaluation": os.path.relpath(evaluation, folder), "metrics": metrics}


def _shown(number: int, metrics: Metrics) -> str:
    named = "round 0 (the reference)" if number == 0 else f"round {number}"
    rewards = {name.removesuffix("_reward"): one for name, one in metrics.items() if name.endswith("_reward")}
    parts = [f"{name} {_mean(one)}" for name, one in rewards.items()]
    parts += [f"{title} {_mean(metrics[key])} {unit}" for key, title, unit in _SHOWN if key in metrics]
    return f"{named}: {', '.join(parts)}"


def _mean(metric: dict[str, Any]) -> str:
    if metric["mean"] is None:
        return "unknown"
    ends = metric["ci95"]
    return f"{metric['mean']:.3g}" + (f" [{ends[0]:.3g}, {ends[1]:.3g}]" if ends else "")
