"""Collecting runs: one bad folder costs one row, and runs that cannot be compared are not."""

import json

import pytest

from alignlab.front.collect import collect, find_runs

METRIC = {"mean": 1.0, "ci95": [0.5, 1.5], "n": 9}


def write_run(folder, w=0.5, seed=0, **changes):
    record = {
        "status": "done",
        "algorithm": "modpo",
        "w": w,
        "weights": {"better": w, "safer": 1 - w},
        "seed": seed,
        "axes": {"better": "helpful", "safer": "safe"},
        "metrics": {"helpful": METRIC, "safe": METRIC, "kl": {"mean": 0.2, "ci95": None, "n": 9}},
        "model": "tiny",
        "dataset": "toy",
        "inputs": {"model": "m1", "dataset": "d1", "margin": f"{w}"},
        "error": None,
    }
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({**record, **changes}))
    return folder


def test_points_hold_what_was_recorded(tmp_path):
    (point,) = collect([write_run(tmp_path / "a", w=0.25, seed=3)]).points
    assert (point.algorithm, point.w, point.seed, point.axes) == ("modpo", 0.25, 3, ("helpful", "safe"))
    assert dict(point.weights) == {"better": 0.25, "safer": 0.75}
    assert (point.first_weight, point.position, point.series) == (0.25, (1.0, 1.0), "modpo")
    assert (point.metrics["kl"].low, point.metrics["kl"].n) == (None, 9)


def test_sorted_by_weight_then_seed_whatever_the_order_of_the_folders(tmp_path):
    folders = [write_run(tmp_path / f"{w}-{seed}", w, seed) for w, seed in [(0.9, 0), (0.1, 1), (0.5, 0), (0.1, 0)]]
    expected = [(0.1, 0), (0.1, 1), (0.5, 0), (0.9, 0)]
    for order in (folders, folders[::-1]):
        assert [(point.w, point.seed) for point in collect(order).points] == expected


def test_a_folder_named_twice_counts_once(tmp_path):
    folder = write_run(tmp_path / "a")
    assert len(collect([folder, folder]).points) == 1


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ('{"status": "do', "unreadable"),
        ("", "unreadable"),
        ("[1]", "unreadable"),
        ("[" * 100_000, "unreadable"),
        ('{"status": "failed", "error": "OutOfMemory:\\n  no room"}', "failed"),
        ('{"status": "interrupted"}', "interrupted"),
        ('{"axes": {"better": "helpful"}}', "unreadable"),
        ('{"status": "done", "axes": {"better": "helpful"}, "metrics": {}}', "done"),
        ('{"status": "done", "axes": {"better": "helpful"}, "metrics": {"helpful": {"mean": null, "n": 0}}}', "done"),
        ('{"status": "done", "axes": {"better": "helpful"}, "metrics": {"helpful": {"mean": NaN, "n": 0}}}', "done"),
        ('{"status": "done", "axes": {"better": "helpful"}, "metrics": {"helpful": 3}}', "done"),
        ('{"status": "done", "axes": "helpful", "metrics": {"helpful": {"mean": 1}}}', "done"),
        ('{"status": "done", "axes": {"a": "h"}, "weights": {"a": 1, "b": 0}, "metrics": {"h": {"mean": 1}}}', "done"),
        ('{"status": "done", "axes": {"a": "h"}, "weights": [1], "metrics": {"h": {"mean": 1}}}', "done"),
        ('{"status": "done", "axes": {"a": "h"}, "w": "x", "metrics": {"h": {"mean": 1}}}', "done"),
    ],
)
def test_a_bad_run_is_a_failure_in_one_line_and_the_others_stand(tmp_path, text, status):
    good = write_run(tmp_path / "good")
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "result.json").write_text(text)
    found = collect([bad, good])
    assert [point.folder for point in found.points] == [good]
    (failure,) = found.failures
    assert (failure.folder, failure.status) == (bad, status)
    assert failure.error
    assert "\n" not in failure.error
    assert len(failure.error) <= 200


def test_missing_result_and_bytes_that_are_no_text_are_failures(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bytes").mkdir()
    (tmp_path / "bytes" / "result.json").write_bytes(b"\xff\xfe\x00")
    found = collect([tmp_path / "nowhere", tmp_path / "empty", tmp_path / "bytes"])
    assert [failure.status for failure in found.failures] == ["missing", "missing", "unreadable"]
    assert found.points == ()
    assert found.axes == ()


def test_a_failed_run_keeps_what_is_known_of_it(tmp_path):
    folder = write_run(tmp_path / "a", w=0.3, seed=2, status="failed", error="ValueError: no")
    (failure,) = collect([folder]).failures
    assert (failure.algorithm, failure.w, failure.seed, failure.error) == ("modpo", 0.3, 2, "ValueError: no")


def test_a_run_without_axes_is_neither_point_nor_failure(tmp_path):
    found = collect([write_run(tmp_path / "a", axes=None)])
    assert (found.points, found.failures, found.others) == ((), (), (tmp_path / "a",))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"model": "alpaca_7b"}, ["model", "tiny", "alpaca_7b"]),
        ({"dataset": "pku"}, ["dataset", "toy", "pku"]),
        (
            {"axes": {"better": "safe", "safer": "helpful"}},
            ["axes", "better=helpful/safer=safe", "better=safe/safer=helpful"],
        ),
        ({"inputs": {"model": "m2", "dataset": "d1"}}, ["inputs.model", "m1", "m2"]),
        ({"inputs": {"model": "m1", "dataset": "d2"}}, ["inputs.dataset", "d1", "d2"]),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_by_name(tmp_path, changes, names):
    folders = [write_run(tmp_path / f"{w}", w) for w in (0.1, 0.5)]
    odd = write_run(tmp_path / "odd", 0.9, **changes)
    with pytest.raises(ValueError) as caught:
        collect([odd, *folders])
    for name in (*names, str(odd)):
        assert name in str(caught.value)
    assert "(2 runs" in str(caught.value)


def test_other_inputs_may_differ_and_the_comparison_can_be_chosen(tmp_path):
    folders = [write_run(tmp_path / f"{w}", w) for w in (0.1, 0.5)]  # their margins differ
    assert len(collect(folders).points) == 2
    with pytest.raises(ValueError, match=r"inputs\.margin"):
        collect(folders, compared_inputs=["margin"])


def test_an_input_that_one_run_does_not_record_is_no_difference(tmp_path):
    folders = [write_run(tmp_path / "a", 0.1), write_run(tmp_path / "b", 0.5, inputs={})]
    assert len(collect(folders).points) == 2


def test_a_failed_run_of_another_model_stops_nothing(tmp_path):
    folders = [write_run(tmp_path / "a"), write_run(tmp_path / "b", model="alpaca_7b", status="failed", error="x")]
    assert len(collect(folders).points) == 1


def test_the_same_setting_and_seed_twice_is_refused_unless_a_variant_tells_them_apart(tmp_path):
    folders = [write_run(tmp_path / name) for name in "ab"]
    with pytest.raises(ValueError, match="twice"):
        collect(folders)
    write_run(tmp_path / "c", beta=0.1, recipe={"sft_weight": 1})
    other = write_run(tmp_path / "d", beta=0.5, loss_type="hinge", recipe={"sft_weight": 1})
    points = collect([tmp_path / "c", other]).points
    assert [point.series for point in points] == ["modpo, beta=0.1", "modpo, beta=0.5"], "one loss is no difference"


@pytest.mark.parametrize(
    ("changes", "series"),
    [
        ({"beta": 0.5}, "modpo, beta=0.5"),
        ({"loss_type": "hinge"}, "modpo, loss=hinge"),
        ({"recipe": {"sft_weight": 1.0}}, "modpo, sft_weight=1.0"),
    ],
)
def test_another_beta_loss_or_recipe_is_another_series(tmp_path, changes, series):
    own = {"beta": 0.1, "loss_type": "sigmoid", "recipe": {"sft_weight": 0.0}}
    folders = [write_run(tmp_path / "a", 0.1, **own), write_run(tmp_path / "b", 0.5, **{**own, **changes})]
    assert collect(folders).points[1].series == series
    same = collect([folders[0], write_run(tmp_path / "c", 0.5, **own)]).points
    assert {point.series for point in same} == {"modpo"}, "control"


def test_objectives_are_matched_by_name_whatever_their_order(tmp_path):
    metrics = {"helpful": {**METRIC, "mean": 1.0}, "safe": {**METRIC, "mean": 2.0}}
    first = write_run(tmp_path / "a", 0.1, metrics=metrics)
    turned = {"axes": {"safer": "safe", "better": "helpful"}, "weights": {"safer": 0.7, "better": 0.3}}
    other = write_run(tmp_path / "b", 0.3, metrics=metrics, **turned)
    points = collect([first, other]).points
    assert [point.axes for point in points] == [("helpful", "safe")] * 2
    assert [point.position for point in points] == [(1.0, 2.0)] * 2
    assert [point.first_weight for point in points] == [0.1, 0.3]


def test_an_earlier_list_of_axes_is_refused_in_one_line(tmp_path):
    (failure,) = collect([write_run(tmp_path / "a", axes=["helpful", "safe"])]).failures
    assert (
        failure.error
        == "axes is a list, as earlier versions wrote it, without objectives; run it again with force=true"
    )


def test_three_objectives(tmp_path):
    axes = ["helpful", "safe", "brief"]
    three = {
        "weights": {"better": 0.5, "safer": 0.3, "short": 0.2},
        "axes": dict(zip(("better", "safer", "short"), axes, strict=True)),
        "metrics": dict.fromkeys(axes, METRIC),
    }
    folder = write_run(tmp_path / "a", **three)
    (folder / "result.json").write_text(
        (folder / "result.json").read_text().replace('"w": 0.5', '"w": [0.5, 0.3, 0.2]')
    )
    (point,) = collect([folder]).points
    assert (point.w, point.first_weight, point.position) == ((0.5, 0.3, 0.2), 0.5, (1.0, 1.0, 1.0))


def test_find_runs_finds_each_result_below_the_root_in_order(tmp_path):
    folders = [write_run(tmp_path / "runs" / name) for name in ("b/x", "a/y/z", "c")]
    (tmp_path / "runs" / "empty").mkdir()
    assert find_runs(tmp_path / "runs") == sorted(folders)
    with pytest.raises(ValueError, match="folder"):
        find_runs(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("rewards", "unproven"),
    [
        ({"safer": {"train": {"sign": "right"}, "held_out": {"sign": "not shown"}}}, ("safer",)),
        ({"safer": {"train": {"sign": "not shown"}, "held_out": None}}, ("safer",)),
        ({"safer": {"train": {"sign": "not shown"}, "held_out": {"sign": "right"}}}, ()),
        ({"brief": {"train": None, "held_out": None}}, ()),
    ],
)
def test_rewards_that_are_not_shown_to_be_right_are_kept_in_mind(tmp_path, rewards, unproven):
    (point,) = collect([write_run(tmp_path / "a", rewards=rewards)]).points
    assert point.unproven == unproven
