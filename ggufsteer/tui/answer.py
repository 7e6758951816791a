"""One answer on the screen: its Markdown as it is written, or coloured by the meter; steered and baseline side by side.

It decides when the whole text is set anew and when only its end is added. It is told the whole text each time, so that
it cannot miss or double a piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Markdown, Static
from textual.widgets.markdown import MarkdownStream

from ggufsteer.text import clean
from ggufsteer.tui import meter
from ggufsteer.tui.markdown import AnswerMarkdown


@dataclass(frozen=True)
class MeterView:
    """Whether answers are shown as the meter reads them, and how."""

    vector: str = ""
    """The concept; empty shows Markdown."""
    numbers: bool = False


class AnswerColumn(Vertical):
    """One text of an answer: the steered one or the baseline."""

    DEFAULT_CSS = """
    AnswerColumn { height: auto; width: 1fr; }
    AnswerColumn > .title { color: $text-muted; text-style: italic; height: 1; }
    AnswerColumn > .meter { height: auto; margin: 0 0 1 0; display: none; }
    """

    def __init__(self, title: str = "") -> None:
        super().__init__()
        self._title = Static(title, classes="title", markup=False)
        self._title.display = bool(title)
        self.markdown = AnswerMarkdown()
        self._metered = Static(classes="meter", markup=False)
        self._stream: MarkdownStream | None = None
        self._given = ""
        self._drawn = ""
        """How much of the text the Markdown widget has."""
        self._pieces: Sequence[meter.Piece] = ()
        self._view = MeterView()

    @property
    def text(self) -> str:
        """The text as it was last told."""
        return self._given

    def compose(self) -> ComposeResult:
        """Both views; one of them is hidden."""
        yield self._title
        yield self.markdown
        yield self._metered

    def entitle(self, title: str) -> None:
        """Put a title above it, or none."""
        self._title.update(Content(title))
        self._title.display = bool(title)

    async def tell(self, text: str, pieces: Sequence[meter.Piece], view: MeterView, *, ended: bool) -> None:
        """Show this text. While it is written only its end is added; once it has ended it is set as a whole."""
        self._given, self._pieces, self._view = text, pieces, view
        measured = bool(view.vector) and any(view.vector in expressions for _, expressions in pieces)
        self._metered.display = measured
        self.markdown.display = not measured
        if measured:
            # Not drawn while it is hidden: told again when it is shown.
            self._metered.update(meter.drawn(_cleaned(pieces), view.vector, numbers=view.numbers))
        else:
            await self._write(ended=ended)
        if ended:
            await self._end_stream()

    async def _write(self, *, ended: bool) -> None:
        text, drawn = self._given, self._drawn
        if text == drawn and not (ended and self._stream):
            return
        self._drawn = text
        if ended or not text.startswith(drawn):
            await self._end_stream()
            await self.markdown.update(clean(text))
            return
        if self._stream is None:
            self._stream = Markdown.get_stream(self.markdown)
        await self._stream.write(self.markdown.cleaner.feed(text[len(drawn) :]))

    async def _end_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.stop()

    async def on_unmount(self) -> None:
        """End the task that writes."""
        await self._end_stream()


def _cleaned(pieces: Sequence[meter.Piece]) -> list[meter.Piece]:
    return [(clean(text), expressions) for text, expressions in pieces]


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

    async def compare(self, *, wanted: bool) -> AnswerColumn | None:
        """Give the column of the baseline, which appears when it is wanted."""
        if wanted and self.baseline is None:
            self.baseline = AnswerColumn("baseline")
            self.baseline.add_class("baseline")
            self.steered.entitle("steered")
            await self._columns.mount(self.baseline, before=self.steered)
        elif not wanted and self.baseline is not None:
            await self.baseline.remove()
            self.baseline = None
            self.steered.entitle("")
        return self.baseline
