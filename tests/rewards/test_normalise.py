"""z-scores by the training rows' statistics, which are written down and not recomputed."""

import json

import pytest
import torch

from alignlab.errors import ConfigError
from alignlab.models.prompts import Encoded
from alignlab.rewards.normalise import (
    STATISTICS,
    Normalised,
    Statistics,
    read_statistics,
    statistics_of,
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


def test_training_rows_get_mean_0_and_deviation_1():
    train = rows(3, 5, 7, 20)
    reward = Normalised(First(), statistics_of("algorithm.rewards.safer", First(), train))
    z = reward.score_encoded(train)
    assert z.dtype == torch.float32
    assert float(z.mean()) == pytest.approx(0, abs=1e-6)
    assert float(z.std()) == pytest.approx(1, abs=1e-6)


def test_other_rows_are_scaled_by_the_training_rows():
    reward = Normalised(First(), Statistics("first token", mean=10.0, std=4.0, n=9))
    assert reward.score_encoded(rows(10, 14)).tolist() == [0, 1]
    assert reward.score(["p", "p"], ["10", "2"]).tolist() == [0, -2]
    assert "10.0" in reward.id, "another scale is another reward"


def test_they_come_back_as_they_were_written(tmp_path):
    statistics = {"safer": Statistics("first token", mean=1 / 3, std=2.5, n=4)}
    write_statistics(tmp_path, statistics)
    assert read_statistics(tmp_path) == statistics
    assert read_statistics(tmp_path / "elsewhere") == {}
    (tmp_path / STATISTICS).write_text(json.dumps({"safer": {"mean": 1}}))
    with pytest.raises(ConfigError, match="no statistics of rewards"):
        read_statistics(tmp_path)


def test_a_constant_cannot_be_normalised():
    with pytest.raises(ConfigError, match=r"algorithm\.rewards\.safer\.normalise=true: all 3 training responses"):
        statistics_of("algorithm.rewards.safer", First(), rows(4, 4, 4))
