"""Asks an OpenAI-compatible server many things at once: bounded in time, tried again, each answered once.

The openai package sends; when to try again, how long to wait and when to stop is decided here, because its own retries
take an exhausted quota for a rate limit, miss broken bodies, and bound each read instead of the whole answer.
"""

import asyncio
import functools
import heapq
import itertools
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from alignlab.io.endpoint import Endpoint, one_call_a_connection
from alignlab.io.http_faults import Refused, Transient, body_of, fault_of

FIRST_LIMIT = 8
"""Calls in flight at the start; more as answers come, up to `workers`."""
CUT = 0.8
"""What a 429 leaves of the calls in flight."""
MOST_DOUBLINGS = 6
"""The wait before another try doubles this often, then stays."""
UNANSWERED_IN_A_ROW = 3
"""Calls that may run out of time one after the other before the server is asked whether it is there at all."""


class NoAnswer(RuntimeError):
    """Calls ran out of time; what was answered is kept, and the same command asks for the rest."""


@dataclass(frozen=True)
class Call:
    """One request to the server."""

    id: str
    path: str
    """`chat/completions` or `completions`."""
    body: dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What became of a call."""

    call: Call
    body: dict[str, Any] | None
    """The server's JSON object, of the right shape; None if it refused this call for good."""
    refusal: str = ""
    """Why there is no body: `content_filter`, `refused_400`, `no_answer`."""
    said: str = ""
    """The server's own words on a refusal; may quote the call, so it belongs in no file."""


@dataclass
class Traffic:
    """Counts of one session with a server."""

    tries: int = 0
    answered: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    """Kind of fault -> tries that ended so and were followed by another."""


@dataclass
class _Pending:
    call: Call
    started: float | None = None
    tries: int = 0


OnReply = Callable[[Reply], Call | None]
"""Receives each reply once, in the order they come; a call that it returns is asked next, in the place of the first."""


class OpenAIServer:
    """A server and what was learnt of it.

    Args:
        endpoint: where it is.
        check: what is wrong with the shape of an answer's JSON object, or None; a wrong shape is asked again.
        keep_unanswered: reply `no_answer` to a call that ran out of time; else raise NoAnswer when the others are done.
    """

    def __init__(
        self, endpoint: Endpoint, *, check: Callable[[dict[str, Any]], str | None], keep_unanswered: bool = False
    ) -> None:
        self.endpoint, self._check, self._keep_unanswered = endpoint, check, keep_unanswered
        self.traffic = Traffic()
        self._limit = float(min(FIRST_LIMIT, endpoint.workers))
        self._was_cut = False
        self._no_cut_before = self._paused_until = 0.0
        self._good_call: Call | None = None

    def ask(self, calls: Iterable[Call], on_reply: OnReply, *, probe: Call | None = None) -> None:
        """Makes every call; returns when all are answered.

        Args:
            calls: taken one by one as there is room. An error that it raises stops the session once the calls in
                flight are answered.
            on_reply: receives the replies, in this thread.
            probe: a call that a server in order answers, to ask when several others ran out of time; without one, the
                last that was answered.

        Raises:
            ConfigError: if the server wants another key, another address, or money; at once.
            NoAnswer: if it does not answer in time.
        """
        self._good_call = self._good_call or probe
        asyncio.run(_Session(self, iter(calls), on_reply).run())

    def _pace(self, now: float, fault: Transient | None) -> None:
        """Moves the limit on calls in flight: up with answers, down with a 429, once per burst."""
        if fault is None:
            step = 1 / self._limit if self._was_cut else 1.0
            self._limit = min(self._limit + step, self.endpoint.workers)
        elif fault.kind == "429" and now >= self._no_cut_before:
            self._limit, self._was_cut = max(1.0, self._limit * CUT), True
            self._no_cut_before = now + 4 * self.endpoint.backoff_s

    def _delay(self, pending: _Pending, fault: Transient) -> float:
        """Seconds until another try: what the server asks for, up to a quarter of the deadline, else a growing wait."""
        doublings = min(pending.tries - 1, MOST_DOUBLINGS)
        own = self.endpoint.backoff_s * float(2**doublings) * random.uniform(0.5, 1.5)
        if fault.retry_after is None:
            return own
        return max(min(fault.retry_after, self.endpoint.deadline_s / 4), 0.0) + own / 4

    async def _try(self, client: Any, call: Call, timeout: float) -> dict[str, Any]:
        """One try of a call.

        Raises:
            Transient, Refused, ConfigError.
        """
        import httpx2
        import openai

        self.traffic.tries += 1
        try:
            async with asyncio.timeout(timeout):
                response = await client.post(f"/{call.path}", cast_to=httpx2.Response, body=call.body)
        except TimeoutError:
            raise Transient("timeout") from None
        except openai.APIStatusError as error:
            raise fault_of(error.response, self.endpoint, str(call.body.get("model"))) from None
        except (openai.OpenAIError, httpx2.HTTPError, OSError) as error:
            raise Transient(type(error.__cause__ or error).__name__) from None
        body = body_of(response, self.endpoint)
        wrong = self._check(body)
        if wrong:
            raise Transient(f"wrong shape: {wrong}")
        return body


class _Session:
    """One run of `OpenAIServer.ask`."""

    def __init__(self, server: OpenAIServer, calls: Iterator[Call], on_reply: OnReply) -> None:
        self._server, self._calls, self._on_reply = server, calls, on_reply
        self._again: list[tuple[float, int, _Pending]] = []
        """Calls to try again: when, a running number, the call."""
        self._active: dict[asyncio.Task[dict[str, Any]], _Pending] = {}
        self._order = itertools.count()
        self._late: list[_Pending] = []
        self._late_in_a_row = 0
        self._calls_end: Exception | None = None
        self._exhausted = False

    async def run(self) -> None:
        """Makes every call, as many at once as the server bears, until all are answered or one error ends it."""
        client = _client(self._server.endpoint)
        clock = asyncio.get_running_loop().time
        try:
            while self._fill(client, clock()) or self._active or self._again or not self._exhausted:
                wait = self._until_next(clock())
                if not self._active:
                    await asyncio.sleep(wait or 0.0)
                    continue
                done, _ = await asyncio.wait(self._active, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    self._settle(self._active.pop(task), task, clock())
                if self._late_in_a_row >= UNANSWERED_IN_A_ROW:
                    await self._require_life(client)
            if self._late and self._server._keep_unanswered and self._calls_end is None:
                await self._require_life(client)
        finally:
            for task in self._active:
                task.cancel()
            await asyncio.gather(*self._active, return_exceptions=True)
            await client.close()
        self._end()

    def _fill(self, client: Any, now: float) -> bool:
        """Starts calls while there is room; says whether any was started."""
        started = False
        while len(self._active) < int(self._server._limit) and now >= self._server._paused_until:
            pending = self._next(now)
            if pending is None:
                break
            pending.started = now if pending.started is None else pending.started
            pending.tries += 1
            left = self._server.endpoint.deadline_s - (now - pending.started)
            timeout = min(self._server.endpoint.timeout_s, left)
            self._active[asyncio.create_task(self._server._try(client, pending.call, timeout))] = pending
            started = True
        return started

    def _push(self, when: float, pending: _Pending) -> None:
        heapq.heappush(self._again, (when, next(self._order), pending))

    def _next(self, now: float) -> _Pending | None:
        """The next call: one whose wait is over, else a new one."""
        if self._again and self._again[0][0] <= now:
            return heapq.heappop(self._again)[2]
        if self._exhausted:
            return None
        try:
            return _Pending(next(self._calls))
        except StopIteration:
            self._exhausted = True
        except Exception as error:  # no more money, say: the calls in flight are paid for, those that wait are not
            self._exhausted, self._calls_end = True, error
            self._again.clear()
        return None

    def _until_next(self, now: float) -> float | None:
        """Seconds until a waiting call may start; None if only an answer can change anything."""
        if len(self._active) >= int(self._server._limit):
            return None
        pause = max(self._server._paused_until - now, 0.0)
        if self._again:
            return max(self._again[0][0] - now, pause)
        return None if self._exhausted else pause

    def _settle(self, pending: _Pending, task: "asyncio.Task[dict[str, Any]]", now: float) -> None:
        error = task.exception()
        if error is None:
            self._replied(pending, Reply(pending.call, task.result()), now)
        elif isinstance(error, Refused):
            self._replied(pending, Reply(pending.call, None, error.kind, error.said), now)
        elif isinstance(error, Transient):
            self._again_or_late(pending, error, now)
        else:
            raise error

    def _replied(self, pending: _Pending, reply: Reply, now: float) -> None:
        server = self._server
        server._pace(now, None)
        server.traffic.answered += 1
        server._good_call = reply.call if reply.body is not None else server._good_call
        self._alive()
        follow_up = self._on_reply(reply)
        if follow_up is not None and self._calls_end is None:
            self._push(now, _Pending(follow_up))

    def _again_or_late(self, pending: _Pending, fault: Transient, now: float) -> None:
        server = self._server
        server.traffic.faults[fault.kind] += 1
        server._pace(now, fault)
        delay = server._delay(pending, fault)
        if fault.retry_after is not None:
            server._paused_until = max(server._paused_until, now + delay)
        assert pending.started is not None
        if self._calls_end is not None:
            return
        if now - pending.started + delay < server.endpoint.deadline_s:
            self._push(now + delay, pending)
            return
        self._late.append(pending)
        self._late_in_a_row += 1

    def _alive(self) -> None:
        """The server answers, so what ran out of time is what it cannot answer."""
        self._late_in_a_row = 0
        while self._late and self._server._keep_unanswered:
            self._on_reply(Reply(self._late.pop(0).call, None, "no_answer"))

    async def _require_life(self, client: Any) -> None:
        """Asks what was answered before, or the probe.

        Raises:
            NoAnswer: if that is not answered either: then it is the server, not the calls that ran out of time.
        """
        if self._server._good_call is None:
            raise self._no_answer()
        try:
            await self._server._try(client, self._server._good_call, self._server.endpoint.timeout_s)
        except Transient:
            raise self._no_answer() from None
        self._alive()

    def _end(self) -> None:
        if self._calls_end is not None:
            raise self._calls_end
        if self._late:
            raise self._no_answer()

    def _no_answer(self) -> NoAnswer:
        endpoint, faults = self._server.endpoint, self._server.traffic.faults
        kinds = ", ".join(f"{kind} ({count} times)" for kind, count in faults.most_common(3))
        return NoAnswer(
            f"{endpoint.section}.base_url={endpoint.base_url}: {len(self._late)} calls got no good answer within "
            f"{endpoint.section}.deadline_s={endpoint.deadline_s:g}: {kinds}; the same command goes on from here"
        )


def _client(endpoint: Endpoint) -> Any:
    import openai

    for name in ("openai", "httpx2", "httpcore2"):  # a line for each call would fill the job's log
        logging.getLogger(name).setLevel(logging.WARNING)
    http = openai.DefaultAsyncHttpxClient(
        follow_redirects=False, limits=one_call_a_connection(), verify=_certificates()
    )
    return openai.AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=endpoint.key() or "none",
        # Empty, or the package takes them from the environment and sends them to whatever server this is.
        admin_api_key="",
        organization="",
        project="",
        max_retries=0,
        timeout=endpoint.timeout_s,
        http_client=http,
    )


@functools.cache
def _certificates() -> Any:
    """Read once: it takes longer than a call to a server nearby."""
    import httpx2

    return httpx2.create_ssl_context()
