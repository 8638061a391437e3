"""Policies made while decoding: on the toy beside MODPO, on scored samples, killed and run again, and refused."""

import csv
import json
import shutil
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from alignlab.config.plan import TOY_TOKENS
from alignlab.evaluation.texts import repetition
from support.commands import SMALL, alignlab, assert_refused, result, run_folder, run_here

N = ("algorithm.n=2", "generator.samples=4")


@pytest.fixture(scope="module")
def root(whole, tmp_path_factory):
    """The small toy with a reference and a MODPO run at w=0.5."""
    folder = tmp_path_factory.mktemp("decoding")
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    return folder


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def best(root):
    """Best of 2 among 4 at two w."""
    swept = alignlab("-m", "algorithm=best_of_n", "w=0.3,0.8", *N, cwd=root)
    assert swept.returncode == 0, swept.stderr
    assert swept.stdout.count("running: runs/evaluate") == 1, "samples are one for all w"
    return root


def best_of_two(held, name):
    """Mean of a score of the better of any two samples by 0.3 helpful + 0.7 safe; tied ones share."""
    found = []
    for pair in combinations(held, 2):
        totals = [0.3 * row["helpful"] + 0.7 * row["safe"] for row in pair]
        best = [row[name] for row, total in zip(pair, totals, strict=True) if np.isclose(total, max(totals))]
        found.append(np.mean(best))
    return np.mean(found)


def test_best_of_n_is_the_mean_over_all_choices_of_the_references_samples(best):
    (reference,) = (file.parent for file in (best / "runs/evaluate").rglob("result.json"))
    folder = run_folder(best, "best_of_n", 0.3)
    by_prompt = {}
    scores = {row["id"]: row for row in rows_of(reference / "scores.jsonl")}
    for row in rows_of(reference / "generations.jsonl"):
        by_prompt.setdefault(row["prompt"], []).append(scores[row["id"]])
    found = result(folder)["metrics"]
    for name in ("helpful", "safe"):
        expected = np.mean([best_of_two(held, name) for held in by_prompt.values()])
        assert found[name]["mean"] == pytest.approx(expected)
        assert (found[name]["n"], found[name]["groups"]) == (len(by_prompt), len(by_prompt)), "a value a prompt"
    assert {"well_formed", "kl_to_optimum", "attained_share"} <= set(found)
    assert 0 < found["kl"]["mean"] < np.log(2) - 1 / 2
    picks = rows_of(folder / "generations.jsonl")
    assert {row["id"] for row in picks} <= set(scores)
    assert len(picks) == 2 * len(by_prompt)


def test_the_toys_samples_say_how_they_ended_and_how_much_each_repeats(best):
    (reference,) = (file.parent for file in (best / "runs/evaluate").rglob("result.json"))
    scores = {row["id"]: row for row in rows_of(reference / "scores.jsonl")}
    for row in rows_of(reference / "generations.jsonl"):
        assert row["finish"] == "stop" or scores[row["id"]]["tokens"] == TOY_TOKENS
        assert scores[row["id"]]["repetition"] == repetition(row["response"])
    known = [row["repetition"] for row in scores.values() if row["repetition"] is not None]
    assert result(reference)["metrics"]["repetition"]["n"] == len(known) > 0


def test_the_front_joins_it_with_modpo(best):
    small = [setting for setting in SMALL if not setting.startswith(("algorithm.", "generator.", "trainer.", "peft."))]
    joined = alignlab("algorithm=front", cwd=best, small=small)
    assert joined.returncode == 0, joined.stderr
    (table,) = (file for file in (best / "runs/front").rglob("front.csv") if "sweep" not in file.parent.name)
    with table.open() as stream:
        assert {row["algorithm"] for row in csv.DictReader(stream)} == {"best_of_n", "modpo"}


def test_a_larger_n_draws_nothing_anew(best):
    again = alignlab("algorithm=best_of_n", "w=0.4", "algorithm.n=4", "generator.samples=4", cwd=best)
    assert again.returncode == 0, again.stderr
    assert "sampling" not in again.stdout
    assert "done before: runs/evaluate" in again.stdout


BREAKS = (
    ("alignlab.evaluation.measure:sample_responses", 1, "SIGKILL"),  # the reference is being sampled
    ("alignlab.evaluation.weighted:write_jsonl", 2, "SIGKILL"),  # what the policy says is being written
    ("alignlab.evaluation.weighted:against_optimum", 1, "SIGKILL"),
)


def test_best_of_n_killed_three_times_and_run_again_is_the_same(best, tmp_path):
    shutil.copytree(best / "cache", tmp_path / "cache")
    for at in BREAKS:
        assert alignlab("algorithm=best_of_n", "w=0.3", *N, cwd=tmp_path, breaks=at).returncode == -9
    assert alignlab("algorithm=best_of_n", "w=0.3", *N, cwd=tmp_path).returncode == 0
    whole, again = run_folder(best, "best_of_n", 0.3), run_folder(tmp_path, "best_of_n", 0.3)
    for name in ("generations.jsonl", "scores.jsonl"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()
    assert result(again)["metrics"] == result(whole)["metrics"]


MIXED = ("algorithm=logit_mix", "generator.samples=8", "algorithm.min_ess=1")
MIX_BREAKS = (
    ("alignlab.evaluation.measure:sample_responses", 1, "SIGKILL"),
    ("alignlab.evaluation.measure:write_jsonl", 2, "SIGKILL"),
    ("alignlab.evaluation.measure:against_optimum", 1, "SIGKILL"),
)


def test_mixtures_by_token_and_by_response_killed_and_run_again(whole, tmp_path):
    root = tmp_path / "mixtures"
    shutil.copytree(whole, root)
    for at in MIX_BREAKS:
        assert alignlab(*MIXED, "w=0.5", cwd=root, breaks=at).returncode == -9
    ended = alignlab(*MIXED, "w=0.5", cwd=root)
    assert ended.returncode == 0, ended.stderr
    token = run_folder(root, "logit_mix", 0.5)
    found = result(token)
    assert found["recipe"] == {"level": "token"}
    assert [one["exponent"] for one in found["policies"].values()] == [0.5, 0.5]
    assert {"helpful", "safe", "kl", "kl_to_optimum", "attained_share", "well_formed"} <= set(found["metrics"])
    said = (token / "generations.jsonl").read_bytes()
    shutil.rmtree(token)
    assert alignlab(*MIXED, "w=0.5", cwd=root).returncode == 0
    assert (token / "generations.jsonl").read_bytes() == said, "as an unbroken run's"
    assert result(token)["metrics"] == found["metrics"]
    shutil.copytree(root / "runs/logit_mix", tmp_path / "token")
    shutil.rmtree(root / "runs/logit_mix")
    ended = alignlab(*MIXED, "algorithm.level=sequence", "w=0.5", cwd=root)
    assert ended.returncode == 0, ended.stderr
    by_response = result(run_folder(root, "logit_mix", 0.5))
    assert by_response["least_ess"] > 1
    assert set(found["metrics"]) <= {*by_response["metrics"], "well_formed"}
    few = alignlab(*MIXED, "algorithm.level=sequence", "w=0.4", "algorithm.min_ess=8.5", cwd=root)
    assert few.returncode == 2
    assert "carry the weight; take more samples" in few.stderr


SCORED = [
    "model=hf",
    "model.prompt_template='user: {raw_prompt} assistant: '",
    "dataset=pku_saferlhf",
    "generator.samples=4",
    "generator.prompts=6",
    "generator.max_new_tokens=8",
    "scorers.better.kind=length",
    "scorers.better.unit=words",
    "scorers.safer.kind=python",
]


@pytest.fixture
def scored(base, tmp_path):
    """Settings of a model that is not the toy's, on a file of prompts."""
    row = {"response_0": "mind the red first", "response_1": "a red thing", "safer_response_id": 0}
    rows = [{"prompt": f"say {number}", **row, "better_response_id": 1} for number in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [*SCORED, f"model.path={base.path}", f"dataset.path={tmp_path}/rows.jsonl"]


def test_best_of_n_by_scorers_has_a_scored_policys_metrics(scored, tmp_path):
    assert (
        run_here(tmp_path, scored, "algorithm=best_of_n", "w=1", "algorithm.samples=8", "algorithm.normalise=true") == 0
    )
    found = result(run_folder(tmp_path, "best_of_n"))
    assert found["axes"] == {"better": "better_reward", "safer": "safer_reward"}
    assert {"kl", "kl_per_token", "tokens", "cut", "empty", "better_gain", "safer_gain"} <= set(found["metrics"])
    assert found["recipe"] == {"n": 4, "normalised": True}
    evaluations = [file.parent for file in (tmp_path / "runs/evaluate").rglob("result.json")]
    held = {folder: Counter(row["group"] for row in rows_of(folder / "scores.jsonl")) for folder in evaluations}
    samples = {next(iter(counts.values())): folder for folder, counts in held.items()}
    assert sorted(samples) == [4, 8], "the front's own reference, and the samples to choose from"
    own = json.loads(found["inputs"]["decoding"])
    assert own == json.loads(result(samples[4])["inputs"]["decoding"]), "so that the front takes both"
    by_prompt = {}
    for row in rows_of(samples[8] / "scores.jsonl"):
        by_prompt.setdefault(row["group"], []).append(row["better_reward"])
    expected = [np.mean([max(choice) for choice in combinations(held, 4)]) for held in by_prompt.values()]
    assert found["metrics"]["better_reward"]["mean"] == pytest.approx(np.mean(expected))
    gains = [each - np.mean(held) for each, held in zip(expected, by_prompt.values(), strict=True)]
    assert found["metrics"]["better_gain"]["mean"] == pytest.approx(np.mean(gains))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["algorithm.n=0"], "algorithm.n=0: must be >= 1"),
        (["algorithm.n=5"], "algorithm.n=5: must be at most generator.samples=4"),
        (["algorithm.samples=3"], "algorithm.samples=3: must be at least algorithm.n=4"),
        (["~scorers.safer"], "scorers.safer: algorithm=best_of_n needs a scorer of every objective"),
    ],
)
def test_what_best_of_n_cannot_do_is_refused_in_a_line(scored, tmp_path, capsys, given, said):
    settings = [one for one in scored if not (given[0] == "~scorers.safer" and one.startswith("scorers.safer"))]
    given = [one for one in given if not one.startswith("~")]
    assert_refused(run_here(tmp_path, settings, "algorithm=best_of_n", *given), capsys, said)


def test_mixtures_by_scorers_stand_on_one_front(scored, tmp_path):
    small = [*scored, "trainer.max_steps=2", "trainer.per_device_train_batch_size=8", "trainer.max_length=64"]
    levels = ["algorithm=logit_mix", "algorithm.level=token,sequence", "algorithm.min_ess=1", "w=0.4"]
    assert run_here(tmp_path, small, "-m", *levels) == 0
    found = {one["recipe"]["level"]: one for one in map(result, (tmp_path / "runs/logit_mix/hf").glob("*/*/*"))}
    wanted = {
        "better_reward",
        "safer_reward",
        "kl",
        "kl_per_token",
        "tokens",
        "cut",
        "empty",
        "better_gain",
        "safer_gain",
    }
    for one in found.values():
        assert wanted <= set(one["metrics"])
    with next((tmp_path / "runs/front").rglob("front.csv")).open() as stream:
        assert sorted(row["algorithm"] for row in csv.DictReader(stream)) == ["logit_mix", "logit_mix", "reference"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["algorithm.level=word"], "algorithm.level=word"),
        (["algorithm.min_ess=0"], "algorithm.min_ess=0"),
        (["reward=length"], "reward.kind=length: must be implicit"),
        (["algorithm.level=sequence", "generator.temperature=0.7"], "generator.temperature=0.7"),
    ],
)
def test_what_logit_mix_cannot_do_is_refused_in_a_line(scored, tmp_path, capsys, given, said):
    assert_refused(run_here(tmp_path, scored, "algorithm=logit_mix", *given), capsys, said)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["~scorers.safer"], "scorers.safer: algorithm=preview needs a scorer of every objective"),
        (["generator.temperature=0.7"], "generator.temperature=0.7: must be 1 with algorithm=preview"),
        (["generator.top_p=0.9"], "generator.top_p=0.9: must be 1 with algorithm=preview"),
    ],
)
def test_what_a_preview_cannot_weigh_is_refused_before_a_model(scored, tmp_path, capsys, given, said):
    settings = [one for one in scored if not (given[0] == "~scorers.safer" and one.startswith("scorers.safer"))]
    given = [one for one in given if not one.startswith("~")]
    assert_refused(run_here(tmp_path, settings, "algorithm=preview", *given), capsys, said)
    assert not (tmp_path / "runs").exists()
