"""Events of the model's process on their way from the thread that reads them to the screen's."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator

from ggufsteer.engine.messages import Event

_LONGEST_TURN = 0.02
"""Seconds: after that a key may be waiting."""


class Inbox:
    """A line of events. Anyone may put, one takes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Its append and popleft are atomic, so no lock is needed.
        self._events: deque[Event] = deque()
        self._last = clock()

    @property
    def silent_seconds(self) -> float:
        """How long nothing has come; a process that lives gives a sign each second."""
        return self._clock() - self._last

    def put(self, event: Event) -> None:
        """Add an event; from any thread."""
        self._last = self._clock()
        self._events.append(event)

    def taken(self) -> Iterator[Event]:
        """Take events in order, until there are none or a key may have waited long enough; the rest comes next time."""
        end = self._clock() + _LONGEST_TURN
        while self._events and self._clock() < end:
            yield self._events.popleft()
