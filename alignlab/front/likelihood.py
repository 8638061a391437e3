"""How well a model predicts texts: loss a token and perplexity, with intervals over prompts."""

import math
from collections.abc import Sequence

import numpy as np

from alignlab.front.metrics import Interval


def token_loss(logps: Sequence[float], lengths: Sequence[int], groups: Sequence[str]) -> Interval:
    """Minus log-probability a token over all texts together, nats, with its 95 % interval.

    It is a ratio of two sums, so its interval is the cluster-robust one of a ratio: the texts of one prompt are no
    independent evidence.

    Args:
        logps: log-probability of each text, nats.
        lengths: its tokens, > 0.
        groups: its prompt.
    """
    tokens = np.asarray(lengths, dtype=np.float64)
    ratio = -float(np.sum(logps)) / float(tokens.sum())
    _, cluster = np.unique(np.asarray(groups), return_inverse=True)
    residuals = np.bincount(cluster, weights=-np.asarray(logps) - ratio * tokens)
    num_groups = len(residuals)
    if num_groups < 2:
        return Interval(ratio, None, None, n=len(tokens))
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    spread = math.sqrt(num_groups / (num_groups - 1) * float(np.square(residuals).sum()))
    half = float(stdtrit(num_groups - 1, 0.975)) * spread / float(tokens.sum())
    return (
        Interval(ratio, ratio - half, ratio + half, n=len(tokens))
        if half > 0
        else Interval(ratio, None, None, n=len(tokens))
    )


def perplexity(loss: Interval) -> Interval:
    """Exp of the loss, and of its interval's ends."""
    mean, low, high = (None if value is None else math.exp(value) for value in (loss.mean, loss.low, loss.high))
    return Interval(mean, low, high, n=loss.n)
