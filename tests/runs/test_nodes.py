"""The line between nodes: who joins, who is refused, and that an end which is gone is noticed."""

import json
import socket
import threading
import time
from pathlib import Path

import pytest

from alignlab.errors import ConfigError, JobFailed
from alignlab.runs import nodes
from alignlab.runs.nodes import FirstNode, NodeZeroGone, OtherNode, digest_of
from alignlab.runs.place import Place
from alignlab.runs.secret import Secret, secret_in
from support.sharded import free_port

SECRET = Secret(Path("secret"), b"known to all nodes")
NONCE = b'{"nonce": "x"}\n'


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def first(port):
    node = FirstNode(Place(2, 0, "localhost", port), "this command", SECRET)
    yield node
    node.close()


def joined(first, run="this command", rank=1, secret=SECRET):
    """Another node that has called, in its own thread; what it raised, if it did."""
    found = []

    def call():
        try:
            found.append(OtherNode(Place(2, rank, "localhost", first.place.port), run, secret))
        except Exception as error:
            found.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    while not found:
        first.poll(0.05)
    caller.join()
    return found[0]


def test_messages_go_both_ways_and_an_end_is_noticed(first):
    other = joined(first)
    first.wait_for_all()
    first.tell(stage="here", token="x")
    first.tell(over=3)
    assert [other.wait(), other.wait()] == [{"stage": "here", "token": "x"}, {"over": 3}]
    other.line.send(ready=True)
    other.line.send(ended=0)
    other.line.close()
    heard = []
    while not heard or heard[-1][1] is not None:
        heard += first.poll(1.0)
    assert heard == [(1, {"ready": True}), (1, {"ended": 0}), (1, None)]
    assert first.lines == {}
    again = joined(first)  # one that is started again joins again
    first.wait_for_all()
    again.line.close()


def test_the_others_notice_that_node_0_is_gone(first):
    other = joined(first)
    assert other.poll(0.0) is None
    first.close()
    with pytest.raises(NodeZeroGone):
        other.wait()


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ({"run": "that command"}, "started with another command"),
        ({"rank": 2}, "must be from 1 to 1"),
        ({"secret": Secret(Path("secret"), b"another")}, "does not know secret of node 0: it runs in another folder"),
    ],
)
def test_who_is_refused(first, capsys, named, why):
    refused = joined(first, **named)
    assert isinstance(refused, ConfigError)
    assert str(refused).startswith(f"node {named.get('rank', 1)}: refused by node 0 at localhost:{first.place.port}: ")
    assert why in str(refused)
    assert why in capsys.readouterr().out
    assert first.lines == {}


def test_a_second_node_of_a_rank_is_refused(first):
    one = joined(first)
    assert "a node of its rank has joined already" in str(joined(first))
    one.line.close()


def call(first):
    """A stranger's connection, and the nonce that it was sent."""
    connection = socket.create_connection(("localhost", first.place.port), timeout=5)
    first.poll(1.0)
    return connection, json.loads(connection.recv(1000))["nonce"]


def is_hung_up(first, connection, seconds=2.0):
    connection.settimeout(0.05)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        first.poll(0.05)
        try:
            if not connection.recv(1000):
                return True
        except ConnectionError:
            return True
        except TimeoutError:
            continue
    return False


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"[" * 60_000 + b"\n",
        b"9" * 5_000 + b"\n",
        b"x" * (nodes.MOST_BYTES + 1),
        b'{"node": 1}\n',
        b'{"node": [1], "run": "this command"}\n',
        b'{"node": ' + b"9" * 400 + b', "run": "this command"}\n',
        b"\xff\xfe\n",
        b"null\n",
    ],
)
def test_what_no_node_sends_is_hung_up_on(first, capsys, sent):
    connection, _ = call(first)
    connection.sendall(sent)
    assert is_hung_up(first, connection)
    assert first.lines == {}
    assert capsys.readouterr().out == ""
    connection.close()
    joined(first).line.close()  # node 0 is as it was


def test_a_proof_serves_one_call(first):
    """Control: it serves that one."""
    (one, nonce), (other, _) = call(first), call(first)
    proof = SECRET.proof("join", 1, "this command", nonce, "n")
    hello = json.dumps({"node": 1, "run": "this command", "nonce": "n", "proof": proof}).encode() + b"\n"
    other.sendall(hello)
    first.poll(1.0)
    assert "does not know secret" in json.loads(other.recv(1000))["refused"]
    one.sendall(hello[:20])  # the rest is on its way
    first.poll(0.1)
    one.sendall(hello[20:])
    first.poll(1.0)
    assert json.loads(one.recv(1000)) == {"welcome": SECRET.proof("welcome", nonce, "n")}
    assert list(first.lines) == [1]
    one.close()
    other.close()


def test_who_says_nothing_keeps_nobody_waiting(first, monkeypatch):
    monkeypatch.setattr(nodes, "MOST_CALLERS", 2)
    monkeypatch.setattr(nodes, "HELLO_SECONDS", 0.3)
    control, _ = call(first)
    assert not is_hung_up(first, control, seconds=0.1)
    silent = [socket.create_connection(("localhost", first.place.port)) for _ in range(5)]
    begun = time.monotonic()
    joined(first).line.close()
    assert time.monotonic() - begun < 5
    assert all(is_hung_up(first, one) for one in silent)
    for one in [control, *silent]:
        one.close()


@pytest.mark.parametrize(
    ("answers", "error", "said"),
    [
        (
            [b'{"nonce": "x"}\n', b'{"welcome": "' + b"0" * 64 + b'"}\n'],
            ConfigError,
            "does not know secret; set another",
        ),
        ([b'{"nonce": "x"}\n', b'{"welcome": true}\n'], ConfigError, "does not know secret; set another"),
        ([b"SSH-2.0-OpenSSH_9.2\r\n"], JobFailed, "hung up; is that alignlab's node 0?"),
        ([], JobFailed, "did not answer within 0:00"),
    ],
)
def test_a_false_node_0_is_refused(monkeypatch, answers, error, said):
    monkeypatch.setattr(nodes, "JOIN_SECONDS", 0.4)
    with socket.create_server(("localhost", 0)) as door:

        def answer():
            with door.accept()[0] as connection:
                for one in answers:
                    connection.sendall(one)
                    time.sleep(0.1)
                time.sleep(1.0)

        stranger = threading.Thread(target=answer)
        stranger.start()
        with pytest.raises(error, match=r"^node 1: node 0 at localhost:\d+") as raised:
            OtherNode(Place(2, 1, "localhost", door.getsockname()[1]), "this command", SECRET)
        assert said in str(raised.value)
        stranger.join()


def test_an_end_that_takes_nothing_counts_as_gone(first, monkeypatch):
    monkeypatch.setattr(nodes, "SEND_SECONDS", 0.2)
    other = joined(first)
    for _ in range(200):
        first.tell(over="x" * 60_000)
    assert (1, None) in first.poll(1.0)
    other.line.close()


def test_the_secret_is_made_once_and_is_the_users_own(tmp_path):
    one, other = secret_in(tmp_path / "runs"), secret_in(tmp_path / "runs")
    assert one == other
    assert one.path.stat().st_mode & 0o777 == 0o600
    assert secret_in(tmp_path / "others").value != one.value


def test_a_secret_that_cannot_be_used_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("alignlab.runs.secret.WRITING_SECONDS", 0.0)
    path = secret_in(tmp_path).path
    path.write_text("torn")
    with pytest.raises(ConfigError, match=r"\.nodes\.\d+: is not whole; remove it"):
        secret_in(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match=r"\.nodes\.\d+: Is a directory; nodes know each other by this file"):
        secret_in(tmp_path)


def test_who_does_not_come_is_named_and_waited_for_once(first, capsys, monkeypatch):
    monkeypatch.setattr(nodes, "JOIN_SECONDS", 0.3)
    for _ in range(2):
        with pytest.raises(TimeoutError, match=r"^hardware.nodes=2: node 1 did not join within 0:00; start the same"):
            first.wait_for_all()
    assert capsys.readouterr().out.count("waits for node 1 of 2") == 1


def test_a_node_0_that_is_not_there_is_named(port, capsys, monkeypatch):
    monkeypatch.setattr(nodes, "JOIN_SECONDS", 0.3)
    with pytest.raises(JobFailed, match=r"^node 1: node 0 at localhost:\d+ was not reached within 0:00"):
        OtherNode(Place(2, 1, "localhost", port), "this command", SECRET)
    assert "node 1: waits for node 0 at localhost" in capsys.readouterr().out


def test_a_port_in_use_is_named(first):
    with pytest.raises(ConfigError, match=rf"^MASTER_PORT={first.place.port}: node 0 cannot listen there"):
        FirstNode(first.place, "this command", SECRET)


def test_a_command_is_told_from_others():
    assert digest_of([("runs/a", {"w": 0.1})]) == digest_of([("runs/a", {"w": 0.1})])
    assert len({digest_of([(folder, {"w": w})]) for folder in "ab" for w in (0.1, 0.2)}) == 4
