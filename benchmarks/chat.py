"""How fast does a chat follow? From a moved slider to the next word, and from a key to its letter on the screen.

The first through the model's real process, on the built-in model; the second in the real program on a pseudo-terminal,
while a model writes with all cores. Nothing else should run on the machine; its load is printed too.

    python benchmarks/chat.py [-t 2] [--moves 60] [--keys 100] [-m MODEL]
"""

import argparse
import fcntl
import os
import pty
import queue
import random
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from _options import BUILTIN, model_path, positive
from _random_models import DEFAULT_FOLDER, SHAPES
from _reporting import print_json, print_table

from ggufsteer.engine.builtin import builtin_model_path, builtin_vectors
from ggufsteer.engine.messages import (
    AddVector,
    Band,
    ChangeSettings,
    Died,
    Event,
    Failed,
    Finished,
    Generate,
    Load,
    Loaded,
    Policy,
    SamplingSettings,
    Settings,
    Stop,
    Turn,
    VectorAdded,
    Wrote,
)
from ggufsteer.engine.worker import Worker
from ggufsteer.errors import SteerError

PATIENCE_SECONDS = 120.0
SEED = 20
VECTOR = "happy"
STRENGTHS = (6.0, 5.5)
"""So much that the model says one word again and again: no answer ends before it is told to."""
QUESTION = "Please tell me a long story about the sea."
N_TURNS = 6
"""Questions and answers before the one that is measured."""
POLICIES: tuple[Policy, ...] = ("from here on", "as if always")
LONGEST_KEY_SECONDS = 0.1
SIZE = (40, 120)
LETTERS = [chr(code) for first, last in [(0x561, 0x586), (0x531, 0x556), (0x10D0, 0x10F0), (0x13A0, 0x13F4)]
           for code in range(first, last + 1)]  # fmt: skip
"""No model here writes them, and each is typed once; so what shows one is the echo of its key."""
Result = dict[str, Any]


class Engine:
    """The model's process with the moments at which its events came."""

    def __init__(self, n_threads: int) -> None:
        self._events: queue.SimpleQueue[tuple[float, Event]] = queue.SimpleQueue()
        self.worker = Worker(lambda event: self._events.put((time.perf_counter(), event)))
        self.worker.start()
        self.worker.send(Load(model=str(builtin_model_path()), n_threads=n_threads))
        self.next(Loaded)
        self.worker.send(AddVector(vector=VECTOR, path=str(builtin_vectors()[VECTOR])))
        self.next(VectorAdded)

    def next(self, *kinds: type[Event]) -> tuple[float, Event]:
        """Wait for an event of one of these kinds; gives the moment at which it came with it."""
        while True:
            moment, event = self._events.get(timeout=PATIENCE_SECONDS)
            if isinstance(event, kinds):
                return moment, event
            if isinstance(event, Failed | Died):
                raise SteerError(f"the model's process failed: {event}", "run `ggufsteer chat --plain` to see why")

    def ask(self, settings: Settings, policy: Policy, n_tokens: int | None = None) -> float:
        """Ask; gives the moment of asking."""
        # No answer of the history is longer than what was measured, so that nothing depends on its words.
        history = [Turn(role=role, content=QUESTION, settings=()) for role in ("user", "assistant")] * N_TURNS
        sampling = SamplingSettings(temperature=0.0, max_tokens=n_tokens)
        asked = time.perf_counter()
        turns = (*history, Turn(role="user", content=QUESTION, settings=settings))
        self.worker.send(Generate(turns=turns, settings=settings, policy=policy, sampling=sampling))
        return asked

    def first_word(self, settings: Settings, policy: Policy) -> float:
        """Give the seconds from asking to the first word."""
        asked = self.ask(settings, policy, n_tokens=1)
        moment, _ = self.next(Wrote)
        self.next(Finished)
        return moment - asked

    def end_answer(self) -> None:
        """Stop the running answer."""
        self.worker.send(Stop())
        self.next(Finished)


def steering(index: int) -> Settings:
    """Give one of the two settings that are moved between."""
    return (Band(vector=VECTOR, strength=STRENGTHS[index % 2]),)


def measure_moves(options: argparse.Namespace) -> Result:
    """Move a slider while an answer is written, and before one is begun."""
    engine = Engine(options.threads)
    chance = random.Random(SEED)
    result: Result = {}
    try:
        for policy in POLICIES:
            plain, moved = [], []
            engine.ask(steering(0), policy)
            last, _ = engine.next(Wrote)
            for index in range(1, options.moves + 1):
                for _ in range(chance.randint(4, 8)):
                    moment, _ = engine.next(Wrote)
                    plain.append(moment - last)
                    last = moment
                sent = time.perf_counter()
                engine.worker.send(ChangeSettings(settings=steering(index)))
                while True:
                    last, event = engine.next(Wrote)
                    if isinstance(event, Wrote) and event.settings == steering(index):
                        break
                moved.append(last - sent)
            engine.end_answer()
            still = [engine.first_word(steering(0), policy) for _ in range(3 + options.moves // 4)][3:]
            begun = [engine.first_word(steering(index + 1), policy) for index in range(options.moves // 2)]
            result[policy] = {
                "plain token": plain,
                "move while writing": moved,
                "answer, nothing moved": still,
                "move, then an answer": begun,
            }
    finally:
        engine.worker.close()
    return result


class Screen:
    """The real program on a pseudo-terminal, with the moments at which it wrote."""

    def __init__(self, model: Path, n_threads: int) -> None:
        self._master, slave = pty.openpty()
        lines, columns = SIZE
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        command = [sys.executable, "-P", "-m", "ggufsteer", "chat", "-m", str(model), "-t", str(n_threads)]
        if model == builtin_model_path():
            # It is fast, and ends its answers unless it is steered so much that it repeats one word.
            command += ["-c", "32768", "--temp", "0", "--vector", f"{BUILTIN}:{VECTOR}:{STRENGTHS[0]}"]
        else:
            command += ["-c", "4096", "--temp", "1"]
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        home = str(Path(__file__).resolve().parent.parent)
        environment |= {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "PYTHONPATH": home}
        self._process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        self._written: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        self._seen = b""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(OSError):
            while data := os.read(self._master, 1 << 16):
                self._written.put((time.perf_counter(), data))

    def until(self, text: str) -> float:
        """Wait until a text is written behind what was waited for before; gives the moment."""
        wanted = text.encode()
        moment = time.perf_counter()
        while wanted not in self._seen:
            try:
                moment, data = self._written.get(timeout=PATIENCE_SECONDS)
            except queue.Empty as error:
                raise SteerError(f"the screen never showed {text!r}", "run `ggufsteer chat` to see why") from error
            self._seen += data
        self._seen = self._seen.partition(wanted)[2]
        return moment

    def press(self, keys: str) -> float:
        """Press keys; gives the moment."""
        while not self._written.empty():
            self._written.get()
        self._seen = b""
        moment = time.perf_counter()
        os.write(self._master, keys.encode())
        return moment

    def latencies(self, count: int) -> list[float]:
        """Type letters at moments left to chance; gives the seconds until each stood on the screen."""
        chance = random.Random(SEED)
        result = []
        for letter in LETTERS[:count]:
            time.sleep(chance.uniform(0.1, 0.3))
            pressed = self.press(letter)
            result.append(self.until(letter) - pressed)
        return result

    def check_writes(self) -> None:
        """See that an answer is still being written.

        Raises:
            SteerError: Nothing comes any more.
        """
        self.press("")
        try:
            self._written.get(timeout=5.0)
        except queue.Empty as error:
            raise SteerError("the answer ended before all keys were typed", "take fewer --keys") from error

    def close(self) -> None:
        """End the program; its model's process ends with it."""
        self._process.kill()
        self._process.wait()
        os.close(self._master)


@contextmanager
def screen(model: Path, n_threads: int) -> Iterator[Screen]:
    """A program whose model is loaded."""
    opened = Screen(model, n_threads)
    try:
        opened.until(" ready")
        yield opened
    finally:
        opened.close()


def measure_keys(options: argparse.Namespace) -> Result:
    """Type while nothing happens, then while an answer is written."""
    with screen(options.model, options.threads) as it:
        idle = it.latencies(options.keys // 2)
    with screen(options.model, options.threads) as it:
        it.press(f"{QUESTION}\r")
        it.until("tok/s")
        writing = it.latencies(options.keys)
        it.check_writes()
    return {"nothing is written": idle, "an answer is written": writing}


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and the longest."""
    return {
        "median": median(seconds),
        "95 %": quantiles(seconds, n=20, method="inclusive")[-1],
        "longest": max(seconds),
    }


def _row(name: str, values: dict[str, float], target: float | None) -> list[str]:
    goal = "" if target is None else f"{1e3 * target:.0f}"
    missed = target is not None and values["longest"] > target
    return [name, *(f"{1e3 * value:.1f}" for value in values.values()), f"{goal}{' missed' if missed else ''}"]


def report_moves(moves: Result) -> Result:
    """Print the table; gives the figures."""
    figures = {f"{policy}: {name}": summary(times) for policy, arm in moves.items() for name, times in arm.items()}
    token = figures[f"{POLICIES[0]}: plain token"]["median"]
    target = 1.5 * token + 0.05
    aimed = {f"{POLICIES[0]}: move while writing", f"{POLICIES[0]}: move, then an answer"}
    rows = [_row(name, values, target if name in aimed else None) for name, values in figures.items()]
    print_table("From a slider to the next word, milliseconds", ("", *_COLUMNS), rows)
    return figures


def report_keys(name: str, keys: Result) -> Result:
    """Print the table; gives the figures."""
    figures = {arm: summary(times) for arm, times in keys.items()}
    rows = [_row(arm, values, LONGEST_KEY_SECONDS) for arm, values in figures.items()]
    print_table(f"From a key to its letter on the screen, milliseconds; {name}", ("", *_COLUMNS), rows)
    return figures


_COLUMNS = ("median", "95 %", "longest", "at most")


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    cores = os.cpu_count() or 1
    parser.add_argument("-t", "--threads", type=positive, default=cores, metavar="N", help=f"CPU threads ({cores})")
    parser.add_argument("--moves", type=positive, default=60, metavar="N", help="moves of a slider (60)")
    parser.add_argument("--keys", type=positive, default=100, metavar="N", help=f"keys, at most {len(LETTERS)} (100)")
    known = f"{BUILTIN}, {', '.join(SHAPES)}"
    parser.add_argument("-m", "--model", default="qwen2.5-0.5b", metavar="MODEL", help=f"a GGUF file, or of {known}")
    parser.add_argument("--models", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="where random models are")
    options = parser.parse_args(arguments)
    if options.moves < 8 or not 8 <= options.keys <= len(LETTERS):
        parser.error(f"give at least 8 moves, and 8 to {len(LETTERS)} keys")
    options.name = options.model
    try:
        options.model = model_path(options.model, options.models)
    except SteerError as error:
        parser.error(str(error))
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _parsed(arguments)
    load = os.getloadavg()[0]
    moves = report_moves(measure_moves(options))
    keys = report_keys(options.name, measure_keys(options))
    settings = {"threads": options.threads, "moves": options.moves, "keys": options.keys, "model": options.name}
    print_json("chat", {"settings": settings, "load_before": load, "moves": moves, "keys": keys})


if __name__ == "__main__":
    try:
        main()
    except SteerError as error:
        sys.exit(f"error: {error}")
