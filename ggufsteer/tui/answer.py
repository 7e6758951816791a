"""One answer on the screen: its Markdown as it is written, or coloured by the meter; steered and baseline side by side.

It is told the whole text each time, so that it cannot miss or double a piece. It decides which view is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Static

from ggufsteer.text import StreamCleaner, clean
from ggufsteer.tui import meter
from ggufsteer.tui.markdown import Stretch, stretches


@dataclass(frozen=True)
class MeterView:
    """Whether answers are shown as the meter reads them, and how."""

    vector: str = ""
    """The concept; empty shows Markdown."""
    numbers: bool = False


class AnswerColumn(Vertical):
    """One text of an answer, the steered one or the baseline: a list of stretches, of which only the last one grows."""

    DEFAULT_CSS = """
    AnswerColumn { height: auto; width: 1fr; }
    AnswerColumn > .title { color: $text-muted; text-style: italic; height: 1; }
    AnswerColumn > .measured { height: auto; }
    AnswerColumn > .measured:last-child { margin-bottom: 1; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        """The text as it was last told."""
        self.source = ""
        """What of it is shown as Markdown."""
        self._cleaner = StreamCleaner()
        self._settled = 0
        """Characters of the stretches before the last one."""
        self._view = MeterView()
        self._measured: list[tuple[int, int]] = []
        """Of the meter's stretches: first piece, and the one after the last."""

    async def entitle(self, title: str) -> None:
        """Put a title above it, or none."""
        await self.remove_children(".title")
        if title:
            await self.mount(Static(title, classes="title", markup=False), before=0 if self.children else None)

    async def tell(self, text: str, pieces: Sequence[meter.Piece], view: MeterView) -> None:
        """Show this text, in the meter's colours where it was measured."""
        measured = bool(view.vector) and any(view.vector in expressions for _, expressions in pieces)
        view = view if measured else MeterView()
        if view != self._view or not text.startswith(self.text):
            self._view, self._measured = view, []
            self.text, self.source, self._settled, self._cleaner = "", "", 0, StreamCleaner()
            await self.remove_children(".stretch")
        added, self.text = text[len(self.text) :], text
        if measured:
            await self._tell_pieces(pieces)
        elif added:
            await self._tell_markdown(self._cleaner.feed(added))

    async def _tell_markdown(self, added: str) -> None:
        self.source += added
        first, *others = stretches(self.source[self._settled :])
        widgets = list(self.query_children(Stretch))
        if widgets:
            widgets[-1].tell(first)
        else:
            others = [first, *others]
        self._settled = len(self.source) - len(others[-1] if others else first)
        if others:
            await self.mount_all(Stretch(stretch) for stretch in others)

    async def _tell_pieces(self, pieces: Sequence[meter.Piece]) -> None:
        runs = meter.runs(pieces)
        widgets = list(self.query_children(".measured").results(Static))
        new = []
        for place, run in enumerate(runs):
            if place < len(self._measured) and self._measured[place] == run:
                continue
            shown = [(clean(text), expressions) for text, expressions in pieces[slice(*run)]]
            content = meter.drawn(shown, self._view.vector, numbers=self._view.numbers)
            if place < len(widgets):
                widgets[place].update(content)
            else:
                new.append(Static(content, classes="stretch measured", markup=False))
        self._measured = runs
        if new:
            await self.mount_all(new)


class AnswerView(Vertical):
    """An answer with its heading, and with its baseline beside it where there is one."""

    DEFAULT_CSS = """
    AnswerView { height: auto; }
    AnswerView > .heading { height: 1; color: $text-success; text-style: bold; }
    AnswerView > .heading { text-wrap: nowrap; text-overflow: ellipsis; }
    AnswerView > .columns { height: auto; padding-left: 2; }
    AnswerView .baseline { margin-right: 2; }
    """

    def __init__(self, message_id: int) -> None:
        super().__init__()
        self.message_id = message_id
        self._heading = Static(classes="heading", markup=False)
        self.steered = AnswerColumn()
        self.baseline: AnswerColumn | None = None
        self._columns = Horizontal(self.steered, classes="columns")

    def compose(self) -> ComposeResult:
        """Heading and columns."""
        yield self._heading
        yield self._columns

    def head(self, heading: Content) -> None:
        """Set the line above the answer."""
        self._heading.update(heading)

    async def compare(self, title: str, *, wanted: bool) -> AnswerColumn | None:
        """Give the column of the baseline, which appears under this title when it is wanted."""
        if wanted and self.baseline is None:
            self.baseline = AnswerColumn()
            self.baseline.add_class("baseline")
            await self._columns.mount(self.baseline, before=self.steered)
            await self.baseline.entitle(title)
            await self.steered.entitle("steered")
        elif not wanted and self.baseline is not None:
            await self.baseline.remove()
            self.baseline = None
            await self.steered.entitle("")
        return self.baseline
