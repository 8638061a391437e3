"""The line between the nodes of a run: JSON messages over TCP, which also tell when the other end is gone.

Node 0 runs the job and listens. Each other node joins, and does what it is told:

    node 0 -> r   {"nonce": n0}
    node r -> 0   {"node": r, "run": digest, "nonce": nr, "proof": p}    joins; the digest says with which command
    node 0 -> r   {"welcome": p} or {"refused": why}
    node 0 -> r   {"stage": ...}                       a training; see training/launch.py
    node r -> 0   {"ready": true} or {"failed": why}   whether it sees the stage's files
    node r -> 0   {"ended": code, "signal": n}         of its processes
    node 0 -> r   {"stop": true}                       end the processes
    node 0 -> r   {"over": code}                       the command has ended

Each proves to the other that it knows the secret of the run root, bound to both nonces; see runs/secret.py. Nothing is
encrypted, and what a node is told after that is taken as it comes.
"""

import hashlib
import json
import secrets
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from alignlab import __version__
from alignlab.errors import ConfigError, JobFailed
from alignlab.runs.place import Place
from alignlab.runs.progress import SILENT_SECONDS, clock, say
from alignlab.runs.secret import Secret
from alignlab.runs.signals import catching_signals

JOIN_SECONDS = 600.0
"""For which nodes wait for each other."""
LOOK_SECONDS = 0.5
"""Between two looks at what was sent, or two tries to reach node 0."""
HELLO_SECONDS = 5.0
"""After which node 0 hangs up on what connects and does not join."""
SEND_SECONDS = 10.0
"""For which an end may not take what it is sent."""
MOST_NODES = 1 << 16
"""No rank is larger, in whatever is sent."""
MOST_CALLERS = 64
"""That have connected and not yet joined."""
MOST_BYTES = 1 << 16
"""Of one message."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6}
"""A machine that is gone without a word is noticed after a minute and a half, where the system has these options."""


class Line:
    """One end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(SEND_SECONDS)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self.connection, self._rest = connection, b""

    def send(self, **message: Any) -> None:
        """Send a message; an end that is gone or takes nothing is noticed by the next reading."""
        try:
            self.connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def read(self, seconds: float) -> list[dict[str, Any] | None]:
        """The messages that came within some seconds; None stands for the other end's end."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.connection, selectors.EVENT_READ)
            if not selector.select(seconds):
                return []
        try:
            found = self.connection.recv(1 << 16)
            *lines, self._rest = (self._rest + found).split(b"\n")
            messages = [json.loads(line) for line in lines]
        except (OSError, ValueError, RecursionError):
            return [None]
        if not found or len(self._rest) > MOST_BYTES or not all(isinstance(one, dict) for one in messages):
            return [*messages, None]
        return messages

    def close(self) -> None:
        """Hang up."""
        self.connection.close()


class FirstNode:
    """Node 0's end of the lines to the others.

    Args:
        place: of node 0.
        run: digest of the command.
        secret: by which nodes know each other.

    Raises:
        ConfigError: if the port is in use.
    """

    def __init__(self, place: Place, run: str, secret: Secret) -> None:
        self.place, self.run, self._secret = place, run, secret
        self.lines: dict[int, Line] = {}
        """Rank -> line of the nodes that have joined."""
        self._callers: dict[Line, tuple[str, str, float]] = {}
        """Who has not joined yet -> address, nonce, until when it may."""
        self._is_late = False
        where = (place.address if place.address in LOOPBACK else "", place.port)
        family = socket.AF_INET6 if ":" in place.address else socket.AF_INET
        try:
            self._door = socket.create_server(where, family=family)
        except OSError as error:
            what = f"{error.strerror}; set another MASTER_PORT on all nodes"
            raise ConfigError(f"MASTER_PORT={place.port}: node 0 cannot listen there: {what}") from None

    def wait_for_all(self) -> None:
        """Wait until every node has joined, or joined again.

        Raises:
            TimeoutError: if one has not within JOIN_SECONDS; afterwards it is not waited for again.
        """
        begun, said = time.monotonic(), -SILENT_SECONDS
        self.poll(0.0)
        while self._missing():
            waited = time.monotonic() - begun
            names = f"node{'s' if len(self._missing()) > 1 else ''} {', '.join(map(str, self._missing()))}"
            if waited >= JOIN_SECONDS or self._is_late:
                self._is_late = True
                raise TimeoutError(
                    f"hardware.nodes={self.place.nodes}: {names} did not join within {clock(JOIN_SECONDS)}; "
                    f"start the same command on every node, where {self.place.address}:{self.place.port} is reached"
                )
            if waited >= said + SILENT_SECONDS:
                said = waited
                say(f"waits for {names} of {self.place.nodes}: {clock(waited)} of {clock(JOIN_SECONDS)}")
            self.poll(LOOK_SECONDS)

    def _missing(self) -> list[int]:
        return [rank for rank in range(1, self.place.nodes) if rank not in self.lines]

    def poll(self, seconds: float) -> list[tuple[int, dict[str, Any] | None]]:
        """(rank, message) of what came within some seconds; None stands for the node's end. Lets nodes join."""
        found: list[tuple[int, dict[str, Any] | None]] = []
        with selectors.DefaultSelector() as selector:
            if len(self._callers) < MOST_CALLERS:
                selector.register(self._door, selectors.EVENT_READ, None)
            for line in self._callers:
                selector.register(line.connection, selectors.EVENT_READ, line)
            for rank, line in self.lines.items():
                selector.register(line.connection, selectors.EVENT_READ, rank)
            ready: list[int | Line | None] = [key.data for key, _ in selector.select(seconds)]
        for one in ready:
            if one is None:
                self._greet()
            elif isinstance(one, Line):
                self._let_in(one)
            else:
                found += [(one, message) for message in self.lines[one].read(0.0)]
                if (one, None) in found:
                    self.lines.pop(one).close()
        for line in [line for line, (*_, until) in self._callers.items() if time.monotonic() > until]:
            del self._callers[line]
            line.close()
        return found

    def _greet(self) -> None:
        """Take a call, by whomever."""
        with suppress(OSError):  # it may have hung up
            connection, address = self._door.accept()
            line, nonce = Line(connection), secrets.token_hex()
            self._callers[line] = (address[0], nonce, time.monotonic() + HELLO_SECONDS)
            line.send(nonce=nonce)

    def _let_in(self, line: Line) -> None:
        """Let a caller in that is a node of ours, started with the same command."""
        messages = line.read(0.0)
        if not messages:
            return  # the rest is on its way
        hello, (address, nonce, _) = messages[0] or {}, self._callers.pop(line)
        rank, run, why = hello.get("node"), hello.get("run"), None
        if not isinstance(rank, int) or rank not in range(MOST_NODES) or not isinstance(run, str):
            line.close()  # nobody of ours
            return
        if not self._secret.is_proof(hello.get("proof"), "join", rank, run, nonce, hello.get("nonce")):
            known = f"it does not know {self._secret.path} of node 0"
            why = f"{known}: it runs in another folder, on a disk that is not shared, or as another user"
        elif run != self.run:
            why = "it was started with another command, or another version, than node 0"
        elif rank not in range(1, self.place.nodes):
            why = f"its rank must be from 1 to {self.place.nodes - 1}"
        elif rank in self.lines:
            why = "a node of its rank has joined already"
        if why is not None:
            say(f"node {rank} at {address} is refused: {why}")
            line.send(refused=why)
            line.close()
            return
        line.send(welcome=self._secret.proof("welcome", nonce, hello.get("nonce")))
        self.lines[rank] = line
        say(f"node {rank} of {self.place.nodes} has joined from {address}")

    def tell(self, **message: Any) -> None:
        """Send a message to every node."""
        for line in self.lines.values():
            line.send(**message)

    def close(self) -> None:
        """Hang up on every node."""
        self._door.close()
        for line in [*self.lines.values(), *self._callers]:
            line.close()


class NodeZeroGone(Exception):
    """The line to node 0 is down before the run was over."""


class OtherNode:
    """Another node's end of the line to node 0.

    Args:
        place: of this node.
        run: digest of the command.
        secret: by which nodes know each other.

    Raises:
        ConfigError: if node 0 refuses this node, or is none of ours.
        JobFailed: if it is not reached.
    """

    def __init__(self, place: Place, run: str, secret: Secret) -> None:
        self.place, self._where = place, f"node 0 at {place.address}:{place.port}"
        self._inbox: list[dict[str, Any] | None] = []
        self.line = self._call()
        try:
            self._join(run, secret)
        except BaseException:
            self.line.close()
            raise
        say(f"node {place.rank} of {place.nodes}: trains when node 0 at {place.address} does")

    def _join(self, run: str, secret: Secret) -> None:
        rank, deadline, ours = self.place.rank, time.monotonic() + JOIN_SECONDS, secrets.token_hex()
        try:
            theirs = self._next(deadline).get("nonce")
            proof = secret.proof("join", rank, run, theirs, ours)
            self.line.send(node=rank, run=run, nonce=ours, proof=proof)
            answer = self._next(deadline)
        except TimeoutError:
            raise JobFailed(f"node {rank}: {self._where} did not answer within {clock(JOIN_SECONDS)}") from None
        except NodeZeroGone:
            raise JobFailed(f"node {rank}: {self._where} hung up; is that alignlab's node 0?") from None
        if "refused" in answer:
            raise ConfigError(f"node {rank}: refused by {self._where}: {answer['refused']}")
        if not secret.is_proof(answer.get("welcome"), "welcome", theirs, ours):
            what = f"what listens there does not know {secret.path}; set another MASTER_PORT on all nodes"
            raise ConfigError(f"node {rank}: {self._where}: {what}")

    def _next(self, deadline: float) -> dict[str, Any]:
        while (message := self.poll(LOOK_SECONDS)) is None:
            if time.monotonic() > deadline:
                raise TimeoutError
        return message

    def _call(self) -> Line:
        where, begun, said = self._where, time.monotonic(), -SILENT_SECONDS
        while True:
            try:
                return Line(socket.create_connection((self.place.address, self.place.port), timeout=10.0))
            except OSError as error:
                waited, why = time.monotonic() - begun, error.strerror or str(error)
            if waited >= JOIN_SECONDS:
                raise JobFailed(f"node {self.place.rank}: {where} was not reached within {clock(JOIN_SECONDS)} ({why})")
            if waited >= said + SILENT_SECONDS:
                said = waited
                say(f"node {self.place.rank}: waits for {where}: {clock(waited)} of {clock(JOIN_SECONDS)}")
            time.sleep(LOOK_SECONDS)

    def wait(self) -> dict[str, Any]:
        """The next message, whenever it comes.

        Raises:
            NodeZeroGone: if node 0 is gone.
        """
        while True:
            message = self.poll(60.0)
            if message is not None:
                return message

    def poll(self, seconds: float) -> dict[str, Any] | None:
        """The next message, if one comes within some seconds.

        Raises:
            NodeZeroGone: if node 0 is gone.
        """
        if not self._inbox:
            self._inbox += self.line.read(seconds)
        if not self._inbox:
            return None
        message = self._inbox.pop(0)
        if message is None:
            raise NodeZeroGone
        return message


first_node: FirstNode | None = None
"""Node 0's end, in the process that runs the job on several nodes."""


@contextmanager
def leading(place: Place, run: str, secret: Secret) -> Iterator[None]:
    """Be node 0 while open, once all others have joined; leaving without `end` hangs up on them.

    Args:
        place: of node 0.
        run: digest of the command.
        secret: by which nodes know each other.

    Raises:
        ConfigError: if the port is in use.
        JobFailed: if a node does not come.
    """
    global first_node
    node = FirstNode(place, run, secret)
    try:
        try:
            with catching_signals():
                node.wait_for_all()
        except TimeoutError as error:
            raise JobFailed(str(error)) from None
        first_node = node
        yield
    finally:
        first_node = None
        node.close()


def end(code: int) -> None:
    """Tell the other nodes that the command has ended.

    Args:
        code: its exit code, which becomes theirs.
    """
    if first_node is not None:
        first_node.poll(0.0)
        first_node.tell(over=code)


def digest_of(runs: Sequence[tuple[str, Any]]) -> str:
    """What tells a command from others.

    Args:
        runs: folder and record of every run.
    """
    return hashlib.sha256(json.dumps([__version__, *runs], sort_keys=True, default=str).encode()).hexdigest()
