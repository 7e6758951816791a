"""The child process that holds the model: reads requests from its standard input, writes events to its standard output.

It ends when its input ends, whatever llama.cpp is doing at the moment, so that no process is left behind by a screen
that was killed. What libraries print goes to standard error, where it cannot be taken for an event.
"""

import os
import queue
import sys
import threading
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from ggufsteer.engine.messages import LONGEST_LINE, Alive, Event, Failed, Request, request_from, to_line
from ggufsteer.errors import EngineError

if TYPE_CHECKING:
    from ggufsteer.engine.serving import Service

SECONDS_BETWEEN_HEARTBEATS = 1.0
_FAULT = 3


class _Outbox:
    """Writes events, from any thread."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def emit(self, event: Event) -> None:
        """Write one event; without a reader there is nobody left to work for."""
        try:
            with self._lock:
                self._file.write(to_line(event))
                self._file.flush()
        except OSError:
            os._exit(0)


def main() -> NoReturn:
    """Serve until the input ends."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    outbox = _Outbox(output)
    requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, requests), daemon=True).start()

    # After the threads have started: importing llama.cpp takes a while, and somebody may want to leave meanwhile.
    from ggufsteer.engine.serving import Service

    def take() -> Request | None:
        try:
            return requests.get_nowait()
        except queue.Empty:
            return None

    service = Service(take, outbox.emit)
    threading.Thread(target=_beat, args=(service, outbox), daemon=True).start()
    while True:
        request = requests.get()
        try:
            service.handle(request)
        except Exception as error:  # noqa: BLE001  # a fault of ours must not end the conversation
            message = f"{type(error).__name__}: {error}"
            outbox.emit(Failed(request=request.do, message=message, hint="this is a fault of ggufsteer"))


def _receive(file: BinaryIO, requests: "queue.SimpleQueue[Request]") -> None:
    while line := file.readline(LONGEST_LINE):
        try:
            requests.put(request_from(line))
        except EngineError as error:
            sys.stderr.write(f"{error}\n")
            sys.stderr.flush()
            os._exit(_FAULT)
    # Not sys.exit: the main thread may be inside llama.cpp for minutes.
    os._exit(0)


def _beat(service: "Service", outbox: _Outbox) -> None:
    pause = threading.Event()
    while True:
        outbox.emit(Alive(doing=service.doing))
        pause.wait(SECONDS_BETWEEN_HEARTBEATS)


if __name__ == "__main__":
    main()
