"""Every benchmark at its smallest: what it computes is the same on both sides, and its figures are all there."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = ["turn", "lift", "press", "fold", "the", "a", "widget", "gadget", "basket", "gently", "twice", "first", "then"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Harmless rows in PKU-SafeRLHF's columns."""
    rng = random.Random(0)
    text = lambda low, high: " ".join(rng.choices(WORDS, k=rng.randint(low, high)))  # noqa: E731
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    with path.open("w") as stream:
        for number in range(12):
            row = {"prompt": text(4, 8), "response_0": text(12, 24), "response_1": text(12, 24)}
            row |= {"is_response_0_safe": False, "is_response_1_safe": True}
            row |= {"better_response_id": number % 2, "safer_response_id": 1}
            stream.write(json.dumps(row) + "\n")
    return path


def figures(module, tmp_path, *arguments):
    out = tmp_path / "out.json"
    ended = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments), "--json", str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ALIGNLAB_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(out.read_text())


SMALL = ("--hidden", 32, "--layers", 1, "--vocabulary", 300, "--lora-rank", 4, "--repeat", 1)


@pytest.mark.slow
def test_training_is_the_same_on_both_sides(rows, tmp_path):
    found = figures("preference_training", tmp_path, "--rows", rows, "--shape", "ranked", "--requests", 4, *SMALL)
    assert {"shape", "requests", "ratio", "ratio_reference", "loss_difference", "tokens", "seconds", "memory"} <= set(
        found
    )
    assert found["loss_difference"] < 1e-4
    tokens = found["tokens"]
    assert tokens["distinct"] <= tokens["computed"] <= tokens["padded"]
    assert found["ratio"] > 0


@pytest.mark.slow
def test_the_sweep_computes_reference_and_margin_once(rows, tmp_path):
    found = figures(
        "sweep", tmp_path, "--rows", rows, "--requests", 6, "--w", "0.3,0.7", "--epochs", 1, "--batch", 3, *SMALL
    )
    assert max(found["loss_difference"].values()) < 1e-4
    # six pairs and a held-out one; the original evaluates that one after each of its two steps
    assert found["rows"]["alignlab"] == {"0.3": {"reference": 14, "margin": 14}, "0.7": {"reference": 0, "margin": 0}}
    assert found["rows"]["original"]["0.7"] == {"reference": 24 + 8, "margin": 12 + 4}


@pytest.mark.slow
def test_answers_are_drawn_alike_both_ways(tmp_path):
    found = figures("answers", tmp_path, "--limit", 12, "--samples", 8, "--new-tokens", 24, "--slices", 2)
    assert found["answers"] == 96
    assert found["p_lengths"] > 0.001
    assert found["p_first_tokens"] > 0.001
    assert found["ratio"] > 0


def test_answers_that_are_drawn_otherwise_are_seen():
    """Control of the comparison."""
    from benchmarks.answers import p_of_first_tokens, p_of_lengths

    rng = random.Random(0)
    short, long = ([[rng.randrange(5)] * (size + rng.randrange(5)) for _ in range(80)] for size in (3, 6))
    assert p_of_lengths(short, long) < 0.01 < p_of_lengths(short[:40], short[40:])
    assert p_of_first_tokens(short, [[answer[0] // 2] for answer in short]) < 0.01
