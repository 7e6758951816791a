"""The front end's side of the model's process: starts it, talks to it, notices its end.

An abort inside llama.cpp ends that process and not the screen. Nothing but checked lines of text comes back from it.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from ggufsteer.engine.messages import LONGEST_LINE, Died, Event, Request, event_from, to_line
from ggufsteer.errors import EngineError
from ggufsteer.text import clean

_PACKAGE = Path(__file__).resolve().parents[1]
_START = "import sys; sys.path.append(sys.argv[1]); from ggufsteer.engine.worker_process import main; main()"
_LAST_WORDS = 6
_LONGEST_LAST_WORD = 300
_SECONDS_TO_LEAVE = 2.0


class Worker:
    """The model's process, seen from outside."""

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        """Take what is told of every event, from another thread; `Died` comes once for a process that ends unasked."""
        self._on_event = on_event
        self._running: _Running | None = None

    def start(self) -> None:
        """Start the process; best before a screen takes over the terminal.

        Raises:
            EngineError: The system could not start it.
        """
        if not self.alive:
            self._running = _Running(self._on_event)

    def send(self, request: Request) -> None:
        """Send a request; it is lost where no process runs, of which `Died` has told. Never blocks."""
        if self._running is not None:
            self._running.send(request)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._running is not None and self._running.alive

    @property
    def silent_seconds(self) -> float:
        """How long nothing was heard of the process; it sends a heartbeat each second."""
        return self._running.silent_seconds if self._running is not None else 0.0

    @property
    def process_id(self) -> int | None:
        """The process's number, for whoever wants to look at it or to end it."""
        return self._running.process_id if self._running is not None else None

    def restart(self) -> None:
        """End the process if it still runs, and start another; it knows nothing of what the first one was told."""
        self.close()
        self.start()

    def close(self) -> None:
        """End the process; it is not told of as dead."""
        if self._running is not None:
            self._running.close()
            self._running = None


class _Running:
    """One process, with a thread for each of its three streams."""

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event
        self._closing = False
        self._last_heard = time.monotonic()
        self._last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "GGML_NO_BACKTRACE": "1"}
        try:
            # A session of its own: Ctrl-C at the terminal is for the screen, which then decides.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, str(_PACKAGE.parent)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise EngineError(f"the model's process could not be started: {error}") from error
        self.process_id = self._process.pid
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._mourner = threading.Thread(target=self._keep_last_words, daemon=True)
        self._writer = threading.Thread(target=self._write, daemon=True)
        for thread in (self._listener, self._mourner, self._writer):
            thread.start()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def silent_seconds(self) -> float:
        return time.monotonic() - self._last_heard

    def send(self, request: Request) -> None:
        self._outgoing.put(to_line(request))

    def close(self) -> None:
        self._closing = True
        self._outgoing.put(None)
        try:
            self._process.wait(_SECONDS_TO_LEAVE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in (self._listener, self._mourner, self._writer):
            if thread is not threading.current_thread():
                thread.join(_SECONDS_TO_LEAVE)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _write(self) -> None:
        """Send what waits; a process that does not read must not hold up the screen."""
        stream = _there(self._process.stdin)
        with suppress(OSError, ValueError):
            while (line := self._outgoing.get()) is not None:
                stream.write(line)
                stream.flush()
        with suppress(OSError):
            stream.close()

    def _listen(self) -> None:
        stream = _there(self._process.stdout)
        problem = ""
        try:
            while line := stream.readline(LONGEST_LINE):
                self._last_heard = time.monotonic()
                self._tell(event_from(line))
        except EngineError as error:
            problem = error.message
            self._process.kill()
        except (OSError, ValueError) as error:
            problem = str(error)
        self._process.wait()
        self._mourner.join(_SECONDS_TO_LEAVE)
        self._outgoing.put(None)
        self._tell(Died(reason=self._reason(problem)))

    def _tell(self, event: Event) -> None:
        if not self._closing:
            self._on_event(event)

    def _keep_last_words(self) -> None:
        stream = _there(self._process.stderr)
        with suppress(OSError, ValueError):
            while line := stream.readline(1 << 16):
                text = clean(line.decode("utf-8", errors="replace")).strip()
                if text:
                    self._last_words.append(text[:_LONGEST_LAST_WORD])

    def _reason(self, problem: str) -> str:
        code = self._process.returncode
        if problem:
            ending = problem
        elif code < 0:
            ending = f"the model's process was ended by {_signal_name(-code)}"
        else:
            ending = f"the model's process ended with exit code {code}"
        words = "; ".join(self._last_words)
        return f"{ending}: {words}" if words else ending


def _there(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise RuntimeError("the process was started without pipes")
    return stream


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
