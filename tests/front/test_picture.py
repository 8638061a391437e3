"""The picture: it says what its axes are, shows each point with its w, and hides none of them behind a label."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

from alignlab.front.collect import FrontPoint
from alignlab.front.figures import save_figure
from alignlab.front.metrics import ExactCurve
from alignlab.front.picture import front_figure, front_subject
from alignlab.stats import Interval

AXES = ("helpful", "safe")
GRID = np.linspace(0, 1, 21)
EXACT = ExactCurve(
    AXES, np.column_stack([GRID, 1 - GRID]), np.column_stack([3 * GRID - 1, 2 - 3 * GRID]), 2 * (GRID - 0.5) ** 2
)


def a_point(w=0.5, seed=0, algorithm="modpo", offset=0.0, kl=True, half=0.1):
    values = {"helpful": 3 * w - 1.2 + offset, "safe": 1.8 - 3 * w + offset, "kl": 0.1 + 2 * (w - 0.5) ** 2}
    metrics = {
        name: Interval(mean, None if half is None else mean - half, None if half is None else mean + half, 300)
        for name, mean in values.items()
        if kl or name != "kl"
    }
    weights = {"better": w, "safer": 1 - w}
    return FrontPoint(Path(f"{algorithm}-{w}-{seed}"), algorithm, w, weights, seed, AXES, metrics)


SWEEP = [a_point(w) for w in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)]


def lines(panel, *, marker=None, style=None):
    found = [line for line in panel.get_lines() if len(line.get_xdata())]
    return [
        line
        for line in found
        if (marker is None or line.get_marker() == marker) and (style is None or line.get_linestyle() == style)
    ]


def label_boxes(panel, renderer):
    return [Text.get_window_extent(note, renderer) for note in panel.texts]  # of the text, without a pointing line


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_figure_says_what_it_shows():
    figure = front_figure(SWEEP, exact=EXACT, reference=(0.0, 0.4), title="toy, $beta = 1")
    front, kl = figure.axes
    assert front.get_xlabel() == "helpful: mean gold reward (higher is better)"
    assert front.get_ylabel() == "safe: mean gold reward (higher is better)"
    assert "KL" in kl.get_ylabel()
    assert "nats" in kl.get_ylabel()
    assert kl.get_xlabel() == "w: weight of 'better'"
    assert sorted(text.get_text() for text in front.texts) == ["0", "0.1", "0.3", "0.5", "0.7", "0.9", "1", "reference"]
    assert legend_texts(figure) == ["modpo", "exact front (hollow: same w)"]
    assert "95 %" in figure.legends[0].get_title().get_text()
    assert figure.get_suptitle() == r"toy, \$beta = 1"


def test_the_points_are_where_their_metrics_are_and_joined_in_the_order_of_w():
    front, kl = front_figure(SWEEP[::-1]).axes
    joined = max(lines(front, style="-"), key=lambda line: len(line.get_xdata()))
    assert joined.get_xdata() == pytest.approx([point.metrics["helpful"].mean for point in SWEEP])
    assert joined.get_ydata() == pytest.approx([point.metrics["safe"].mean for point in SWEEP])
    joined = max(lines(kl, style="-"), key=lambda line: len(line.get_xdata()))
    assert joined.get_xdata() == pytest.approx([point.w for point in SWEEP])


def test_the_bars_are_the_intervals():
    front, kl = front_figure([a_point(0.5, half=0.25)]).axes
    bars = [(line.get_xdata(), line.get_ydata()) for line in lines(front, style="-")]
    assert len(bars) == 2
    assert [np.ptp(bar[0]) for bar in bars] == pytest.approx([0, 0.5])
    assert [np.ptp(bar[1]) for bar in bars] == pytest.approx([0.5, 0])
    assert len(lines(kl, style="-")) == 1


def test_an_unknown_interval_is_no_bar():
    figure = front_figure([a_point(0.5, half=None)])
    assert [len(lines(panel, style="-")) for panel in figure.axes] == [0, 0]
    assert "95 %" not in figure.legends[0].get_title().get_text()


def test_the_exact_front_is_a_line_with_hollow_marks_at_the_trained_weights():
    front, _ = front_figure([a_point(0.1), a_point(0.9)], exact=EXACT).axes
    curve = max(lines(front, style="-"), key=lambda line: len(line.get_xdata()))
    assert curve.get_xdata() == pytest.approx(EXACT.means_KM[:, 0])
    (hollow,) = [line for line in lines(front, marker="o") if line.get_markerfacecolor() == "white"]
    assert hollow.get_xdata() == pytest.approx([3 * 0.1 - 1, 3 * 0.9 - 1])


def test_each_algorithm_has_its_own_marker_whatever_the_order():
    points = [a_point(0.2), a_point(0.2, algorithm="soup", offset=-0.3), a_point(1.0, algorithm="dpo")]
    points += [a_point(0.6, algorithm=f"new{index}", offset=0.2 * index) for index in range(3)]
    for order in (points, points[::-1]):
        handles = front_figure(order).legends[0].legend_handles
        look = {handle.get_label(): (handle.get_marker(), handle.get_color()) for handle in handles}
        assert look["modpo"] == ("o", "#0072B2")
        assert look["soup"] == ("^", "#009E73")
        assert len(set(look.values())) == 6


def test_seeds_are_small_points_round_their_mean():
    seeds = [a_point(0.5, seed, offset=offset) for seed, offset in enumerate((-0.1, 0.0, 0.1))]
    figure = front_figure(seeds)
    front = figure.axes[0]
    small, mean = sorted(lines(front, marker="o"), key=lambda line: line.get_markersize())
    assert len(small.get_xdata()) == 3
    assert mean.get_xdata() == pytest.approx([0.3])
    assert "one seed" in legend_texts(figure)
    widths = sorted(np.ptp(line.get_xdata()) for line in lines(front, style="-"))
    between, own = 4.302652729911275 * 0.1 / np.sqrt(3), seeds[0].metrics["helpful"].half_width
    assert widths[-1] == pytest.approx(2 * np.hypot(between, own)), (
        "t over seeds, and what the shared prompts leave open"
    )


def test_two_seeds_tell_no_interval():
    figure = front_figure([a_point(0.5, seed, offset=0.1 * seed) for seed in range(2)])
    assert lines(figure.axes[0], style="-") == []


def test_without_kl_there_is_no_kl_panel():
    assert len(front_figure([a_point(w, kl=False) for w in (0.1, 0.9)]).axes) == 1


def three_objectives():
    axes = ("helpful", "safe", "brief")
    points = []
    for weights in [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.5, 0.25, 0.25)]:
        metrics = {
            name: Interval(float(w), None, None, 9) for name, w in zip((*axes, "kl"), (*weights, 0.3), strict=True)
        }
        named = dict(zip("abc", map(float, weights), strict=True))
        points.append(FrontPoint(Path(str(weights)), "modpo", tuple(named.values()), named, 0, axes, metrics))
    return axes, points


def test_three_objectives_give_three_pairs_and_each_mean_against_its_own_weight():
    axes, points = three_objectives()
    weights = np.array([list(point.weights.values()) for point in points])
    exact = ExactCurve(axes, weights, weights + 0.5, np.zeros(4))
    figure = front_figure(points, exact=exact, reference=(0.3, 0.3, 0.3), measures={"brief": "tokens saved"})
    names = [(panel.get_xlabel().split(":")[0], panel.get_ylabel().split(":")[0]) for panel in figure.axes[:3]]
    assert names == list(itertools.combinations(axes, 2))
    assert figure.axes[1].get_ylabel() == "brief: tokens saved (higher is better)"
    assert "50 25 25" in [text.get_text() for text in figure.axes[0].texts]
    assert "hundredths" in figure.legends[0].get_title().get_text()
    assert [len(lines(panel, style="-")) for panel in figure.axes] == [0] * 6  # no order to join them in
    for index, panel in enumerate(figure.axes[3:]):
        assert panel.get_xlabel() == f"w: weight of '{'abc'[index]}'"
        assert panel.get_ylabel().startswith(f"{axes[index]}: ")
        hollow, filled = sorted(lines(panel, marker="o"), key=lambda line: line.get_markersize())
        assert filled.get_xdata() == pytest.approx(weights[:, index])
        assert filled.get_ydata() == pytest.approx(weights[:, index])
        assert hollow.get_ydata() == pytest.approx(weights[:, index] + 0.5)


def test_a_penalty_is_drawn_against_the_weight_that_moves():
    def penalised(w):
        return replace(a_point(0.5, offset=-w), weights={"better": 1.0, "brief": w}, w=(1.0, w))

    figure = front_figure([penalised(w) for w in (0.0, 0.1, 1.0)])
    assert figure.axes[1].get_xlabel() == "w: weight of 'brief'"
    joined = max(lines(figure.axes[1], style="-"), key=lambda line: len(line.get_xdata()))
    assert joined.get_xdata() == pytest.approx([0, 0.1, 1])
    assert "100 10" in [text.get_text() for text in figure.axes[0].texts]


def test_a_policy_without_weights_is_a_mark_without_a_number():
    sft = replace(a_point(0.5, algorithm="sft", offset=-0.5), w=None, weights={})
    front, _ = front_figure([*SWEEP, sft]).axes
    assert [line.get_xdata()[0] for line in lines(front, marker="D")] == pytest.approx([-0.2])
    assert len(front.texts) == len(SWEEP)


@pytest.mark.parametrize("soup", [[], [a_point(w, algorithm="soup", offset=-0.15) for w in (0.1, 0.3, 0.5, 0.7, 0.9)]])
def test_no_label_covers_a_mark_or_another_label(soup):
    points = [*SWEEP, *soup]
    figure = front_figure(points, exact=EXACT, reference=(0.0, 0.4))
    front = figure.axes[0]
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    boxes = label_boxes(front, renderer)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    marks = front.transData.transform([point.position for point in points])
    assert not any(box.contains(*mark) for box in boxes for mark in marks)
    legend = figure.legends[0].get_window_extent(renderer)
    assert not any(legend.overlaps(panel.get_window_extent(renderer)) for panel in figure.axes)


def test_labels_of_points_in_one_place_are_apart():
    points = [a_point(0.5, algorithm=name) for name in ("modpo", "soup", "dpo", "other")]
    figure = front_figure([*points, a_point(0.0), a_point(1.0)])
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    boxes = label_boxes(figure.axes[0], renderer)
    assert len(boxes) == 6
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_the_file_is_a_picture_of_at_least_900_pixels_and_nothing_else_is_left(tmp_path):
    path = save_figure(front_figure(SWEEP, exact=EXACT), tmp_path / "new" / "front.png")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(content[16:20], "big") >= 900
    assert [file.name for file in path.parent.iterdir()] == ["front.png"]


def test_it_is_drawn_for_papers_too(tmp_path):
    save_figure(front_figure(SWEEP, exact=EXACT), tmp_path / "front.png", also=(".svg", ".pdf"))
    starts = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF-"}
    assert {file.suffix: file.read_bytes()[: len(starts[file.suffix])] for file in tmp_path.iterdir()} == starts
    with pytest.raises(ValueError, match=r"front\.tiff: must end in"):
        save_figure(front_figure(SWEEP), tmp_path / "front.png", also=(".tiff",))


def test_the_same_figure_has_the_same_bytes(tmp_path, monkeypatch):
    """Matplotlib puts a time into a PDF, and a time and random names into an SVG."""
    drawn = []
    for seconds in ("1600000000", "1700000000"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", seconds)  # as if it were then
        save_figure(front_figure(SWEEP, exact=EXACT), tmp_path / "front.png", also=(".svg", ".pdf"))
        drawn.append({kind: (tmp_path / f"front.{kind}").read_bytes() for kind in ("png", "svg", "pdf")})
    assert [kind for kind in drawn[0] if drawn[0][kind] != drawn[1][kind]] == []


def test_a_failing_draw_leaves_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "front.png"
    path.write_bytes(b"old")

    def torn(self, file, **_):
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", torn)
    with pytest.raises(OSError, match="disk full"):
        save_figure(front_figure(SWEEP), path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("front.png", b"old")]


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        front_figure([])
    with pytest.raises(ValueError, match="axes"):
        front_figure([*SWEEP, replace(SWEEP[0], axes=("safe", "helpful"))])
    with pytest.raises(ValueError, match="exact"):
        front_figure(SWEEP, exact=replace(EXACT, axes=("safe", "helpful")))
    with pytest.raises(ValueError, match="reference"):
        front_figure(SWEEP, reference=(1.0,))
    with pytest.raises(ValueError, match=r"front\.bmp"):
        save_figure(front_figure(SWEEP), tmp_path / "front.bmp")


def accuracies(w, low, high):
    metrics = {f"{name}_accuracy": Interval((low + high) / 2, low, high, 24) for name in ("better", "safer")}
    return FrontPoint(Path(str(w)), "modpo", w, {"better": w, "safer": 1 - w}, 0, tuple(metrics), metrics)


def test_preference_accuracies_are_named_and_shown_beside_chance():
    figure = front_figure([accuracies(0.1, 0.3, 0.7), accuracies(0.5, 0.6, 0.8), accuracies(0.9, 0.62, 0.82)])
    (panel,) = figure.axes
    assert "share of pairs ranked right" in panel.get_xlabel()
    assert "reference (chance)" in [text.get_text() for text in panel.texts]
    (star,) = lines(panel, marker="*")
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (0.5, 0.5)
    pale = [line for line in lines(panel, marker="o") if line.get_markerfacecolor() == "#f4f4f4"]
    assert [list(line.get_xdata()) for line in pale] == [[0.5]]
    caption = figure.legends[0].get_title().get_text()
    assert "hollow: an accuracy that is not told from chance (.5)" in caption
    assert "KL" not in caption
    assert front_subject(("better_accuracy", "safer_accuracy")) == "preference accuracy on held-out pairs"


def test_nothing_is_said_of_chance_where_no_point_is_at_it():
    figure = front_figure([accuracies(0.5, 0.6, 0.8)])
    assert "hollow" not in figure.legends[0].get_title().get_text()
    assert "chance" not in str([text.get_text() for text in front_figure(SWEEP).axes[0].texts])
    assert front_subject(AXES) == "what safety costs in helpfulness"


def test_a_reward_that_is_not_shown_to_be_right_is_named_under_the_picture():
    doubted = [replace(point, unproven=("safer",)) for point in SWEEP]
    caption = front_figure(doubted).legends[0].get_title().get_text()
    assert "reward not shown to agree with its labels: safer" in caption
    assert "not shown" not in front_figure(SWEEP).legends[0].get_title().get_text()


def test_an_estimated_front_is_a_broken_line_of_its_own():
    figure = front_figure(SWEEP, preview=EXACT)
    assert "estimated front (algorithm=preview)" in legend_texts(figure)
    front, kl = figure.axes
    broken = [line for line in front.get_lines() if list(line.get_xdata()) == EXACT.means_KM[:, 0].tolist()]
    assert len(broken) == 1
    assert broken[0].is_dashed()
    assert any(list(line.get_ydata()) == EXACT.kl_K.tolist() for line in kl.get_lines())
    assert legend_texts(front_figure(SWEEP)) == ["modpo"], "control"


def test_a_front_without_policies_is_the_reference_alone():
    lone = replace(a_point(), algorithm="reference", weights={}, w=None)
    figure = front_figure([lone], title="toy")
    (panel,) = figure.axes
    assert [list(line.get_xdata()) for line in panel.get_lines()] == [[lone.position[0]]]
    assert legend_texts(figure) == []
    assert "weight of" not in " ".join(text.get_text() for text in figure.findobj(Text))
    assert "weight of" in " ".join(text.get_text() for text in front_figure(SWEEP).findobj(Text)), "control"
