"""Functions by name: alignlab's own, and those that installed packages bring; never a place in a configuration."""

import sys

import numpy as np
import pytest

from alignlab.config.names import PROGRAMS
from alignlab.config.programs import program_version, programs
from alignlab.rewards import programs as own
from alignlab.rewards.base import is_score
from alignlab.rewards.programs import ProgramReward
from support.programs import installed


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with functions, one of which takes the name of alignlab's own."""
    source = (
        "def polite(prompt, response):\n    return response.count('please') - len(prompt) / 100\n"
        "def broken(prompt, response):\n    return {'x': float('nan'), 'y': 1e308}.get(response, 1e6)\n"
        "import numpy\n"
        "def counted(prompt, response):\n    return getattr(numpy, response)(1)\n"
    )
    offered = {"polite": "polite", "broken": "broken", "counted": "counted", "brief": "polite"}
    with installed(tmp_path, monkeypatch, "fake_rewards", offered, source, version="1.5"):
        yield


def score(name, encoder, *rows, negate=False):
    return ProgramReward(name, encoder, negate=negate).score(*zip(*rows, strict=True)).tolist()


def test_the_table_names_what_there_is():
    assert all(callable(programs()[name].load()) for name in PROGRAMS)
    assert programs()["refusal"].load() is own.refusal


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("brief", "one two three four", "one two"),
        ("complete", "It ends in the mid", 'It ends as "it should."'),
        ("distinct", "a b c a b c a b c", "a b c d e f g h i"),
        ("refusal", "Sure, first turn the lantern on.", "I'm sorry, but I cannot help with that."),
    ],
)
def test_each_tells_more_from_less(base, name, low, high):
    worse, better = score(name, base.encoder, ("p", low), ("p", high))
    assert worse < better
    assert score(name, base.encoder, ("p", low), negate=True) == [-worse]


def test_values_that_can_be_worked_out(base):
    assert score("brief", base.encoder, ("p", "one two three")) == pytest.approx([-0.03])
    assert score("distinct", base.encoder, ("p", "a b c a b c a"), ("p", "a b")) == pytest.approx([3 / 5, 1])
    assert score("complete", base.encoder, ("p", "done."), ("p", "done"), ("p", "")) == [1, 0, 0]


def test_a_package_adds_its_own_by_name(base, package):
    assert score("polite", base.encoder, ("p", "please please")) == pytest.approx([1.99])
    assert program_version("polite") == "fake-rewards==1.5"
    assert "fake-rewards==1.5" in ProgramReward("polite", base.encoder, negate=False).id


def test_a_package_cannot_take_the_name_of_ours(base, package):
    assert programs()["brief"].load() is own.brief
    assert program_version("brief") == "alignlab"


def test_listing_the_names_runs_nothing(package):
    assert "polite" in programs()
    assert "fake_rewards" not in sys.modules


def test_without_the_package_there_is_no_such_name():
    assert "polite" not in programs()


def test_a_value_that_is_no_number_names_its_row(base, package):
    with pytest.raises(ValueError, match=r"function=broken: row 1 scores nan"):
        score("broken", base.encoder, ("p", "a"), ("p", "x"))
    with pytest.raises(ValueError, match=r"function=broken: row 1 scores 1e\+308, must be .* at most 1e\+06"):
        score("broken", base.encoder, ("p", "a"), ("p", "y"))
    assert score("broken", base.encoder, ("p", "a")) == [1e6]


def test_numbers_of_numpy_are_numbers(base, package):
    """As np.mean returns them; truth values are none."""
    rows = [("p", kind) for kind in ("float16", "float32", "float64", "int8", "uint64")]
    assert score("counted", base.encoder, *rows, negate=True) == [-1] * 5
    with pytest.raises(ValueError, match=r"function=counted: row 1 scores np.True_, must be a finite number"):
        score("counted", base.encoder, ("p", "float32"), ("p", "bool_"))


HUGE = pytest.param(10**400, id="huge")


@pytest.mark.parametrize("value", [np.float16("inf"), np.float32("nan"), np.float32(2e6), HUGE, True, "1", None, 1j])
def test_what_is_no_score(value):
    assert not is_score(value)
    assert is_score(np.float32(-1e6)), "control"
