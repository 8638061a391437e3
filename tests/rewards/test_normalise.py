"""Rewards normalised by the training rows' within-prompt differences, which are written down and not recomputed."""

import json

import pytest
import torch

from alignlab.errors import ConfigError
from alignlab.models.prompts import Encoded
from alignlab.rewards.joined import JoinedReward
from alignlab.rewards.length import LengthReward
from alignlab.rewards.normalise import (
    STATISTICS,
    Normalised,
    Statistics,
    read_statistics,
    statistics_of,
    without_unit,
    write_statistics,
)


class First:
    """Scores a response by its first token."""

    id = "first token"

    def score_encoded(self, rows):
        return torch.tensor([float(row.response_ids[0]) for row in rows])

    def score(self, prompts, responses):
        return torch.tensor([float(text) for text in responses])


def rows(*values):
    return [Encoded([0], [value]) for value in values]


def pairs_of_prompts(*pairs):
    """Two responses a prompt."""
    return [Encoded([prompt], [value]) for prompt, pair in enumerate(pairs) for value in pair]


def test_within_prompt_differences_get_deviation_1():
    train = pairs_of_prompts((3, 5), (7, 20), (100, 101))
    statistics = statistics_of("algorithm.rewards.safer", First(), train)
    z = Normalised(First(), statistics).score_encoded(train)
    differences = z[1::2] - z[::2]
    assert z.dtype == torch.float32
    assert float(z.mean()) == pytest.approx(0, abs=1e-6)
    assert float(differences.square().mean().sqrt()) == pytest.approx(1, abs=1e-6)
    assert (statistics.n, statistics.prompts) == (6, 3)


def test_what_differs_from_prompt_to_prompt_changes_no_scale():
    """It cancels in every pair. The spread over all responses, as it was, would make this reward a third as strong."""
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randn(500, 2, generator=generator, dtype=torch.float64)
    offsets = 3 * torch.randn(500, 1, generator=generator, dtype=torch.float64)
    stds, spreads = [], []
    for values in (pairs, pairs + offsets):
        whole = (1000 * values).round().int()
        train = pairs_of_prompts(*whole.tolist())
        stds.append(statistics_of("key", First(), train).difference_std)
        spreads.append(float(whole.double().std()))
    assert stds[1] == pytest.approx(stds[0], rel=0.001)
    assert spreads[1] > 2.5 * spreads[0], "control"


def test_several_responses_count_as_their_pairs():
    """The root mean square over all pairs of 0, 4, 8: (16 + 16 + 64) / 3."""
    train = [Encoded([0], [value]) for value in (0, 4, 8)]
    assert statistics_of("key", First(), train).difference_std == pytest.approx((96 / 3) ** 0.5)


def test_statistics_of_the_earlier_form_are_worked_out_anew(tmp_path):
    earlier = {"id": "first token", "mean": 1.0, "std": 2.0, "n": 4}
    (tmp_path / STATISTICS).write_text(json.dumps({"safer": earlier}))
    assert read_statistics(tmp_path) == {}


def test_other_rows_are_scaled_by_the_training_rows():
    reward = Normalised(First(), Statistics("first token", mean=10.0, difference_std=4.0, n=9, prompts=4))
    assert reward.score_encoded(rows(10, 14)).tolist() == [0, 1]
    assert reward.score(["p", "p"], ["10", "2"]).tolist() == [0, -2]
    assert "10.0" in reward.id, "another scale is another reward"


@pytest.mark.parametrize("unit", ["tokens", "words"])
def test_the_scale_of_a_length_is_its_unit(unit):
    one, other = (LengthReward(None, unit=unit, scale=scale) for scale in (1.0, 2e-7))
    assert one.id != other.id
    assert without_unit(one.id) == without_unit(other.id) == f"length:{unit}"


class Other(First):
    id = "another"


def test_units_alone_make_no_other_reward():
    """Whatever the numbers look like; of members all count, not the first one alone."""

    def scaled(reward, mean, std):
        return Normalised(reward, Statistics(reward.id, mean=mean, difference_std=std, n=4, prompts=2))

    def joined(*members):
        rewards = {one.reward.id: one.reward for one in members}
        statistics = {one.reward.id: one.statistics for one in members}
        return JoinedReward("better", "scorers.better", rewards, "min", statistics)

    one, same, other = scaled(First(), -1e-06, 1e20), scaled(First(), 0.5, 2.0), scaled(Other(), 0.5, 2.0)
    assert one.id != same.id
    assert without_unit(one.id) == without_unit(same.id) == "first token"
    both, again, alone = joined(one, other), joined(same, scaled(Other(), 12.0, 1.0)), joined(one)
    assert without_unit(both.id) == without_unit(again.id) == "joined:min:first token+another"
    assert without_unit(both.id) != without_unit(alone.id)
    assert without_unit(scaled(both, 1.0, 1.0).id) == without_unit(both.id)


def test_they_come_back_as_they_were_written(tmp_path):
    statistics = {"safer": Statistics("first token", mean=1 / 3, difference_std=2.5, n=4, prompts=2)}
    write_statistics(tmp_path, statistics)
    assert read_statistics(tmp_path) == statistics
    assert read_statistics(tmp_path / "elsewhere") == {}
    (tmp_path / STATISTICS).write_text(json.dumps({"safer": {"mean": 1}}))
    with pytest.raises(ConfigError, match="no statistics of rewards"):
        read_statistics(tmp_path)


@pytest.mark.parametrize("train", [rows(4, 4, 4), [Encoded([prompt], [prompt + 9]) for prompt in range(3)]])
def test_without_differences_within_a_prompt_it_cannot_be_normalised(train):
    with pytest.raises(ConfigError, match=r"algorithm\.rewards\.safer\.normalise=true: no prompt of"):
        statistics_of("algorithm.rewards.safer", First(), train)
