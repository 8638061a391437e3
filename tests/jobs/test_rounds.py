"""Rounds of own pairs: each samples the policy before it and trains on; killed anywhere, the same bytes."""

import copy
import json

import pytest
import torch
from hydra import compose

from alignlab.config.hydra.compose import composing, run_config
from alignlab.config.identity import identity, resolve, run_folder
from alignlab.config.schema import PeftConfig
from alignlab.models.adapters import load_weights, new_adapter, save_adapter
from support.commands import alignlab, assert_refused, logged, result, run_here
from support.own_pairs import on_prompts

STEP = "alignlab.training.callbacks:ProgressCallback.on_step_end"
BREAKS = (
    ("alignlab.io.records:Records.add", 10, "SIGKILL"),  # the reference is being sampled
    ("alignlab.io.records:Records.add", 40, "SIGKILL"),  # the rest is sampled, and being scored
    ("alignlab.runs.runner:make_run", 3, "SIGKILL"),  # the first round is over, the second not begun
    (STEP, 3, "SIGKILL"),  # the second round's training, one step past a checkpoint
)


def composed(*overrides):
    with composing():
        return run_config(compose("config", overrides=list(overrides)))


@pytest.fixture(scope="module")
def settings(base, tmp_path_factory):
    """Settings of a run of two rounds on twelve prompts."""
    own = ("generator.prompts=2", "trainer.max_steps=4", "w=0.5", "algorithm=rebel", "algorithm.rounds=2")
    return [*on_prompts(base, tmp_path_factory.mktemp("prompts"), 12), *own]


@pytest.fixture(scope="module")
def unbroken(settings, tmp_path_factory):
    """The folder of an unbroken command."""
    folder = tmp_path_factory.mktemp("unbroken")
    ended = alignlab(*settings, cwd=folder, small=())
    assert ended.returncode == 0, ended.stderr
    return folder


def rounds_in(folder):
    """The folders of the first and the second round."""
    runs = {
        len(result(file.parent).get("rounds", [])): file.parent
        for file in folder.glob("runs/rebel/*/*/*/*/result.json")
    }
    return runs[0], runs[3]


def made_by(folder):
    """File below the folder -> bytes, of what a round makes: adapters, pairs, answers and samples."""
    kept = ("adapter_model.safetensors", "rewards.json", "answers.jsonl", "generations.jsonl")
    files = [file for name in kept for file in folder.rglob(name)] + [*folder.glob("runs/pairs/*/*/*/rows/*")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if "checkpoints" not in file.parts}


def test_killed_in_every_part_of_a_round_it_ends_the_same(settings, unbroken, tmp_path):
    for where, nth, how in BREAKS:
        ended = alignlab(*settings, cwd=tmp_path, small=(), breaks=(where, nth, how))
        assert ended.returncode == -9, (where, ended.stderr)
    ended = alignlab(*settings, cwd=tmp_path, small=())
    assert ended.returncode == 0, ended.stderr
    assert "resumes from" in ended.stdout
    own, whole = made_by(tmp_path), made_by(unbroken)
    assert len(whole) > 10
    assert own.keys() == whole.keys()
    assert [name for name in whole if own[name] != whole[name]] == []


def test_each_round_samples_and_goes_on_from_the_one_before(unbroken):
    first, last = rounds_in(unbroken)
    assert (first / "rewards.json").read_bytes() == (last / "rewards.json").read_bytes(), "one unit of rewards"
    pairs = [json.loads(file.read_text()) for file in unbroken.glob("runs/pairs/*/*/*/config.json")]
    named = {tuple(one["algorithm"]["sources"]) for one in pairs}
    assert named == {(), (str(first.relative_to(unbroken) / "adapter"),)} or named == {(), (str(first / "adapter"),)}
    answers = [file.read_text().splitlines() for file in unbroken.glob("cache/answers/*/answers.jsonl")]
    one, other = ([json.loads(line)["response"] for line in lines if "prompt_id" in line] for lines in answers)
    assert len(one) == len(other) == 36
    assert sum(a == b for a, b in zip(one, other, strict=True)) < 18, "draws of its own, not the reference's again"
    assert abs(logged(first)[0]["rewards/margins"]) < 1e-5
    assert abs(logged(last)[0]["rewards/margins"]) > 1e-3, "the second starts where the first ended"


def test_rewards_kl_and_length_of_each_round_are_kept_and_drawn(unbroken):
    _, last = rounds_in(unbroken)
    rounds = result(last)["rounds"]
    assert [one["round"] for one in rounds] == [0, 1, 2]
    kl = [one["metrics"]["kl"]["mean"] for one in rounds]
    assert kl[0] == 0 < min(kl[1:])
    for one in rounds:
        own = result((last / one["evaluation"]).resolve())
        assert {"better_reward", "safer_reward", "tokens"} <= one["metrics"].keys()
        assert all(own["metrics"][name] == metric for name, metric in one["metrics"].items())
    assert (last / "rounds.png").stat().st_size > 5000
    assert result((last / rounds[2]["evaluation"]).resolve())["recipe"]["rounds"] == 2


def test_one_round_is_the_run_that_it_was():
    prompts = [
        "algorithm=rebel",
        "dataset=prompts",
        "dataset.path=x.jsonl",
        "+scorers.better.kind=length",
        "model=hf",
        "model.path=x",
    ]
    one, two = resolve(composed(*prompts)), resolve(composed(*prompts, "algorithm.rounds=2"))
    assert "algorithm.rounds" not in identity(one)
    assert identity(one)["own_pairs"] == str(one.pairs_run.folder)
    assert identity(two)["algorithm.rounds"] == 2
    moved = composed(*prompts, "algorithm.rounds=2", "paths.runs=elsewhere/runs")
    assert run_folder(moved) == two.folder, "an adapter that is still to be made counts by its run"


def test_a_source_counts_by_what_it_holds(tmp_path):
    pairs = ["algorithm=pairs", "+scorers.better.kind=length"]
    for name, text in (("one", "{}"), ("copy", "{}"), ("other", '{"r": 1}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(text)
    one, copied, other = (
        run_folder(composed(*pairs, f"algorithm.sources=[{tmp_path / name}]")) for name in ("one", "copy", "other")
    )
    assert one == copied != other


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["algorithm=rebel", "algorithm.rounds=2"], "algorithm.rounds=2: dataset=toy holds pairs that were made once"),
        (["algorithm=dpo", "algorithm.rounds=3"], "algorithm.rounds=3: dataset=toy holds pairs that were made once"),
        (["algorithm.rounds=0"], "algorithm.rounds=0: must be in [1, 50]"),
    ],
)
def test_what_cannot_be_repeated_is_refused(tmp_path, capfd, overrides, line):
    assert_refused(run_here(tmp_path, [], *overrides), capfd, line)


def test_training_starts_from_the_saved_weights(base, tmp_path):
    tokens = torch.tensor([[3, 4, 5, 6]])
    trained = new_adapter(copy.deepcopy(base.model), PeftConfig(2, 4.0, 0.0, "all-linear"), seed=1)
    for name, weights in trained.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights)
    save_adapter(trained, tmp_path)
    fresh = new_adapter(copy.deepcopy(base.model), PeftConfig(2, 4.0, 0.0, "all-linear"), seed=2)
    assert not torch.allclose(fresh(tokens).logits, trained(tokens).logits), "control"
    load_weights(fresh, tmp_path)
    assert fresh(tokens).logits.equal(trained(tokens).logits)
    larger = new_adapter(copy.deepcopy(base.model), PeftConfig(4, 4.0, 0.0, "all-linear"), seed=2)
    with pytest.raises(ValueError, match="its tensors are not those"):
        load_weights(larger, tmp_path)
