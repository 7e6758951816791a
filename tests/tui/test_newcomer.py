"""What someone meets who does not know the screen yet: keys that go astray, pages that are long, words that explain."""

from itertools import pairwise

import pytest
from textual import events
from textual.containers import VerticalScroll
from textual.widgets import Select

from ggufsteer.tasks.notices import State
from ggufsteer.tui import meter
from ggufsteer.tui.pages import Page
from ggufsteer.tui.slider_form import SliderForm
from ggufsteer.tui.status import Gauge, Situation, line
from tests.tui.stage import LARGE, SMALL, Stage, play, stage

LAYOUTS = [SMALL, (100, 30)]


def at_once(it: Stage, *keys: str) -> None:
    """Press keys as a fast hand or a slow line does: all are there before the first one is handled."""
    for key in keys:
        it.screen.post_message(events.Key(key, key if len(key) == 1 else None))


async def answered(it: Stage, text: str = "How are you?") -> None:
    """Ask, and wait for the whole answer."""
    before = len(it.worker.generates)
    await it.write(text)
    await it.until(lambda: it.chat.state is State.READY and len(it.worker.generates) > before)


@pytest.mark.parametrize("size", LAYOUTS)
@pytest.mark.parametrize("keys", [["end"], ["pagedown"] * 9, ["down"] * 99], ids=lambda keys: keys[0])
def test_the_help_can_be_read_to_its_end(size: tuple[int, int], keys: list[str]) -> None:
    """Arrows, page keys and End scroll it, Home goes back, and its border says that there is more."""

    async def see() -> None:
        async with stage(size) as it:
            await it.press("f1")
            await it.until_shown("↑↓ scroll, Esc closes")
            assert "/restart" not in it.shown
            await it.press(*keys)
            await it.until_shown("/restart")
            await it.press("home")
            await it.until_shown("Everywhere")

    play(see)


def test_the_wheel_scrolls_the_help() -> None:
    """As everywhere."""

    async def see() -> None:
        async with stage() as it:
            await it.press("f1")
            box = it.screen.screen.query_one(VerticalScroll)
            await it.pilot._post_mouse_events([events.MouseScrollDown], offset=(40, 12))
            await it.until(lambda: box.scroll_y > 0)

    play(see)


def test_a_page_that_fits_does_not_speak_of_scrolling() -> None:
    """The keys that do something are named, and no others."""

    async def see() -> None:
        async with stage(LARGE) as it:
            it.screen.push_screen(Page("short", [("", "one line")]))
            await it.until_shown("Esc closes")
            assert "scroll" not in it.shown

    play(see)


FIVE = tuple((f"v{number}.gguf", 0.0) for number in range(5))


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_keys_that_come_at_once_go_to_the_slider_they_were_meant_for(size: tuple[int, int]) -> None:
    """Four Downs are four rows; what follows an arrow at once acts on the row that the arrow chose."""

    async def see() -> None:
        async with stage(size, FIVE) as it:
            at_once(it, "f2", "down", "down", "down", "down", "right", "up", "up", "right", "right", "up", "7", "enter")
            await it.until(lambda: it.chat.equaliser.slider("v1").strength)
            moved = {slider.name: slider.strength for slider in it.chat.equaliser.sliders if slider.strength}
            assert moved == {"v4": 0.1, "v2": 0.2, "v1": 7.0}

    play(see)


def test_a_number_typed_after_a_way_there_and_back_is_kept() -> None:
    """A row learns late that it had lost the focus for a moment."""

    async def see() -> None:
        async with stage() as it:
            await it.press("f2")
            at_once(it, "down", "up", "1")
            await it.until(lambda: it.screen.panel.rows[0].typed == "1")
            await it.pilot.pause()
            await it.press("enter")
            assert it.chat.equaliser.slider("happy").strength == 1.0

    play(see)


def test_letters_behind_f2_reach_the_message() -> None:
    """Also when they come at once."""

    async def see() -> None:
        async with stage() as it:
            await it.press("f2")
            at_once(it, "f2", "m", "o")
            await it.until(lambda: it.screen.prompt.area.text == "mo")
            slider = it.chat.equaliser.slider("happy")
            assert (slider.muted, slider.operation) == (False, "add")

    play(see)


def test_f2_goes_back_to_the_slider_that_had_the_keys() -> None:
    """Who looks at the message in between does not lose the place."""

    async def see() -> None:
        async with stage(vectors=FIVE) as it:
            await it.press("f2", "down", "down", "f2", "f2", "right")
            assert it.chat.equaliser.slider("v2").strength == 0.1

    play(see)


@pytest.mark.parametrize("size", LAYOUTS)
def test_on_a_slider_the_way_back_is_shown_and_escape_goes_it(size: tuple[int, int]) -> None:
    """Esc drops a number first; the title names F2 while a slider has the keys."""

    async def see() -> None:
        async with stage(size) as it:
            assert "F2 back" not in it.shown
            await it.press("f2")
            await it.until_shown("F2 back")
            assert "[R] reset" in it.shown
            await it.press("1", "escape")
            assert it.screen.panel.chosen is it.screen.panel.rows[0]
            await it.press("escape")
            assert it.screen.prompt.area.has_focus
            await it.until_shown("Equaliser")
            assert "F2 back" not in it.shown

    play(see)


def test_letters_that_mean_nothing_on_a_slider_say_so() -> None:
    """They change nothing and are not lost silently."""

    async def see() -> None:
        async with stage() as it:
            before = it.chat.equaliser.settings()
            await it.press("f2", "H", "e", "l", "l")
            await it.until_shown("a slider has the keys: F2 goes to the message")
            assert it.chat.equaliser.settings() == before
            assert it.screen.panel.rows[0].has_focus

    play(see)


def test_an_empty_equaliser_says_what_can_be_done_there() -> None:
    """No key of a slider's, because there is none."""

    async def see() -> None:
        async with stage(vectors=()) as it:
            await it.until_shown("/add FILE adds a vector")
            assert "Press a" not in it.shown

    play(see)


def test_after_a_slider_was_moved_the_way_to_see_it_is_told_once() -> None:
    """Not before there is an answer, not during one, and not again."""
    hint = "ctrl+r answers the last question again under it"

    async def see() -> None:
        async with stage() as it:
            await it.press("f2", "right")
            assert hint not in it.shown
            await it.press("f2")
            await it.ask()
            it.worker.write("So ")
            await it.press("f2", "right")
            assert hint not in it.shown
            it.worker.finish()
            await it.until(lambda: it.chat.state is State.READY)
            await it.press("right")
            await it.until_shown(hint)
            it.screen.status.flash("other")
            await it.press("right")
            assert hint not in it.shown

    play(see)


def test_a_baseline_behind_a_steered_answer_says_that_it_shares_the_history() -> None:
    """The first one is the model's own from the beginning; the second goes on from steered words."""

    async def see() -> None:
        async with stage(LARGE, hold=False) as it:
            await it.press("ctrl+b")
            await answered(it)
            await it.until_shown("baseline")
            assert "same history" not in it.shown
            await answered(it, "and now?")
            await it.until_shown("baseline, same history")
            assert it.shown.count("same history") == 1

    play(see)


def test_the_meter_begins_with_what_steers_strongest() -> None:
    """By the recommended strength; muted sliders steer nothing; it begins anew each time it is turned on."""

    async def see() -> None:
        async with stage(vectors=(("a.gguf", 0.1), ("b.gguf", -0.9), ("c.gguf", 0.5))) as it:
            await it.press("ctrl+l")
            await it.until_shown("meter b 2/3")
            await it.press("f3")
            await it.until_shown("meter c 3/3")
            await it.press("f3")
            await it.until_shown("meter a 1/3")
            it.chat.equaliser.mute("b")
            await it.press("ctrl+l", "ctrl+l")
            await it.until_shown("meter c 3/3")

    play(see)


def test_the_meter_says_once_that_it_measures_no_earlier_answers() -> None:
    """And nothing where there are none."""
    remark = "answers before it stay"

    async def see() -> None:
        async with stage(hold=False) as it:
            await it.press("ctrl+l", "ctrl+l")
            assert remark not in it.shown
            await answered(it)
            await it.press("ctrl+l")
            await it.until_shown(remark)
            await it.press("ctrl+l", "ctrl+l")
            await it.pilot.pause(0.1)
            assert it.shown.count(remark) == 1

    play(see)


def test_the_cost_of_the_meter_stands_in_its_legend_alone() -> None:
    """Once is enough."""
    gauge = Gauge(meter_cost=0.12)
    assert "12%" in meter.legend(["a"], 0, numbers=False, cost=gauge.meter_cost).plain
    shown = line(Situation(State.READY, "Fake", meter=True), gauge, 120).plain
    assert "meter" in shown
    assert "%" not in shown


@pytest.mark.parametrize(
    "pieces", [["Coffee ", "is ", "good. "], [" Coffee", " is", " good", "."], ["so", "lid\n", "x"]]
)
@pytest.mark.parametrize("width", range(12, 30))
def test_a_piece_and_its_number_stay_on_one_line(pieces: list[str], width: int) -> None:
    """Wherever the blanks of the pieces stand."""
    content = meter.drawn([(piece, {"a": 0.25}) for piece in pieces * 5], "a", numbers=True)
    lines = [wrapped.plain for wrapped in content.wrap(width)]
    for before, after in pairwise(lines):
        assert not after.lstrip().startswith("·"), (before, after)
    assert "".join(lines).count("·0.2") == 5 * len(pieces)


@pytest.mark.parametrize("width", range(20, 120))
def test_the_status_line_keeps_a_distance_before_the_help(width: int) -> None:
    """What does not leave three blanks is left out; wide characters count as the columns they take."""
    gauge = Gauge(n_context=500, size=4096, speed=12.3)
    shown = line(Situation(State.READY, "模型 of some name", meter=True, compare=True), gauge, width)
    assert shown.cell_length == width
    assert shown.plain.endswith("   F1 help ")


def test_after_the_process_is_gone_its_numbers_are_too_and_its_answers_keep_their_name() -> None:
    """Speed and context are those of a process that runs."""

    async def see() -> None:
        async with stage(hold=False) as it:
            await answered(it)
            await it.until_shown("tok/s")
            it.worker.die()
            await it.until_shown("no model")
            assert "Fake  happy" in it.shown
            assert "tok/s" not in it.shown
            assert "context" not in it.shown
            await answered(it, "are you there?")
            await it.until_shown("tok/s")

    play(see)


def test_the_form_shows_what_belongs_to_a_gate_for_a_gate_alone() -> None:
    """It comes and goes with the operation."""

    async def see() -> None:
        async with stage() as it:
            await it.press("f2", "enter")
            form = it.screen.screen
            assert isinstance(form, SliderForm)
            await it.until_shown("Operation")
            assert "Gate: on" not in it.shown
            form.query_one("#operation", Select).value = "gate"
            await it.until_shown("Gate: on")
            await it.until_shown("decided")
            form.query_one("#operation", Select).value = "clamp"
            await it.until(lambda: "Gate: on" not in it.shown)

    play(see)


def test_the_completions_leave_out_what_is_typed_already() -> None:
    """Only what goes on from it is offered; Tab still gives a whole command its space."""

    async def see() -> None:
        async with stage(vectors=(("happy.gguf", 0.5), ("happy2.gguf", 0.5))) as it:
            area, completions = it.screen.prompt.area, it.screen.prompt.completions
            area.fill("/mute happy")
            await it.until(lambda: completions.lines == ["/mute happy2"])
            area.fill("/mute")
            await it.pilot.pause()
            assert "/mute" not in completions.lines
            await it.press("tab")
            assert area.text == "/mute "

    play(see)
