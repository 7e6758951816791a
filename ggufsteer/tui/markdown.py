"""A model's Markdown, drawn as text in which nothing acts: no link, no picture, no HTML, no entity.

It decides which constructs of Markdown a model may use, and what they look like. What it may not use is shown as the
model wrote it. A text is drawn in stretches of one widget each: Textual's own Markdown makes a widget of every block
and lays all of them out anew whenever an answer grows, which holds up the keys in a long conversation.
"""

from __future__ import annotations

import io

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Heading as RichHeading
from rich.markdown import Markdown as RichMarkdown
from rich.text import Text
from rich.theme import Theme
from textual.content import Content
from textual.geometry import Size
from textual.widget import Widget

STRETCH = 1500
"""Characters: what is longer is divided before its last block, and only the last stretch is drawn anew as it grows."""

# A link would be opened by a click, and its target is hidden behind a text of the model's choice. An entity such as
# &#x202e; would put back the very characters that the cleaner takes out.
_LEFT_OUT = ["link", "image", "autolink", "linkify", "reference", "html_inline", "html_block", "entity"]
# Shapes rather than colours, for both backgrounds and for terminals without colours.
_LOOK = Theme(
    {
        "markdown.h1": "bold underline",
        "markdown.h2": "bold",
        "markdown.h3": "bold",
        "markdown.h4": "bold italic",
        "markdown.h5": "italic",
        "markdown.h6": "italic",
        "markdown.code": "bold",
        "markdown.code_block": "none",
        "markdown.block_quote": "italic",
        "markdown.item.bullet": "bold",
        "markdown.item.number": "bold",
        "markdown.hr": "dim",
        "markdown.table.header": "bold",
        "markdown.table.border": "dim",
    }
)


def _keep_line_ends(state: StateCore) -> None:
    """Break lines where the model broke them: it writes for a chat, not for a page that is set anew."""
    for token in state.tokens:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"


def _parser() -> MarkdownIt:
    parser = MarkdownIt("gfm-like", {"linkify": False}).disable(_LEFT_OUT, ignoreInvalid=True)
    parser.core.ruler.push("keep line ends", _keep_line_ends)
    return parser


_PARSER = _parser()


class _Heading(RichHeading):
    """A heading on the left and without a frame."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Give the text alone."""
        self.text.justify = "left"
        yield self.text


class _Drawing(RichMarkdown):
    """Rich's Markdown, of tokens that this module's parser made."""

    elements = {**RichMarkdown.elements, "heading_open": _Heading}  # noqa: RUF012  # as in the base class

    def __init__(self, text: str, *, dark: bool) -> None:
        super().__init__("", code_theme="ansi_dark" if dark else "default", hyperlinks=False, justify="left")
        self.parsed = _PARSER.parse(text)


def drawn(text: str, width: int, *, dark: bool = True) -> list[Content]:
    """Draw a text as lines of at most `width` columns; it must have passed the cleaner."""
    # On a console of its own, because that of the screen has a look and a width of its own.
    console = Console(
        file=io.StringIO(), width=max(width, 1), theme=_LOOK, color_system="truecolor", force_terminal=True
    )
    lines = []
    for segments in console.render_lines(_Drawing(text, dark=dark), pad=False):
        line = Text(end="")
        for segment in segments:
            line.append(segment.text, segment.style)
        line.rstrip()
        lines.append(Content.from_rich_text(line))
    while lines and not lines[-1].plain:
        lines.pop()
    return lines


def stretches(text: str, longest: int = STRETCH) -> list[str]:
    """Divide a text where blocks begin, so that each stretch can be drawn by itself; joined they are the text.

    A single block, such as a long list, is never divided.
    """
    lines = text.splitlines(keepends=True)
    starts = [token.map[0] for token in _PARSER.parse(text) if token.level == 0 and token.map is not None]
    divided, begin, length, place = [], 0, 0, 0
    for start in starts:
        length += sum(map(len, lines[place:start]))
        place = start
        if length > longest:
            divided.append("".join(lines[begin:start]))
            begin, length = start, 0
    return [*divided, "".join(lines[begin:])]


class Stretch(Widget):
    """A stretch of an answer: one widget, whatever stands in it."""

    DEFAULT_CSS = """
    Stretch { height: auto; width: 1fr; margin-bottom: 1; }
    """

    def __init__(self, text: str) -> None:
        super().__init__(classes="stretch")
        self.text = text
        self._drawn: tuple[object, list[Content]] = (None, [])

    def on_mount(self) -> None:
        """Colours of code depend on the background."""
        self.watch(self.app, "theme", self._redraw, init=False)

    def _redraw(self) -> None:
        self.refresh()

    def tell(self, text: str) -> None:
        """Show another text."""
        if text != self.text:
            self.text = text
            self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002  # as Textual has it
        """Say how many lines it has at a width."""
        return len(self._lines(width))

    def render(self) -> Content:
        """Draw it."""
        return Content("\n").join(self._lines(self.size.width))

    def _lines(self, width: int) -> list[Content]:
        made_of = (self.text, width, self.app.current_theme.dark)
        if self._drawn[0] != made_of:
            self._drawn = (made_of, drawn(self.text, width, dark=self.app.current_theme.dark))
        return self._drawn[1]
