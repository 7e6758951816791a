"""The help: a page made of the tables of keys and commands, so that it misses none and names none that is not there."""

from __future__ import annotations

from collections.abc import Iterable

from textual.binding import BindingType

from ggufsteer.tasks import chat_commands
from ggufsteer.tui.equaliser import EqualiserPanel
from ggufsteer.tui.pages import Page, keys_of
from ggufsteer.tui.prompt import PromptArea
from ggufsteer.tui.slider import SliderRow

_ON_A_SLIDER = """\
0-9 -          type a number; Enter takes it, Esc drops it
esc            without a number: back to the message
mouse          press or drag on the track, wheel for steps; near 0 it snaps to 0
On the track: + or ┴ recommended, # or ╫ the largest that stays fluent; ! beyond it; M mute, S solo, * narrowed"""


def help_page(everywhere: Iterable[BindingType]) -> Page:
    """Make the page; `everywhere` are the keys of the screen itself."""
    on_a_slider = keys_of([*SliderRow.BINDINGS, *EqualiserPanel.BINDINGS])
    return Page(
        "Help",
        [
            ("Everywhere", keys_of(everywhere)),
            ("In the message", keys_of(PromptArea.BINDINGS)),
            ("On a slider", f"{on_a_slider}\n{_ON_A_SLIDER}"),
            ("Commands", chat_commands.help_text()),
        ],
    )
