"""The numbers about a whole front, on boxes whose volumes are worked out by hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alignlab.front.collect import REFERENCE, FrontPoint
from alignlab.front.metrics import ExactCurve, hypervolume
from alignlab.front.prompts import prompt_scores
from alignlab.front.said import differences, read_said
from alignlab.front.series import points_by_series
from alignlab.front.summary import front_summary
from alignlab.stats import Interval, crossed_means, mean_interval, paired_difference

AXES = ("helpful", "safe", "brief")
WEIGHTS = [(0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8), (0.3, 0.4, 0.3)]


def a_point(weights, values):
    metrics = {name: Interval(float(value), None, None, 9) for name, value in zip(AXES, values, strict=True)}
    named = dict(zip(("better", "safer", "brief"), weights, strict=True))
    return FrontPoint(Path(str(weights)), "modpo", weights, named, 0, AXES, metrics)


def exact(shift=0.0):
    weights = np.array(WEIGHTS)
    return ExactCurve(AXES, weights, weights + shift, np.zeros(len(WEIGHTS)))


def only_series(points, **known):
    (found,) = front_summary(points, **known)["series"].values()
    return found


def test_a_front_that_follows_its_weights():
    points = [a_point(weights, weights) for weights in WEIGHTS]
    found = only_series(points, exact=exact(), reference=(0.0, 0.0, 0.0))
    assert len(found["settings"]) == found["non_dominated"] == 4
    assert [followed["axis"] for followed in found["follows_weight"].values()] == list(AXES)
    assert all(followed["rho"] == pytest.approx(1) for followed in found["follows_weight"].values())
    assert found["to_exact"] == {name: {"value": pytest.approx(0), "ci95": None} for name in ("epsilon", "igd_plus")}
    volume = found["hypervolume"]["reference"]
    assert volume["corner"] == [0, 0, 0]
    assert volume["points"] == pytest.approx(volume["exact"])


def test_one_that_runs_against_them():
    points = [a_point(weights, [-value for value in weights]) for weights in WEIGHTS]
    found = only_series(points, exact=None, reference=None)
    assert all(followed["rho"] == pytest.approx(-1) for followed in found["follows_weight"].values())
    assert found["hypervolume"] == {}
    assert "to_exact" not in found


def test_the_volume_is_that_of_the_boxes():
    points = [a_point((1.0, 0.0, 0.0), (2, 1, 1)), a_point((0.0, 1.0, 0.0), (1, 3, 1))]
    found = only_series(points, exact=None, reference=(0.0, 0.0, 0.0))
    assert found["hypervolume"]["reference"]["points"] == pytest.approx(2 + 3 - 1)
    assert found["follows_weight"]["better"]["rho"] is None, "two points have no rank correlation"


def test_a_shortfall_is_measured_at_the_same_weights():
    points = [a_point(weights, weights) for weights in WEIGHTS]
    found = only_series(points, exact=exact(0.25), reference=None)
    assert found["to_exact"]["epsilon"]["value"] == pytest.approx(0.25)
    other = [*points, a_point((0.5, 0.5, 0.0), (1, 1, 1))]
    assert "to_exact" not in only_series(other, exact=exact(), reference=None), "one weighting has no exact point"


TWO = ("helpful", "safe")


def a_run(w, *, seed=0, noise=0.0, rng=None, folder=None, **changes):
    """A run on the true front r = (w, 1 - w), measured with noise; its scores by prompt where a folder is given."""
    values = [w, 1 - w] + noise * (np.random.default_rng(0) if rng is None else rng).normal(size=2)
    metrics = {name: Interval(float(value), None, None, 9) for name, value in zip(TWO, values, strict=True)}
    named = {"better": w, "safer": round(1 - w, 6)}
    return FrontPoint(folder or Path(f"{w}-{seed}"), "modpo", w, named, seed, TWO, metrics, tuple(named), **changes)


def volume_of(points, name="modpo"):
    return front_summary(points, exact=None, reference=(-1.0, -1.0))["series"][name]["hypervolume"]["reference"]


@pytest.mark.parametrize("num_seeds", [1, 3, 10])
def test_the_volume_does_not_grow_with_the_number_of_seeds(num_seeds, monkeypatch):
    """Over many worlds means over seeds come near the truth; one volume over all runs counts the luckiest of each w."""
    monkeypatch.setattr("alignlab.front.prompts.NUM_RESAMPLES", 2)  # the interval is not looked at
    rng, weights = np.random.default_rng(1), np.linspace(0, 1, 5)
    truth = volume_of([a_run(w) for w in weights])["points"]
    own, pooled = [], []
    for _ in range(40):
        points = [a_run(w, seed=seed, noise=0.08, rng=rng) for w in weights for seed in range(num_seeds)]
        own.append(volume_of(points)["points"])
        pooled.append(hypervolume([point.position for point in points], reference=(-1.0, -1.0)).volume)
    assert np.mean(own) == pytest.approx(truth, rel=0.04)
    assert bool(np.mean(pooled) > 1.05 * truth) is (num_seeds > 1), "control: as it was, over all runs together"


def test_the_nadir_is_the_same_corner_for_every_series():
    w = np.array([0.1, 0.2, 0.8, 0.9])
    curve = ExactCurve(TWO, np.stack([w, (1 - w).round(6)], axis=1), np.stack([w, 1 - w], axis=1), np.zeros(4))
    points = [a_run(w) for w in (0.1, 0.8)] + [replace(a_run(w), algorithm="soup") for w in (0.2, 0.9)]
    series = front_summary(points, exact=curve, reference=None)["series"]
    corners = [one["hypervolume"]["nadir"]["corner"] for one in series.values()]
    assert corners == [pytest.approx([0.1, 0.1])] * 2


def test_series_are_never_pooled():
    points = [a_run(w, variant=f"beta={beta}", beta=beta) for beta in (0.1, 0.5) for w in (0.2, 0.8)]
    found = front_summary(points, exact=None, reference=(-1.0, -1.0))
    assert set(found["series"]) == {"modpo, beta=0.1", "modpo, beta=0.5"}
    assert "hypervolume" not in found
    assert [one["beta"] for one in found["series"].values()] == [0.1, 0.5]
    assert found["points"] == 4


def with_scores(tmp_path, w, shift, *, seed=0, num_prompts=42, samples=8):
    """A run whose samples are scored: prompts differ much, the policies little."""
    folder = tmp_path / f"{w}-{seed}"
    folder.mkdir()
    rng = np.random.default_rng([round(100 * w), seed])
    prompts = 3 * np.random.default_rng(5).normal(size=num_prompts)
    generations, scores = [], []
    for prompt in range(num_prompts):
        for sample in range(samples):
            row = f"{prompt}/{sample}"
            generations.append({"id": row, "prompt": f"p{prompt}", "response": "x"})
            noise = 0.3 * rng.normal(size=2)
            scores.append(
                {"id": row, "helpful": prompts[prompt] + shift + noise[0], "safe": -prompts[prompt] + noise[1]}
            )
    for name, rows in (("generations", generations), ("scores", scores)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    means = [float(np.mean([row[axis] for row in scores])) for axis in TWO]
    metrics = {
        axis: mean_interval([row[axis] for row in scores], [row["id"].split("/")[0] for row in scores]) for axis in TWO
    }
    assert [metrics[axis].mean for axis in TWO] == pytest.approx(means)
    return replace(a_run(w, seed=seed, folder=folder), metrics=metrics)


def test_neighbouring_w_are_compared_on_the_same_prompts(tmp_path):
    points = [with_scores(tmp_path, w, shift) for w, shift in ((0.1, 0.0), (0.5, 0.3), (0.9, 0.31))]
    found = only_series(points, exact=None, reference=None)
    assert [(row["from"], row["to"]) for row in found["neighbours"]] == [("0.1", "0.5"), ("0.5", "0.9")]
    first, second = (row["differences"]["helpful"] for row in found["neighbours"])
    assert first["mean"] == pytest.approx(0.3, abs=0.08)
    assert (first["told_apart"], second["told_apart"]) == (True, False)
    assert (first["groups"], first["n"]) == (42, 84)
    assert first["p_holm"] >= first["p"]
    paired = (first["ci95"][1] - first["ci95"][0]) / 2
    apart = np.hypot(*(point.metrics["helpful"].half_width for point in points[:2]))
    assert apart > 5 * paired, "control: unpaired intervals could not tell them apart"


def test_a_difference_of_shares_knows_their_span(tmp_path):
    """Scores that were all 0 or 1 but for one answer alike: the interval is that of shares, as between any two."""
    points = []
    for w, yes in ((0.2, 0), (0.8, 3)):
        folder = tmp_path / str(w)
        folder.mkdir()
        rows = [{"id": str(prompt), "prompt": f"p{prompt}", "response": "x"} for prompt in range(40)]
        scores = [{"id": str(prompt), "helpful": float(prompt < yes), "safe": 0.0} for prompt in range(40)]
        for name, held in (("generations", rows), ("scores", scores)):
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))
        points.append(a_run(w, folder=folder))
    (row,) = only_series(points, exact=None, reference=None)["neighbours"]
    found, groups = row["differences"], [f"p{prompt}" for prompt in range(40)]
    expected = paired_difference(([0.0] * 40, groups), ([0.0] * 40, groups), shares=True)
    assert found["safe"]["ci95"] == [expected.interval.low, expected.interval.high], "never without width"
    (on_page,) = differences([read_said(point.folder) for point in points], ["helpful"])
    assert [on_page["low"], on_page["high"]] == found["helpful"]["ci95"], "the page says the same"


def test_no_differences_without_scores_by_prompt(tmp_path):
    points = [with_scores(tmp_path, 0.1, 0.0), a_run(0.5)]
    assert only_series(points, exact=None, reference=None)["neighbours"] is None
    other = [with_scores(tmp_path, 0.2, 0.0), with_scores(tmp_path, 0.5, 0.0, num_prompts=41)]
    (row,) = only_series(other, exact=None, reference=None)["neighbours"]
    assert (row["differences"]["safe"]["groups"], row["differences"]["safe"]["left_out"]) == (41, 1)


def test_intervals_come_from_prompts_and_seeds(tmp_path):
    points = [with_scores(tmp_path, w, 0.5 * w, seed=seed) for w in (0.1, 0.5, 0.9) for seed in (0, 1)]
    found = only_series(points, exact=None, reference=(-9.0, -9.0))
    assert found["resampled"] == "42 prompts and 2 seeds"
    low, high = found["hypervolume"]["reference"]["ci95"]
    assert low < found["hypervolume"]["reference"]["points"] < high
    rho_low, rho_high = found["follows_weight"]["better"]["ci95"]
    assert -1 <= rho_low <= rho_high <= 1
    assert only_series(points[::2], exact=None, reference=(-9.0, -9.0))["resampled"] == "42 prompts"


def test_seeds_together_leave_the_prompts_open(tmp_path):
    """Three seeds that agree: the interval is of the prompts, which all of them answered, as in stats/crossed.py."""
    points = [with_scores(tmp_path, 0.5, 0.0, seed=seed) for seed in range(3)]
    ((setting,),) = points_by_series(points).values()
    found = setting.metrics["helpful"]
    values_1KP = np.array([[prompt_scores(point.folder, ("helpful",)).means_PM[:, 0] for point in points]])
    low, high = crossed_means(values_1KP).bounds()
    assert found.bounds == pytest.approx((low[0], high[0]))
    assert found.groups == 42
    alone = [point.metrics["helpful"].half_width for point in points]
    assert found.half_width > 0.8 * np.mean(alone), "control: a t-interval over seeds is a tenth of it"
    (low_t, high_t) = mean_interval(point.metrics["helpful"].mean for point in points).bounds
    assert (high_t - low_t) / 2 < 0.3 * np.mean(alone)
    for point in points:
        (point.folder / "scores.jsonl").unlink()
    ((setting,),) = points_by_series(points).values()
    combined = setting.metrics["helpful"].half_width
    assert combined >= max(np.mean(alone), (high_t - low_t) / 2), "never narrower than either part"


def test_references_of_several_seeds_are_one_setting():
    seeds = [replace(a_run(0.5, seed=seed), algorithm=REFERENCE, weights={}, w=None) for seed in range(3)]
    ((setting,),) = points_by_series(seeds).values()
    assert len(setting.runs) == 3
    others = [replace(one, algorithm="sft") for one in seeds]
    ((*apart,),) = points_by_series(others).values()
    assert len(apart) == 3, "of others nothing says that they are one"


def test_three_seeds_alone_give_an_interval_two_do_not():
    rng = np.random.default_rng(0)
    points = [a_run(w, seed=seed, noise=0.05, rng=rng) for w in (0.1, 0.5, 0.9) for seed in range(3)]
    found = only_series(points, exact=None, reference=(-1.0, -1.0))
    assert (found["resampled"], found["seeds"]) == ("3 seeds", [0, 1, 2])
    assert found["hypervolume"]["reference"]["ci95"] is not None
    two = only_series([point for point in points if point.seed < 2], exact=None, reference=(-1.0, -1.0))
    assert two["resampled"] is two["hypervolume"]["reference"]["ci95"] is None


def test_points_at_chance_are_named():
    def accuracies(low, high):
        mean = (low + high) / 2
        return {f"{name}_accuracy": Interval(mean, low, high, 24) for name in ("better", "safer")}

    axes = ("better_accuracy", "safer_accuracy")
    points = [
        replace(a_run(w), axes=axes, metrics=accuracies(*ends)) for w, ends in ((0.1, (0.3, 0.7)), (0.9, (0.6, 0.8)))
    ]
    found = only_series(points, exact=None, reference=None)
    assert [one["at_chance"] for one in found["settings"]] == [list(axes), []]
