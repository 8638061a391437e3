"""What is length in a margin and in a gain: against a world in which it is known."""

import numpy as np
import pytest

from alignlab.evaluation.length import gain_at_equal_length, length_of_pairs
from alignlab.evaluation.measure import SCORES
from alignlab.evaluation.scored import against_reference
from alignlab.io.atomic import write_jsonl
from alignlab.runs.result import Outcome

PAID, GAIN = 0.5, 2.0
"""Score that a token is paid, and what the policy gains beside its longer responses."""


def rows(rng, num_prompts, samples, *, longer=0.0, better=0.0):
    """Scores that grow with length, at a level of each prompt's own."""
    found = []
    for prompt in range(num_prompts):
        tokens = rng.poisson(40 + longer, size=samples)
        scores = np.sin(prompt) * 5 + PAID * tokens + better + rng.normal(size=samples)
        found += [
            {"group": str(prompt), "tokens": int(length), "score": float(score)}
            for length, score in zip(tokens, scores, strict=True)
        ]
    return found


def test_the_gain_without_length_lies_in_its_interval_in_95_of_100_simulations():
    rng, hits, trials, plain = np.random.default_rng(0), 0, 300, []
    for _ in range(trials):
        reference, own = rows(rng, 24, 4), rows(rng, 24, 4, longer=10, better=GAIN)
        found = gain_at_equal_length("score", own, reference)
        hits += found.low <= GAIN <= found.high
        plain.append(np.mean([row["score"] for row in own]) - np.mean([row["score"] for row in reference]))
    assert 0.92 <= hits / trials <= 0.98
    assert np.mean(plain) == pytest.approx(GAIN + 10 * PAID, abs=0.3), "control: most of the plain gain is length"


@pytest.mark.parametrize("samples", [1, 3])
def test_without_a_slope_there_is_none(samples):
    """One response a prompt, or responses of one length."""
    same = [{"group": str(index // samples), "tokens": 7, "score": float(index)} for index in range(12)]
    assert gain_at_equal_length("score", same, same) is None


def test_an_unknown_score_is_no_zero():
    rng = np.random.default_rng(1)
    reference, own = rows(rng, 8, 3), rows(rng, 8, 3, better=GAIN)
    unknown = {"group": "0", "tokens": 900, "score": None}
    assert gain_at_equal_length("score", [*own, unknown], reference) == gain_at_equal_length("score", own, reference)


def test_margins_that_are_lengths_correlate_by_one():
    lengths = np.array([3.0, -1.0, 2.0, 0.0, 5.0, -2.0])
    found = length_of_pairs("better", 3 * lengths, lengths, list("aabbcc"))
    assert found["better_margin_length"]["mean"] == pytest.approx(1)
    assert found["better_longer_chosen"]["mean"] == pytest.approx((1 + 0 + 1 + 0.5 + 1 + 0) / 6)
    other = length_of_pairs("better", -lengths, lengths, list("aabbcc"))
    assert other["better_margin_length"]["mean"] == pytest.approx(-1)
    assert "better_margin_length" not in length_of_pairs("better", lengths, 0 * lengths, list("aabbcc"))


def test_a_run_says_its_gain_at_equal_length_beside_the_plain_one(tmp_path):
    rng, folders = np.random.default_rng(2), [tmp_path / name for name in ("own", "reference")]
    for folder, given in zip(folders, (rows(rng, 9, 3, longer=10, better=GAIN), rows(rng, 9, 3)), strict=True):
        folder.mkdir()
        named = [{**row, "id": str(index)} for index, row in enumerate(given)]
        write_jsonl(folder / SCORES, [{**row, "better_reward": row["score"], "judged_reward": 1.0} for row in named])
    outcome = Outcome()
    outcome.extra["scorers"] = {"better": {}, "judged": {}}
    against_reference(*folders, outcome, {"judged"})
    assert outcome.metrics["better_gain"]["mean"] > 5 > outcome.metrics["better_gain_at_equal_length"]["mean"]
    assert "judged_gain_at_equal_length" not in outcome.metrics, "a share has no slope"
