"""Ctrl-C that cannot get lost.

Python turns Ctrl-C into an exception wherever it happens to be, and an exception inside a callback that C code called
is swallowed there. So the request is also remembered, and asked for whenever a task reports its progress.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_asked = threading.Event()


def check() -> None:
    """Raise `KeyboardInterrupt` if Ctrl-C was pressed since the command began."""
    if _asked.is_set():
        raise KeyboardInterrupt


@contextmanager
def remembered() -> Iterator[None]:
    """Remember Ctrl-C while a command runs; afterwards everything is as before."""
    _asked.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, _on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # the signature of a handler
    _asked.set()
    raise KeyboardInterrupt
