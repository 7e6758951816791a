"""Where a person writes: an area that grows with its text, with a history and completion of /commands.

It decides which key sends, breaks a line, completes or walks through the history. It does not know what is done with a
text, nor which commands there are: a function that it is given names the completions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static, TextArea

from ggufsteer.text import clean

Complete = Callable[[str], list[str]]
"""Takes what was typed, gives whole lines that could be meant."""

_SHOWN = 4
"""Completions that are shown at once."""


class Completions(Static):
    """The completions of what is being typed, one of them chosen. Never focused: the prompt moves it."""

    DEFAULT_CSS = """
    Completions { height: auto; max-height: 8; padding: 0 1; background: $panel; color: $text; display: none; }
    """

    def __init__(self) -> None:
        super().__init__(markup=False)
        self.lines: list[str] = []
        self.chosen = 0

    def offer(self, lines: list[str]) -> None:
        """Show these; an empty list hides the widget."""
        self.lines, self.chosen = lines, 0
        self.display = bool(lines)
        self._draw()

    def move(self, step: int) -> None:
        """Choose the next or the previous one."""
        self.chosen = (self.chosen + step) % max(len(self.lines), 1)
        self._draw()

    def _draw(self) -> None:
        first = max(0, min(self.chosen - _SHOWN // 2, len(self.lines) - _SHOWN))
        rows = [
            Content.styled(f"{'>' if first + row == self.chosen else ' '} {clean(line)}", style)
            for row, line in enumerate(self.lines[first : first + _SHOWN])
            for style in ["reverse" if first + row == self.chosen else ""]
        ]
        if len(self.lines) > _SHOWN:
            rows.append(Content.styled(f"  {len(self.lines)} in all", "$text-muted"))
        self.update(Content("\n").join(rows))


class PromptArea(TextArea):
    """The text area itself."""

    DEFAULT_CSS = """
    PromptArea { height: auto; max-height: 10; min-height: 1; border: none; padding: 0 1; }
    PromptArea:focus { border: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "send"),
        Binding("ctrl+j,shift+enter,alt+enter", "newline", "new line", key_display="ctrl+j shift+enter alt+enter"),
        Binding("tab", "complete", "complete a /command, a vector, a preset, a file"),
        Binding("up", "up", "line above; at the top the message before", key_display="↑"),
        Binding("down", "down", "line below; at the bottom the message after", key_display="↓"),
        Binding("pageup", "page(-1)", "scroll the conversation up"),
        Binding("pagedown", "page(1)", "scroll the conversation down"),
    ]

    class Submitted(Message):
        """A text was sent."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Page(Message):
        """The person wants to see what is further up (-1) or down (1)."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    def __init__(self, complete: Complete, completions: Completions) -> None:
        super().__init__(soft_wrap=True, show_line_numbers=False, tab_behavior="focus", highlight_cursor_line=False)
        # A blinking cursor is a redraw twice a second over ssh.
        self.cursor_blink = False
        self._complete = complete
        self._completions = completions
        self._history: list[str] = []
        self._place = 0
        self._draft = ""

    def fill(self, text: str) -> None:
        """Put a text there, to be changed or sent."""
        self.load_text(clean(text))
        self.move_cursor(self.document.end)

    def remember(self, text: str) -> None:
        """Take a text into the history."""
        if text and (not self._history or self._history[-1] != text):
            self._history.append(text)
        self._place, self._draft = len(self._history), ""

    def on_text_area_changed(self) -> None:
        """Offer completions while the first word begins with a slash."""
        self._completions.offer(self._completions_of(self.text))

    def _completions_of(self, text: str) -> list[str]:
        if not text.startswith("/") or "\n" in text:
            return []
        return [line for line in self._complete(text) if line != text]

    async def _on_key(self, event: events.Key) -> None:
        # TextArea takes Enter for itself before bindings are asked; its own handler runs after this one.
        if event.key == "enter":
            self.action_submit()
        elif event.key == "escape" and self._completions.lines:
            self._completions.offer([])
        elif event.is_printable or not await self._act(event.key):
            return
        event.stop()
        event.prevent_default()

    async def _act(self, key: str) -> bool:
        """Do at once what a key is bound to here; gives False when that is nothing.

        Textual looks bindings up only after the key has gone up to the app: characters that were typed behind it
        would overtake it, and a line break or a deletion would land after them.
        """
        bound = self._bindings.key_to_bindings.get(key, [])
        return bool(bound) and await self.app.run_action(bound[0].action, self)

    def _on_paste(self, event: events.Paste) -> None:  # type: ignore[override]
        # What was copied elsewhere may hold escape sequences, and the base class, whose handler runs after this one,
        # would send them to the terminal.
        event.text = clean(event.text)

    def action_submit(self) -> None:
        """Send what is there; of a text of blanks alone nothing comes."""
        text = self.text
        if not text.strip():
            return
        self._completions.offer([])
        self.remember(text)
        self.load_text("")
        self.post_message(self.Submitted(text))

    def action_newline(self) -> None:
        """Break the line."""
        self.insert("\n")

    def action_complete(self) -> None:
        """Take the chosen completion."""
        if not self._completions.lines:
            self._completions.offer(self._completions_of(self.text))
        lines = self._completions.lines
        chosen = lines[self._completions.chosen] if lines else self.text
        # A command whose next word can be completed too gets the space before it.
        if chosen.startswith("/") and " " not in chosen and self._complete(f"{chosen} "):
            self.fill(f"{chosen} ")
        elif lines:
            self.fill(chosen)

    def action_up(self) -> None:
        """Choose the completion above, go up a line, or back in the history."""
        if self._completions.lines:
            self._completions.move(-1)
        elif self._row() == 0:
            self._walk(-1)
        else:
            self.action_cursor_up()

    def action_down(self) -> None:
        """Choose the completion below, go down a line, or forward in the history."""
        if self._completions.lines:
            self._completions.move(1)
        elif self._row() == self.wrapped_document.height - 1:
            self._walk(1)
        else:
            self.action_cursor_down()

    def action_page(self, step: int) -> None:
        """Scroll the conversation."""
        self.post_message(self.Page(step))

    def _row(self) -> int:
        """Say in which row of the wrapped text the cursor is."""
        return self.wrapped_document.location_to_offset(self.cursor_location).y

    def _walk(self, step: int) -> None:
        place = self._place + step
        if not 0 <= place <= len(self._history):
            return
        if self._place == len(self._history):
            self._draft = self.text
        self._place = place
        self.fill(self._history[place] if place < len(self._history) else self._draft)
        self._completions.offer([])


class Prompt(Vertical):
    """The prompt with its completions above it."""

    DEFAULT_CSS = """
    Prompt { height: auto; border-top: solid $primary 40%; }
    Prompt:focus-within { border-top: solid $primary; }
    Prompt.-ascii { border-top: ascii $primary; }
    """

    def __init__(self, complete: Complete) -> None:
        super().__init__()
        self.completions = Completions()
        self.area = PromptArea(complete, self.completions)
        self._kept = ""

    def compose(self) -> ComposeResult:
        """Completions, then the area."""
        yield self.completions
        yield self.area

    def ask(self, beginning: str) -> None:
        """Begin a command for the person, with its completions; what stood there comes back with the next message."""
        if self.area.text and not self.area.text.startswith("/"):
            self._kept = self.area.text
        self.area.fill(beginning)
        self.area.focus()

    def give_back(self) -> None:
        """Put back what stood there before a command was begun for the person."""
        kept, self._kept = self._kept, ""
        if kept and not self.area.text:
            self.area.fill(kept)
