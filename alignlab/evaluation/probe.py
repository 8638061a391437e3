"""How good a probe is: held-out accuracy, calibration, and what the length of a response alone explains."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from alignlab.rewards.agreement import fitted_scale
from alignlab.runs.progress import say
from alignlab.stats import Interval, mean_interval, pair_accuracy

Floats = NDArray[np.float64]
CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Edges of the bins of a calibration table."""


def probe_quality(margins: Floats, length_margins: Floats, groups: Sequence[str]) -> dict[str, object]:
    """A probe's record on pairs that it was not fitted to.

    Args:
        margins: score of the preferred minus the other response, log-odds, shape (n,).
        length_margins: the same of a probe that sees the length alone.
        groups: the prompt of each pair.
    """
    loss, length_loss = (np.logaddexp(0, -values) for values in (margins, length_margins))
    gain = math.log(2) - float(loss.mean())
    explained = (math.log(2) - float(length_loss.mean())) / gain if gain > 0 else None
    return {
        "accuracy": pair_accuracy(margins, groups).as_record(),
        "length_accuracy": pair_accuracy(length_margins, groups).as_record(),
        "log_loss": mean_interval(loss, groups).as_record(),
        "length_log_loss": mean_interval(length_loss, groups).as_record(),
        "length_share": explained,
        "scale": fitted_scale(margins),
        "calibration": calibration(margins, groups),
    }


def calibration(margins: Floats, groups: Sequence[str]) -> list[dict[str, object]]:
    """Of pairs in bins of the probe's confidence sigmoid(|margin|): mean confidence beside accuracy; empty bins apart.

    Args:
        margins: log-odds that the preferred response is better, shape (n,).
        groups: the prompt of each pair.
    """
    confidence = 1 / (1 + np.exp(-np.abs(margins)))
    bins: list[dict[str, object]] = []
    for low, high in pairwise(CONFIDENCES):
        inside = (confidence >= low) & ((confidence < high) | (high == CONFIDENCES[-1]))
        if inside.any():
            right = pair_accuracy(margins[inside], [group for group, kept in zip(groups, inside, strict=True) if kept])
            bins.append({"confidence": float(confidence[inside].mean()), "accuracy": right.as_record()})
    return bins


def say_quality(objective: str, quality: dict[str, dict[str, object]], ridge: float) -> None:
    """A table of a probe's quality: one line a part of the data, the length's beside it.

    Args:
        objective: what it was fitted to.
        quality: part of the data -> its record, as `probe_quality` makes it.
        ridge: the penalty.
    """
    say(f"probe of {objective}, ridge {ridge:g}: accuracy beside that of the length alone, 95 % intervals over prompts")
    for part, record in quality.items():
        own, length = (Interval.from_record(record[name]) for name in ("accuracy", "length_accuracy"))
        scale = record["scale"]
        fits = "" if scale is None else f"; its log-odds fit best times {scale:.2g}"
        say(f"  {part:<12} {_shown(own)}   length {_shown(length)}   {own.n} pairs of {own.groups} prompts{fits}")
        if length.mean is not None and own.low is not None and length.mean >= own.low:
            say(f"  warning: {part}: the length alone is not clearly worse, so what it is paid for may be length")


def _shown(share: Interval) -> str:
    if share.mean is None:
        return "unknown"
    return f"{share.mean:.2f}" + ("" if share.bounds is None else " [{:.2f}, {:.2f}]".format(*share.bounds))
