"""Any two points of a front: paired, corrected for all that was looked at; and who is dominated."""

import json

import numpy as np
import pytest
from scipy.stats import ttest_rel

from alignlab.front.collect import collect
from alignlab.front.comparisons import comparisons, sentences
from alignlab.front.prompts import prompt_scores
from alignlab.io.atomic import write_jsonl
from support.fronts import write_run


def a_run(root, name, means, *, seed=0, num_prompts=30, samples=2, spread=0.3):
    """A run of these means of helpful and safe, whose prompts differ by far more than the policies."""
    prompts = np.random.default_rng(7).normal(size=(num_prompts, 2)) * 3
    noise = spread * np.random.default_rng([*name.encode(), seed]).normal(size=(num_prompts, samples, 2))
    noise -= noise.mean(axis=(0, 1))
    values = np.asarray(means) + prompts[:, None] + noise
    said = [
        (f"p{p}", "x", dict(zip(("helpful", "safe"), values[p, s].tolist(), strict=True)))
        for p in range(num_prompts)
        for s in range(samples)
    ]
    return write_run(root / f"{name}-{seed}", w=0.5, samples=said, algorithm=name, seed=seed)


@pytest.fixture
def found(tmp_path):
    points = {"a": (0.0, 0.0), "b": (1.0, 1.0), "c": (0.02, -0.02), "d": (1.01, -1.0)}
    return comparisons(collect([a_run(tmp_path, name, means) for name, means in points.items()]).points)


def test_every_pair_is_compared_and_the_number_said(found):
    assert [(pair["from"][0], pair["to"][0]) for pair in found["pairs"]] == [
        ("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d"),
    ]  # fmt: skip
    assert found["comparisons"] == 12
    assert "told apart, by Holm over 12 comparisons" in sentences(found)[0]
    first, second = (found["pairs"][index]["differences"]["safe"] for index in (0, 1))
    assert first["mean"] == pytest.approx(1.0)
    assert (first["told_apart"], second["told_apart"]) == (True, False)
    every = [one for pair in found["pairs"] for one in pair["differences"].values()]
    least = min(every, key=lambda one: one["p"])
    assert least["p_holm"] == pytest.approx(min(1, 12 * least["p"])), "Holm over all of them"


def test_a_difference_is_scipys(tmp_path):
    runs = [a_run(tmp_path, name, means) for name, means in (("a", (0, 0)), ("b", (0.1, 0)))]
    points = collect(runs).points
    (pair,) = comparisons(points)["pairs"]
    before, after = (prompt_scores(point.folder, ("helpful", "safe")).means_PM[:, 0] for point in points)
    assert pair["differences"]["helpful"]["p"] == pytest.approx(ttest_rel(after, before).pvalue)


def test_scores_that_were_written_anew_are_read_anew(tmp_path):
    folder = a_run(tmp_path, "a", (0.0, 0.0))
    before = prompt_scores(folder, ("helpful",))
    assert prompt_scores(folder, ("helpful",)) is before, "read once"
    scores = folder / "scores.jsonl"
    scores.write_text("".join(f"{json.dumps(json.loads(line) | {'helpful': 7.0})}\n" for line in scores.open()))
    assert (prompt_scores(folder, ("helpful",)).means_PM == 7.0).all()
    scores.unlink()
    assert prompt_scores(folder, ("helpful",)) is None


def test_a_response_may_hold_the_line_ends_of_unicode(tmp_path):
    from alignlab.front.prompts import prompt_scores

    folder = a_run(tmp_path, "a", (0.0, 0.0))
    before = prompt_scores(folder, ("helpful",))
    file = folder / "generations.jsonl"
    rows = [json.loads(line) | {"response": "a\u2028b\u2029c\u0085d\x0b"} for line in file.open()]
    write_jsonl(file, rows)
    assert (prompt_scores(folder, ("helpful",)).means_PM == before.means_PM).all()


def test_a_dominated_point_is_named_with_its_chance(found):
    one = {record["point"][0]: record for record in found["dominated"]}
    assert set(one) == {"a", "c"}, "d is better than b on one axis"
    assert one["a"]["by"].startswith("b")
    assert (one["a"]["chance"], one["a"]["by_means"]) == (1.0, True)
    assert any("a w=0.5 is dominated with a chance of 100% by b" in line for line in sentences(found))


def test_a_dominance_that_may_be_noise_is_not_certain(tmp_path):
    runs = [a_run(tmp_path, name, means, spread=1.0) for name, means in (("a", (0, 0)), ("b", (0.02, 0.02)))]
    (one,) = comparisons(collect(runs).points)["dominated"]
    assert one["by_means"]
    assert 0.1 < one["chance"] < 0.6


def test_the_named_dominator_dominates(tmp_path):
    """Another point may be better in more draws, but less than half, than the one that is better by the means."""
    rng = np.random.default_rng(2)
    prompts = rng.normal(size=40)
    noise = rng.normal(size=40) * 40
    noise -= noise.mean()
    scores = {
        "point": (prompts, prompts),
        "almost": (prompts + 9, prompts - 0.001 + 0.01 * rng.normal(size=40)),
        "better": (prompts + 0.01 + noise, prompts + 0.01 - noise),
    }
    runs = []
    for name, (helpful, safe) in scores.items():
        rows = zip(helpful.tolist(), safe.tolist(), strict=True)
        said = [(f"p{p}", "x", dict(zip(("helpful", "safe"), row, strict=True))) for p, row in enumerate(rows)]
        runs.append(write_run(tmp_path / name, w=0.5, samples=said, algorithm=name))
    found = {one["point"]: one for one in comparisons(collect(runs).points)["dominated"]}
    one = found["point w=0.5"]
    assert (one["by"], one["by_means"]) == ("better w=0.5", True)
    assert one["chance"] < 0.5


def test_a_point_without_scores_by_prompt_dominates_by_its_means(tmp_path):
    runs = [a_run(tmp_path, name, means) for name, means in (("a", (0.0, 0.0)), ("b", (1.0, -0.01)), ("c", (2.0, 2.0)))]
    (runs[2] / "scores.jsonl").unlink()
    found = comparisons(collect(runs).points)
    assert found["not_compared"] == {"c w=0.5": "no scores by prompt"}
    assert "c w=0.5 is compared with no point: no scores by prompt" in sentences(found)
    dominated = found["dominated"]
    assert [(one["point"][0], one["by"][0], one["chance"]) for one in dominated] == [("a", "c", None), ("b", "c", None)]


def test_seeds_are_averaged_and_a_lone_point_is_compared_with_nothing(tmp_path):
    runs = [
        a_run(tmp_path, name, means, seed=seed) for name, means in (("a", (0, 0)), ("b", (1, 0))) for seed in (0, 1)
    ]
    found = comparisons(collect(runs).points)
    assert (len(found["settings"]), found["comparisons"]) == (2, 2)
    assert comparisons(collect(runs[:1]).points) is None
    assert sentences(None) == []
