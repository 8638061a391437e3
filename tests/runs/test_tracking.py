"""wandb: its own variables are obeyed, and a machine without a network trains all the same."""

import importlib.util
import socket

import pytest

from alignlab.runs import tracking

KEY = "0" * 40


@pytest.fixture(autouse=True)
def no_wandb_settings(monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DISABLED", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tracking.urllib.request, "getproxies", dict)


@pytest.mark.parametrize(
    ("kind", "env", "mode"),
    [
        ("auto", {}, None),
        ("auto", {"WANDB_API_KEY": KEY}, "online"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "offline"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "disabled"}, None),
        ("wandb", {}, "online"),
        ("wandb", {"WANDB_MODE": "offline"}, "offline"),
        ("wandb", {"WANDB_DISABLED": "true"}, None),
        ("wandb_offline", {"WANDB_MODE": "online"}, "offline"),
        ("local", {"WANDB_API_KEY": KEY, "WANDB_MODE": "online"}, None),
    ],
)
def test_wandbs_variables_are_obeyed(monkeypatch, kind, env, mode):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: object())
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert tracking.wandb_mode(kind) == mode


def test_auto_without_wandb_installed_logs_locally_and_says_so(monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    said = []
    monkeypatch.setattr(tracking, "say", said.append)
    assert tracking.wandb_mode("auto") is None
    assert len(said) == 1
    assert "not installed" in said[0]


def test_a_server_that_listens_is_reachable_and_a_closed_port_is_not(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert tracking._reachable()
    assert not tracking._reachable()


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is an extra")
def test_without_a_network_wandb_is_offline_and_says_so(monkeypatch, tmp_path):
    import wandb

    modes, said = [], []
    monkeypatch.setattr(wandb, "init", lambda mode, **_: modes.append(mode) or "a run")
    monkeypatch.setattr(tracking, "say", said.append)
    monkeypatch.setattr(tracking, "_reachable", lambda: False)
    settings = tracking.TrackerSettings(kind="wandb", project="p", entity=None, tags=[], group="g", name="n", config={})
    assert tracking.wandb_run(settings, tmp_path) == "a run"
    assert modes == ["offline"]
    assert len(said) == 1
    assert "cannot be reached" in said[0]
    monkeypatch.setattr(tracking, "_reachable", lambda: True)
    assert tracking.wandb_run(settings, tmp_path) == "a run"
    assert modes[1:] == ["online"], "the control: with a network it is online"
    assert len(said) == 1


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is an extra")
def test_a_server_that_refuses_leaves_the_run_offline(monkeypatch, tmp_path):
    import wandb

    modes, said = [], []

    def init(mode, **_):
        modes.append(mode)
        if mode == "online":
            raise wandb.errors.CommError("401\nno such key")

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(tracking, "say", said.append)
    monkeypatch.setattr(tracking, "_reachable", lambda: True)
    tracking.wandb_run(
        tracking.TrackerSettings(kind="wandb", project="p", entity=None, tags=[], group="g", name="n", config={}),
        tmp_path,
    )
    assert modes == ["online", "offline"]
    assert "401 no such key" in said[0]
