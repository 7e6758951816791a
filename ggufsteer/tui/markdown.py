"""A model's Markdown as widgets in which nothing acts: no link, no picture, no HTML, no entity.

It decides which constructs of Markdown a model may use. What it may not use is shown as the model wrote it.
"""

from __future__ import annotations

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from textual.widgets import Markdown

from ggufsteer.text import StreamCleaner, clean

# A link would be opened by a click, and its target is hidden behind a text of the model's choice. An entity such as
# &#x202e; would put back the very characters that the cleaner takes out.
_LEFT_OUT = ["link", "image", "autolink", "linkify", "reference", "html_inline", "html_block", "entity"]


def _parser() -> MarkdownIt:
    parser = MarkdownIt("gfm-like", {"linkify": False}).disable(_LEFT_OUT, ignoreInvalid=True)
    parser.core.ruler.push("keep line ends", _keep_line_ends)
    return parser


def _keep_line_ends(state: StateCore) -> None:
    """Break lines where the model broke them: it writes for a chat, not for a page that is set anew."""
    for token in state.tokens:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"


class AnswerMarkdown(Markdown):
    """A model's text. What is appended passes the cleaner, which keeps its state from piece to piece."""

    DEFAULT_CSS = """
    AnswerMarkdown { padding: 0; background: transparent; }
    AnswerMarkdown MarkdownH1, AnswerMarkdown MarkdownH2, AnswerMarkdown MarkdownH3 {
        margin: 0 0 1 0; content-align: left middle;
    }
    AnswerMarkdown MarkdownFence { margin: 0 0 1 0; max-height: 100h; }
    AnswerMarkdown MarkdownParagraph { margin: 0 0 1 0; }
    """

    def __init__(self, text: str = "") -> None:
        super().__init__(clean(text), parser_factory=_parser, open_links=False)
        self.cleaner = StreamCleaner()
        self.cleaner.feed(text)
