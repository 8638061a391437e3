"""Runs the real command in a process of its own, as a user does, on a toy that is smaller than the embedded default."""

import glob
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alignlab.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = (
    "model.pretraining.rows=1000",
    "dataset.pairs=200",
    "dataset.exact_samples=100",
    "algorithm.beta=4",  # near the reference: so few samples are enough for the exact front
    "generator.samples=2",
    "trainer.max_steps=6",
    "trainer.save_steps=2",
    "trainer.logging_steps=1",
    "trainer.per_device_train_batch_size=16",
    "peft.dropout=0.1",  # so that a resumed run must draw the same random numbers too
)

PAIRS = "algorithm.objective=better"

SERVER = """
import importlib, json, os, signal, sys, time
import alignlab.jobs.front, alignlab.jobs.modpo, alignlab.jobs.reward_model
from alignlab.cli import main

def found(point):
    module, _, path = point.partition(":")
    owner = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    return owner, name, getattr(owner, name)

def break_at(point, nth, how):
    owner, name, real = found(point)
    calls = [0]
    def broken(*args, **kwargs):
        calls[0] += 1
        if calls[0] == nth and how == "raise":
            raise RuntimeError("broken by the test\\nin two lines")
        if calls[0] == nth:
            os.kill(os.getpid(), getattr(signal, how))
        return real(*args, **kwargs)
    setattr(owner, name, broken)

WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
SEEN = []

def die_at(nth, root):
    def happens(what):
        SEEN.append(what)
        if len(SEEN) == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event, args):
        if event not in WRITES and not (event == "open" and (args[2] or 0) & (os.O_WRONLY | os.O_RDWR)):
            return
        path = args[0]
        if isinstance(path, int):
            return
        path = os.path.normpath(os.path.join(root, os.fsdecode(path)))
        own = path.startswith((root + "/runs", root + "/cache"))
        if own and not path.endswith(".lock") and "progress.json" not in path:
            happens(event + " " + os.path.relpath(path, root))

    sys.addaudithook(hook)
    for point in ("alignlab.io.records:Records.add", "alignlab.training.callbacks:ProgressCallback.on_step_end"):
        tell(point, happens)

def tell(point, happens):
    owner, name, real = found(point)
    def told(*args, **kwargs):
        happens(point)
        return real(*args, **kwargs)
    setattr(owner, name, told)

for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(order["cwd"])
        os.environ["ALIGNLAB_CACHE"] = order["cwd"] + "/cache"
        if order["tty"]:
            os.setsid()  # the terminal that is opened next is this session's own
        for number, name in enumerate([order["tty"]] * 3 if order["tty"] else (os.devnull, order["out"], order["err"])):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
        if order["breaks"]:
            break_at(*order["breaks"])
        if order["dies_at"] is not None:
            die_at(order["dies_at"], order["cwd"])
        code = main(order["arguments"])
        if order["dies_at"] is not None:
            with open("events.txt", "w") as file:
                file.write("".join(event + "\\n" for event in SEEN))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    if order["killed_after"]:
        time.sleep(order["killed_after"])
        os.kill(child, signal.SIGKILL)  # has no effect on one that has ended: nobody has waited for it yet
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Imports alignlab once and runs each command in a fork: a command then costs a second or two, not ten.

The nth call of `module:attribute` raises, or sends its own process a signal, where an order says so.
"""


@dataclass
class Ended:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


@cache
def _server():
    command = [sys.executable, "-c", SERVER]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment("."))


def environment(cwd):
    """Variables of a command that runs in a folder of its own, with its own cache."""
    own = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "ALIGNLAB_CACHE": str(Path(cwd) / "cache")}
    return {**os.environ, **own}


def alignlab(*arguments, cwd, breaks=None, killed_after=None, dies_at=None, small=SMALL, tty=None):
    """One command on the small toy, from the folder cwd; `breaks` is (point, nth call, "raise" or a signal's name).

    `tty` is a terminal that it runs in; what it writes is then read there. `killed_after` is in seconds.

    MODPO trains on the first objective's pairs at every w, so that all of them need the same reward.
    """
    if not any(argument.startswith(("algorithm=", "algorithm.objective=")) for argument in arguments):
        small = (*small, PAIRS)
    server, out, err = _server(), Path(cwd) / "out.txt", Path(cwd) / "err.txt"
    flags = [argument for argument in arguments if argument.startswith("-")]
    values = [*small, *(argument for argument in arguments if not argument.startswith("-"))]  # the last one wins
    order = {"arguments": [*flags, *values], "cwd": str(cwd), "breaks": breaks, "out": str(out), "err": str(err)}
    order |= {"tty": tty, "killed_after": killed_after, "dies_at": dies_at}
    server.stdin.write(json.dumps(order) + "\n")
    server.stdin.flush()
    code = int(server.stdout.readline())
    return Ended(code, "", "") if tty else Ended(code, out.read_text(), err.read_text())


def files_below(root, pattern):
    """The files below a folder that match a pattern; folders may come and go while they are looked for."""
    return [Path(file) for file in glob.glob(f"{root}/**/{pattern}", recursive=True)]


def run_folder(cwd, algorithm, w=None):
    """The one folder of an algorithm's run, at one w."""
    found = [file.parent for file in (Path(cwd) / "runs" / algorithm).rglob("config.json")]
    runs = [folder for folder in found if not {"adapter", "reward", "checkpoints"}.intersection(folder.parts)]
    (folder,) = [folder for folder in runs if w is None or f"w={w:g}" in folder.parts]
    return folder


def result(folder):
    """What a run recorded."""
    return json.loads((folder / "result.json").read_text())


def means(folder):
    """Metric -> mean, unrounded."""
    return {name: value["mean"] for name, value in result(folder)["metrics"].items()}


def logged(folder):
    """The training's log, a line a dict."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder):
    """(step, loss, gradient norm) of every logged step, in the order of the file."""
    return [(row["step"], row["loss"], row["grad_norm"]) for row in logged(folder) if "loss" in row]


OVERWRITTEN = ("multirun.yaml", "index.html")


def snapshot(*roots):
    """Every file's time and size; locks, Hydra's own note, the drawn front and the index do not count."""
    files = (file for root in roots for file in Path(root).rglob("*") if file.is_file())
    kept = (file for file in files if not file.name.endswith(".lock") and file.name not in OVERWRITTEN)
    return {str(file): (file.stat().st_mtime_ns, file.stat().st_size) for file in kept if "front" not in file.parts}


def run_here(root, small, *overrides):
    """The exit code of a command in this process, on small settings; the last one of a key wins, a judge its group."""
    keys = {override.partition("=")[0] for override in overrides if "=" in override}
    small = [setting for setting in small if setting.partition("=")[0] not in keys]
    if "judge" in keys:
        small = [setting for setting in small if not setting.startswith("judge.")]
    flags = [override for override in overrides if override.startswith("-")]
    values = [override for override in overrides if not override.startswith("-")]
    return main([*flags, *small, *values, f"paths.runs={root}/runs", f"paths.cache={root}/cache"])


def assert_refused(code, captured, said):
    """Exit code 2 and one line that says why."""
    assert code == 2
    error = captured.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
