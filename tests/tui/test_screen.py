"""The screen as a whole: answers as they are written, stop, branches, A/B, the meter, pages, quitting, layouts."""

import asyncio

import pytest

from ggufsteer.engine.messages import Generate, Stop
from ggufsteer.tasks.notices import State
from ggufsteer.tui.answer import AnswerView
from ggufsteer.tui.pages import Page
from tests.tui.stage import LARGE, SMALL, Stage, play, stage


def answers(it: Stage) -> list[AnswerView]:
    """Give the answers on the screen, from the top."""
    return list(it.screen.transcript.query(AnswerView))


def test_an_answer_is_shown_while_it_is_written_and_set_as_markdown() -> None:
    """Pieces add up; at the end the text is whole, and its marks are gone."""

    async def see() -> None:
        async with stage() as it:
            await it.ask()
            it.worker.write("I am **ve")
            await it.until_shown("I am")
            it.worker.write("ry** well.\n\n- one\n- two")
            await it.until_shown("two")
            it.worker.finish()
            await it.until(lambda: it.chat.state is State.READY)
            await it.until_shown("I am very well.")
            assert answers(it)[0].steered.text == "I am **very** well.\n\n- one\n- two"
            assert answers(it)[0].steered.source == "I am **very** well.\n\n- one\n- two"

    play(see)


def test_a_thousand_pieces_come_whole_and_in_order() -> None:
    """However fast they come, none is lost or doubled."""

    async def see() -> None:
        async with stage() as it:
            await it.ask()
            pieces = [f"w{number} " for number in range(1000)]
            for piece in pieces:
                it.worker.write(piece)
            it.worker.finish()
            await it.until(lambda: it.chat.state is State.READY)
            await it.until(lambda: answers(it)[0].steered.source == "".join(pieces))

    play(see)


def test_two_drawings_at_once_do_not_meet() -> None:
    """A timer draws beside the handlers of messages; neither finds a widget that the other has half made."""

    async def see() -> None:
        async with stage(hold=False) as it:
            for number in range(5):
                it.chat.send(f"question {number}")
                await asyncio.gather(*(draw() for draw in [it.screen._draw, it.screen._draw_all] * 3))
                await it.until(lambda: it.chat.state is State.READY)
            assert len(answers(it)) == 5

    play(see)


@pytest.mark.parametrize("focus", ["message", "sliders"])
def test_escape_stops_at_once_from_everywhere(focus: str) -> None:
    """The process is told by the very key, wherever the focus is."""

    async def see() -> None:
        async with stage() as it:
            await it.ask()
            it.worker.write("So ")
            if focus == "sliders":
                await it.press("f2", "1")
            await it.press("escape")
            assert any(isinstance(request, Stop) for request in it.worker.sent)
            await it.until(lambda: it.chat.state is State.READY)
            await it.until_shown("(stopped)")

    play(see)


def test_the_status_line_tells_speed_and_context() -> None:
    """Tokens a second, tokens in memory of how many, and what is being done."""

    async def see() -> None:
        async with stage() as it:
            assert "ready" in it.shown
            await it.ask()
            await it.until_shown("reading 4/4")
            it.worker.write("So ")
            await it.until_shown("answering")
            it.worker.finish()
            await it.until_shown("context 5/512 1%")
            await it.until_shown("2.0 tok/s")

    play(see)


def test_answers_again_become_branches_that_can_be_walked() -> None:
    """Ctrl+r makes another version; alt+left and alt+right go between them, and the heading says which it is."""

    async def see() -> None:
        async with stage() as it:
            await it.ask()
            it.worker.write("one")
            it.worker.finish()
            await it.until(lambda: it.chat.state is State.READY)
            await it.press("ctrl+r")
            await it.until(lambda: it.chat.state is State.ANSWERING)
            it.worker.write("other")
            it.worker.finish()
            await it.until_shown("2/2")
            await it.until_shown("other")
            await it.press("alt+left")
            await it.until_shown("1/2")
            await it.until_shown("one")
            await it.press("alt+right")
            await it.until_shown("2/2")

    play(see)


def test_ctrl_z_takes_back_the_question_or_what_is_being_typed() -> None:
    """With something in the entry it is the entry's undo."""

    async def see() -> None:
        async with stage(hold=False) as it:
            await it.write("hello")
            await it.until_shown("All! is! well.!")
            await it.press("x", "ctrl+z")
            assert it.screen.prompt.area.text == ""
            assert answers(it)
            await it.press("ctrl+z")
            await it.until(lambda: not answers(it))

    play(see)


@pytest.mark.parametrize("size", [SMALL, LARGE, (60, 24)])
def test_baseline_and_steered_stand_side_by_side_where_there_is_room(size: tuple[int, int]) -> None:
    """Two columns, each with its name; on a narrow screen one below the other."""

    async def see() -> None:
        async with stage(size, hold=False) as it:
            await it.press("ctrl+b")
            await it.write("hello")
            await it.until(lambda: it.chat.state is State.READY and len(it.worker.generates) == 2)
            await it.until_shown("All! is! well.!")
            await it.until_shown("All is well.")
            (answer,) = answers(it)
            assert answer.baseline is not None
            left, right = answer.baseline.region, answer.steered.region
            assert not left.overlaps(right)
            assert (left.y == right.y) == (size[0] >= 70)
            assert "baseline" in it.shown
            assert "steered" in it.shown
            assert [bool(request.settings) for request in it.worker.generates] == [False, True]

    play(see)


def test_the_meter_shows_numbers_for_one_concept_after_the_other() -> None:
    """Ctrl+l turns it on for what steers strongest, F4 shows numbers, F3 takes the next; off, Markdown is as before."""

    async def see() -> None:
        async with stage() as it:
            await it.press("ctrl+l")
            await it.ask()
            (request,) = it.worker.generates
            assert request.meter
            it.worker.write("So **well**")
            await it.until_shown("So **well**")
            it.worker.finish()
            await it.press("f4")
            await it.until_shown("·-0.5")
            assert "meter honest 2/2" in it.shown
            await it.press("f3")
            await it.until_shown("·0.2")
            assert "meter happy 1/2" in it.shown
            await it.press("f4")
            assert "·0.2" not in it.shown
            await it.press("ctrl+l")
            await it.until_shown("So well")
            assert "F3 next" not in it.shown

    play(see)


def test_the_help_holds_every_key_and_every_command() -> None:
    """It is made of the tables, and F1 opens and closes it."""

    async def see() -> None:
        async with stage(LARGE) as it:
            await it.press("f1")
            page = it.screen.screen
            assert isinstance(page, Page)
            text = "\n".join(body for _, body in page._sections)
            for binding in it.screen.BINDINGS:
                assert binding.description in text  # type: ignore[union-attr]
            assert "/add" in text
            assert "mute" in text
            await it.press("f1")
            assert not isinstance(it.screen.screen, Page)

    play(see)


def test_the_command_lines_can_be_read_and_copied() -> None:
    """Ctrl+e shows both, 1 and 2 copy them."""

    async def see() -> None:
        async with stage() as it:
            await it.press("ctrl+e")
            await it.until_shown("--control-vector-scaled")
            stock, own = it.chat.llama_command()
            await it.press("1")
            assert it.screen.clipboard == stock
            await it.press("2")
            assert it.screen.clipboard == own
            await it.press("escape")
            assert not isinstance(it.screen.screen, Page)

    play(see)


def test_the_last_answer_is_copied() -> None:
    """Ctrl+y, through the terminal."""

    async def see() -> None:
        async with stage(hold=False) as it:
            await it.write("hello")
            await it.until_shown("All! is! well.!")
            await it.press("ctrl+y")
            assert it.screen.clipboard == "All! is! well.!"
            await it.until_shown("copied")

    play(see)


def test_dark_and_light() -> None:
    """Ctrl+t changes between them."""

    async def see() -> None:
        async with stage() as it:
            before = it.screen.theme
            await it.press("ctrl+t")
            assert it.screen.theme != before
            await it.press("ctrl+t")
            assert it.screen.theme == before

    play(see)


def test_ctrl_c_stops_and_only_the_second_one_quits() -> None:
    """A habit costs no conversation."""

    async def see() -> None:
        async with stage() as it:
            await it.ask()
            it.worker.write("So ")
            await it.press("ctrl+c")
            await it.until(lambda: it.chat.state is State.READY)
            assert it.screen.is_running
            await it.until_shown("ctrl+c again quits")
            await it.press("ctrl+c")
            assert it.screen.return_code == 0
            assert it.screen._exit

    play(see)


def test_a_command_can_quit() -> None:
    """/quit ends the screen with the chat's exit code."""

    async def see() -> None:
        async with stage() as it:
            await it.write("/quit")
            await it.until(lambda: it.screen._exit)
            assert it.screen.return_value == 0

    play(see)


def test_the_transcript_stays_at_the_end_unless_scrolled_up() -> None:
    """New pieces do not pull away who reads further up; a new question goes back to the end."""

    async def see() -> None:
        async with stage() as it:
            transcript = it.screen.transcript
            await it.ask()
            it.worker.write("\n\n".join(f"paragraph {number}" for number in range(40)))
            await it.until_shown("paragraph 39")
            await it.press("pageup")
            await it.until(lambda: "paragraph 39" not in it.shown)
            place = transcript.scroll_y
            it.worker.write("\n\nthe last word")
            await it.until(lambda: "the last word" in answers(it)[0].steered.text)
            await it.pilot.pause()
            assert transcript.scroll_y == place
            it.worker.finish()
            await it.until(lambda: it.chat.state is State.READY)
            await it.ask("and now?")
            it.worker.write("the newest")
            await it.until_shown("the newest")

    play(see)


@pytest.mark.parametrize("size", [(80, 24), (100, 24), (120, 40), (200, 50)])
@pytest.mark.parametrize("full", [False, True], ids=["empty", "full"])
def test_nothing_overlaps_and_the_conversation_has_room(size: tuple[int, int], full: bool) -> None:
    """The conversation keeps 8 rows beside many sliders, the meter, a long entry and completions."""

    async def see() -> None:
        vectors = tuple((f"vector{number}.gguf", 0.5) for number in range(9 if full else 2))
        async with stage(size, vectors) as it:
            if full:
                await it.press("ctrl+l")
                it.screen.prompt.area.fill("\n".join("abcdefghij"))
                await it.pilot.pause()
                it.screen.prompt.completions.offer([f"/add file{number}" for number in range(30)])
                await it.pilot.pause()
                assert it.screen.prompt.completions.size.height > 3
                assert it.screen.prompt.area.size.height >= 3
            screen = it.screen
            parts = [screen.transcript, screen.panel, screen.prompt, screen.status]
            if full:
                parts.append(screen.query_one("#meter"))
            for part in parts:
                assert part.region.area > 0
                assert screen.screen.region.contains_region(part.region), part
            for place, part in enumerate(parts):
                for other in parts[place + 1 :]:
                    assert not part.region.overlaps(other.region), (part, other)
            assert screen.transcript.region.height >= 8
            assert screen.panel.rows[0].region.width >= 40

    play(see)


def test_a_question_asked_before_the_model_is_loaded_is_answered_later() -> None:
    """The screen can be used at once."""

    async def see() -> None:
        async with stage() as it:
            it.chat.restart()
            assert it.chat.state is State.STARTING
            await it.write("already?")
            await it.until(lambda: any(isinstance(request, Generate) for request in it.worker.sent))

    play(see)
