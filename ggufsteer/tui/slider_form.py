"""A slider's form: operation, layers, texts, thoughts and gate, everything but its strength.

It checks nothing by itself: the equaliser refuses what cannot be, and the form shows why and stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Checkbox, Input, Label, Select, Static

from ggufsteer.errors import SteerError
from ggufsteer.tasks.equaliser import DECIDED, OPERATIONS, SCOPES, Equaliser
from ggufsteer.text import clean

Number = TypeVar("Number", int, float)

_OPERATIONS = {
    "add": "add: push towards the concept",
    "ablate": "ablate: take the concept out (1 wholly)",
    "clamp": "clamp: hold the concept at this strength",
    "gate": "gate: add only where a condition holds",
}
_SCOPES = {"all": "all of the conversation", "prompt": "the prompt alone", "answer": "the answer alone"}
_DECIDED = {"prompt": "once, on the newest message", "token": "for each token by itself"}


class SliderForm(ModalScreen[bool]):
    """The form; ends with True when something was changed."""

    DEFAULT_CSS = """
    SliderForm { align: center middle; }
    SliderForm > Vertical { width: 64; max-width: 100%; height: auto; max-height: 100%; background: $surface;
        border: round $primary; padding: 0 1; }
    SliderForm .about { color: $text-muted; height: auto; max-height: 4; margin-bottom: 1; }
    SliderForm Grid { grid-size: 2; grid-columns: 14 1fr; grid-rows: 1; height: auto; grid-gutter: 0 1; }
    SliderForm .pair { height: 1; }
    SliderForm .pair Input { width: 1fr; }
    SliderForm .problem { color: $text-error; height: auto; }
    SliderForm .buttons { height: 1; align-horizontal: right; margin-top: 1; }
    SliderForm .buttons Button { margin-left: 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(False)", "leave everything as it was"),
        Binding("ctrl+s", "take", "take the values"),
    ]

    def __init__(self, equaliser: Equaliser, name: str) -> None:
        super().__init__()
        self._equaliser = equaliser
        self._slider = equaliser.slider(name)
        self._problem = Static(classes="problem", markup=False)

    def compose(self) -> ComposeResult:
        """One line a value, so that it fits a screen of 24 lines."""
        slider = self._slider
        about = f"{slider.title or slider.name}: {slider.description or 'no description'}"
        with Vertical() as box:
            box.border_title = clean(slider.name)
            yield Static(clean(about), classes="about", markup=False)
            with Grid():
                yield Label("Operation")
                yield _select("operation", [(_OPERATIONS[name], name) for name in OPERATIONS], slider.operation)
                yield Label("Layers")
                yield from self._layers()
                yield Label("Texts")
                yield _select("scope", [(_SCOPES[name], name) for name in SCOPES], slider.scope)
                yield Label("Thoughts")
                yield Checkbox("steer the block of thoughts too", slider.thinking, id="thinking", compact=True)
                yield from self._gate()
            yield self._problem
            with Horizontal(classes="buttons"):
                yield Button("Take (ctrl+s)", variant="primary", id="take", compact=True)
                yield Button("Leave (esc)", id="leave", compact=True)

    def _layers(self) -> ComposeResult:
        every = self._slider.all_layers or (0,)
        first, last = self._slider.layers or ("", "")
        with Horizontal(classes="pair"):
            yield Input(str(first), placeholder=f"from {every[0]}", id="first", type="integer", compact=True)
            yield Input(str(last), placeholder=f"to {every[-1]}", id="last", type="integer", compact=True)

    def _gate(self) -> ComposeResult:
        slider = self._slider
        names = [(clean(other.name), other.name) for other in self._equaliser.sliders]
        fields = [
            Label("Gate: on"),
            _select("condition", names, slider.condition or slider.name),
            Label("  above"),
            Input(f"{slider.threshold:g}", id="threshold", type="number", compact=True),
            Label("  decided"),
            _select("decided", [(_DECIDED[name], name) for name in DECIDED], slider.decided),
        ]
        for field in fields:
            field.add_class("gate")
            field.display = slider.operation == "gate"
        yield from fields

    @on(Select.Changed, "#operation")
    def show_gate(self, event: Select.Changed) -> None:
        """Show what belongs to a gate for a gate alone."""
        for field in self.query(".gate"):
            field.display = event.value == "gate"

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Take or leave."""
        if event.button.id == "take":
            self.action_take()
        else:
            self.dismiss(False)

    def on_input_submitted(self) -> None:
        """Enter takes the values, as everywhere."""
        self.action_take()

    def action_take(self) -> None:
        """Set everything; what is refused is shown, and then nothing has changed."""
        name = self._slider.name
        before = next(record for record in self._equaliser.records() if record.vector == name)
        try:
            self._set(name)
        except SteerError as problem:
            self._equaliser.restore(before)
            self._problem.update(f"{problem.message}. {problem.hint}".strip())
            return
        self.dismiss(True)

    def _set(self, name: str) -> None:
        self._equaliser.set_operation(name, self._chosen("operation"))
        self._equaliser.set_layers(name, self._typed_layers())
        thinking = self.query_one("#thinking", Checkbox).value
        self._equaliser.set_scope(name, self._chosen("scope"), thinking=thinking)
        self._equaliser.set_gate(
            name,
            condition=self._chosen("condition"),
            threshold=_number(self._typed("threshold"), float, "threshold"),
            decided=self._chosen("decided"),
        )

    def _typed_layers(self) -> tuple[int, int] | None:
        first, last = self._typed("first"), self._typed("last")
        if not first and not last:
            return None
        every = self._slider.all_layers or (0,)
        return (
            _number(first or str(every[0]), int, "first layer"),
            _number(last or str(every[-1]), int, "last layer"),
        )

    def _chosen(self, name: str) -> str:
        return str(self.query_one(f"#{name}", Select).value)

    def _typed(self, name: str) -> str:
        return self.query_one(f"#{name}", Input).value.strip()


def _select(name: str, options: list[tuple[str, str]], value: str) -> Select[str]:
    return Select(options, value=value, allow_blank=False, id=name, compact=True)


def _number(text: str, kind: Callable[[str], Number], what: str) -> Number:
    try:
        return kind(text)
    except ValueError as problem:
        raise SteerError(f"'{clean(text)}' is no {what}", "write a number") from problem
