"""The line between nodes: who joins, who is refused, and that an end which is gone is noticed."""

import threading

import pytest

from alignlab.errors import ConfigError, JobFailed
from alignlab.runs import nodes
from alignlab.runs.nodes import FirstNode, NodeZeroGone, OtherNode, digest_of
from alignlab.runs.place import Place
from support.sharded import free_port


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def first(port):
    node = FirstNode(Place(2, 0, "localhost", port), "this command")
    yield node
    node.close()


def joined(first, run="this command", rank=1):
    """Another node that has called, in its own thread; what it raised, if it did."""
    found = []

    def call():
        try:
            found.append(OtherNode(Place(2, rank, "localhost", first.place.port), run))
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
    ("named", "why"), [({"run": "that command"}, "started with another command"), ({"rank": 2}, "must be from 1 to 1")]
)
def test_who_is_refused(first, capsys, named, why):
    refused = joined(first, **named)
    assert isinstance(refused, ConfigError)
    assert why in str(refused)
    assert why in capsys.readouterr().out
    assert first.lines == {}


def test_a_second_node_of_a_rank_is_refused(first):
    one = joined(first)
    assert "a node of its rank has joined already" in str(joined(first))
    one.line.close()


def test_who_does_not_come_is_named_and_waited_for_once(first, capsys, monkeypatch):
    monkeypatch.setattr(nodes, "JOIN_SECONDS", 0.3)
    for _ in range(2):
        with pytest.raises(TimeoutError, match=r"^hardware.nodes=2: node 1 did not join within 0:00; start the same"):
            first.wait_for_all()
    assert capsys.readouterr().out.count("waits for node 1 of 2") == 1


def test_a_node_0_that_is_not_there_is_named(port, capsys, monkeypatch):
    monkeypatch.setattr(nodes, "JOIN_SECONDS", 0.3)
    with pytest.raises(JobFailed, match=r"^node 1: node 0 at localhost:\d+ was not reached within 0:00"):
        OtherNode(Place(2, 1, "localhost", port), "this command")
    assert "node 1: waits for node 0 at localhost" in capsys.readouterr().out


def test_a_port_in_use_is_named(first):
    with pytest.raises(ConfigError, match=rf"^MASTER_PORT={first.place.port}: node 0 cannot listen there"):
        FirstNode(first.place, "this command")


def test_a_command_is_told_from_others():
    assert digest_of([("runs/a", {"w": 0.1})]) == digest_of([("runs/a", {"w": 0.1})])
    assert len({digest_of([(folder, {"w": w})]) for folder in "ab" for w in (0.1, 0.2)}) == 4
