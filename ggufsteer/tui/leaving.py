"""Signals that end the program: the screen is left by its ordinary way, so that the terminal is as before."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress

_OF_A_SIGNAL = 128
"""What shells add to a signal's number."""


def restore_on_signals(leave: Callable[[int], None]) -> None:
    """Call `leave` with an exit code when the program is told to end; to be called in the screen's loop."""
    loop = asyncio.get_running_loop()
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        number = getattr(signal, name, None)
        if number is not None:
            # Only a main thread may, and Windows cannot at all; what is lost is a tidy end by a signal.
            with suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, leave, _OF_A_SIGNAL + number)
