"""The only module that prints.

It decides what goes where: results to stdout, progress, warnings and errors to stderr; with `--json` one document and
nothing else on stdout. Every text passes `ggufsteer.text.clean` here, and Rich's markup is off, because model output,
file names and recipe strings may hold escape sequences. It knows nothing of recipes, vectors and models.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ggufsteer.cli import interrupt
from ggufsteer.tasks.progress import Progress, ReportProgress, ignore
from ggufsteer.text import clean

if TYPE_CHECKING:
    from rich.console import Console

NARROWEST_COLUMN = 26
"""Columns of text that are narrower than this are harder to read side by side than one after the other."""

JSON = Mapping[str, Any]


def rich_console(*, stderr: bool = False) -> Console:
    """Return a Rich console on stdout or stderr that interprets no markup, no emoji codes and no highlighting."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def line(text: str = "") -> None:
    """Write one line of the result to stdout; never wrapped, so that a pipe sees what was meant."""
    sys.stdout.write(clean(text) + "\n")


def note(text: str) -> None:
    """Write one line of side information to stderr."""
    sys.stderr.write(clean(text) + "\n")


def warn(text: str) -> None:
    """Write a warning to stderr."""
    rich_console(stderr=True).print(f"warning: {clean(text)}", style="yellow", soft_wrap=True)


def error(message: str, hint: str = "") -> None:
    """Write `error: …` and, where there is one, `hint: …` to stderr."""
    console = rich_console(stderr=True)
    console.print(f"error: {clean(message)}", style="bold red", soft_wrap=True)
    if hint:
        console.print(f"hint: {clean(hint)}", soft_wrap=True)


def document(content: JSON) -> None:
    """Write `content` to stdout as the one JSON document of a `--json` run.

    Everything outside ASCII is escaped, so no control or bidi character of a model's answer reaches a terminal raw.
    NaN has no JSON spelling and becomes null.
    """
    sys.stdout.write(json.dumps(_without_nan(content), indent=2, ensure_ascii=True, allow_nan=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and value not in (float("inf"), float("-inf")) and value == value:
        return value
    if isinstance(value, float):
        return None
    if isinstance(value, Mapping):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return value


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "", left: Sequence[int] = (0,)
) -> None:
    """Print a table to stdout; the columns numbered in `left` are left-aligned, the others are numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(
        box=box.SIMPLE_HEAD, title=Text(clean(title)) if title else None, title_justify="left", pad_edge=False
    )
    for index, name in enumerate(columns):
        drawn.add_column(Text(clean(name)), justify="left" if index in left else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(clean(cell)) for cell in row))
    rich_console().print(drawn)


def side_by_side(headings: Sequence[str], texts: Sequence[str]) -> None:
    """Print texts in columns under their headings, or below each other when the screen is too narrow for that."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = rich_console()
    if console.width // max(len(texts), 1) < NARROWEST_COLUMN:
        for heading, text in zip(headings, texts, strict=True):
            console.print(Text(clean(heading), style="bold"))
            console.print(Text(clean(text)))
            console.print()
        return
    drawn = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False)
    for heading in headings:
        drawn.add_column(Text(clean(heading)), ratio=1, overflow="fold")
    drawn.add_row(*(Text(clean(text)) for text in texts))
    console.print(drawn)


def shell(arguments: Sequence[str]) -> str:
    """Return a command as a person would type it: words with spaces or signs are quoted for a POSIX shell."""
    return shlex.join(arguments)


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[ReportProgress]:
    """Yield the callback that a task reports to; it draws a bar on stderr while that is a terminal.

    Off a terminal one line a stage is written instead, so that a log stays readable; `quiet` writes nothing at all.
    The bar is taken down on every way out, Ctrl-C included.
    """
    if quiet:
        yield _checked(ignore)
    elif sys.stderr.isatty():
        with _bar() as report:
            yield _checked(report)
    else:
        yield _checked(_StageLines())


def _checked(report: ReportProgress) -> ReportProgress:
    def checked(event: Progress) -> None:
        interrupt.check()
        report(event)

    return checked


class _StageLines:
    """Writes the name of each stage once."""

    def __init__(self) -> None:
        self._stage = ""

    def __call__(self, event: Progress, /) -> None:
        if event.stage != self._stage:
            self._stage = event.stage
            note(f"{event.stage} ({event.total} {event.unit}) …")
            sys.stderr.flush()


@contextmanager
def _bar() -> Iterator[ReportProgress]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}", markup=False),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(compact=True),
    )
    with Bar(*columns, console=rich_console(stderr=True), transient=True) as bar:
        yield _BarReport(bar)


class _BarReport:
    """Feeds a Rich progress bar; one task a stage, tokens a second measured since the stage began."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._stage = ""
        self._task: Any = None
        self._began = 0.0

    def __call__(self, event: Progress, /) -> None:
        if event.stage != self._stage:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._stage, self._began = event.stage, time.monotonic()
            self._task = self._bar.add_task(clean(event.stage), total=event.total, unit=clean(event.unit), rate="")
        seconds = time.monotonic() - self._began
        rate = f"{event.tokens / seconds:,.0f} tokens/s" if event.tokens and seconds > 0 else ""
        # A stage may be over before the bar would next be drawn.
        is_over = event.done >= event.total
        self._bar.update(self._task, completed=event.done, total=event.total, rate=rate, refresh=is_over)
