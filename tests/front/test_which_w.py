"""Which w reaches a target: where a line crosses it by hand, over real files, and whose test its interval inverts."""

import json

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from alignlab.errors import ConfigError
from alignlab.front.collect import collect
from alignlab.front.prompts import Scores
from alignlab.front.report import write_front
from alignlab.front.targets import sentences, target_summary, target_table
from alignlab.front.which_w import Line, joint_chance, which_w
from support.fronts import write_front as write_runs
from support.fronts import write_run

AXES = ("helpful", "safe")
WS = np.array([0.1, 0.5, 0.9])


def a_line(means_SM, w_S=WS, scores=None):
    return Line(np.asarray(w_S), np.asarray(means_SM, dtype=float), scores)


def scored(values_SKPM, w_S=WS, share_of=(None, None)):
    return a_line(values_SKPM.mean(axis=(1, 2)), w_S, Scores(values_SKPM, share_of, "prompts"))


def test_the_crossing_lies_where_the_straight_line_says():
    line = a_line([(0, 2), (4, 1), (6, -1)])
    found = which_w(line, AXES, {"safe": 0.0})
    assert found["targets"]["safe"]["w"] == [pytest.approx(0.7)]
    assert found["met"] == [[0.1, pytest.approx(0.7)]]
    assert found["w"] == pytest.approx(0.7), "the w that meets it with the best mean of the other"
    assert found["at_w"]["helpful"]["mean"] == pytest.approx(5.0)
    assert (found["targets"]["safe"]["ci95"], found["chance"]) == (None, None)


def test_none_every_and_several_w():
    line = a_line([(0, 0), (1, 2), (2, 0.5)])
    nowhere = which_w(line, AXES, {"safe": 3.0})
    assert (nowhere["w"], nowhere["met"], nowhere["targets"]["safe"]["w"]) == (None, [], [])
    assert nowhere["targets"]["safe"]["best"] == {"w": 0.5, "mean": 2.0, "ci95": None}
    assert which_w(line, AXES, {"safe": -1.0})["met"] == [[0.1, 0.9]]
    two = which_w(line, AXES, {"safe": 1.0})
    assert two["targets"]["safe"]["w"] == [pytest.approx(0.3), pytest.approx(0.5 + 0.4 / 1.5)]
    assert two["met"] == [pytest.approx(two["targets"]["safe"]["w"])]
    touched = which_w(line, AXES, {"safe": 2.0})
    assert (touched["met"], touched["w"]) == ([[0.5, 0.5]], 0.5)


def test_targets_are_joined():
    line = a_line([(0, 2), (4, 1), (6, -1)])
    both = which_w(line, AXES, {"safe": 0.0, "helpful": 2.0})
    assert both["met"] == [[pytest.approx(0.3), pytest.approx(0.7)]]
    assert which_w(line, AXES, {"safe": 1.5, "helpful": 3.0})["w"] is None


def test_the_interval_is_a_t_tests_at_its_ends():
    rng = np.random.default_rng(0)
    values_SKPM = np.stack([rng.normal(size=(1, 30, 2)) + mean for mean in ((0, 2), (1, 0.6), (2, -1))])
    line = scored(values_SKPM)
    ((low, high),) = which_w(line, AXES, {"safe": 0.0})["targets"]["safe"]["ci95"]
    for w in (low, high):
        part = (w - 0.5) / 0.4
        mixed = (1 - part) * values_SKPM[1, 0, :, 1] + part * values_SKPM[2, 0, :, 1]
        assert ttest_1samp(mixed, 0.0).pvalue == pytest.approx(0.05, abs=2e-3)


def test_a_mean_beside_the_target_is_not_ruled_out():
    rng = np.random.default_rng(1)
    values_SKPM = rng.normal(size=(1, 1, 30, 2)) + np.zeros((3, 1, 1, 1))
    values_SKPM -= values_SKPM.mean(axis=2, keepdims=True)
    found = which_w(scored(values_SKPM), AXES, {"safe": 0.1})
    assert found["met"] == []
    assert found["targets"]["safe"]["ci95"] == [[0.1, 0.9]]


def test_the_interval_is_every_w_whose_mean_may_be_the_target():
    """So it covers the true w as often as the mean's interval there covers the target: tests/stats/test_coverage.py."""
    rng = np.random.default_rng(2)
    means = np.array([0.9, 0.3, 0.1])[:, None, None, None]
    scores = {None: means + rng.normal(size=(3, 3, 20, 1)), 20: (rng.random((3, 1, 20, 1)) < means).astype(float)}
    for share_of, values in scores.items():
        line = scored(values, share_of=(share_of,))
        found = which_w(line, ("safe",), {"safe": 0.2})["targets"]["safe"]["ci95"]
        low_L, high_L = line.estimate(0, line.grid_L).bounds()
        inside = [any(low <= w <= high for low, high in found) for w in line.grid_L]
        assert inside == ((low_L <= 0.2) & (high_L >= 0.2)).tolist()
        assert 0 < sum(inside) < len(inside)


def test_twenty_answers_of_twenty_do_not_show_a_share_of_nine_tenths():
    values = np.ones((3, 1, 20, 1))
    values[2, 0, :10] = 0.0
    found = which_w(scored(values, share_of=(20,)), ("safe",), {"safe": 0.9})
    assert found["targets"]["safe"]["surely_met"] == []
    assert 0.5 < found["chance"] < 0.97
    assert which_w(scored(values), ("safe",), {"safe": 0.9})["targets"]["safe"]["ci95"] is None, "control: no spread"


def test_a_joint_chance_follows_the_correlation():
    rng = np.random.default_rng(5)
    same = rng.normal(size=50)
    assert joint_chance([0.7, 0.7], np.array([same, same])) == pytest.approx(0.7, abs=0.02)
    assert joint_chance([0.7, 0.7], np.array([same, -same])) == pytest.approx(0.4, abs=0.02)
    assert joint_chance([0.7, 0.7], np.array([same, np.zeros(50)])) == pytest.approx(0.49, abs=0.02)


def test_a_front_of_files_says_it_everywhere(tmp_path, capsys, monkeypatch):
    """Scores of write_front: safe = 2 - w - p/7 over 6 prompts, so its mean is 2 - w - 2.5/7."""
    page = {}
    for name in ("front_figure", "save_figure"):  # take seconds
        monkeypatch.setattr(f"alignlab.front.report.{name}", lambda *_, **__: None)
    monkeypatch.setattr("alignlab.front.report.write_front_page", lambda *_, **given: page.update(given))
    runs = write_runs(tmp_path / "runs")
    target = 2 - 0.4 - 2.5 / 7
    names = {"dataset": "toy", "model": "tiny"}
    write_front(collect(runs), tmp_path, exact=None, reference=None, targets={"safer": target}, **names)
    found = json.loads((tmp_path / "front.json").read_text())["target"]["modpo"]
    assert (found["w_of"], found["over"]) == ("better", "6 prompts")
    assert found["targets"]["safer"]["w"] == [pytest.approx(0.4)]
    assert found["targets"]["safer"]["axis"] == "safe"
    ((low, high),) = found["targets"]["safer"]["ci95"]
    half = 0.2805  # of the t-interval over the deviations p/7 of 6 prompts; safe falls by 1 from w=0 to w=1
    assert (low, high) == pytest.approx((0.4 - half, 0.4 + half), abs=1e-3)
    assert found["chance"] == pytest.approx(0.5)
    said = capsys.readouterr().out
    assert "safer >= 1.24" in said
    assert "w=0.4 [0.12, 0.68]" in said.replace("\n", " ")
    assert "safer >= 1.24286 is reached at w=0.4 [0.12, 0.68]" in page["notes"][0]


def test_unknown_scores_are_left_out_and_said(tmp_path):
    runs = write_runs(tmp_path)
    lines = (runs[0] / "scores.jsonl").read_text().splitlines()
    for index in (0, 1):
        lines[index] = json.dumps({**json.loads(lines[index]), "safe": None})
    (runs[0] / "scores.jsonl").write_text("\n".join(lines) + "\n")
    found = target_summary(collect(runs).points, {"safer": 1.0})["modpo"]
    assert found["over"] is None, "the run's own mean is over other prompts"
    lines[1] = json.dumps({**json.loads(lines[1]), "safe": 1.9})
    (runs[0] / "scores.jsonl").write_text("\n".join(lines) + "\n")
    assert target_summary(collect(runs).points, {"safer": 1.0})["modpo"]["over"] == "6 prompts"


def test_no_w_is_said_plainly(tmp_path):
    points = collect(write_runs(tmp_path)).points
    (said,) = sentences(target_summary(points, {"safer": 9.0}))
    assert "no w from 0.1 to 0.9 gets to safer >= 9; the nearest is 1.54" in said
    (said,) = sentences(target_summary(points, {"safer": 1.4, "better": 2.0}))
    assert "no w meets all of them" in said
    with pytest.raises(ConfigError, match=r"target.safe=1: no such objective; did you mean safer\?"):
        target_summary(points, {"safe": 1.0})


def test_what_is_unknown_of_a_target_says_why(tmp_path):
    runs = write_runs(tmp_path)
    (runs[1] / "scores.jsonl").unlink()
    (said,) = sentences(target_summary(collect(runs).points, {"safer": 1.4}))
    assert "an unknown chance (not all of its runs have scores on the same two prompts or more)" in said
    assert "no interval: not all of its runs have scores" in said
    assert sentences(target_summary([], {"safer": 1.4})) == [
        "target: no policy of this front has weights, so that no w can be named"
    ]
    weights = [{"better": better, "safer": safer} for better, safer in ((0.3, 0.3), (0.5, 0.3), (0.5, 0.5))]
    samples = [(f"p{p}", "x", {"helpful": p / 9, "safe": 0.5}) for p in range(3)]
    same = [write_run(tmp_path / f"same{i}", w=0.5, samples=samples, weights=one) for i, one in enumerate(weights)]
    found = target_summary(collect(same).points, {"safer": 0.4})
    (said,) = sentences(found)
    assert "several of its policies have the same weight of better" in said
    assert "trained weights that meet the target: 30 30; 50 30; 0.5" in said
    assert [str(cell) for cell in target_table(found).columns[2].cells] == ["30 30; 50 30; 0.5"]


def test_three_objectives_have_no_order_of_w(tmp_path):
    axes = {"better": "helpful", "safer": "safe", "brief": "brief"}
    runs = []
    for index, weights in enumerate([(0.8, 0.1, 0.1), (0.1, 0.8, 0.1)]):
        samples = [(f"p{p}", "x", {"helpful": weights[0], "safe": weights[1] + p / 9, "brief": 0.0}) for p in range(3)]
        named = dict(zip(axes, weights, strict=True))
        folder = tmp_path / str(index)
        runs.append(write_run(folder, w=0.5, samples=samples, axes=axes, weights=named, algorithm=f"a{index}"))
    said = sentences(target_summary(collect(runs).points, {"safer": 0.5}))
    (said, other) = sorted(said)
    assert "no trained weights meet it" in said
    assert "trained weights that meet the target: 10 80 10" in other
