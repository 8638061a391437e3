"""What is said of a scorer that tells no two responses apart: of those alone that it scored."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from alignlab.errors import ConfigError
from alignlab.evaluation.scored import Said, score_said
from alignlab.runs.result import Outcome


class Scores:
    """A scorer with fixed scores, NaN where it has none."""

    id = "fixed"

    def __init__(self, *values):
        self.values = values

    def score(self, prompts, responses):
        return torch.tensor(self.values)

    def unscored(self):
        return {}

    def release(self):
        pass


def score(folder, *values):
    said = [Said(str(index), f"p{index}", "p", "r", [], "stop") for index in range(len(values))]
    run = SimpleNamespace(path=folder, stage=lambda name: contextlib.nullcontext())
    score_said(said, run, Outcome(), [("safer", Scores(*values))], shares={"safer"})


NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ((1.0, 1.0, 1.0), "warning: scorers.safer: gives all 3 responses the score 1"),
        ((1.0, NAN, 1.0), "warning: scorers.safer: gives all 2 scored responses the score 1"),
    ],
)
def test_one_score_for_all_is_said(tmp_path, capfd, values, line):
    score(tmp_path, *values)
    assert line in capfd.readouterr().out


def test_unscored_responses_have_no_score_in_common(tmp_path, capfd):
    """One response that is scored, whatever the number of others, is no sign of anything."""
    score(tmp_path, NAN, 0.0, NAN)
    score(tmp_path, 0.0, NAN, 1.0)
    assert "warning" not in capfd.readouterr().out
    with pytest.raises(ConfigError, match=r"scorers\.safer: gave no score to any of 2 responses"):
        score(tmp_path, NAN, NAN)
