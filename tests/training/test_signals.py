"""A signal while training finishes the step, saves a checkpoint and ends the job; a second one ends it at once."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from transformers import TrainerCallback

from alignlab.errors import Terminated
from alignlab.runs.signals import SIGNALS, catching_signals, finishing_steps
from alignlab.training.checkpoints import last_whole_checkpoint
from alignlab.training.losses import PreferenceLoss
from alignlab.training.preference import train_preference
from support.against_trl import model_of, own_references, table_of
from support.commands import REPOSITORY
from support.pairs_of_tokens import plain_pairs
from support.sharded import ONE, PEFT, RECIPE


class Send(TrainerCallback):
    """Send this process a signal, once or twice, in the middle of a step."""

    def __init__(self, number, *, at=1, times=1):
        self.number, self.at, self.times = number, at, times
        self.losses = []

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in logs:
            self.losses.append(logs["loss"])


def train(folder, callback):
    from alignlab.models.scratch import word_tokenizer

    train_preference(
        SimpleNamespace(model=model_of("llama"), tokenizer=word_tokenizer([])),
        own_references(model_of("llama"), table_of(plain_pairs())),
        PreferenceLoss("sigmoid", beta=0.1),
        trainer=RECIPE,
        peft=PEFT,
        hardware=ONE,
        seed=0,
        folder=folder,
        callbacks=[callback],
    )


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_finishes_the_step_and_saves_it(number, tmp_path):
    stopped, resumed, unbroken = Send(number), Send(number, at=-1), Send(number, at=-1)
    with pytest.raises(Terminated) as ended, catching_signals():
        train(tmp_path / "a", stopped)
    assert ended.value.number == number
    saved = last_whole_checkpoint(tmp_path / "a" / "checkpoints")
    assert saved is not None
    assert saved.endswith("checkpoint-2")
    assert not (tmp_path / "a" / "adapter").exists()
    train(tmp_path / "a", resumed)
    train(tmp_path / "b", unbroken)
    assert len(stopped.losses) == 2
    assert [*stopped.losses, *resumed.losses] == pytest.approx(unbroken.losses, abs=1e-6)


def test_a_second_signal_ends_at_once(tmp_path):
    with pytest.raises(Terminated), catching_signals():
        train(tmp_path, Send(signal.SIGTERM, times=2))
    assert last_whole_checkpoint(tmp_path / "checkpoints") is None


def test_outside_a_training_a_signal_ends_at_once():
    before = signal.getsignal(signal.SIGUSR2)
    with pytest.raises(Terminated, match=str(int(signal.SIGUSR2))), catching_signals():
        os.kill(os.getpid(), signal.SIGUSR2)
        pytest.fail("still here")
    assert signal.getsignal(signal.SIGUSR2) is before


def test_a_launchers_own_handler_is_asked_after_the_checkpoint():
    """As submitit's, which puts a job back into Slurm's queue."""
    heard, before = [], signal.signal(signal.SIGUSR2, lambda number, _: heard.append(number))
    try:
        with pytest.raises(Terminated), catching_signals(), finishing_steps() as request:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert request.number == signal.SIGUSR2
            assert heard == []
        assert heard == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)


SWEEP = """
import os, sys, time
from pathlib import Path
from joblib import Parallel, delayed
from alignlab.errors import Terminated
from alignlab.runs.signals import catching_signals, finishing_steps, in_worker, passing_on

folder = Path(sys.argv[1])

def run(number):
    with in_worker(), catching_signals(), finishing_steps() as request:
        (folder / f"started-{number}").write_text(str(os.getpid()))
        while request.number is None:
            time.sleep(0.02)
        (folder / f"saved-{number}").touch()

if __name__ == "__main__":
    try:
        with passing_on(lambda: len([*folder.glob("saved-*")]) < 2):
            Parallel(n_jobs=2, backend="loky")(delayed(run)(number) for number in range(3))
    except Terminated as stopped:
        sys.exit(128 + stopped.number)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_takes_its_workers_with_it_and_they_save_first(number, tmp_path):
    pytest.importorskip("joblib")
    (tmp_path / "sweep.py").write_text(SWEEP)
    started = subprocess.Popen(
        [sys.executable, str(tmp_path / "sweep.py"), str(tmp_path)], env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    wait_for(lambda: len([*tmp_path.glob("started-*")]) == 2)
    time.sleep(0.1)
    workers = [int(file.read_text() or 0) for file in tmp_path.glob("started-*")]
    assert all(map(is_alive, workers))
    started.send_signal(number)
    assert started.wait(60) == (143 if number == signal.SIGTERM else -9)
    wait_for(lambda: not any(map(is_alive, workers)))
    assert sorted(file.name for file in tmp_path.glob("saved-*")) == ["saved-0", "saved-1"], "the third never began"


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(true):
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
