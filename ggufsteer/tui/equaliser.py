"""The equaliser on the screen: all sliders, one below the other, and what moves between them.

It carries out what the sliders ask for on the equaliser itself, tells that something changed, and draws it. Whether and
when the model hears of it, others decide.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import Static

from ggufsteer.errors import SteerError
from ggufsteer.tasks.equaliser import OPERATIONS, Equaliser, Slider
from ggufsteer.tui.slider import SliderRow, SliderView
from ggufsteer.tui.track import stepped

_TITLE = (
    "[b]{}[/b]  [@click=app.ask('/add ')]\\[a] add[/]  [@click=app.ask('/preset ')]\\[p] presets[/]"
    "  [@click=app.reset_all]\\[R] reset[/]"
)
_NAME = "Equaliser"
_WAY_BACK = "F2 back".ljust(len(_NAME))
"""In place of the name while the sliders have the keys; as wide, so that nothing moves."""
_EMPTY = "No vectors yet. /add FILE adds a vector, /add builtin:NAME one made for the model that ships."


def view_of(equaliser: Equaliser, slider: Slider) -> SliderView:
    """Say what a row shows of a slider."""
    return SliderView(
        name=slider.name,
        strength=slider.strength,
        operation=slider.operation,
        maximum=slider.maximum,
        recommended=slider.recommended,
        muted=slider.muted,
        solo=slider.solo,
        silenced=any(other.solo for other in equaliser.sliders) and not slider.solo,
        beyond=equaliser.beyond(slider),
        narrowed=slider.layers is not None or slider.scope != "all" or not slider.thinking,
    )


class _Rows(VerticalScroll, inherit_bindings=False):
    """Scrolls by the focus alone: its own up and down would take the keys from the sliders once they overflow."""


class EqualiserPanel(Vertical):
    """All sliders."""

    DEFAULT_CSS = """
    EqualiserPanel { height: auto; max-height: 5; background: $surface; }
    EqualiserPanel > .title { height: 1; padding: 0 1; color: $text-muted; background: $panel; text-wrap: nowrap; }
    EqualiserPanel > .empty { height: auto; padding: 0 1; color: $text-muted; }
    EqualiserPanel > #sliders { height: auto; max-height: 4; scrollbar-size-vertical: 1; }
    EqualiserPanel SliderRow { height: 1; }
    EqualiserPanel SliderRow:focus { background: $boost; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "slider above", key_display="↑"),
        Binding("down", "move(1)", "slider below", key_display="↓"),
        Binding("a", "app.ask('/add ')", "add a vector"),
        Binding("p", "app.ask('/preset ')", "presets: save, load, list"),
        Binding("R", "reset_all", "all sliders to 0"),
    ]

    class Changed(Message):
        """Something steers otherwise now."""

    class Wanted(Message):
        """A slider's form is to be opened, or its vector removed."""

        def __init__(self, name: str, what: str) -> None:
            super().__init__()
            self.name = name
            self.what = what

    class Refused(Message):
        """What was asked for cannot be."""

        def __init__(self, problem: SteerError) -> None:
            super().__init__()
            self.problem = problem

    class Unbound(Message):
        """A key was pressed on a slider that means nothing there."""

    def __init__(self, equaliser: Equaliser) -> None:
        super().__init__()
        self.equaliser = equaliser
        self._title = Static(_TITLE.format(_NAME), classes="title")
        self._last = ""
        """The slider that was chosen last."""
        self._list = _Rows(id="sliders", can_focus=False)
        self._empty = Static(_EMPTY, classes="empty", markup=False)

    def compose(self) -> ComposeResult:
        """Title, rows."""
        yield self._title
        yield self._empty
        yield self._list

    @property
    def rows(self) -> list[SliderRow]:
        """The rows, from the top."""
        return list(self._list.query_children(SliderRow))

    @property
    def chosen(self) -> SliderRow | None:
        """The row that the next key is for; None when that is another widget.

        Not `has_focus`, which a row learns of later: keys that come fast would find the row before.
        """
        focused = self.screen.focused
        return focused if isinstance(focused, SliderRow) and focused in self.rows else None

    async def redraw(self) -> None:
        """Show the equaliser as it is; rows of sliders that stay are kept, with the focus."""
        sliders = {slider.name: slider for slider in self.equaliser.sliders}
        self._empty.display = not sliders
        gone = [row for row in self.rows if row.view.name not in sliders]
        if self.chosen in gone:
            self._focus_beside(gone)
        await self._list.remove_children(gone)
        rows = {row.view.name: row for row in self.rows}
        for name, slider in sliders.items():
            view = view_of(self.equaliser, slider)
            if name in rows:
                rows[name].show(view)
            else:
                await self._list.mount(SliderRow(view))

    def focus_row(self) -> bool:
        """Give the focus to the slider that had it last, or to the first; False when there is none."""
        rows = self.rows
        if rows:
            self._choose(next((row for row in rows if row.view.name == self._last), rows[0]))
        return bool(rows)

    def _choose(self, row: SliderRow) -> None:
        self._last = row.view.name
        self.screen.set_focus(row)

    def on_descendant_focus(self) -> None:
        """Tell the way back, and remember the row."""
        if self.chosen is not None:
            self._last = self.chosen.view.name
            self._title.update(_TITLE.format(_WAY_BACK))

    def on_descendant_blur(self) -> None:
        """The keys are elsewhere."""
        if self.chosen is None:
            self._title.update(_TITLE.format(_NAME))

    async def on_key(self, event: events.Key) -> None:
        """Do at once what a key means for the chosen slider, to whichever row it was sent.

        Keys that wait behind an arrow were sent to the row above, and Textual looks bindings up later still.
        """
        row = self.chosen
        if row is None:
            return
        handled = row.type(event) or await self._act(event.key, row)
        if not handled and event.is_printable:
            handled = True
            self.post_message(self.Unbound())
        if handled:
            event.stop()
            event.prevent_default()

    async def _act(self, key: str, row: SliderRow) -> bool:
        for widget in (row, self):
            bound = widget._bindings.key_to_bindings.get(key, [])
            if bound:
                return await self.app.run_action(bound[0].action, widget)
        return False

    def action_move(self, step: int) -> None:
        """Give the focus to the slider above or below."""
        rows = self.rows
        place = next((place for place, row in enumerate(rows) if row is self.chosen), 0)
        self._choose(rows[max(0, min(place + step, len(rows) - 1))])

    def action_reset_all(self) -> None:
        """Set all sliders to 0."""
        self._change(self.equaliser.reset_all)

    def on_slider_row_moved(self, event: SliderRow.Moved) -> None:
        """Set a strength."""
        self._change(lambda: self.equaliser.set_strength(event.name, event.strength))

    def on_slider_row_stepped(self, event: SliderRow.Stepped) -> None:
        """Move a strength by a step."""
        self._change(lambda: self._step(event.name, event.step))

    def on_slider_row_asked(self, event: SliderRow.Asked) -> None:
        """Mute, solo, take the next operation; the rest is for others."""
        changes: dict[str, Callable[[], object]] = {
            "mute": lambda: self.equaliser.mute(event.name),
            "solo": lambda: self.equaliser.solo(event.name),
            "operation": lambda: self._next_operation(event.name),
        }
        if event.what in changes:
            self._change(changes[event.what])
        else:
            self.post_message(self.Wanted(event.name, event.what))

    def _change(self, change: Callable[[], object]) -> None:
        try:
            change()
        except SteerError as problem:
            self.post_message(self.Refused(problem))
            return
        # At once, because the next key may already wait.
        for row in self.rows:
            slider = next((slider for slider in self.equaliser.sliders if slider.name == row.view.name), None)
            if slider is not None:
                row.show(view_of(self.equaliser, slider))
        self.post_message(self.Changed())

    def _step(self, name: str, step: float) -> None:
        self.equaliser.set_strength(name, stepped(self.equaliser.slider(name).strength, step))

    def _next_operation(self, name: str) -> None:
        place = OPERATIONS.index(self.equaliser.slider(name).operation)
        self.equaliser.set_operation(name, OPERATIONS[(place + 1) % len(OPERATIONS)])

    def _focus_beside(self, gone: list[SliderRow]) -> None:
        """Give the focus to a slider that stays, or away."""
        staying = [row for row in self.rows if row not in gone]
        if staying:
            self._choose(staying[0])
        else:
            self.screen.set_focus(None)
