"""Shares as a judge without errors would find them, from a labelled sample (Rogan and Gladen, stratified by verdict).

Labels of half judged-yes and half judged-no samples are the natural way to label, and bias sensitivity and specificity;
the values that predict a label from a verdict are right for any choice by verdict. So these are estimated, and put
together in the proportion in which all samples were judged. For a random choice of labels that is Rogan and Gladen's.

Shape letters: K shares (one a prefix length), G groups, R draws.
"""

from dataclasses import dataclass

import numpy as np

from alignlab.stats.groups import NUM_RESAMPLES, Floats
from alignlab.stats.interval import Interval
from alignlab.stats.shares import EffectiveShare, effective, pooled_share

Values = Floats | float


@dataclass(frozen=True)
class JudgeErrors:
    """Counts of (label, verdict) on the labelled samples."""

    true_yes: int
    false_no: int
    """Labelled yes, judged no."""
    true_no: int
    false_yes: int


def corrected_shares(
    yes_GK: Floats, scored_GK: Floats, errors: JudgeErrors, *, seed: int = 0, resamples: int = NUM_RESAMPLES
) -> list[Interval] | None:
    """Each share as a judge without errors would find it, within 0 and 1, with its 95 % interval.

    (share + specificity - 1) / (sensitivity + specificity - 1), with both taken to be the same at every k. None where
    the labels do not tell: none among the judged-yes or the judged-no samples, or a judge that is at chance by them.

    Args:
        yes_GK: samples judged yes, of each group at each k.
        scored_GK: samples with a verdict.
        errors: the judge on the labelled samples, chosen at random or by verdict.
        seed: of the draws.
        resamples: draws; they carry the spread over groups and the size of the labelled sample.

    Source: Rogan and Gladen 1978, Am. J. Epidemiology 107(1); Tenenbein 1970, JASA 65 for the predictive values.
    """
    judged_yes, judged_no = errors.true_yes + errors.false_yes, errors.true_no + errors.false_no
    total_K = scored_GK.sum(0)
    if not judged_yes or not judged_no or not total_K.any():
        return None
    judged = float(yes_GK.sum() / total_K.sum())
    right_yes, right_no = errors.true_yes / judged_yes, errors.true_no / judged_no
    found = []
    for yes_G, scored_G in zip(yes_GK.T, scored_GK.T, strict=True):
        raw = pooled_share(yes_G, scored_G)
        if raw.mean is None or raw.groups is None:
            found.append(raw)
            continue
        share, informed = _corrected(raw.mean, judged, right_yes, right_no)
        if not informed > 0:
            return None
        told = effective(yes_G[scored_G > 0], scored_G[scored_G > 0], num_values=raw.n)
        low, high = corrected_bounds(told, judged, errors, seed=seed, resamples=resamples)
        bounds = (float(low), float(high)) if raw.groups > 1 else None
        found.append(Interval.of(float(share), bounds, raw.n, groups=raw.groups))
    return found


def corrected_bounds(
    told: EffectiveShare, judged: Values, errors: JudgeErrors, *, seed: int, resamples: int
) -> tuple[Floats, Floats]:
    """Both ends of corrected shares' intervals: 2.5 and 97.5 % of draws, all arguments of shape (W,) or numbers.

    Args:
        told: shares judged yes, with their effective number of samples.
        judged: share judged yes among all samples of a run.
        errors: the judge on the labelled samples; the counts may be arrays.
        seed: of the draws.
        resamples: number of draws.
    """
    rng, shape = np.random.default_rng(seed), (resamples, *np.shape(told.share))
    share = rng.beta(told.share * told.n + 0.5, (1 - told.share) * told.n + 0.5, size=shape)
    right_yes = rng.beta(np.add(errors.true_yes, 0.5), np.add(errors.false_yes, 0.5), size=shape)
    right_no = rng.beta(np.add(errors.true_no, 0.5), np.add(errors.false_no, 0.5), size=shape)
    low, high = np.percentile(_corrected(share, judged, right_yes, right_no)[0], [2.5, 97.5], axis=0)
    return low, high


def _corrected(shares: Values, judged: Values, right_yes: Values, right_no: Values) -> tuple[Floats, Floats]:
    """Corrected shares, and sensitivity + specificity - 1; all broadcast.

    Args:
        shares: shares judged yes.
        judged: share judged yes among all samples, by which the labelled ones are put together.
        right_yes: probability of a yes label given a yes verdict.
        right_no: probability of a no label given a no verdict.
    """
    yes, no = np.asarray(judged), 1 - np.asarray(judged)
    true_yes, true_no = yes * right_yes, no * right_no
    false_yes, false_no = yes - true_yes, no - true_no
    tiny = 1e-12  # a judge that is always right on one side leaves nothing of the other
    sensitivity = true_yes / np.maximum(true_yes + false_no, tiny)
    specificity = true_no / np.maximum(true_no + false_yes, tiny)
    informed = sensitivity + specificity - 1
    return np.clip((shares + specificity - 1) / np.maximum(informed, 1e-3), 0, 1), informed
