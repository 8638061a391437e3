"""Asks a server many things at once: bounded in time, tried again, each answered once, at a pace that it bears."""

import asyncio
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from alignlab.errors import ConfigError
from alignlab.io.endpoint import Endpoint
from alignlab.io.http import Response, Unreadable, http_client, post
from alignlab.io.pace import Pace
from alignlab.runs.progress import say

MOST_DOUBLINGS = 6
"""The wait before another try doubles this often, then stays."""
UNANSWERED_IN_A_ROW = 3
"""Calls that may run out of time one after the other before the server is asked whether it is there at all."""
MISFITS_AT_FIRST, MISFITS = 3, 6
"""Tries of a call that may end in a misfit, from a server that has not answered yet, and from one that has."""
TRIES_BEFORE_A_NOTICE = 3
"""Failed tries without any answer before it is said that the server is waited for."""


class Transient(Exception):
    """This try failed in a way that another may not.

    Args:
        kind: what the counts call it.
        retry_after: seconds that the server asks to wait, or None.
        overload: whether fewer calls in flight may help.
    """

    def __init__(self, kind: str, *, retry_after: float | None = None, overload: bool = False) -> None:
        super().__init__(kind)
        self.kind, self.retry_after, self.overload = kind, retry_after, overload


class Misfit(Transient):
    """An answer that another server would give: a redirect, a web page, a stream. Waiting rarely helps.

    Args:
        kind: what the counts call it.
        why: what it may be, for the person who gave the address.
    """

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(kind)
        self.why = why


class Refused(Exception):
    """The server will not answer this call, however often it is asked; the others may be fine."""

    def __init__(self, kind: str, said: str) -> None:
        super().__init__(kind)
        self.kind, self.said = kind, said


class NoAnswer(RuntimeError):
    """Calls ran out of time; what was answered is kept, and the same command asks for the rest."""


@dataclass(frozen=True)
class Call:
    """One request to the server."""

    id: str
    path: str
    """Below the endpoint's address, e.g. `chat/completions`; empty for the address itself."""
    body: dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What became of a call."""

    call: Call
    body: Any
    """What `read` made of the answer; None if the server refused this call for good."""
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
    """Kind of fault -> tries that ended so."""


@dataclass
class _Pending:
    call: Call
    started: float | None = None
    """When the first try began."""
    tried: float = 0.0
    """When the last try began."""
    tries: int = 0
    timeouts: int = 0
    misfits: int = 0
    last: bool = False
    """Whether this is a last try, with no other call in flight."""


OnReply = Callable[[Reply], Call | None]
"""Receives each reply once, in the order they come; a call that it returns is asked next, in place of the first."""


class Server:
    """A server and what was learnt of it.

    Args:
        endpoint: where it is.
        read: makes a reply's body of a call and its answer, or raises Transient, Refused, or an error that ends all.
        keep_unanswered: reply `no_answer` to a call that ran out of time; else raise NoAnswer when the others are done.
    """

    def __init__(
        self, endpoint: Endpoint, *, read: Callable[[Call, Response], Any], keep_unanswered: bool = False
    ) -> None:
        self.endpoint, self.read, self.keep_unanswered = endpoint, read, keep_unanswered
        self.traffic = Traffic()
        self.pace = Pace(workers=endpoint.workers, timeout_s=endpoint.timeout_s, deadline_s=endpoint.deadline_s)
        self.paused_until = 0.0
        self.good_call: Call | None = None

    def ask(self, calls: Iterable[Call], on_reply: OnReply, *, probe: Call | None = None) -> None:
        """Make every call; return when all are answered.

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
        self.good_call = self.good_call or probe
        asyncio.run(_Session(self, iter(calls), on_reply).run())

    def delay(self, tries: int, fault: Transient) -> float:
        """Seconds until another try: what the server asks for, up to a quarter of the deadline, else a growing wait."""
        doublings = min(tries - 1, MOST_DOUBLINGS)
        own = self.endpoint.backoff_s * float(2**doublings) * random.uniform(0.5, 1.5)
        if fault.retry_after is None:
            return own
        return max(min(fault.retry_after, self.endpoint.deadline_s / 4), 0.0) + own / 4

    async def try_once(self, client: Any, call: Call, seconds: float) -> Any:
        """One try of a call.

        Args:
            client: keeps the connections.
            call: what is asked.
            seconds: for the whole try.

        Raises:
            Transient, Refused, ConfigError, or what `read` raises.
        """
        import httpx2

        self.traffic.tries += 1
        try:
            url = self.endpoint.url(call.path)
            answer = await post(client, url, call.body, seconds=seconds, most_bytes=self.endpoint.most_bytes)
        except TimeoutError:
            raise Transient("timeout", overload=True) from None
        except Unreadable as error:
            raise Misfit(str(error), "no judge, generator or reward answers so") from None
        except (httpx2.HTTPError, OSError) as error:
            raise Transient(type(error).__name__, overload=True) from None
        return self.read(call, answer)


class _Session:
    """One run of `Server.ask`."""

    def __init__(self, server: Server, calls: Iterator[Call], on_reply: OnReply) -> None:
        self._server, self._calls, self._on_reply = server, calls, on_reply
        self._again: list[tuple[float, int, _Pending]] = []
        """Calls to try again: when, a running number, the call."""
        self._active: dict[asyncio.Task[Any], _Pending] = {}
        self._order = itertools.count()
        self._late: list[_Pending] = []
        """Calls whose time is over."""
        self._late_in_a_row = 0
        self._calls_end: Exception | None = None
        self._exhausted = False

    async def run(self) -> None:
        """Make every call, as many at once as the server bears, until all are answered or one error ends it."""
        client = http_client(self._server.endpoint)
        try:
            await self._ask_all(client)
            if self._server.traffic.answered and self._calls_end is None:
                await self._last_tries(client)
        finally:
            for task in self._active:
                task.cancel()
            await asyncio.gather(*self._active, return_exceptions=True)
            await client.aclose()
        self._end()

    async def _ask_all(self, client: Any) -> None:
        clock = asyncio.get_running_loop().time
        while self._fill(client, clock()) or self._active or self._again or not self._exhausted:
            if not self._active:
                if self._in_doubt:
                    await self._require_life(client)
                else:
                    await asyncio.sleep(self._until_next(clock()) or 0.0)
                continue
            wait = self._until_next(clock())
            done, _ = await asyncio.wait(self._active, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                self._settle(self._active.pop(task), task, clock())
        unknown = self._late and self._server.keep_unanswered and not self._server.traffic.answered
        if self._in_doubt or unknown:
            await self._require_life(client)

    async def _last_tries(self, client: Any) -> None:
        """Try each call that ran out of time once more, alone: the others may have kept the server from it.

        The rest stays unanswered when the server answers none of them for as long as deadline_s.
        """
        clock, server = asyncio.get_running_loop().time, self._server
        waiting, self._late = self._late, []
        since, failed = clock(), 0
        for pending in waiting:
            await asyncio.sleep(max(server.paused_until - clock(), 0.0))
            if clock() - since >= server.endpoint.deadline_s:
                self._late.append(pending)
                continue
            pending.last, pending.tried, pending.timeouts = True, clock(), min(pending.timeouts, 1)
            task = asyncio.create_task(server.try_once(client, pending.call, self._seconds(pending)))
            self._active[task] = pending
            await asyncio.wait([task])
            self._settle(self._active.pop(task), task, clock())
            failed = failed + 1 if isinstance(task.exception(), Transient) else 0
            if not failed:
                since = clock()
                await self._ask_all(client)  # a reply may have led to another call
            elif failed == UNANSWERED_IN_A_ROW:
                await self._require_life(client)
                failed = 0

    @property
    def _in_doubt(self) -> bool:
        """Whether so many calls ran out of time in a row that the server itself may be gone."""
        return self._late_in_a_row >= UNANSWERED_IN_A_ROW

    def _fill(self, client: Any, now: float) -> bool:
        """Start calls while there is room; say whether any was started."""
        started = False
        while not self._in_doubt and len(self._active) < self._server.pace.limit and now >= self._server.paused_until:
            pending = self._next(now)
            if pending is None:
                break
            pending.started = now if pending.started is None else pending.started
            pending.tried, pending.tries = now, pending.tries + 1
            left = self._server.endpoint.deadline_s - (now - pending.started)
            seconds = min(self._seconds(pending), max(left, self._server.endpoint.timeout_s))
            self._active[asyncio.create_task(self._server.try_once(client, pending.call, seconds))] = pending
            started = True
        return started

    def _seconds(self, pending: _Pending) -> float:
        return self._server.pace.try_seconds(pending.timeouts)

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
        if self._in_doubt or len(self._active) >= self._server.pace.limit:
            return None
        pause = max(self._server.paused_until - now, 0.0)
        if self._again:
            return max(self._again[0][0] - now, pause)
        return None if self._exhausted else pause

    def _settle(self, pending: _Pending, task: "asyncio.Task[Any]", now: float) -> None:
        error = task.exception()
        if error is None:
            self._replied(pending, Reply(pending.call, task.result()), now)
        elif isinstance(error, Refused):
            self._replied(pending, Reply(pending.call, None, error.kind, error.said), now)
        elif isinstance(error, Transient):
            self._failed(pending, error, now)
        else:
            raise error

    def _replied(self, pending: _Pending, reply: Reply, now: float) -> None:
        server = self._server
        server.pace.answered(started=pending.tried, now=now)
        server.traffic.answered += 1
        server.good_call = reply.call if reply.body is not None else server.good_call
        self._late_in_a_row = 0
        follow_up = self._on_reply(reply)
        if follow_up is not None and self._calls_end is None:
            self._push(now, _Pending(follow_up))

    def _failed(self, pending: _Pending, fault: Transient, now: float) -> None:
        """Wait for another try, or note that the call's time is over."""
        server = self._server
        server.traffic.faults[fault.kind] += 1
        timeout = fault.kind == "timeout"
        pending.timeouts += timeout
        pending.misfits = pending.misfits + 1 if isinstance(fault, Misfit) else 0
        if fault.overload:
            server.pace.overloaded(started=pending.tried, now=now, timeout=timeout)
        delay = server.delay(pending.tries, fault)
        if fault.retry_after is not None:
            server.paused_until = max(server.paused_until, now + delay)
        if self._calls_end is not None:
            return
        self._notice(pending, fault)
        assert pending.started is not None
        hopeless = pending.last or pending.misfits >= MISFITS
        if not hopeless and now - pending.started + delay < server.endpoint.deadline_s:
            self._push(now + delay, pending)
            return
        self._late.append(pending)
        self._late_in_a_row += not pending.last

    def _notice(self, pending: _Pending, fault: Transient) -> None:
        """Say early that a server that has never answered is waited for, or stop where waiting rarely helps.

        Raises:
            ConfigError: if it gives another kind of answer again and again.
        """
        endpoint, traffic = self._server.endpoint, self._server.traffic
        if traffic.answered:
            return
        if isinstance(fault, Misfit) and pending.misfits >= MISFITS_AT_FIRST:
            raise ConfigError(f"{endpoint.shown}: answers with {fault.kind}: {fault.why}")
        if traffic.faults.total() == TRIES_BEFORE_A_NOTICE:
            say(f"{endpoint.shown}: no answer yet ({fault.kind}); asked again for up to {endpoint.deadline_s:g} s")

    async def _require_life(self, client: Any) -> None:
        """Ask what was answered before, or the probe.

        Raises:
            NoAnswer: if that is not answered either: then it is the server, not the calls that ran out of time.
        """
        if self._server.good_call is None:
            raise self._no_answer()
        try:
            await self._server.try_once(client, self._server.good_call, self._server.pace.try_seconds(1))
        except Transient:
            raise self._no_answer() from None
        self._server.traffic.answered += 1
        self._late_in_a_row = 0

    def _end(self) -> None:
        if self._calls_end is not None:
            raise self._calls_end
        if not self._late:
            return
        if not (self._server.keep_unanswered and self._server.traffic.answered):
            raise self._no_answer()
        for pending in self._late:
            self._on_reply(Reply(pending.call, None, "no_answer"))

    def _no_answer(self) -> NoAnswer:
        endpoint, faults = self._server.endpoint, self._server.traffic.faults
        kinds = ", ".join(f"{kind} ({count} times)" for kind, count in faults.most_common(3))
        return NoAnswer(
            f"{endpoint.shown}: {len(self._late)} calls got no good answer within "
            f"{endpoint.section}.deadline_s={endpoint.deadline_s:g}: {kinds}; rerun the same command to resume"
        )
