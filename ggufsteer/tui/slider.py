"""One slider of the equaliser: a row with name, track and number, moved by keys, mouse or a typed number.

It decides what a key or a place on the track means, and tells it by messages. It changes nothing by itself: the row
shows what it was last given, so that it can never show a strength that does not steer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from ggufsteer.text import clean
from ggufsteer.tui import terminal
from ggufsteer.tui.track import NARROWEST, Part, Track

STEP = 0.1
FINE_STEP = 0.01

_STYLES: dict[Part, str] = {
    "track": "$foreground 50%",
    "fill": "$text-primary",
    "beyond": "$text-error",
    "mark": "$text-muted",
    "centre": "$text",
    "knob": "bold $text-accent",
}
_NUMBER_WIDTH = 7
"""Columns: a sign, two digits, the point, two digits, and `!`."""
_OPERATION_WIDTH = 6
_LONGEST_NUMBER = 8


@dataclass(frozen=True)
class SliderView:
    """What a row shows of a slider."""

    name: str
    strength: float = 0.0
    operation: str = "add"
    maximum: float | None = None
    recommended: float = 1.0
    muted: bool = False
    solo: bool = False
    silenced: bool = False
    """Whether it steers nothing because another slider plays alone."""
    beyond: bool = False
    """Whether its strength is above what was measured to stay fluent."""
    narrowed: bool = False
    """Whether it acts on fewer layers, texts or moments than it could."""


class SliderRow(Widget, can_focus=True):
    """A slider. One line high it puts all side by side; from two lines on the track gets a line of its own."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", f"step({-STEP})", "0.1 less", key_display="←"),
        Binding("right", f"step({STEP})", "0.1 more", key_display="→"),
        # Terminals differ in what they send for shift with an arrow, so a plain key does the same.
        Binding("shift+left,comma", f"step({-FINE_STEP})", "0.01 less", key_display="shift+← ,"),
        Binding("shift+right,full_stop", f"step({FINE_STEP})", "0.01 more", key_display="shift+→ ."),
        Binding("home", "reset", "back to 0", key_display="home 0"),
        Binding("m", "flag('mute')", "mute"),
        Binding("s", "flag('solo')", "solo: only this one steers"),
        Binding("o", "operation", "next operation: add, ablate, clamp, gate"),
        Binding("enter", "open", "layers, texts, gate …"),
        Binding("delete", "remove", "remove the vector"),
    ]

    class Moved(Message):
        """The person wants another strength."""

        def __init__(self, name: str, strength: float) -> None:
            super().__init__()
            self.name = name
            self.strength = strength

    class Stepped(Message):
        """The person wants a little more or less of what steers now: several may wait, and none is lost."""

        def __init__(self, name: str, step: float) -> None:
            super().__init__()
            self.name = name
            self.step = step

    class Asked(Message):
        """The person wants something else of this slider: mute, solo, operation, open or remove."""

        def __init__(self, name: str, what: str) -> None:
            super().__init__()
            self.name = name
            self.what = what

    def __init__(self, view: SliderView) -> None:
        super().__init__()
        self.view = view
        self._typed: str | None = None
        self._dragged: Track | None = None
        self._signs = terminal.signs()

    @property
    def typed(self) -> str | None:
        """The number that is being typed; None when none is."""
        return self._typed

    def show(self, view: SliderView) -> None:
        """Show other values."""
        if view != self.view:
            self.view = view
            self.refresh()

    def render(self) -> Content:
        """Draw the row."""
        track = self._track_now()
        at_rest = self.view.strength == 0.0 and self.view.operation != "clamp"
        silent = self.view.muted or self.view.silenced or at_rest
        drawn = [(text, _STYLES[part]) for text, part in track.drawn(self.view.strength, self._signs, silent=silent)]
        if self.size.height > 1:
            first = self._first_line(max(self.size.width - 2, 8))
            return Content.assemble(first, "\n  ", *drawn)
        name = self._name_part(self._name_width())
        return Content.assemble(name, " ", self._number_part(), " ", *drawn, " ", self._tags_part())

    def _first_line(self, width: int) -> Content:
        """Name on the left, tags and number on the right: the first of two lines."""
        right = Content.assemble(self._tags_part(), " ", self._number_part())
        return Content.assemble(self._name_part(max(width - right.cell_length, 4)), right)

    def _name_part(self, width: int) -> Content:
        pointer = ("> " if self._signs.track == "-" else "▸ ") if self.has_focus else "  "
        # A name comes from a file.
        name = Content(clean(self.view.name).replace("\n", " ")).truncate(width - 2, ellipsis=True, pad=True)
        return Content.assemble((pointer, "bold $text-accent"), name.stylize("bold" if self.has_focus else ""))

    def _number_part(self) -> Content:
        if self._typed is not None:
            return Content.styled(f"{self._typed}_".rjust(_NUMBER_WIDTH), "reverse")
        number = f"{self.view.strength:+.2f}" if self.view.strength else "0.00"
        sign = "!" if self.view.beyond else " "
        style = "bold $text-error" if self.view.beyond else "$text" if self.view.strength else "$text-muted"
        return Content.styled((number + sign).rjust(_NUMBER_WIDTH), style)

    def _tags_part(self) -> Content:
        return Content.assemble(
            (self.view.operation.ljust(_OPERATION_WIDTH), "$text-muted"),
            ("*" if self.view.narrowed else " ", "$text-muted"),
            ("M" if self.view.muted else " ", "bold $text-warning"),
            ("S" if self.view.solo else " ", "bold $text-success"),
        )

    def _name_width(self) -> int:
        return max(8, min(22, self.size.width // 4))

    def _track_left(self) -> int:
        return 2 if self.size.height > 1 else self._name_width() + _NUMBER_WIDTH + 2

    def _track_now(self) -> Track:
        right = 1 if self.size.height > 1 else _OPERATION_WIDTH + 4
        width = max(self.size.width - self._track_left() - right, NARROWEST)
        return Track(width, self.view.recommended, self.view.maximum, self.view.strength)

    def _move(self, strength: float) -> None:
        self.post_message(self.Moved(self.view.name, round(strength, 4)))

    def action_step(self, step: float) -> None:
        """Move by a step."""
        self.post_message(self.Stepped(self.view.name, step))

    def action_reset(self) -> None:
        """Go back to 0."""
        self._move(0.0)

    def action_flag(self, what: str) -> None:
        """Mute or solo, or the opposite."""
        self.post_message(self.Asked(self.view.name, what))

    def action_operation(self) -> None:
        """Take the next operation."""
        self.post_message(self.Asked(self.view.name, "operation"))

    def action_open(self) -> None:
        """Show the form with everything else."""
        self.post_message(self.Asked(self.view.name, "open"))

    def action_remove(self) -> None:
        """Remove the vector."""
        self.post_message(self.Asked(self.view.name, "remove"))

    def type(self, event: events.Key) -> bool:
        """Take a typed number, character by character; False where the key is none of a number's."""
        if self._typed is None:
            if event.character is None or event.character not in "0123456789-+":
                return False
            self._typed = event.character
            # "0" alone is the way back; it may also be the beginning of 0.5.
            if event.character == "0":
                self._move(0.0)
        elif event.key in ("enter", "escape"):
            self._end_typing(take=event.key == "enter")
        elif event.key == "backspace":
            self._typed = self._typed[:-1]
        elif event.character is not None and event.character in "0123456789.,-+":
            self._typed = (self._typed + event.character)[:_LONGEST_NUMBER]
        else:
            self._end_typing(take=False)
            return False
        self.refresh()
        return True

    def _end_typing(self, *, take: bool) -> None:
        typed, self._typed = self._typed or "", None
        self.refresh()
        if not take:
            return
        try:
            number = float(typed.replace(",", "."))
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            self._move(number)

    def on_blur(self) -> None:
        """A number that was not taken is dropped."""
        # After a quick way there and back this is late.
        if self.screen.focused is not self:
            self._end_typing(take=False)

    def on_focus(self) -> None:
        """The pointer before the name."""
        self.refresh()

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Set the strength where the track was pressed, and follow the mouse from there."""
        if event.button != 1 or not self._on_track(event.x, event.y):
            return
        # The range may follow the strength; under the mouse it stays.
        self._dragged = self._track_now()
        self.capture_mouse()
        self._move_to(self._dragged, event.x)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Follow the mouse."""
        if self._dragged is not None:
            self._move_to(self._dragged, event.x)

    def on_mouse_up(self, event: events.MouseUp) -> None:
        """Let go."""
        if self._dragged is not None:
            self._dragged = None
            self.release_mouse()
            event.stop()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Stronger."""
        self._wheel(event, STEP)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Weaker."""
        self._wheel(event, -STEP)

    def _wheel(self, event: events.MouseEvent, step: float) -> None:
        # Elsewhere the wheel scrolls the list.
        if self._on_track(event.x, event.y):
            event.stop()
            event.prevent_default()
            self.action_step(step)

    def _on_track(self, x: int, y: int) -> bool:
        left = self._track_left()
        return left <= x < left + self._track_now().width and (self.size.height == 1 or y == 1)

    def _move_to(self, track: Track, x: int) -> None:
        strength = track.value(x - self._track_left())
        if strength != self.view.strength:
            self._move(strength)
