"""Node 0's part of a training on several nodes: have the others start their processes, and end them when it must be."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignlab.errors import Terminated
from alignlab.runs import nodes
from alignlab.runs.nodes import FirstNode
from alignlab.runs.progress import clock

GRACE_SECONDS = 60.0
"""For which processes whose training has ended elsewhere may end by themselves: they may be saving."""
START_SECONDS = 300.0
"""For which other nodes may look for the stage's files and import what they need."""


@dataclass(frozen=True)
class Meeting:
    """How the processes of one node find those of the others."""

    rank: int
    """Of the node."""
    where: str
    """HOST:PORT of torchrun's store on node 0."""


class StageOnNodes:
    """One training as node 0 sees it.

    Args:
        node: node 0.
        stage: folder of what the processes need.
        token: that stands in its stage.json.

    Raises:
        RuntimeError: if a node does not take part.
    """

    def __init__(self, node: FirstNode, stage: Path, token: str) -> None:
        self.node = node
        address = node.place.address
        self.meeting = Meeting(0, f"[{address}]:{_free_port()}" if ":" in address else f"{address}:{_free_port()}")
        self._at_work = set(node.lines)
        self._fault: str | None = None
        self._faulty_since = 0.0
        self._stopped_by: int | None = None
        """Signal that another node's processes have ended by."""
        node.tell(stage=str(stage.absolute()), token=token, where=self.meeting.where)
        self._wait_until_ready(time.monotonic() + START_SECONDS)

    def _wait_until_ready(self, deadline: float) -> None:
        waiting = set(self._at_work)
        while waiting:
            for rank, message in self.node.poll(nodes.LOOK_SECONDS):
                self._note(rank, message)
                if message is not None and "ready" in message:
                    waiting.discard(rank)
            if self._fault is not None:
                raise RuntimeError(self._fault)
            if time.monotonic() > deadline:
                names = ", ".join(map(str, sorted(waiting)))
                raise RuntimeError(f"node {names}: did not start its processes within {clock(START_SECONDS)}")

    def _note(self, rank: int, message: dict[str, Any] | None) -> None:
        """Keep what a message says of a node's processes."""
        fault = None
        if message is None:
            self._at_work.discard(rank)
            fault = f"node {rank} is gone; start the same command on every node to resume"
        elif "failed" in message:
            self._at_work.discard(rank)
            fault = f"node {rank}: {message['failed']}"
        elif "ended" in message:
            self._at_work.discard(rank)
            self._stopped_by = self._stopped_by or message.get("signal")
            fault = f"node {rank}: a training process ended with code {message['ended']}" if message["ended"] else None
        if fault is not None and self._fault is None:
            self._fault, self._faulty_since = fault, time.monotonic()

    def look(self) -> None:
        """Hear the other nodes.

        Raises:
            RuntimeError: if one of them has failed, and this node's processes have not ended by that within a while.
        """
        for rank, message in self.node.poll(0.0):
            self._note(rank, message)
        if self._fault is not None and time.monotonic() > self._faulty_since + GRACE_SECONDS:
            raise RuntimeError(self._fault)

    def fault_after(self, code: int) -> str | None:
        """What ended the training on another node, once the processes have ended everywhere.

        Args:
            code: of this node's processes.

        Raises:
            Terminated: if another node's were stopped by a signal.
        """
        self._wait_for_the_others(code)
        if code and self._stopped_by is not None:
            raise Terminated(self._stopped_by)
        return self._fault

    def stop(self) -> None:
        """End the other nodes' processes."""
        self._wait_for_the_others(1)

    def _wait_for_the_others(self, code: int) -> None:
        if code:
            self.node.tell(stop=True)
        deadline = time.monotonic() + (3 if code else 10) * GRACE_SECONDS
        while self._at_work and time.monotonic() < deadline:
            for rank, message in self.node.poll(nodes.LOOK_SECONDS):
                self._note(rank, message)


@contextmanager
def stage_on_nodes(stage: Path, token: str) -> Iterator[StageOnNodes]:
    """A training on all nodes while open; those that are not there are waited for first.

    Args:
        stage: folder of what the processes need.
        token: that stands in its stage.json.

    Raises:
        RuntimeError: if a node does not see the folder, or fails later.
        TimeoutError: if a node does not come.
    """
    node = nodes.first_node
    assert node is not None, "the command line has the nodes join"
    node.wait_for_all()
    others = StageOnNodes(node, stage, token)
    try:
        yield others
    except BaseException:
        others.stop()
        raise


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("", 0))
        port: int = one.getsockname()[1]
        return port
