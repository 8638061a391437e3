"""Asking a server many things: order, limits, waits, ends. The catalogue of faults is tried through a judge."""

import email.utils
import os
import signal
import threading
import time
from contextlib import contextmanager

import pytest

from alignlab.errors import ConfigError, Terminated
from alignlab.io.client import Call, Reply, Transient
from alignlab.io.endpoint import Endpoint
from alignlab.io.openai_protocol import openai_server, retry_after
from support.servers import FaultServer


def endpoint(url="http://127.0.0.1:9/v1", **changes):
    settings = {"workers": 4, "timeout_s": 5.0, "deadline_s": 20.0, "backoff_s": 0.005, **changes}
    return Endpoint(section="judge", base_url=url, api_key_env=None, **settings)


def calls(count):
    for number in range(count):
        prompt = f"Continuation:\n> text {number}\n\n"
        yield Call(str(number), "chat/completions", {"model": "m", "messages": [{"role": "user", "content": prompt}]})


def server_of(running, **changes):
    return openai_server(endpoint(running.url, **changes), check=lambda body: None)


def ask(server, some):
    replies = []
    server.ask(some, lambda reply: replies.append(reply))
    return replies


def test_each_call_is_answered_once():
    with FaultServer("500", share=0.5) as running:
        replies = ask(server_of(running), calls(30))
    assert sorted(int(reply.call.id) for reply in replies) == list(range(30))
    assert all(f"text {reply.call.id}" in reply.call.body["messages"][0]["content"] for reply in replies)
    assert all(reply.body["choices"] for reply in replies)


def test_no_calls_are_soon_made():
    with FaultServer() as running:
        assert ask(server_of(running), []) == []


def test_the_path_and_the_body_are_as_given():
    seen = []
    with FaultServer() as running:
        running.saw = lambda path, headers, body: seen.append((path, body))
        (call,) = calls(1)
        body = {**call.body, "logprobs": None, "echo": True, "prompt": [1, 2]}
        ask(server_of(running), [Call("x", "completions", body)])
    assert seen == [("/v1/completions", body)]


def test_calls_are_taken_as_there_is_room():
    """So that whoever makes them can stop in time, and a long list need not be in memory."""
    taken, answered = [], []

    def one_by_one():
        for call in calls(40):
            taken.append(call)
            assert len(taken) - len(answered) <= 2
            yield call

    with FaultServer() as running:
        server_of(running, workers=2).ask(one_by_one(), lambda reply: answered.append(reply))
    assert len(answered) == 40


def test_an_error_of_the_maker_ends_the_session_after_the_calls_in_flight():
    def few():
        yield from calls(6)
        raise ConfigError("no money")

    replies = []
    with FaultServer(pause=0.05) as running, pytest.raises(ConfigError, match="no money"):
        server_of(running, workers=8).ask(few(), lambda reply: replies.append(reply))
    assert len(replies) == 6


def test_an_error_of_the_receiver_ends_the_session_at_once():
    def receive(reply):
        raise OSError("disk full")

    with FaultServer() as running, pytest.raises(OSError, match="disk full"):
        server_of(running).ask(calls(40), receive)
    assert running.calls.total() <= 5


def test_a_call_that_the_receiver_returns_is_asked_next():
    answered = []

    def receive(reply: Reply):
        answered.append(reply.call.id)
        return Call("again", reply.call.path, reply.call.body) if reply.call.id == "1" else None

    with FaultServer() as running:
        server_of(running, workers=1).ask(calls(4), receive)
    assert answered == ["0", "1", "again", "2", "3"]


@contextmanager
def signals():
    """As in a job: SIGTERM raises Terminated, and SIGINT is heard even where a shell's background has it ignored."""

    def terminated(*_):
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminated), signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_ends_the_session_at_once_and_keeps_the_answers(number, error):
    replies, sent = [], []

    def note(reply):
        replies.append(reply)
        if len(replies) == 1:  # this process gets the signal a moment later, while other calls hang
            timer = threading.Timer(0.2, lambda: sent.append(time.monotonic()) or os.kill(os.getpid(), number))
            timer.start()

    with FaultServer("hang", share=0.4) as running:
        with pytest.raises(error), signals():
            server_of(running, timeout_s=15.0).ask(calls(40), note)
        assert time.monotonic() - sent[0] < 10
        left = len(replies)
        time.sleep(0.05)
        assert len(replies) == left, "nothing goes on in the background"
    assert 0 < left < 40


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": email.utils.formatdate(0, usegmt=True)}, 0.0),
    ],
)
def test_how_long_a_server_asks_to_wait(headers, seconds):
    assert retry_after(headers) == seconds


def test_a_date_is_a_time_to_wait_until():
    assert retry_after({"retry-after": email.utils.formatdate(time.time() + 60, usegmt=True)}) == pytest.approx(
        60, abs=2
    )


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-inf", "1e999", "Fri, 31 Dec 99999999 23:59:59 GMT", "Fri, 99 Zzz 2026 00:00:00 GMT", "\0"]
)
def test_a_wait_that_is_no_number_is_none(value):
    assert retry_after({"retry-after": value}) is None
    assert retry_after({"retry-after-ms": value}) is None


def test_a_wait_is_as_asked_up_to_a_quarter_of_the_deadline_and_else_grows():
    server = openai_server(endpoint(backoff_s=1.0, deadline_s=100.0), check=lambda body: None)
    assert 10 <= server.delay(1, Transient("429", retry_after=10.0)) <= 10.4
    assert 25 <= server.delay(1, Transient("429", retry_after=3600.0)) <= 25.4
    waits = [server.delay(tries, Transient("500")) for tries in range(1, 12)]
    bounds = [2 ** min(tries, 6) for tries in range(11)]
    assert all(0.5 * bound <= wait <= 1.5 * bound for wait, bound in zip(waits, bounds, strict=True))
    assert len(set(waits)) == 11, "no two clients come back together"
