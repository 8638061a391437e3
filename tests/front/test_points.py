"""A run whose policy was scored stands on a front by what it says, not by how it ranks pairs."""

import dataclasses
import json
import os
import shlex

import pytest
from hydra import compose

from alignlab.cli import main
from alignlab.config.hydra.compose import composing, register, run_config
from alignlab.front.points import evaluations_of, has_accuracies, has_scores, scored_beside, scored_instead
from alignlab.io.atomic import write_json
from alignlab.io.hashes import sealed

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


def a_root(root, kinds):
    """ROOT/ALGORITHM/tiny/toy/RUN: two trained policies, their evaluations by each kind of scorers, best-of-n by one.

    Args:
        root: of the runs.
        kinds: of scorers -> the policies that they scored.
    """
    named = [
        write(root / "modpo/tiny/toy" / name, 50, axes=ACCURACIES, algorithm="modpo", artifacts={"adapter": "adapter"})
        for name in ("a", "b")
    ]
    found = {}
    for age, (scorers, policies) in enumerate(kinds.items()):
        inputs = {"scorers": scorers, "decoding": "d", "prompts": "p"}
        for name in policies:
            own = {
                "axes": REWARDS,
                "inputs": inputs,
                "policy": {"adapter": f"../../../../modpo/tiny/toy/{name}/adapter"},
            }
            found[scorers, name] = write(root / "evaluate/tiny/toy" / f"{scorers}-{name}", 9 - age, **own)
    inputs = {"scorers": "one", "decoding": "d", "prompts": "p"}
    best = write(root / "best_of_n/tiny/toy/a", 5, axes=REWARDS, inputs=inputs, algorithm="best_of_n")
    return named, best, found


def test_named_runs_take_their_evaluations_where_others_have_scores(tmp_path):
    named, best, found = a_root(tmp_path, {"one": "ab", "two": "ab"})
    assert scored_beside([*named, best]) == [found["one", "a"], found["one", "b"], best], "by the same scorers"
    assert scored_beside(named) == named, "nothing beside them has scores"
    assert evaluations_of(tmp_path / "elsewhere") is None


def test_a_named_run_without_such_an_evaluation_is_refused_with_the_command_for_it(tmp_path, capsys):
    named, best, found = a_root(tmp_path, {"one": "a", "two": "ab"})
    assert scored_beside([*named, best]) == [found["one", "a"], named[1], best]
    assert list(map(has_scores, [*named, best])) == [False, False, True]
    register()
    with composing():
        typed = [f"paths.runs={tmp_path}", "w=0.3", "scorers=beaver"]
        for folder, algorithm in ((named[1], "modpo"), (best, "best_of_n")):
            config = run_config(compose("config", overrides=[*typed, f"algorithm={algorithm}"]))
            write_json(folder / "config.json", sealed(dataclasses.asdict(config)))
        write_json(found["one", "a"] / "config.json", sealed(dataclasses.asdict(config)))
    asked = f"algorithm.runs=[{tmp_path}/modpo,{tmp_path}/best_of_n]"
    assert main(["algorithm=front", asked, f"paths.runs={tmp_path}/other"]) == 2
    said = capsys.readouterr()
    assert f"not scored: {named[1]}; this scores its policy: python -m alignlab algorithm=evaluate" in said.out
    (command,) = [line.partition("policy: ")[2] for line in said.out.splitlines() if "not scored" in line]
    words = shlex.split(command)[3:]
    assert {f"algorithm.adapter={named[1]}/adapter", f"paths.runs={tmp_path}", "scorers=beaver"} <= set(words), words
    assert f"{named[1]} has accuracies alone" in said.err
    assert "by its command" in said.err
