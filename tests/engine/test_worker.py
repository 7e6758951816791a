"""The model's process from outside: it answers, it can be ended in any way, and none of that harms who talks to it."""

import os
import queue
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ggufsteer.engine.messages import (
    Alive,
    ChangeSettings,
    Died,
    Event,
    Failed,
    Finished,
    Generate,
    Load,
    Loaded,
    SamplingSettings,
    Statistics,
    StatisticsRead,
    Stop,
    Turn,
    Wrote,
    event_from,
    request_from,
    to_line,
)
from ggufsteer.engine.worker import Worker
from ggufsteer.errors import EngineError

PATIENCE = 60.0
ASK = Generate(
    turns=(Turn(role="user", content="What is tea?"),), sampling=SamplingSettings(temperature=0.0, max_tokens=8)
)
ENDLESS = ASK.model_copy(update={"sampling": SamplingSettings(temperature=5.0, top_p=1.0, seed=1)})


class Ears:
    """Hears what a worker says, and waits for it."""

    def __init__(self) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.n_beats = 0

    def __call__(self, event: Event) -> None:
        """Hear an event."""
        self.n_beats += isinstance(event, Alive)
        if not isinstance(event, Alive):
            self.events.put(event)

    def until(self, *kinds: type) -> Event:
        """Give the next event of one of these kinds."""
        while True:
            event = self.events.get(timeout=PATIENCE)
            if isinstance(event, kinds):
                return event
            assert not isinstance(event, Failed | Died), event


@pytest.fixture
def ears() -> Ears:
    """What hears the worker."""
    return Ears()


@pytest.fixture
def worker(ears: Ears, tiny_paths: dict[str, Path]) -> Iterator[Worker]:
    """A worker whose model is loaded."""
    worker = Worker(ears)
    worker.start()
    load(worker, ears, tiny_paths)
    yield worker
    worker.close()
    assert not worker.alive


def load(worker: Worker, ears: Ears, tiny_paths: dict[str, Path]) -> None:
    """Load the tiny model."""
    worker.send(Load(model=str(tiny_paths["F32"]), n_threads=1))
    ears.until(Loaded)


def ask(worker: Worker, ears: Ears) -> tuple[int, ...]:
    """Let it answer; gives the tokens."""
    worker.send(ASK)
    tokens: list[int] = []
    while isinstance(event := ears.until(Wrote, Finished), Wrote):
        tokens += event.tokens
    return tuple(tokens)


def test_it_answers_and_beats(worker: Worker, ears: Ears) -> None:
    """The same question has the same answer, and the heart beats meanwhile."""
    assert ask(worker, ears) == ask(worker, ears)
    assert ears.n_beats >= 1
    assert worker.silent_seconds < PATIENCE


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV, signal.SIGKILL])
def test_its_death_is_told_once_and_another_takes_over(
    worker: Worker, ears: Ears, tiny_paths: dict[str, Path], number: signal.Signals
) -> None:
    """In the middle of an answer, with the signal's name; after a restart the same question has the same answer."""
    before = ask(worker, ears)
    worker.send(ENDLESS)
    ears.until(Wrote)
    assert worker.process_id is not None
    os.kill(worker.process_id, number)
    died = next_death(ears)
    assert number.name in died.reason
    assert not worker.alive
    worker.send(ASK)
    worker.restart()
    load(worker, ears, tiny_paths)
    assert ask(worker, ears) == before
    assert ears.events.empty()


def next_death(ears: Ears) -> Died:
    """Wait for the end, whatever is said before."""
    while not isinstance(event := ears.events.get(timeout=PATIENCE), Died):
        assert isinstance(event, Wrote | Finished), event
    return event


def test_stopping_and_changing_reach_it_while_it_writes(worker: Worker, ears: Ears) -> None:
    """An answer without an end is ended by a word."""
    worker.send(ENDLESS)
    ears.until(Wrote)
    worker.send(ChangeSettings(settings=()))
    worker.send(Statistics())
    ears.until(StatisticsRead)
    worker.send(Stop())
    finished = ears.until(Finished)
    assert isinstance(finished, Finished)
    assert finished.reason in ("stopped", "context", "end")


def test_closing_ends_it_at_once_whatever_it_does(worker: Worker, ears: Ears) -> None:
    """Nobody waits for an answer that nobody will read, and nothing is told of an end that was asked for."""
    worker.send(ENDLESS)
    ears.until(Wrote)
    number = worker.process_id
    assert number is not None
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
    assert not [event for event in iter_queue(ears.events) if isinstance(event, Died)]


def iter_queue(events: "queue.Queue[Event]") -> Iterator[Event]:
    """Give what is in the queue."""
    while not events.empty():
        yield events.get()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the system does not tell of other processes' ends")
def test_it_ends_with_the_process_that_started_it(tiny_paths: dict[str, Path]) -> None:
    """Also when that one was killed and could not say goodbye."""
    program = """
import sys, time
from ggufsteer.engine.messages import Load, Loaded
from ggufsteer.engine.worker import Worker
worker = Worker(lambda event: print(worker.process_id, flush=True) if isinstance(event, Loaded) else None)
worker.start()
worker.send(Load(model=sys.argv[1], n_threads=1))
time.sleep(600)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tiny_paths["F32"])],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert parent.stdout is not None
    number = int(parent.stdout.readline())
    watch = os.pidfd_open(number)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    ended, _, _ = select.select([watch], [], [], PATIENCE)
    os.close(watch)
    assert ended


def test_ctrl_c_at_the_terminal_is_not_for_it(worker: Worker, ears: Ears) -> None:
    """It lives in a session of its own, so that the screen alone decides what a key means."""
    assert worker.process_id is not None
    assert os.getsid(worker.process_id) != os.getsid(0)
    assert ask(worker, ears)


def test_sending_never_blocks(worker: Worker, ears: Ears) -> None:
    """A process that does not read any more cannot hold up the screen, and is ended all the same."""
    assert worker.process_id is not None
    os.kill(worker.process_id, signal.SIGSTOP)
    long = Generate(turns=(Turn(role="user", content="x" * 1_000_000),))
    sent = threading.Event()

    def send() -> None:
        for _ in range(5):
            worker.send(long)
        sent.set()

    threading.Thread(target=send, daemon=True).start()
    assert sent.wait(PATIENCE)
    worker.close()
    assert not worker.alive


def test_what_is_no_message_is_refused() -> None:
    """On both sides: broken JSON, unknown kinds, unknown fields, wrong types, numbers that are none."""
    for line in (
        b"",
        b"{}",
        b"[1]",
        b"\x80",
        b'{"do":"dance"}',
        b'{"do":"stop","now":true}',
        b'{"do":"tokenize","text":7}',
        b'{"do":"generate","turns":[],"settings":[{"vector":"a","strength":NaN}]}',
        b'{"do":"generate","turns":[],"settings":[{"vector":"a","strength":1e999}]}',
        b'{"do":"generate","turns":[{"role":"root","content":"a"}]}',
    ):
        with pytest.raises(EngineError, match="broken line"):
            request_from(line)
    with pytest.raises(EngineError, match="broken line"):
        event_from(b'{"event":"wrote","text":"a","tokens":["b"]}')


def test_a_message_is_one_line_of_ascii() -> None:
    """Line feeds, control signs and letters of any script travel as escapes, and come back as they were."""
    request = Generate(turns=(Turn(role="user", content="a\nb\u2028c\x1b[31m é 😀"),))
    line = to_line(request)
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert request_from(line) == request
