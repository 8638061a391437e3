"""Killed anywhere, the same command goes on and ends where an unbroken run ends, to the bit."""

import copy
import dataclasses
import itertools
import json
import math
import os
import shutil
import signal
import types

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState

from alignlab.config.schema import HardwareConfig, PeftConfig, TrainerConfig
from alignlab.runs.signals import catching_signals
from alignlab.runs.tracking import Tracker
from alignlab.training.callbacks import StopOnNonFinite, diverged
from alignlab.training.checkpoints import MANIFEST, CheckpointManifest, last_whole_checkpoint
from alignlab.training.losses import PreferenceLoss
from alignlab.training.preference import PreferenceTrainer, train_preference
from support.commands import alignlab, logged, losses, means, result, run_folder

STEP = "alignlab.training.callbacks:ProgressCallback.on_step_end"
BREAKS = (
    # (where, which call of it in this process, signal, exit code)
    (STEP, 10, "SIGKILL", -9),  # the reference model is being trained
    ("alignlab.engine.sampling.sample:decode", 1, "SIGKILL", -9),  # pairs are being sampled
    (STEP, 3, "SIGINT", 130),  # the reward model is being trained; the step is finished and saved
    (STEP, 3 + 3, "SIGTERM", 143),  # 3 steps to the reward model's end, then the run's own third, which is saved too
    (STEP, 2, "SIGKILL", -9),  # the run again, 5 steps in, one past a checkpoint
    ("alignlab.evaluation.measure:sample_responses", 1, "SIGKILL", -9),  # the policy is being measured
    ("alignlab.evaluation.measure:write_jsonl", 2, "SIGKILL", -9),  # what it said is being written
)


@pytest.fixture(scope="module")
def broken_often(tmp_path_factory):
    """A folder in which the same command was stopped at every one of BREAKS, and then left to end."""
    folder = tmp_path_factory.mktemp("broken")
    for point, nth, how, code in BREAKS:
        ended = alignlab("w=0.5", cwd=folder, breaks=(point, nth, how))
        assert ended.returncode == code, (point, how, ended.stderr)
        assert "Traceback" not in ended.stderr
        _check_record(folder, how)
    shutil.copytree(folder, folder / "half")
    ended = alignlab("w=0.5", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder


def _check_record(folder, how):
    if how in ("SIGINT", "SIGTERM"):
        records = [result(file.parent) for file in (folder / "runs").rglob("result.json")]
        assert any(record["status"] == "interrupted" for record in records)


@pytest.mark.slow
def test_a_run_that_was_stopped_seven_times_ends_as_an_unbroken_one(whole, broken_often):
    for algorithm in ("reward_model", "modpo"):
        unbroken, resumed = run_folder(whole, algorithm), run_folder(broken_often, algorithm)
        assert result(resumed)["status"] == "done"
        assert means(resumed) == means(unbroken)
        weights = "adapter/adapter_model.safetensors"
        assert (resumed / weights).read_bytes() == (unbroken / weights).read_bytes()


@pytest.mark.slow
def test_the_log_holds_every_step_once(whole, broken_often):
    for algorithm in ("reward_model", "modpo"):
        resumed = run_folder(broken_often, algorithm)
        assert losses(resumed) == losses(run_folder(whole, algorithm))
        tokens = [
            [row.get("num_tokens") for row in logged(folder)] for folder in (resumed, run_folder(whole, algorithm))
        ]
        assert tokens[0] == tokens[1]
        assert tokens[0][5] > tokens[0][0] > 0
        assert [row["step"] for row in logged(resumed)] == [1, 2, 3, 4, 5, 6, 6]  # the last line sums up
        assert not (resumed / "checkpoints").exists()


@pytest.mark.slow
def test_without_the_optimizers_state_it_would_not(whole, broken_often):
    """Control: the tests above can fail. transformers goes on without optimizer.pt and says nothing."""
    half = broken_often / "half"
    folder = run_folder(half, "modpo")
    shutil.rmtree(folder / "checkpoints" / "checkpoint-6")
    checkpoint = folder / "checkpoints" / "checkpoint-4"
    (checkpoint / "optimizer.pt").unlink()
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    del manifest["optimizer.pt"]
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))
    ended = alignlab("w=0.5", cwd=half)
    assert ended.returncode == 0, ended.stderr
    assert "checkpoints/checkpoint-4" in ended.stdout
    assert losses(folder)[:4] == losses(run_folder(whole, "modpo"))[:4]
    assert losses(folder)[5] != losses(run_folder(whole, "modpo"))[5]


def _checkpoint(root, step):
    folder = root / f"checkpoint-{step}"
    folder.mkdir()
    for name in ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"):
        (folder / name).write_bytes(name.encode() * 100)
    accelerator = types.SimpleNamespace(wait_for_everyone=lambda: None)
    engine = types.SimpleNamespace(accelerator=accelerator, is_world_process_zero=lambda: True)
    state = TrainerState(global_step=step, max_steps=1000)
    CheckpointManifest(engine).on_save(types.SimpleNamespace(output_dir=str(root)), state, TrainerControl())
    return folder


def _truncate(file):
    file.write_bytes(file.read_bytes()[:50])


def _flip_a_bit(file):
    data = bytearray(file.read_bytes())
    data[70] ^= 1
    file.write_bytes(data)


FILES = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", MANIFEST)


@pytest.mark.parametrize(("name", "damage"), list(itertools.product(FILES, ("unlink", "truncate", "flip"))))
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, name, damage, capsys):
    older, newest = _checkpoint(tmp_path, 8), _checkpoint(tmp_path, 10)
    assert last_whole_checkpoint(tmp_path) == str(newest)  # control: 10 is more than 8, and whole
    {"unlink": lambda file: file.unlink(), "truncate": _truncate, "flip": _flip_a_bit}[damage](newest / name)
    assert last_whole_checkpoint(tmp_path) == str(older)
    assert "checkpoint-10" in capsys.readouterr().out


def test_no_checkpoint_no_resume(tmp_path):
    assert last_whole_checkpoint(tmp_path) is None
    assert last_whole_checkpoint(tmp_path / "missing") is None


def test_a_resumed_log_drops_what_comes_again(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n{"step": 3, "loss": 1}\n{"step": 4, "lo')
    tracker = Tracker(file, None)
    tracker.on_train_begin(None, TrainerState(global_step=2, is_world_process_zero=True), None)
    assert [row["step"] for row in logged(tmp_path)] == [1, 2]
    tracker.on_train_begin(None, TrainerState(global_step=0, is_world_process_zero=True), None)
    assert logged(tmp_path) == []


def test_the_log_is_json_whatever_was_measured(tmp_path):
    Tracker(tmp_path / "metrics.jsonl", None).log(1, {"loss": float("nan"), "ok": 1.5, "norm": float("inf")})
    assert logged(tmp_path) == [{"step": 1, "loss": None, "ok": 1.5, "norm": None}]


class _Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_gradient_that_is_not_finite_stops_the_training_before_the_step(value):
    model = _Model()
    model.weight.grad = torch.tensor([1.0, value, 1.0])
    optimizer = torch.optim.SGD(model.parameters())
    with pytest.raises(FloatingPointError, match="step 7: loss or gradient is not finite"):
        StopOnNonFinite().on_pre_optimizer_step(None, TrainerState(global_step=6), None, optimizer=optimizer)
    model.weight.grad = torch.ones(3)
    StopOnNonFinite().on_pre_optimizer_step(None, TrainerState(global_step=6), None, optimizer=optimizer)


def test_an_infinite_loss_stops_the_training():
    with pytest.raises(FloatingPointError, match="step 6: the loss is inf"):
        StopOnNonFinite().on_log(None, TrainerState(global_step=6), None, logs={"loss": float("inf")})
    StopOnNonFinite().on_log(None, TrainerState(global_step=6), None, logs={"loss": 1.0})
    StopOnNonFinite().on_log(None, TrainerState(global_step=6), None, logs={"train_runtime": 1.0})


@pytest.mark.parametrize(
    ("loss", "untrained", "fault"),
    [(4.06, 1.0, True), (3.0, 1.0, False), (4.06, 4.07, False), (5.5, 4.07, True), (2.0, 0.1, True)],
)
def test_a_model_that_guesses_after_training_has_diverged(loss, untrained, fault):
    """The toy has 58 words, and ln 58 is 4.06."""
    assert (diverged(loss, untrained, uniform_loss=math.log(58)) is not None) == fault


def _train(base, encoded_rows, folder, *, poison):
    """The weights after three steps of two pairs whose chosen responses carry a reference of `poison` nats."""
    rows = encoded_rows[:6]
    count = len(rows)
    table = {
        "prompt_ids": [row.prompt_ids for row in rows],
        "chosen_ids": [row.response_ids for row in rows],
        "rejected_ids": [row.response_ids[1:] for row in rows],
        "ref_chosen_logps": [poison] * count,
        "ref_rejected_logps": [-3.0] * count,
    }
    own = dataclasses.replace(base, model=copy.deepcopy(base.model))
    recipe = TrainerConfig(1e-3, 1.0, 3, 2, 1, None, None, 2, 64, "constant", 0.0, 0.0, 1.0, False, 50, 1)
    adapter = train_preference(
        own,
        Dataset.from_dict(table),
        PreferenceLoss("sigmoid", beta=1.0),
        trainer=recipe,
        peft=PeftConfig(2, 4.0, 0.0, "all-linear"),
        hardware=HardwareConfig("cpu", 1, 1, bf16=False, fsdp=False),
        seed=0,
        folder=folder,
        callbacks=[],
    )
    return load_file(adapter / "adapter_model.safetensors")


def test_a_loss_that_is_not_a_number_stops_the_run(base, encoded_rows, tmp_path):
    with pytest.raises(FloatingPointError, match="step 1: loss or gradient is not finite"):
        _train(base, encoded_rows, tmp_path, poison=float("nan"))
    assert not (tmp_path / "adapter").exists()


def test_without_the_guard_it_would_train_on(base, encoded_rows, tmp_path, monkeypatch):
    """Control: transformers saves weights that are no numbers, and says nothing."""
    for name in ("on_pre_optimizer_step", "on_log"):
        monkeypatch.setattr(StopOnNonFinite, name, lambda *_, **__: None)
    monkeypatch.setattr(PreferenceTrainer, "divergence", lambda _: None)
    weights = _train(base, encoded_rows, tmp_path / "poisoned", poison=float("nan"))
    assert any(value.isnan().any() for value in weights.values())
    assert not any(value.isnan().any() for value in _train(base, encoded_rows, tmp_path / "good", poison=-2.0).values())


def test_rows_with_a_loss_that_is_not_finite_are_named(base, encoded_rows, tmp_path):
    with pytest.raises(FloatingPointError, match=r"step 1: .* not finite; rows: \d, \d$"):
        _train(base, encoded_rows, tmp_path, poison=float("nan"))


@pytest.mark.parametrize("left", ["before the verdict", "by a signal"])
def test_a_training_that_ended_before_it_was_judged_is_no_result(base, encoded_rows, tmp_path, monkeypatch, left):
    """A kill after the last step's checkpoint, or a signal during that step, must not pass a diverged model."""
    verdicts = []

    def ended(trainer):
        verdicts.append(trainer.state.global_step)
        if left == "by a signal":
            os.kill(os.getpid(), signal.SIGTERM)
            return "it fell"
        raise KeyboardInterrupt  # as a kill: nothing is tidied

    monkeypatch.setattr(PreferenceTrainer, "divergence", ended)
    with catching_signals(), pytest.raises(ArithmeticError if left == "by a signal" else KeyboardInterrupt):
        _train(base, encoded_rows, tmp_path, poison=-2.0)
    assert verdicts == [3]
    assert last_whole_checkpoint(tmp_path / "checkpoints") is None
    monkeypatch.setattr(PreferenceTrainer, "divergence", lambda _: verdicts.append("again"))
    _train(base, encoded_rows, tmp_path, poison=-2.0)
    assert verdicts == [3, "again"], "the training is judged"


@pytest.mark.parametrize("name", ["checkpoint-abc", "checkpoint-60.bak", "checkpoint-", "checkpoint-99"])
def test_odd_folders_are_passed_by(tmp_path, name):
    """A user's copy, or what something else left; the last is a file."""
    whole = _checkpoint(tmp_path, 10)
    odd = tmp_path / name
    odd.write_text("") if name.endswith("99") else odd.mkdir()
    assert last_whole_checkpoint(tmp_path) == str(whole)


@pytest.mark.parametrize("manifest", ["[]", "null", "{}", '"text"', "7", '{"trainer_state.json": null}'])
def test_an_odd_manifest_is_damage(tmp_path, manifest, capsys):
    older, newest = _checkpoint(tmp_path, 8), _checkpoint(tmp_path, 10)
    (newest / MANIFEST).write_text(manifest)
    assert last_whole_checkpoint(tmp_path) == str(older)
    assert "checkpoint-10" in capsys.readouterr().out
