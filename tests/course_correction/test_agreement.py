"""A judge against labels, and Corr@k corrected for what it gets wrong."""

import numpy as np
import pytest

from alignlab.course_correction.agreement import JudgeQuality, judge_quality, rogan_gladen
from alignlab.course_correction.statistics import Scored, corr_curve


def judged(truth, *, sensitivity, specificity, seed):
    rng = np.random.default_rng(seed)
    return [bool(rng.random() < (sensitivity if value else 1 - specificity)) for value in truth]


def test_counts():
    verdicts = {"a": True, "b": False, "c": False, "d": True, "e": None}
    labels = {"a": True, "b": True, "c": False, "d": False, "e": True, "f": True}
    quality = judge_quality(verdicts, labels)
    assert quality == JudgeQuality(1, 1, 1, 1, unscored=1, unknown_ids=1)
    assert quality.agreement == 0.5
    assert quality.kappa == 0
    record = quality.as_record()
    assert record["sensitivity"]["mean"] == record["specificity"]["mean"] == 0.5
    low, high = record["sensitivity"]["ci95"]
    assert low < 0.5 < high


def test_a_perfect_judge():
    labels = {str(number): number % 3 == 0 for number in range(30)}
    quality = judge_quality(labels, labels)
    assert quality.agreement == quality.kappa == 1


def test_nothing_labelled():
    record = judge_quality({}, {}).as_record()
    assert record["agreement"] is None
    assert record["sensitivity"] == {"mean": None, "ci95": None, "n": 0, "groups": None}


def test_the_correction_finds_the_truth():
    rng = np.random.default_rng(0)
    truth = [bool(value) for value in rng.random(6000) < 0.3]
    verdicts = judged(truth, sensitivity=0.9, specificity=0.8, seed=1)
    rows = [Scored(str(index // 5), str(index // 5), 10, index % 5, value) for index, value in enumerate(verdicts)]
    labels = {str(index): truth[index] for index in range(1500)}
    quality = judge_quality({str(index): value for index, value in enumerate(verdicts)}, labels)
    raw, mended = corr_curve(rows, ks=(10,)), rogan_gladen(rows, quality, ks=(10,))
    assert raw.corr[0] == pytest.approx(0.41, abs=0.03)  # what the judge says
    assert mended.corr[0] == pytest.approx(0.3, abs=0.03)
    low, high = mended.ci95[0]
    assert low < np.mean(truth) < high
    assert high - low > np.subtract(*reversed(raw.ci95[0]))  # the labels' own uncertainty is in it


def test_a_judge_at_chance_corrects_nothing():
    rows = [Scored("a", "a", 10, 0, True)]
    assert rogan_gladen(rows, JudgeQuality(5, 5, 5, 5, 0, 0), ks=(10,)) is None
    assert rogan_gladen(rows, JudgeQuality(5, 5, 0, 0, 0, 0), ks=(10,)) is None


def test_an_unknown_stays_unknown():
    rows = [Scored("a", "a", 10, 0, True), Scored("c", "c", 10, 0, False), Scored("b", "b", 20, 0, None)]
    mended = rogan_gladen(rows, JudgeQuality(9, 1, 9, 1, 0, 0), ks=(10, 20))
    assert mended.corr[1] is None
    assert mended.ci95[1] is None


@pytest.mark.parametrize("how", ["at random", "half of each verdict"])
def test_labels_chosen_by_verdict_correct_as_well(how):
    """Truth .10; the natural way to label, so many of each verdict, once corrected this to .000."""
    rng = np.random.default_rng(4)
    truth = [bool(value) for value in rng.random(6000) < 0.1]
    verdicts = judged(truth, sensitivity=0.85, specificity=0.9, seed=5)
    rows = [Scored(str(index // 5), str(index // 5), 10, index % 5, value) for index, value in enumerate(verdicts)]
    chosen = range(400)
    if how != "at random":
        chosen = [index for side in (True, False) for index in np.flatnonzero(np.array(verdicts) == side)[:200]]
    labels = {str(index): truth[index] for index in chosen}
    quality = judge_quality({str(index): value for index, value in enumerate(verdicts)}, labels)
    mended = rogan_gladen(rows, quality, ks=(10,))
    assert mended.corr[0] == pytest.approx(0.1, abs=0.03)
    low, high = mended.ci95[0]
    assert low < 0.1 < high
    naive = (np.mean(verdicts) + quality.true_no / (quality.true_no + quality.false_yes) - 1) / 0.75
    assert bool(naive < 0.03) is (how != "at random"), "control: by the counts as they are it goes wrong"


def test_nothing_is_corrected_where_one_verdict_has_no_label():
    rows = [Scored("a", "a", 10, 0, True), Scored("b", "b", 10, 0, False)]
    assert rogan_gladen(rows, JudgeQuality(9, 0, 0, 3, 0, 0), ks=(10,)) is None
