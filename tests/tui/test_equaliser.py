"""Sliders: keys, mouse and typed numbers move what steers, and the row shows what steers."""

import pytest
from textual.widgets import Input

from ggufsteer.engine.messages import ChangeSettings
from ggufsteer.tui.slider import SliderRow
from ggufsteer.tui.slider_form import SliderForm
from tests.tui.stage import LARGE, SMALL, Stage, play, stage


def strength(it: Stage, name: str = "happy") -> float:
    """Give what is set."""
    return it.chat.equaliser.slider(name).strength


def row(it: Stage, place: int = 0) -> SliderRow:
    """Give a row of the equaliser."""
    return it.screen.panel.rows[place]


KEYS = {
    ("right",): 0.6,
    ("left",): 0.4,
    ("shift+right",): 0.51,
    ("full_stop",): 0.51,
    ("shift+left",): 0.49,
    ("comma",): 0.49,
    ("home",): 0.0,
    ("0",): 0.0,
    ("1", "enter"): 1.0,
    ("minus", "1", "full_stop", "2", "5", "enter"): -1.25,
    ("0", "full_stop", "7", "enter"): 0.7,
    ("0", "comma", "7", "enter"): 0.7,
    ("2", "backspace", "3", "enter"): 3.0,
    ("9", "escape"): 0.5,
    ("minus", "enter"): 0.5,
    ("5", "down"): 0.5,
    ("right", "right", "right", "right"): 0.9,
}


@pytest.mark.parametrize(("keys", "wanted"), KEYS.items(), ids=map(" ".join, KEYS))
def test_keys_move_a_slider(keys: tuple[str, ...], wanted: float) -> None:
    """Steps, fine steps, the way back to 0, and typed numbers that Enter takes and Esc drops."""

    async def see() -> None:
        async with stage() as it:
            await it.press("f2", *keys)
            assert strength(it) == pytest.approx(wanted)
            assert strength(it, "honest") == -1.0

    play(see)


def test_a_number_that_is_being_typed_is_shown() -> None:
    """The person sees what Enter would take."""

    async def see() -> None:
        async with stage() as it:
            await it.press("f2", "1", "full_stop", "2")
            assert row(it).typed == "1.2"
            assert "1.2_" in it.shown
            await it.press("escape")
            assert row(it).typed is None
            assert "+0.50" in it.shown

    play(see)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_drag_follows_the_mouse_and_snaps_to_zero(size: tuple[int, int]) -> None:
    """Pressing the track sets the strength, moving changes it, also beside the row, until the button is let go."""

    async def see() -> None:
        async with stage(size) as it:
            the_row = row(it)
            y = the_row.region.y + the_row.region.height - 1
            track = the_row._track_now()
            left = the_row.region.x + the_row._track_left()
            await it.pilot.mouse_down(offset=(left + track.column(1.0), y))
            assert strength(it) == 1.0
            await it.pilot.hover(offset=(left + track.column(-1.0), y))
            assert strength(it) == -1.0
            await it.pilot.hover(offset=(left + track.centre, max(y - 5, 0)))
            assert strength(it) == 0.0
            await it.pilot.mouse_up(offset=(left + track.centre, y))
            await it.pilot.hover(offset=(left + track.column(1.0), y))
            assert strength(it) == 0.0

    play(see)


def test_a_press_beside_the_track_changes_nothing() -> None:
    """A click on the name gives the focus and no more."""

    async def see() -> None:
        async with stage() as it:
            await it.pilot.click(offset=(5, row(it, 1).region.y))
            assert row(it, 1).has_focus
            assert strength(it, "honest") == -1.0

    play(see)


def test_the_wheel_on_a_track_moves_in_steps() -> None:
    """Up is stronger, down is weaker."""

    async def see() -> None:
        async with stage() as it:
            the_row = row(it)
            offset = (the_row._track_left() + 3, the_row.region.y)
            await it.pilot._post_mouse_events([_scroll("up")], offset=offset)
            await it.pilot.pause()
            assert strength(it) == pytest.approx(0.6)
            await it.pilot._post_mouse_events([_scroll("down")], offset=offset)
            await it.pilot.pause()
            assert strength(it) == pytest.approx(0.5)

    play(see)


def _scroll(way: str) -> type:
    from textual import events

    return events.MouseScrollUp if way == "up" else events.MouseScrollDown


def test_mute_solo_and_operation_are_a_key_each_and_are_shown() -> None:
    """M, S and the operation's name stand in the row."""

    async def see() -> None:
        async with stage() as it:
            await it.press("f2", "m")
            assert it.chat.equaliser.slider("happy").muted
            await it.press("s", "o")
            assert it.chat.equaliser.slider("happy").solo
            assert it.chat.equaliser.slider("happy").operation == "ablate"
            line = next(line for line in it.shown.splitlines() if "happy" in line)
            assert "ablate" in line
            assert "MS" in line
            await it.press("o", "o", "o")
            assert it.chat.equaliser.slider("happy").operation == "add"

    play(see)


def test_beyond_the_largest_fluent_strength_there_is_a_sign() -> None:
    """Never a colour alone."""

    async def see() -> None:
        async with stage() as it:
            assert "!" not in it.shown.split("Equaliser")[1].split("\n")[1]
            await it.press("f2", "2", "enter")
            assert "+2.00!" in it.shown

    play(see)


def test_up_and_down_go_between_sliders_and_f2_back_to_the_message() -> None:
    """No mouse is needed."""

    async def see() -> None:
        async with stage() as it:
            assert it.screen.prompt.area.has_focus
            await it.press("f2")
            assert row(it, 0).has_focus
            await it.press("down")
            assert row(it, 1).has_focus
            await it.press("down")
            assert row(it, 1).has_focus
            await it.press("up")
            assert row(it, 0).has_focus
            await it.press("ctrl+g")
            assert it.screen.prompt.area.has_focus

    play(see)


def test_keys_walk_over_more_sliders_than_there_is_room_for() -> None:
    """The list follows the focus, and a key moves the slider that has it, not the list."""
    names = [f"v{number}" for number in range(8)]

    async def see() -> None:
        async with stage(vectors=tuple((f"{name}.gguf", 0.0) for name in names)) as it:
            await it.press("f2", *["down"] * 6, "right")
            moved = {slider.name: slider.strength for slider in it.chat.equaliser.sliders if slider.strength}
            assert moved == {"v6": 0.1}
            assert row(it, 6).has_focus
            await it.until(lambda: "v6" in it.shown)

    play(see)


def test_all_sliders_go_to_zero_by_one_key() -> None:
    """The model as it is."""

    async def see() -> None:
        async with stage() as it:
            await it.press("f2", "R")
            assert [slider.strength for slider in it.chat.equaliser.sliders] == [0.0, 0.0]
            assert it.shown.count("0.00") == 2

    play(see)


def test_a_slider_moved_during_an_answer_steers_the_rest_of_it() -> None:
    """The running answer is told, with the last of the strengths."""

    async def see() -> None:
        async with stage() as it:
            await it.ask()
            it.worker.write("So ")
            await it.press("f2", "right", "right")
            changes = [request for request in it.worker.sent if isinstance(request, ChangeSettings)]
            happy = next(band for band in changes[-1].settings if band.vector == "happy")
            assert happy.strength == pytest.approx(0.7)

    play(see)


def test_a_vector_comes_and_goes_while_the_chat_runs() -> None:
    """Its row appears when the process has checked it; removing gives the focus to another."""

    async def see() -> None:
        async with stage() as it:
            it.chat.add_vector("formal.gguf", 0.2)
            await it.until(lambda: len(it.screen.panel.rows) == 3)
            await it.press("f2", "delete")
            await it.until(lambda: len(it.screen.panel.rows) == 2)
            assert "happy" not in [slider.name for slider in it.chat.equaliser.sliders]
            assert it.screen.focused in it.screen.panel.rows
            await it.press("delete")
            await it.until(lambda: len(it.screen.panel.rows) == 1)
            await it.press("delete")
            await it.until(lambda: not it.screen.panel.rows)
            await it.press("f2")
            await it.until_shown("No vectors yet")
            assert it.screen.prompt.area.has_focus

    play(see)


def test_a_vector_that_does_not_fit_is_told_of() -> None:
    """The reason and the mend stand in the conversation; there is no row."""

    async def see() -> None:
        async with stage() as it:
            it.chat.add_vector("missing.gguf")
            await it.until_shown("no such file")
            assert len(it.screen.panel.rows) == 2

    play(see)


def test_the_form_sets_operation_layers_scope_and_gate() -> None:
    """Enter opens it, ctrl+s takes it."""

    async def see() -> None:
        async with stage() as it:
            await it.press("f2", "enter")
            form = it.screen.screen
            assert isinstance(form, SliderForm)
            form.query_one("#first", Input).value = "3"
            form.query_one("#last", Input).value = "4"
            form.query_one("#threshold", Input).value = "0.8"
            form.query_one("#operation").value = "gate"  # type: ignore[attr-defined]
            form.query_one("#condition").value = "honest"  # type: ignore[attr-defined]
            await it.press("ctrl+s")
            slider = it.chat.equaliser.slider("happy")
            assert (slider.layers, slider.operation, slider.condition) == ((3, 4), "gate", "honest")
            assert slider.threshold == 0.8
            await it.until(lambda: not isinstance(it.screen.screen, SliderForm))
            await it.until_shown("*")

    play(see)


def test_a_refused_form_stays_and_changes_nothing() -> None:
    """The reason is shown where the mistake was made."""

    async def see() -> None:
        async with stage() as it:
            await it.press("f2", "enter")
            form = it.screen.screen
            form.query_one("#operation").value = "clamp"  # type: ignore[attr-defined]
            form.query_one("#first", Input).value = "70"
            await it.press("ctrl+s")
            await it.until_shown("no layer of it")
            slider = it.chat.equaliser.slider("happy")
            assert (slider.layers, slider.operation) == (None, "add")
            await it.press("escape")
            await it.until(lambda: not isinstance(it.screen.screen, SliderForm))

    play(see)


def test_ascii_terminals_get_an_ascii_track(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row holds no character beyond ASCII where the locale says so."""
    monkeypatch.setenv("LC_ALL", "C")

    async def see() -> None:
        async with stage() as it:
            await it.press("f2")
            line = next(line for line in it.shown.splitlines() if "happy" in line)
            assert line.isascii()
            assert "|" in line
            assert "O" in line

    play(see)
