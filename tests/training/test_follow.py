"""A node that does not see what node 0 writes says so; one whose processes must end has them end."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from alignlab.errors import JobFailed
from alignlab.training import follow, launch, several_nodes


class Lines(list):
    """Keeps what is sent."""

    def send(self, **message):
        self.append(message)


def other_node(*messages):
    heard = list(messages)
    return SimpleNamespace(
        place=SimpleNamespace(rank=1), line=Lines(), poll=lambda seconds: heard.pop(0) if heard else None
    )


@pytest.mark.parametrize("lacks", ["the stage", "another's stage", "the base"])
def test_what_a_node_does_not_see_is_named(tmp_path, monkeypatch, lacks):
    monkeypatch.setattr(follow, "SHARED_SECONDS", 0.0)
    stage, base = tmp_path / "stage", tmp_path / "base"
    if lacks != "the stage":
        stage.mkdir()
        token = "own" if lacks == "the base" else "of an earlier run"
        (stage / "stage.json").write_text(json.dumps({"token": token, "reads": [str(base)]}))
    node, missing = other_node(), base if lacks == "the base" else stage
    with pytest.raises(JobFailed, match="must lie on a shared file system") as raised:
        follow._take_part(node, {"stage": str(stage), "token": "own"})
    assert str(raised.value).startswith(f"node 1: does not see {missing}")
    assert node.line == [{"failed": str(raised.value).removeprefix("node 1: ")}]


def test_processes_end_when_node_0_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(follow, "GRACE_SECONDS", 0.1)
    look = follow._looking(other_node({"stop": True}))
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]  # ends only if it is told to

    def wait(started: "subprocess.Popen[bytes]") -> int:
        return launch.wait_for(started, tmp_path, look)

    with pytest.raises(follow._Stopped):
        launch.run_processes(command, tmp_path / "log", launch.environment(1), wait)


class First:
    """Node 0's lines, with what comes by them."""

    def __init__(self, *heard):
        self.place, self.lines = SimpleNamespace(address="localhost", nodes=2), {1: None}
        self.told, self._heard = [], list(heard)

    def tell(self, **message):
        self.told.append(message)

    def poll(self, seconds):
        return [(1, self._heard.pop(0))] if self._heard else []


@pytest.mark.parametrize(
    ("heard", "said"),
    [
        ([{"failed": "does not see X"}], "node 1: does not see X"),
        ([None], "node 1 is gone; start the same command on every node to resume"),
    ],
)
def test_a_training_does_not_start_without_a_node(tmp_path, heard, said):
    with pytest.raises(RuntimeError) as raised:
        several_nodes.StageOnNodes(First(*heard), tmp_path, "token")
    assert str(raised.value) == said


def test_what_ends_a_training_on_another_node_ends_it_here(tmp_path, monkeypatch):
    node = First({"ready": True}, {"ended": 1})
    stage = several_nodes.StageOnNodes(node, tmp_path, "token")
    assert node.told[0] == {"stage": str(tmp_path), "token": "token", "where": stage.meeting.where}
    stage.look()  # this node's processes may end by themselves
    monkeypatch.setattr(several_nodes, "GRACE_SECONDS", -1.0)
    with pytest.raises(RuntimeError, match=r"^node 1: a training process ended with code 1$"):
        stage.look()
    assert stage.fault_after(1) == "node 1: a training process ended with code 1"
    assert node.told[-1] == {"stop": True}


def test_a_signal_on_another_node_ends_the_job_as_one_here(tmp_path):
    stage = several_nodes.StageOnNodes(First({"ready": True}, {"ended": 143, "signal": 15}), tmp_path, "token")
    with pytest.raises(several_nodes.Terminated) as raised:
        stage.fault_after(1)
    assert raised.value.number == 15
