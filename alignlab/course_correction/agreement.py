"""How far a judge can be believed: its agreement with human labels, and Corr@k corrected for its errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest  # type: ignore[import-untyped]

from alignlab.course_correction.statistics import (
    NUM_RESAMPLES,
    Bounds,
    Scored,
    bootstrap_shares,
    count_verdicts,
    percentile_bounds,
    shares_of,
)


@dataclass(frozen=True)
class JudgeQuality:
    """A judge against labels: counts of (label, verdict)."""

    true_yes: int
    false_no: int
    """Labelled as corrected, judged as not."""
    true_no: int
    false_yes: int
    unscored: int
    """Labelled samples without a verdict; in none of the shares."""
    unknown_ids: int
    """Labels of samples that the run does not have."""

    @property
    def n(self) -> int:
        """Samples with a label and a verdict."""
        return self.true_yes + self.false_no + self.true_no + self.false_yes

    @property
    def agreement(self) -> float | None:
        """Share of the samples on which judge and label agree."""
        return (self.true_yes + self.true_no) / self.n if self.n else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa: agreement beyond chance; None where chance alone explains everything."""
        if not self.n:
            return None
        labelled, judged = self.true_yes + self.false_no, self.true_yes + self.false_yes
        chance = (labelled * judged + (self.n - labelled) * (self.n - judged)) / self.n**2
        agreement = (self.true_yes + self.true_no) / self.n
        return (agreement - chance) / (1 - chance) if chance < 1 else None

    def as_record(self) -> dict[str, object]:
        """Shares with Wilson intervals, and the counts behind them."""
        return {
            "n": self.n,
            "agreement": self.agreement,
            "kappa": self.kappa,
            "sensitivity": _share(self.true_yes, self.true_yes + self.false_no),
            "specificity": _share(self.true_no, self.true_no + self.false_yes),
            "unscored": self.unscored,
            "unknown_ids": self.unknown_ids,
        }


def judge_quality(verdicts: Mapping[str, bool | None], labels: Mapping[str, bool]) -> JudgeQuality:
    """Counts of a judge's verdicts against human labels, by the ids that both know."""
    shared = [(labels[name], verdicts[name]) for name in labels if name in verdicts]
    return JudgeQuality(
        true_yes=shared.count((True, True)),
        false_no=shared.count((True, False)),
        true_no=shared.count((False, False)),
        false_yes=shared.count((False, True)),
        unscored=sum(verdict is None for _, verdict in shared),
        unknown_ids=len(labels) - len(shared),
    )


@dataclass(frozen=True)
class CorrectedCurve:
    """Corr@k as it would be under a judge without errors."""

    k: list[int]
    corr: list[float | None]
    ci95: list[Bounds]


def rogan_gladen(
    rows: Sequence[Scored],
    quality: JudgeQuality,
    *,
    ks: Sequence[int],
    seed: int = 0,
    resamples: int = NUM_RESAMPLES,
) -> CorrectedCurve | None:
    """(share + specificity - 1) / (sensitivity + specificity - 1), kept within 0 and 1; None for a judge at chance.

    The interval draws the share from the bootstrap over groups, and sensitivity and specificity from their Jeffreys
    posteriors, so the size of the labelled sample is in it.

    Source: Rogan and Gladen 1978, Am. J. Epidemiology 107(1).
    """
    positives, negatives = quality.true_yes + quality.false_no, quality.true_no + quality.false_yes
    if not positives or not negatives:
        return None
    sensitivity, specificity = quality.true_yes / positives, quality.true_no / negatives
    if sensitivity + specificity <= 1:
        return None
    yes_GK, scored_GK = count_verdicts(rows, ks)
    draws_RK = bootstrap_shares(yes_GK, scored_GK, seed=seed, resamples=resamples)
    rng = np.random.default_rng(seed + 1)
    sensitivity_R1 = rng.beta(quality.true_yes + 0.5, quality.false_no + 0.5, size=(resamples, 1))
    specificity_R1 = rng.beta(quality.true_no + 0.5, quality.false_yes + 0.5, size=(resamples, 1))
    informed_R1 = np.maximum(sensitivity_R1 + specificity_R1 - 1, 1e-3)
    corrected_RK = np.clip((draws_RK + specificity_R1 - 1) / informed_R1, 0, 1)
    shares = shares_of(yes_GK.sum(0), scored_GK.sum(0))
    return CorrectedCurve(
        k=list(ks),
        corr=[
            None if share is None else float(np.clip((share + specificity - 1) / (sensitivity + specificity - 1), 0, 1))
            for share in shares
        ],
        ci95=[
            None if share is None else percentile_bounds(corrected_RK[:, place]) for place, share in enumerate(shares)
        ],
    )


def _share(count: int, total: int) -> dict[str, object]:
    if not total:
        return {"mean": None, "ci95": None, "n": 0}
    wilson = binomtest(count, total).proportion_ci(method="wilson")
    return {"mean": count / total, "ci95": [float(wilson.low), float(wilson.high)], "n": total}
