"""How many calls are in flight and how long a try may take, by what a server was seen to bear.

Additive increase, multiplicative decrease, as TCP does it: answers raise the number of calls in flight, timeouts,
overload statuses, refused connections and long latencies lower it, once for each burst.
"""

import math
from collections import deque

FIRST_LIMIT = 2
"""Calls in flight at the start; one more for each answer, so the number doubles from round to round."""
CUT, TIMEOUT_CUT = 0.8, 0.5
"""What an overload status, or a timeout, leaves of the calls in flight."""
SLOW = 0.5
"""Fraction of timeout_s: calls that take longer are answered too slowly to have more of them in flight."""
LATENCIES = 16
"""Answers whose latencies are remembered."""
ROOM = 3.0
"""Time of a try, in latencies of a slow answer."""


class Pace:
    """The pace of one server.

    Args:
        workers: most calls in flight.
        timeout_s: time of a try, until the server is seen to need more.
        deadline_s: longest time of any try.
    """

    def __init__(self, *, workers: int, timeout_s: float, deadline_s: float) -> None:
        self._workers, self._timeout_s, self._deadline_s = workers, timeout_s, deadline_s
        self._limit = float(min(FIRST_LIMIT, workers))
        self._latencies: deque[tuple[float, float]] = deque(maxlen=LATENCIES)
        """Start of a try, and the seconds until its answer."""
        self._cut_at = -math.inf
        self.was_cut = False

    @property
    def limit(self) -> int:
        """Calls that may be in flight."""
        return int(self._limit)

    def try_seconds(self, timeouts: int = 0) -> float:
        """Time of a call's next try.

        Args:
            timeouts: tries of this call that ran out of time; each doubles it.
        """
        needed = max(self._timeout_s, ROOM * _slow([seconds for _, seconds in self._latencies]))
        return float(min(needed * 2**timeouts, self._deadline_s))

    def answered(self, *, started: float, now: float) -> None:
        """Note an answer to a try that began at `started`."""
        self._latencies.append((started, now - started))
        slow = _slow([seconds for start, seconds in self._latencies if start >= self._cut_at])
        bound = SLOW * self._timeout_s
        if slow > bound and self.limit > 1:
            self._cut(CUT, started, now)
        elif slow * (self._limit + 1) / self._limit <= bound:  # even if the server answers one call at a time
            self._limit = min(self._limit + (1 / self._limit if self.was_cut else 1.0), self._workers)

    def overloaded(self, *, started: float, now: float, timeout: bool) -> None:
        """Note a timeout, an overload status or a refused connection of a try that began at `started`.

        Args:
            started: of the try, monotonic seconds.
            now: monotonic seconds.
            timeout: whether the try ran out of time.
        """
        self._cut(TIMEOUT_CUT if timeout else CUT, started, now)

    def _cut(self, factor: float, started: float, now: float) -> None:
        if started < self._cut_at:  # this try was in flight when the last cut was made: the same burst
            return
        self._limit, self._cut_at = max(1.0, self._limit * factor), now
        self.was_cut = True


def _slow(latencies: list[float]) -> float:
    """Their 80th percentile; 0 without any."""
    return sorted(latencies)[math.ceil(0.8 * len(latencies)) - 1] if latencies else 0.0
