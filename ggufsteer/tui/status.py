"""The last line of the screen: which model, what it does, how fast, how full; read from what its process tells.

It decides what is left out on a narrow screen. Speed is that of the running answer, or of the last one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static

from ggufsteer.engine.messages import Event, Finished, Loaded, Started, Wrote
from ggufsteer.tasks.notices import State
from ggufsteer.text import clean

_SIGNS = {
    State.STARTING: ("starting", "$text-warning"),
    State.READY: ("ready", "$text-success"),
    State.ANSWERING: ("answering", "bold $text-accent"),
    State.STOPPING: ("stopping", "$text-warning"),
    State.BROKEN: ("no model", "bold $text-error"),
}
_FULL = 0.9
_SETTLED_SECONDS = 0.2
"""A speed is not told before: the first tokens come in a burst."""


@dataclass
class Gauge:
    """Numbers of the running or the last answer."""

    clock: Callable[[], float] = time.monotonic
    n_context: int = 0
    size: int = 0
    speed: float | None = None
    """Tokens a second."""
    reading: tuple[int, int] | None = None
    """Tokens of the conversation that are read, and all that have to be; None while nothing is read."""
    meter_cost: float | None = None
    _began: float | None = field(default=None, repr=False)
    _tokens: int = field(default=0, repr=False)

    def take(self, event: Event) -> None:
        """Read an event."""
        if isinstance(event, Loaded):
            self.n_context, self.size = 0, event.n_ctx
        elif isinstance(event, Started):
            self.reading = (event.n_done, event.n_prompt)
            self._began, self._tokens = None, 0
        elif isinstance(event, Wrote):
            self._wrote(event)
        elif isinstance(event, Finished):
            self.n_context, self.reading = event.n_context, None
            if event.answer_seconds > 0 and event.n_answer:
                self.speed = event.n_answer / event.answer_seconds
            self.meter_cost = event.meter_cost if event.meter_cost is not None else self.meter_cost

    def clear(self) -> None:
        """Forget what a process told that is gone."""
        self.n_context, self.size, self.speed, self.reading = 0, 0, None, None

    def _wrote(self, event: Wrote) -> None:
        self.reading, self.n_context = None, event.n_context or self.n_context
        now = self.clock()
        if self._began is None:
            # The first piece took as long as the prompt; from it on tokens are counted.
            self._began = now
            return
        self._tokens += len(event.tokens)
        if now - self._began > _SETTLED_SECONDS:
            self.speed = self._tokens / (now - self._began)


@dataclass(frozen=True)
class Situation:
    """What the line tells besides the gauge."""

    state: State = State.STARTING
    model: str = ""
    policy: str = "from here on"
    meter: bool = False
    compare: bool = False
    silent_seconds: float = 0.0


def line(situation: Situation, gauge: Gauge, width: int) -> Content:
    """Draw the line: what comes last is left out first."""
    word, style = _SIGNS[situation.state]
    if gauge.reading is not None and situation.state is State.ANSWERING:
        done, total = gauge.reading
        word = f"reading {done}/{total}"
    if situation.silent_seconds > 5:
        word += f", silent for {situation.silent_seconds:.0f} s"
    shown = Content.styled(f" {word}", style)
    for text, text_style in _parts(situation, gauge):
        longer = Content.assemble(shown, (" | ", "$text-muted"), (text, text_style))
        if longer.cell_length + _GAP <= width - len(_HELP):
            shown = longer
    gap = " " * max(1, width - shown.cell_length - len(_HELP))
    return Content.assemble(shown, gap, (_HELP, "$text-muted"))


_HELP = "F1 help "
_GAP = 3
"""Blanks, at least, before the help: nearer, it looks like a part of what stands there."""


def _parts(situation: Situation, gauge: Gauge) -> list[tuple[str, str]]:
    parts = []
    if gauge.speed is not None:
        parts.append((f"{gauge.speed:.1f} tok/s", ""))
    if gauge.size:
        share = gauge.n_context / gauge.size
        sign = "!" if share >= _FULL else ""
        parts.append((f"context {gauge.n_context}/{gauge.size} {share:.0%}{sign}", "$text-error" if sign else ""))
    if situation.compare:
        parts.append(("A/B", "bold"))
    if situation.meter:
        parts.append(("meter", "bold"))
    if situation.policy != "from here on":
        parts.append((situation.policy, ""))
    name = clean(situation.model).replace("\n", " ")
    parts.append((name if len(name) <= 30 else name[:29] + "…", "$text-muted"))
    return [part for part in parts if part[0]]


class StatusBar(Static):
    """The line."""

    DEFAULT_CSS = """
    StatusBar { height: 1; background: $panel; text-wrap: nowrap; }
    """

    def __init__(self) -> None:
        super().__init__(markup=False)
        self.gauge = Gauge()
        self._situation: Situation | None = None
        self._flashed = ""
        self._flash_end: Timer | None = None
        self._shown: Content | None = None

    def tell(self, situation: Situation) -> None:
        """Show this."""
        self._situation = situation
        self._draw()

    def flash(self, text: str, seconds: float = 3.0) -> None:
        """Show a few words in place of the line for a moment."""
        self._flashed = text
        if self._flash_end is not None:
            # It would cut this one short.
            self._flash_end.stop()
        self._flash_end = self.set_timer(seconds, self._end_flash)
        self._draw()

    def _end_flash(self) -> None:
        self._flashed = ""
        self._draw()

    def _draw(self) -> None:
        if self._situation is None:
            return
        drawn = line(self._situation, self.gauge, self.size.width or 80)
        if self._flashed:
            drawn = Content.styled(f" {self._flashed}", "bold $text-accent")
        # Told thirty times a second, and hardly ever another line.
        if self._shown is None or not drawn.is_same(self._shown):
            self._shown = drawn
            self.update(drawn)
