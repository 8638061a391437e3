"""What every node but the first does: join it, and take part in each of its trainings until the command is over."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from alignlab.config.recipe import TrainingRecipe
from alignlab.errors import JobFailed, Terminated
from alignlab.runs.nodes import NodeZeroGone, OtherNode
from alignlab.runs.place import Place
from alignlab.runs.progress import say
from alignlab.runs.secret import Secret
from alignlab.runs.signals import catching_signals
from alignlab.training.launch import STAGE_FILE, environment, run_processes, torchrun, wait_for
from alignlab.training.several_nodes import GRACE_SECONDS, Meeting

SHARED_SECONDS = 60.0
"""For which a file that node 0 has written may be unseen: file systems on a network keep what they knew for a while."""


class _Stopped(Exception):
    """Node 0 has this node's processes end."""


def follow(place: Place, run: str, secret: Secret) -> int:
    """The exit code of node 0's command, once that is over.

    Args:
        place: of this node.
        run: digest of the command.
        secret: by which nodes know each other.

    Raises:
        ConfigError: if node 0 runs another command, or is none of ours.
        JobFailed: if node 0 is gone, or writes what this node does not see.
        Terminated: if a signal came; node 0 is told.
    """
    with catching_signals():
        node = OtherNode(place, run, secret)
        try:
            while True:
                message = node.wait()
                if "over" in message:
                    say(f"node {place.rank}: node 0 has ended with code {message['over']}")
                    return int(message["over"])
                if "stage" in message:
                    _take_part(node, message)
        except NodeZeroGone:
            what = f"node 0 at {place.address} is gone before its command was over"
            raise JobFailed(f"node {place.rank}: {what}; rerun the same command on every node to resume") from None
        except Terminated as stopped:
            node.line.send(ended=128 + stopped.number, signal=stopped.number)
            raise
        finally:
            node.line.close()


def _take_part(node: OtherNode, message: dict[str, Any]) -> None:
    """Start this node's processes of a training and wait for their end."""
    stage, rank = Path(message["stage"]), node.place.rank
    told = _stage(stage, message["token"])
    missing = [str(stage)] if told is None else [path for path in told["reads"] if not Path(path).exists()]
    if told is None or missing:
        what = f"does not see {missing[0]}, which node 0 has; runs, cache and models must lie on a shared file system"
        node.line.send(failed=what)
        raise JobFailed(f"node {rank}: {what}")
    hardware = TrainingRecipe.from_json(told["recipe"]).hardware
    first = rank * hardware.processes
    node.line.send(ready=True)
    shown = f"{first}" if hardware.processes == 1 else f"{first} to {first + hardware.processes - 1}"
    say(f"node {rank}: training on processes {shown} of {hardware.world_size}: {stage.parent}")
    log = stage / f"node_{rank}.log"
    wait = partial(wait_for, told_at=stage / f"node_{rank}", look=_looking(node))
    command = torchrun(hardware, stage.parent, Meeting(rank, message["where"]))
    try:
        code = run_processes(command, log, environment(hardware.processes), wait)
    except _Stopped:
        code = 1
    node.line.send(ended=code)
    say(f"node {rank}: the training has ended with code {code}")


def _stage(stage: Path, token: str) -> dict[str, Any] | None:
    """What stage.json holds; None where node 0's is not seen."""
    deadline = time.monotonic() + SHARED_SECONDS
    while True:
        try:
            told: dict[str, Any] = json.loads((stage / STAGE_FILE).read_text())
        except (OSError, ValueError):
            told = {}
        if told.get("token") == token:
            return told
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.5)


def _looking(node: OtherNode) -> Callable[[], None]:
    """Hears node 0 while processes are at work; raises if they must end."""
    stopping: list[float] = []

    def look() -> None:
        """A stopped training's processes may be saving, so they have a while to end by themselves."""
        message = node.poll(0.0)
        if message is not None and "stop" in message:
            stopping.append(time.monotonic())
        if stopping and time.monotonic() > stopping[0] + GRACE_SECONDS:
            raise _Stopped

    return look
