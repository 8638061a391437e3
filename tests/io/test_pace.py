"""A slow server: on an imagined clock, so that the figures do not depend on the machine."""

import asyncio
import json
from collections import Counter

import pytest

from alignlab.io import client as module
from alignlab.io.client import NoAnswer
from alignlab.io.endpoint import Endpoint
from alignlab.io.http import Response
from alignlab.io.openai_protocol import openai_server
from alignlab.io.pace import FIRST_LIMIT, Pace


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time is that of its next timer: hours pass in no time."""

    def __init__(self):
        self._now = 0.0
        super().__init__()
        wait = self._selector.select

        def select(timeout):
            self._now += timeout or 0.0
            assert timeout is not None or self._ready, "nothing will ever happen"
            return wait(0)

        self._selector.select = select

    def time(self):
        return self._now


class SlowServer:
    """Answers `lanes` calls at a time, each in `seconds`; a call whose client has gone is worked on all the same.

    Args:
        seconds: of a call alone, or a function of the text's number.
        lanes: calls that it works on at a time; the others wait in line.
        status: (time, number of the text) -> a status other than 200, at once, or None.
    """

    def __init__(self, seconds=2.0, *, lanes=1, status=lambda now, number: None):
        self.seconds = seconds if callable(seconds) else lambda number: seconds
        self.lanes, self.status = lanes, status
        self.tries, self.flying, self.most_flying, self.end = Counter(), 0, 0, 0.0
        self.work = None

    async def post(self, client, url, body, *, seconds, most_bytes):
        self.work = self.work or asyncio.Semaphore(self.lanes)
        number = body["number"]
        self.tries[number] += 1
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        try:
            now = asyncio.get_running_loop().time()
            status = self.status(now, number)
            if status == "refused":
                raise ConnectionRefusedError
            if status is not None:
                return Response(status, {}, b"{}")
            work = asyncio.ensure_future(self._work(number))
            async with asyncio.timeout(seconds):
                await asyncio.shield(work)
            return Response(200, {}, json.dumps({"number": number}).encode())
        finally:
            self.flying -= 1
            self.end = asyncio.get_running_loop().time()

    async def _work(self, number):
        async with self.work:
            await asyncio.sleep(self.seconds(number))


@pytest.fixture
def ask(monkeypatch):
    def run(slow, count, *, keep_unanswered=False, **changes):
        monkeypatch.setattr(asyncio.events, "new_event_loop", Clock)
        monkeypatch.setattr(module, "post", slow.post)
        settings = {"workers": 32, "timeout_s": 7.0, "deadline_s": 600.0, "backoff_s": 1.0, **changes}
        endpoint = Endpoint(section="judge", base_url="http://127.0.0.1:9/v1", api_key_env=None, **settings)
        server = openai_server(endpoint, check=lambda body: None, keep_unanswered=keep_unanswered)
        replies = {}
        server.ask(
            (module.Call(str(number), "completions", {"number": number}) for number in range(count)),
            lambda reply: replies.__setitem__(int(reply.call.id), reply),
        )
        slow.server = server
        return replies

    return run


@pytest.mark.parametrize("count", [40, 200])
def test_one_call_at_a_time_in_2_seconds_asked_by_32_workers(ask, count):
    slow = SlowServer(2.0)
    replies = ask(slow, count)
    assert sorted(replies) == list(range(count))
    assert all(reply.body == {"number": number} for number, reply in replies.items()), "nothing is given up"
    assert slow.tries.total() <= 1.1 * count
    assert slow.end <= 1.1 * 2 * count, "hardly slower than one call after the other"


def test_without_a_pace_the_same_server_ends_the_run(ask, monkeypatch):
    """The control: 32 in flight from the start to the end."""
    monkeypatch.setattr(Pace, "limit", 32)
    monkeypatch.setattr(Pace, "try_seconds", lambda self, timeouts=0: 7.0)
    slow = SlowServer(2.0)
    with pytest.raises(NoAnswer):
        ask(slow, 200)
    assert slow.tries.total() > 400


def test_a_server_that_needs_longer_than_a_try_is_given_it(ask):
    slow = SlowServer(10.0)
    replies = ask(slow, 30)
    assert all(reply.body for reply in replies.values())
    assert len(replies) == 30
    assert slow.tries.total() <= 30 + 6, "once seen, the time is known"


def test_a_fast_server_is_asked_by_all_workers(ask):
    slow = SlowServer(0.2, lanes=64)
    ask(slow, 400)
    assert slow.most_flying == 32
    assert slow.tries.total() == 400
    assert slow.end < 0.2 * (400 / 32 + 8)


def test_a_server_that_becomes_slow_is_asked_less(ask):
    slow = SlowServer(lambda number: 0.1 if number < 200 else 3.0, lanes=2)
    replies = ask(slow, 260)
    assert all(reply.body for reply in replies.values())
    assert slow.server.pace.limit <= 4
    assert slow.tries.total() <= 260 + 2 * 32, "those that were in flight twice more, at most"


@pytest.mark.parametrize("fault", [503, 500, 429, "refused"])
def test_a_server_that_is_down_for_a_while_is_gone_on_with(ask, fault):
    slow = SlowServer(0.5, lanes=32, status=lambda now, number: fault if 5 <= now < 60 else None)
    replies = ask(slow, 500)
    assert len(replies) == 500
    assert all(reply.body for reply in replies.values())
    assert slow.server.pace.was_cut


def test_a_text_that_hangs_is_given_up_and_the_others_are_not(ask):
    slow = SlowServer(lambda number: 1e6 if number % 10 == 3 else 0.5, lanes=32)
    replies = ask(slow, 50, keep_unanswered=True, deadline_s=60.0)
    assert len(replies) == 50
    assert {number for number, reply in replies.items() if reply.body is None} == {3, 13, 23, 33, 43}
    assert {reply.refusal for reply in replies.values() if reply.body is None} == {"no_answer"}
    assert slow.end < 4 * 60


def test_what_ran_out_of_time_in_the_crowd_is_tried_once_more_alone(ask):
    """Refuses one text as long as others are in flight."""
    slow = SlowServer(0.5, lanes=8)
    slow.status = lambda now, number: 503 if number == 5 and slow.flying > 1 else None
    replies = ask(slow, 2000, deadline_s=20.0, timeout_s=5.0)
    assert replies[5].body == {"number": 5}


def test_a_server_that_dies_for_good_ends_the_run(ask):
    slow = SlowServer(0.5, lanes=32, status=lambda now, number: "refused" if now > 3 else None)
    with pytest.raises(NoAnswer, match=r"judge\.deadline_s=60: ConnectionRefusedError"):
        ask(slow, 500, keep_unanswered=True, deadline_s=60.0)
    assert slow.end < 3 * 60


def pace(**changes):
    return Pace(**{"workers": 40, "timeout_s": 10.0, "deadline_s": 100.0, **changes})


def test_calls_in_flight_double_from_round_to_round_and_are_cut_once_a_burst():
    one = pace()
    assert one.limit == FIRST_LIMIT
    for _ in range(100):
        one.answered(started=0.0, now=0.1)
    assert one.limit == 40
    for started in (9.0, 9.5, 9.9):
        one.overloaded(started=started, now=10.0 + started / 100, timeout=False)
    assert one.limit == 32, "three refusals of one burst are one"
    one.overloaded(started=11.0, now=11.1, timeout=True)
    assert one.limit == 16
    for _ in range(17):
        one.answered(started=12.0, now=12.1)
    assert one.limit == 17, "once cut it grows by one for each round of answers"
    for now in range(100, 1000, 10):
        one.overloaded(started=float(now), now=now + 1.0, timeout=True)
    assert one.limit == 1


def test_slow_answers_lower_it_too():
    one = pace()
    for _ in range(20):
        one.answered(started=0.0, now=1.0)
    before = one.limit
    for number in range(16):
        one.answered(started=2.0 + number, now=10.0 + number)
    assert one.limit < before


def test_the_time_of_a_try_follows_what_was_needed():
    one = pace()
    assert one.try_seconds() == 10
    assert one.try_seconds(1) == 20
    assert one.try_seconds(9) == 100
    one.answered(started=0.0, now=12.0)
    assert one.try_seconds() == 36
