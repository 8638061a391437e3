"""A run whose policy was scored stands on a front by what it says, not by how it ranks pairs."""

import json
import os

import pytest

from alignlab.front.points import has_accuracies, scored_instead

ACCURACIES = {"better": "better_accuracy", "safer": "safer_accuracy"}
REWARDS = {"better": "better_reward", "safer": "safer_reward"}


def write(folder, age, **record):
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"status": "done", **record}))
    os.utime(folder / "result.json", (1e9 - age, 1e9 - age))
    return folder


@pytest.fixture
def trained(tmp_path):
    """Two runs whose policies are measured by accuracies."""
    return [
        write(tmp_path / "modpo" / name, 50, axes=ACCURACIES, artifacts={"adapter": "adapter"}) for name in ("a", "b")
    ]


def evaluation(tmp_path, name, scorers, age, adapter=None, **other):
    policy = {} if adapter is None else {"adapter": f"../../{adapter}/adapter"}
    inputs = {"scorers": scorers, "decoding": "d", "prompts": "p"}
    own = {"axes": REWARDS, "inputs": inputs, "policy": policy, **other}
    return write(tmp_path / "evaluate" / name, age, **own)


def test_the_scoring_that_covers_most_policies_is_taken(tmp_path, trained):
    all_by_one = [evaluation(tmp_path, f"one-{run}", "one", 9, f"modpo/{run}") for run in ("a", "b")]
    reference = evaluation(tmp_path, "one", "one", 9)
    evaluation(tmp_path, "two-a", "two", 1, "modpo/a")
    evaluation(tmp_path, "torn", "one", 0, "modpo/a", status="interrupted")
    found = scored_instead(trained, tmp_path / "evaluate")
    assert found == [*all_by_one, reference]
    assert not any(map(has_accuracies, found))


def test_of_two_scorings_of_all_the_newer_is_taken(tmp_path, trained):
    for scorers, age in (("new", 1), ("old", 9)):
        for run in ("a", "b"):
            evaluation(tmp_path, f"{scorers}-{run}", scorers, age, f"modpo/{run}")
    assert scored_instead(trained, tmp_path / "evaluate") == [
        tmp_path / "evaluate" / f"new-{run}" for run in ("a", "b")
    ]


def test_a_policy_that_was_not_scored_keeps_its_own_folder(tmp_path, trained):
    scored = evaluation(tmp_path, "a", "one", 1, "modpo/a")
    found = scored_instead(trained, tmp_path / "evaluate")
    assert found == [scored, trained[1]]
    assert has_accuracies(trained[1])


def test_without_scored_evaluations_nothing_changes(tmp_path, trained):
    assert scored_instead(trained, tmp_path / "evaluate") == trained
    write(tmp_path / "evaluate" / "plain", 1, axes=ACCURACIES, inputs={}, policy={"adapter": "../../modpo/a/adapter"})
    assert scored_instead(trained, tmp_path / "evaluate") == trained


def test_runs_that_scored_their_own_samples_stay(tmp_path):
    own = write(tmp_path / "best_of_n" / "a", 5, axes=REWARDS, inputs={"scorers": "one"})
    assert scored_instead([own], tmp_path / "evaluate") == [own]
