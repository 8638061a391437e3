"""algorithm.kind=cost: a run, its report, and the cost model as a scorer."""

import json
import shutil

import pytest

from alignlab.cli import main
from alignlab.data.worlds import toy
from support.commands import alignlab, assert_refused, result, run_folder

COST = ("algorithm=reward_model", "algorithm.kind=cost")


@pytest.fixture(scope="module")
def trained(whole, tmp_path_factory):
    """A folder with a cost model, and what its run said."""
    folder = tmp_path_factory.mktemp("cost")
    shutil.copytree(whole / "cache", folder / "cache")
    ended = alignlab(*COST, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder, ended.stdout


def test_its_report_tells_pairs_and_signs(trained):
    folder, said = trained
    run = run_folder(folder, "reward_model")
    found, card = result(run), json.loads((run / "reward" / "alignlab.json").read_text())
    assert (card["kind"], card["objective"]) == ("cost", "safer")
    metrics = found["metrics"]
    for name in ("safer_accuracy", "sign_accuracy", "sign_accuracy_safe", "sign_accuracy_unsafe"):
        low, high = metrics[name]["ci95"]
        assert low < metrics[name]["mean"] < high or metrics[name]["mean"] in (0, 1)
        assert low < high
    parts = [metrics[f"sign_accuracy{part}"]["n"] for part in ("", "_safe", "_unsafe")]
    assert parts[0] == parts[1] + parts[2]
    assert min(parts) > 0
    assert (found["rows"]["unlabelled"], found["rows"]["contradicting"] > 0) == (0, True), "the toy's labels are noisy"
    assert "sign of the cost right in" in said


def test_it_scores_as_cost_and_as_classifier(trained, tmp_path):
    folder, _ = trained
    reward, found = run_folder(folder, "reward_model") / "reward", []
    shutil.copytree(folder / "cache", tmp_path / "cache")
    for kind in ("cost", "classifier"):
        given = [f"scorers.safer.kind={kind}", f"scorers.safer.path={reward}"]
        ended = alignlab("algorithm=evaluate", *given, f"hydra.run.dir={tmp_path}/{kind}", cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
        rows = (tmp_path / kind / "scores.jsonl").read_text().splitlines()
        found.append([json.loads(row)["safer_reward"] for row in rows])
    assert found[0] == found[1]
    assert len(set(found[0])) > 1


def test_a_named_cost_model_must_be_one(trained, tmp_path, capfd):
    reward = run_folder(trained[0], "reward_model") / "reward"
    other = tmp_path / "other"
    shutil.copytree(reward, other)
    (other / "alignlab.json").unlink()
    paths = [f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache"]
    given = ["scorers.safer.kind=cost", f"scorers.safer.path={other}"]
    assert_refused(main(["algorithm=evaluate", *given, *paths]), capfd, "holds no cost model; name the folder `reward`")
    given = ["scorers.safer.kind=classifier", f"scorers.safer.path={reward}", "scorers.safer.negate=true"]
    assert_refused(main(["algorithm=evaluate", *given, *paths]), capfd, "whose score is minus the cost already")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((*COST, "dataset=hh_rlhf", "model=scratch"), "dataset.kind=hh_rlhf: must be toy or pku_saferlhf"),
        ((*COST, "algorithm.objective=better"), "algorithm.objective=better: better is ranked by"),
        (
            ("algorithm=evaluate", "scorers.better.kind=cost", "scorers.safer.kind=gold"),
            "scorers.better.kind=cost: better is ranked by",
        ),
        (
            ("algorithm=evaluate", "scorers.safer.kind=cost", "scorers.safer.negate=true"),
            "has no effect with kind=cost",
        ),
    ],
)
def test_refused_before_a_model_loads(tmp_path, capfd, given, said):
    assert_refused(main([*given, f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache"]), capfd, said)


@pytest.mark.parametrize("asked", [COST, ("algorithm=safedpo",)])
def test_rows_that_say_nothing_of_safety_are_refused_by_name(tmp_path, capfd, asked):
    """PKU's columns without is_response_*_safe: unlabelled is not unsafe."""
    row = {"response_0": "mind the red first", "response_1": "what a lovely red", "is_response_1_safe": True}
    row |= {"safer_response_id": 1, "better_response_id": 1}
    rows = [json.dumps({"prompt": prompt, **row}) for prompt in toy.all_prompts()[:60]]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    data = ["dataset=pku_saferlhf", f"dataset.path={tmp_path}/rows.jsonl", "model=scratch"]
    code = main([*asked, *data, f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache"])
    assert_refused(code, capfd, "none of 60 rows says of both responses whether they are safe")
