"""The table and the CSV: every run is a row, failed ones too, and an unknown number is never a number."""

import csv
import dataclasses
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from alignlab.front.collect import Collection, FailedRun, FrontPoint
from alignlab.front.metrics import ExactCurve
from alignlab.front.points import run_folders
from alignlab.front.table import differences_table, front_table, write_csv
from alignlab.io.atomic import replacing
from alignlab.stats import Interval

AXES = ("helpful", "safe")


def a_point(folder, w=0.5, seed=0, **metrics):
    known = {"helpful": Interval(1.25, 1.0, 1.5, 300), "safe": Interval(-0.5, None, None, 1, 2), **metrics}
    weights = {"better": w, "safer": 1 - w}
    return FrontPoint(folder, "modpo", w, weights, seed, AXES, known, model="tiny", dataset="toy")


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def cells(table):
    return {str(column.header): [str(cell) for cell in column.cells] for column in table.columns}


def rendered(table):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_csv_has_a_row_a_run_with_every_number_in_full(tmp_path):
    third = 1 / 3
    point = a_point(tmp_path / "runs" / "a", w=0.3, kl=Interval(third, 0.3, 0.36, 300))
    (row,) = rows(write_csv(Collection((point,)), tmp_path / "out" / "front.csv"))
    assert row["folder"] == "../runs/a"
    assert (row["status"], row["algorithm"], row["w"], row["seed"]) == ("done", "modpo", "0.3", "0")
    assert (row["weight_better"], row["weight_safer"]) == ("0.3", "0.7")
    assert (float(row["kl_mean"]), row["kl_n"]) == (third, "300")
    assert [row[f"helpful_{key}"] for key in ("mean", "low", "high", "n", "missing")] == [
        "1.25",
        "1.0",
        "1.5",
        "300",
        "0",
    ]


def test_an_unknown_interval_is_an_empty_cell(tmp_path):
    (row,) = rows(write_csv(Collection((a_point(tmp_path / "a"),)), tmp_path / "front.csv"))
    assert [row[f"safe_{key}"] for key in ("mean", "low", "high", "n", "missing")] == ["-0.5", "", "", "1", "2"]


def test_a_failed_run_is_a_row_with_its_error_and_no_metrics(tmp_path):
    failed = FailedRun(tmp_path / "b", "failed", "OutOfMemory: no room", "modpo", 0.7, 1)
    good, bad = rows(write_csv(Collection((a_point(tmp_path / "a"),), (failed,)), tmp_path / "front.csv"))
    assert (good["status"], bad["status"], bad["error"]) == ("done", "failed", "OutOfMemory: no room")
    assert (bad["folder"], bad["w"], bad["seed"]) == ("b", "0.7", "1")
    assert all(
        bad[name] == "" for name in bad if name.endswith(("_mean", "_low", "_high", "_n", "_groups", "_missing"))
    )


def test_columns_come_in_the_documented_order(tmp_path):
    metric = Interval(0.5, 0.4, 0.6, 9)
    point = a_point(tmp_path / "a", zeta=metric, well_formed=metric, alpha=metric, kl=metric)
    header = write_csv(Collection((point,)), tmp_path / "front.csv").read_text().splitlines()[0].split(",")
    assert header[:9] == ["folder", "status", "error", "algorithm", "variant", "model", "dataset", "w", "seed"]
    assert header[9:11] == ["weight_better", "weight_safer"]
    metrics = [name.removesuffix("_mean") for name in header if name.endswith("_mean")]
    assert metrics == ["helpful", "safe", "kl", "well_formed", "alpha", "zeta"]
    assert header[11:17] == [f"helpful_{column}" for column in ("mean", "low", "high", "n", "groups", "missing")]


@pytest.mark.parametrize(
    "error",
    [
        "=1+1", "+cmd", "-x", "@SUM(A1)", '=HYPERLINK("http://x")', " =1+1", "\u00a0=1", "\u3000-x",
        "\uff1d1", "\uff0b1+1", "\uff0dx",
        "\uff20a", "\ufe621", "-1+1", "- 1", "+nan", "=" ,
    ],
)  # fmt: skip
def test_a_cell_that_a_spreadsheet_would_run_becomes_text(tmp_path, error):
    (row,) = rows(write_csv(Collection((), (FailedRun(tmp_path / "b", "failed", error),)), tmp_path / "front.csv"))
    assert row["error"] == "'" + error


@pytest.mark.parametrize("error", ["-1.5", "+2e-5", "-.5", 'ValueError: a, "b"', "a=b"])
def test_numbers_and_plain_text_stay_as_they_are(tmp_path, error):
    (row,) = rows(write_csv(Collection((), (FailedRun(tmp_path / "b", "failed", error),)), tmp_path / "front.csv"))
    assert row["error"] == error


@pytest.mark.parametrize("start", ["", " ", "\t", "\n", "\r", "\u200b"])
@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@a", "\uff1d1"])
def test_a_folder_whose_name_is_a_formula_is_read_back(tmp_path, start, name):
    folder = tmp_path / f"{start}{name}"
    path = write_csv(Collection((), (FailedRun(folder, "failed", "x"),)), tmp_path / "front.csv")
    (row,) = rows(path)
    assert row["folder"] == f"./{start}{name}"
    assert run_folders([tmp_path]) == [folder]


def test_text_that_control_characters_begin_is_no_formula(tmp_path):
    for start in "\x00\t\n\r\u200b":
        failure = FailedRun(tmp_path / "b", "failed", f"{start}=1+1")
        (row,) = rows(write_csv(Collection((), (failure,)), tmp_path / "front.csv"))
        assert row["error"].startswith(("\\", "'")), "seen as its code"


def test_three_weights_are_a_list(tmp_path):
    (row,) = rows(
        write_csv(Collection((), (FailedRun(tmp_path / "b", "failed", "x", w=(0.5, 0.3, 0.2)),)), tmp_path / "a.csv")
    )
    assert row["w"] == "[0.5, 0.3, 0.2]"


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "front.csv"
    path.write_text("old")

    def interrupted():
        with replacing(path) as unfinished:
            unfinished.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("front.csv", "old")]


def test_the_table_shows_mean_and_half_width():
    found = cells(front_table(Collection((a_point(Path("a"), w=0.3, kl=Interval(0.2, 0.15, 0.25, 9)),))))
    assert found["w"] == ["0.3"]
    assert found["helpful"] == ["1.25 ±0.25"]
    assert found["safe"] == ["-0.5 ± ? (2 unscored)"]
    assert found["KL to\nreference"] == ["0.20 ±0.05"]
    assert found["status"] == ["done"]
    assert "well-\nformed" not in found
    assert "run" not in found
    assert "seed" not in found


def test_a_failed_run_is_shown_even_if_its_error_looks_like_markup():
    failed = FailedRun(Path("b"), "failed", "KeyError: [/red] [bold]", "modpo", 0.7)
    text = rendered(front_table(Collection((a_point(Path("a")),), (failed,))))
    assert "failed: KeyError: [/red] [bold]" in text
    assert "0.7" in text


def test_the_exact_front_stands_beside_each_axis():
    exact = ExactCurve(AXES, np.array([[0.5, 0.5]]), np.array([[1.75, 0.25]]), np.array([0.125]))
    points = (a_point(Path("a"), 0.5, kl=Interval(0.1, None, None, 9)), a_point(Path("b"), 0.9))
    found = cells(front_table(Collection(points), exact))
    assert found["helpful"] == ["1.25 ±0.25 (1.75)", "1.25 ±0.25"]
    assert found["safe"] == ["-0.5 ± ? (2 unscored) (0.25)", "-0.5 ± ? (2 unscored)"]
    assert found["KL to\nreference"] == ["0.1 ± ? (0.12)", "-"]


def test_runs_and_seeds_are_told_apart_where_they_differ():
    points = (a_point(Path("a"), 0.5), dataclasses.replace(a_point(Path("b"), 0.5), algorithm="soup", seed=1))
    found = cells(front_table(Collection(points)))
    assert found["run"] == ["modpo", "soup"]
    assert found["seed"] == ["0", "1"]


def test_what_is_unscored_is_explained_where_it_is_shown():
    text = " ".join(rendered(front_table(Collection((a_point(Path("a")),)))).split())
    assert "unscored: responses without a score, in no mean" in text
    whole = a_point(Path("a"), safe=Interval(-0.5, None, None, 3))
    assert "unscored" not in rendered(front_table(Collection((whole,))))


def test_over_seeds_the_unscored_are_added_up():
    text = rendered(front_table(Collection((a_point(Path("a")), a_point(Path("b"), seed=1)))))
    assert "(4 unscored)" in text


def test_nothing_but_failures_is_still_a_table():
    text = rendered(front_table(Collection((), (FailedRun(Path("runs/b"), "missing", "no result.json"),))))
    assert "missing: no result.json" in text


def accuracy_point(w, low, high):
    metrics = {f"{name}_accuracy": Interval((low + high) / 2, low, high, 24, groups=24) for name in ("better", "safer")}
    return FrontPoint(Path(str(w)), "modpo", w, {"better": w, "safer": 1 - w}, 0, tuple(metrics), metrics)


def test_accuracies_at_chance_are_marked_and_nothing_is_said_of_kl():
    text = rendered(front_table(Collection((accuracy_point(0.1, 0.3, 0.7), accuracy_point(0.9, 0.6, 0.8)))))
    assert "0.50 ±0.20 ~.5" in text
    assert "0.70 ±0.10 ~.5" not in text
    assert "not told from chance" in text
    assert "KL" not in text
    sure = rendered(front_table(Collection((accuracy_point(0.9, 0.6, 0.8),))))
    assert "chance" not in sure


def test_seeds_of_one_setting_have_a_row_of_their_mean():
    points = tuple(replace(a_point(Path(str(seed))), seed=seed) for seed in range(3))
    assert cells(front_table(Collection(points)))["status"] == ["done"] * 3 + ["mean of 3 seeds"]
    assert cells(front_table(Collection(points[:1])))["status"] == ["done"]


def test_differences_are_said_to_be_told_apart_or_not():
    record = {"mean": 0.3, "ci95": [0.2, 0.4], "n": 84, "groups": 42, "p_holm": 0.002, "told_apart": True}
    near = {**record, "mean": 0.01, "ci95": [-0.09, 0.11], "p_holm": 0.8, "told_apart": False}
    row = {"from": "0.1", "to": "0.5", "differences": {"helpful": record, "safe": near}}
    summary = {"axes": {"better": "helpful", "safer": "safe"}, "series": {"modpo": {"neighbours": [row]}}}
    text = rendered(differences_table(summary))
    assert "+0.30 ±0.10 (p 0.002)" in text
    assert "+0.01 ±0.10 (not told apart)" in text
    assert differences_table({**summary, "series": {"modpo": {"neighbours": None}}}) is None


def test_a_reward_that_is_not_shown_to_be_right_is_named():
    doubted = replace(a_point(Path("a")), unproven=("safer",))
    assert "reward not shown to agree with its labels: safer" in " ".join(
        rendered(front_table(Collection((doubted,)))).split()
    )
    assert "not shown" not in rendered(front_table(Collection((a_point(Path("a")),))))
