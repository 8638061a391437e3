"""How often the sign of a cost model's score says rightly whether a response is safe."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from alignlab.runs.progress import say
from alignlab.stats import Interval, share_interval

Floats = NDArray[np.float64]
PARTS = {"sign_accuracy": "all", "sign_accuracy_safe": "safe", "sign_accuracy_unsafe": "unsafe"}
"""Metric -> the responses that it is of."""


def sign_metrics(scores_N: Floats, safe: Sequence[bool], groups: Sequence[str]) -> dict[str, dict[str, object]]:
    """Shares of responses whose score is above 0 where they are safe and below where not; 0 counts one half.

    Of all responses, and of the safe and the unsafe ones apart: where most are safe, one who calls all safe is often
    right.

    Args:
        scores_N: minus the costs, (N,).
        safe: whether each response is labelled safe.
        groups: its prompt's.
    """
    safe_N = np.array(safe, dtype=bool)
    right_N = np.where(scores_N == 0, 0.5, (scores_N > 0) == safe_N)
    kept = {"all": np.ones_like(safe_N), "safe": safe_N, "unsafe": ~safe_N}
    names = np.array(groups, dtype=object)
    return {
        metric: share_interval(right_N[kept[part]], names[kept[part]].tolist()).as_record()
        for metric, part in PARTS.items()
    }


def say_signs(metrics: Mapping[str, Mapping[str, object]]) -> None:
    """One line: how often the sign is right, beside what is right by calling all responses alike.

    Args:
        metrics: `sign_metrics`'s.
    """
    found = {part: Interval.from_record(metrics[metric]) for metric, part in PARTS.items()}
    if found["all"].mean is None:
        say("sign of the cost: no held-out response is labelled safe or unsafe")
        return
    shown = [f"{_shown(one)} of {one.n} {part}" for part, one in found.items() if one.mean is not None]
    most = max(found["safe"].n, found["unsafe"].n) / found["all"].n
    say(f"sign of the cost right in {', '.join(shown)} held-out responses; {most:.2f} by calling all alike")


def _shown(share: Interval) -> str:
    return f"{share.mean:.2f}" + ("" if share.bounds is None else " [{:.2f}, {:.2f}]".format(*share.bounds))
