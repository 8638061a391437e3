"""The run folder is a function of what changes the result, and of nothing else."""

import os

import pytest

from alignlab.config.fingerprints import fingerprint
from alignlab.config.identity import run_folder
from alignlab.config.plan import plan_of

ROW = '{"prompt": "a b", "response_0": "x", "response_1": "y", "better_response_id": 0, "safer_response_id": 1}\n'


def test_the_folder_says_what_ran(run_of):
    folder = run_folder(run_of("w=0.3", "seed=2"))
    assert folder.parts[:4] == ("modpo", "tiny", "toy", "w=0.3")
    assert folder.name.startswith("seed=2-")
    assert len(folder.parts) == 5


def test_algorithms_without_w_have_none_in_their_folder(run_of):
    for name in ("dpo", "reward_model", "sft", "evaluate", "front"):
        assert "w=" not in str(run_folder(run_of(f"algorithm={name}")))


def test_equal_weights_written_differently_are_one_run(run_of):
    folders = {run_folder(run_of(f"w={w}")) for w in ("0.3", "0.30", "3e-1", "[0.3,0.7]", "{better:0.3,safer:0.7}")}
    assert len(folders) == 1


SAME = [
    "hardware=gpu",
    "hardware=cpu_2",
    "hardware.nodes=2",
    "hardware.device=cuda",
    "hardware=gpus_8_fsdp",
    "trainer.save_steps=7",
    "trainer.logging_steps=3",
    "trainer.per_device_eval_batch_size=16",
    "trainer.gradient_checkpointing=true",
    "generator.batch_size=64",
    "tracker=wandb",
    "tracker.project=mine",
    "tracker.entity=us",
    "tracker.tags=[a,b]",
    "paths.runs=/elsewhere",
    "paths.cache=/elsewhere",
    "force=true",
]
OTHER = [
    "w=0.4",
    "seed=1",
    "model=scratch",
    "model.learning_rate=1.0e-4",
    "trainer.learning_rate=1.0e-4",
    "trainer.max_steps=3",
    "trainer.per_device_train_batch_size=16",
    "algorithm.beta=0.7",
    "algorithm.loss_type=hinge",
    "algorithm.objective=safer",
    "algorithm.rewards.safer.beta=0.2",
    "reward=gold",
    "dataset.pairs=123",
    "dataset.beta=0.5",
    "peft.r=4",
    "generator.samples=3",
    "algorithm=dpo",
]


@pytest.mark.parametrize("override", SAME)
def test_unchanged_by_where_and_how_fast(run_of, override):
    expected = run_folder(run_of())
    if override.startswith("hardware=gpu"):  # the presets also turn bfloat16 on, which does change the numbers
        assert run_folder(run_of(override)) != expected
        assert run_folder(run_of(override, "hardware.bf16=false")) == expected
    else:
        assert run_folder(run_of(override)) == expected


@pytest.mark.parametrize("override", OTHER)
def test_changed_by_what_changes_the_result(run_of, override):
    assert run_folder(run_of(override)) != run_folder(run_of())


def test_the_effective_batch_counts_not_how_it_is_cut(run_of):
    batch, accumulate = "trainer.per_device_train_batch_size", "trainer.gradient_accumulation_steps"
    folders = {run_folder(run_of(f"{batch}={b}", f"{accumulate}={a}")) for b, a in ((32, 1), (16, 2), (1, 32))}
    assert len(folders) == 1
    assert run_folder(run_of(f"{batch}=32", f"{accumulate}=2")) not in folders


def test_the_default_reward_named_is_the_default(run_of):
    assert run_folder(run_of("algorithm.rewards.safer.kind=implicit")) == run_folder(run_of("reward=implicit"))


def test_at_w_1_the_others_rewards_do_not_count(run_of):
    assert run_folder(run_of("w=1", "reward=gold")) == run_folder(run_of("w=1"))


def on_file(run_of, path):
    return run_of("model=scratch", "dataset=pku_saferlhf", f"dataset.path={path}")


def test_data_counts_by_content_not_by_date(run_of, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(ROW)
    before = run_folder(on_file(run_of, path))
    os.utime(path, (1, 1))
    assert run_folder(on_file(run_of, path)) == before
    path.write_text(ROW.replace("a b", "a c"))
    assert run_folder(on_file(run_of, path)) != before, "an edited file is another run"


def test_the_fingerprint_sees_names_and_contents(tmp_path):
    for name, text in (("one", "x"), ("two", "x"), ("three", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / ("a" if name != "two" else "b")).write_text(text)
    assert len({fingerprint(tmp_path / name) for name in ("one", "two", "three")}) == 3


def test_fingerprints_name_only_what_is_there(run_of, tmp_path):
    assert plan_of(run_of()).files == []
    path = tmp_path / "rows.jsonl"
    path.write_text(ROW)
    assert set(plan_of(on_file(run_of, path)).inputs) == {"dataset.path"}
