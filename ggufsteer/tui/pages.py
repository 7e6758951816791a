"""Pages over the chat: the help, and texts to be read and copied such as a command line. Nothing in them acts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingsMap, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from ggufsteer.text import clean

_KEYS = ("Esc closes", "c copies, Esc closes", "1 and 2 copy, Esc closes")


class Page(ModalScreen[None]):
    """A page of sections, each with a heading; Esc closes it."""

    DEFAULT_CSS = """
    Page { align: center middle; }
    Page > VerticalScroll { width: 96; max-width: 100%; height: auto; max-height: 100%; background: $surface;
        border: round $primary; padding: 0 1; scrollbar-size-vertical: 1; }
    Page .heading { text-style: bold; color: $text-primary; }
    Page .text { height: auto; margin-bottom: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,f1", "dismiss", "close"),
        Binding("c,ctrl+y,1", "copy(0)", "copy"),
        Binding("2", "copy(1)", "copy the second part"),
    ]

    def __init__(self, title: str, sections: Sequence[tuple[str, str]], *, copied: Sequence[str] = ()) -> None:
        """Take the sections as (heading, text), and what the keys 1 and 2 copy, if anything."""
        super().__init__()
        self._page_title = title
        self._sections = sections
        self.copied = copied

    def compose(self) -> ComposeResult:
        """A box that scrolls."""
        with VerticalScroll() as box:
            box.border_title = Content(clean(self._page_title))
            box.border_subtitle = Content(_KEYS[len(self.copied)])
            for heading, text in self._sections:
                yield Static(Content(clean(heading)), classes="heading", markup=False)
                yield Static(Content(clean(text)), classes="text", markup=False)

    def on_mount(self) -> None:
        """Take the keys, and tell of those that scroll where there is more than fits."""
        box = self.query_one(VerticalScroll)
        box.focus()
        self.watch(box, "show_vertical_scrollbar", self._tell_keys)

    def _tell_keys(self, scrolls: bool) -> None:
        keys = _KEYS[len(self.copied)]
        self.query_one(VerticalScroll).border_subtitle = Content(f"↑↓ scroll, {keys}" if scrolls else keys)

    def action_copy(self, place: int) -> None:
        """Copy what the page is about, through the terminal."""
        if place < len(self.copied):
            self.app.copy_to_clipboard(self.copied[place])
            self.app.notify("copied", markup=False, timeout=2)


def keys_of(bindings: Iterable[BindingType]) -> str:
    """List keys and what they do, one a line.

    >>> print(keys_of([Binding("ctrl+r", "regenerate", "answer again"), Binding("f1", "help", "this page")]))
    ctrl+r         answer again
    F1             this page
    """
    merged: dict[str, list[str]] = {}
    for key, binding in BindingsMap(list(bindings)):
        if binding.description:
            shown = binding.key_display or (key.upper() if key.startswith("f") and key[1:].isdigit() else key)
            keys = merged.setdefault(binding.description, [])
            if shown not in keys:
                keys.append(shown)
    width = max(15, *(len(" ".join(keys)) + 2 for keys in merged.values()))
    return "\n".join(f"{' '.join(keys):<{width}}{description}" for description, keys in merged.items())
