"""However the screen is left, the terminal is as it was before; seen on a real pseudo-terminal."""

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_PATIENCE_SECONDS = 60.0
_SCREEN = """
import sys
sys.path.insert(0, sys.argv[1])
from ggufsteer.engine.messages import Load
from ggufsteer.tasks.chat import Chat
from ggufsteer.tasks.chat_options import ChatOptions
from ggufsteer.tui.app import ChatScreen, run_screen
from tests.tui.stage import StageWorker

def make(deliver, hear):
    return Chat(StageWorker(deliver), ChatOptions(load=Load(model="fake.gguf")), hear)

if sys.argv[2] == "mistake":
    ChatScreen.action_theme = lambda self: 1 / 0
sys.exit(run_screen(make))
"""


class Terminal:
    """A screen on a pseudo-terminal."""

    def __init__(self, how: str) -> None:
        self.master, self._slave = pty.openpty()
        self.before = termios.tcgetattr(self._slave)
        self.written = b""
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SCREEN, str(ROOT), how],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"},
        )

    def until(self, text: bytes) -> None:
        """Read until the screen has written something."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while text not in self.written:
            assert time.monotonic() < end, self.written[-2000:]
            self.read()

    def read(self) -> None:
        """Read what there is, waiting a little for it."""
        if select.select([self.master], [], [], 0.05)[0]:
            self.written += os.read(self.master, 65536)

    def press(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.master, keys)

    def ended(self) -> int:
        """Wait for the end; gives the exit code."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < end, "it never ended"
            self.read()
        self.read()
        return self.process.returncode

    def after(self) -> list[object]:
        """Give the terminal's settings."""
        return termios.tcgetattr(self._slave)

    def close(self) -> None:
        """Put everything away."""
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self._slave)


@pytest.fixture
def terminal(request: pytest.FixtureRequest) -> Iterator[Terminal]:
    """A screen that can be used."""
    terminal = Terminal(getattr(request, "param", "well"))
    try:
        terminal.until(b"F1 help")
        yield terminal
    finally:
        terminal.close()


def check_restored(terminal: Terminal) -> None:
    """Ordinary input, the ordinary screen, a cursor, no mouse reports, no bracketed paste."""
    assert terminal.after() == terminal.before
    for switched_on, switched_off in [
        (b"\x1b[?1049h", b"\x1b[?1049l"),
        (b"\x1b[?1000h", b"\x1b[?1000l"),
        (b"\x1b[?2004h", b"\x1b[?2004l"),
        (b"\x1b[?25l", b"\x1b[?25h"),
    ]:
        assert switched_on in terminal.written
        assert terminal.written.rindex(switched_off) > terminal.written.rindex(switched_on), switched_off


def test_quitting_restores_the_terminal(terminal: Terminal) -> None:
    """Ctrl+q, exit code 0."""
    terminal.press(b"\x11")
    assert terminal.ended() == 0
    check_restored(terminal)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_restores_the_terminal(terminal: Terminal, number: signal.Signals) -> None:
    """The exit code is the one that shells give to a program that ended by it."""
    terminal.process.send_signal(number)
    assert terminal.ended() == 128 + number
    check_restored(terminal)


@pytest.mark.parametrize("terminal", ["mistake"], indirect=True)
def test_a_mistake_in_a_handler_restores_the_terminal_and_is_told(terminal: Terminal) -> None:
    """It does not kill the screen silently."""
    terminal.press(b"\x14")
    assert terminal.ended() == 1
    check_restored(terminal)
    assert b"ZeroDivisionError" in terminal.written[terminal.written.rindex(b"\x1b[?1049l") :]
