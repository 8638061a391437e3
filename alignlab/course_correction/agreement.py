"""How far a judge can be believed: its agreement with human labels, and Corr@k corrected for its errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from alignlab.course_correction.statistics import Scored, count_verdicts
from alignlab.stats import Bounds, JudgeErrors, corrected_shares, share_interval


@dataclass(frozen=True)
class JudgeQuality(JudgeErrors):
    """A judge against labels."""

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
        """Shares with their intervals, and the counts behind them."""
        return {
            "n": self.n,
            "agreement": self.agreement,
            "kappa": self.kappa,
            "sensitivity": _share(self.true_yes, self.true_yes + self.false_no),
            "specificity": _share(self.true_no, self.true_no + self.false_yes),
            "judged_yes": _share(self.true_yes + self.false_yes, self.n),
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
    n: list[int]
    groups: list[int]


def rogan_gladen(
    rows: Sequence[Scored], quality: JudgeQuality, *, ks: Sequence[int], seed: int = 0
) -> CorrectedCurve | None:
    """Corr@k corrected for a judge's errors, as `alignlab.stats.corrected_shares` does it; None where it cannot.

    The labelled samples may be chosen at random, or so many of each verdict. Sensitivity and specificity are taken to
    be the same at every k.

    Args:
        rows: verdicts of the run.
        quality: the judge's errors against labels.
        ks: lengths of the prefix.
        seed: of the bootstrap.
    """
    yes_GK, scored_GK = count_verdicts(rows, ks)
    found = corrected_shares(yes_GK, scored_GK, quality, seed=seed)
    if found is None:
        return None
    return CorrectedCurve(
        k=list(ks),
        corr=[interval.mean for interval in found],
        ci95=[interval.bounds for interval in found],
        n=[interval.n for interval in found],
        groups=[interval.groups or 0 for interval in found],
    )


def _share(count: int, total: int) -> dict[str, object]:
    """A share of labelled samples; whether some are of one prompt is not known here."""
    return replace(share_interval([True] * count + [False] * (total - count)), groups=None).as_record()
