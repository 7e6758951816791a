"""The place where a person writes: what sends, what breaks a line, the history, completion, hostile pastes."""

import pytest
from textual import events

from ggufsteer.tasks.notices import State
from tests.tui.stage import Stage, play, stage


def questions(it: Stage) -> list[str]:
    """Give what was asked."""
    return [message.raw for message in it.chat.conversation.path() if message.role == "user"]


def test_enter_sends_and_empties_the_entry() -> None:
    """What was written is asked; the entry is ready for the next."""

    async def see() -> None:
        async with stage() as it:
            await it.press(*"hi")
            await it.press("enter")
            await it.until(lambda: questions(it) == ["hi"])
            assert it.screen.prompt.area.text == ""

    play(see)


@pytest.mark.parametrize("key", ["ctrl+j", "shift+enter", "alt+enter"])
def test_a_line_can_be_broken(key: str) -> None:
    """Several keys do it, because terminals send different ones."""

    async def see() -> None:
        async with stage() as it:
            await it.press("a", key, "b")
            assert it.screen.prompt.area.text == "a\nb"
            assert it.screen.prompt.area.size.height == 2
            await it.press("enter")
            await it.until(lambda: questions(it) == ["a\nb"])

    play(see)


def test_keys_that_come_fast_keep_their_order() -> None:
    """A line break, a deletion and a move of the cursor land before what was typed behind them."""

    async def see() -> None:
        async with stage() as it:
            keys = ["a", "ctrl+j", "x", "backspace", "b", "left", "c", "ctrl+j"]
            for key in keys:
                it.screen.post_message(events.Key(key, key if len(key) == 1 else None))
            await it.until(lambda: it.screen.prompt.area.text.count("\n") == 2)
            assert it.screen.prompt.area.text == "a\nc\nb"

    play(see)


def test_blanks_alone_are_not_sent() -> None:
    """Enter on an empty entry does nothing."""

    async def see() -> None:
        async with stage() as it:
            await it.press("space", "enter", "enter")
            assert questions(it) == []

    play(see)


def test_a_paste_of_many_lines_is_one_message_and_no_escape_sequence() -> None:
    """It waits for Enter; what could command the terminal is gone."""

    async def see() -> None:
        async with stage() as it:
            it.screen.post_message(events.Paste("one\r\ntwo\x1b]52;c;ZXZpbA==\x07\n\x1b[2Jthree\u202e"))
            await it.until(lambda: "three" in it.screen.prompt.area.text)
            assert questions(it) == []
            assert it.screen.prompt.area.text == "one\ntwo\nthree"
            await it.press("enter")
            await it.until(lambda: questions(it) == ["one\ntwo\nthree"])

    play(see)


def test_the_history_is_walked_at_the_edges_and_keeps_the_draft() -> None:
    """Up at the top goes back, down at the bottom forward, to what was being written."""

    async def see() -> None:
        async with stage(hold=False) as it:
            area = it.screen.prompt.area
            for text in ("first", "second\nline"):
                await it.write(text)
                await it.until(lambda: it.chat.state is State.READY and not area.text)
            await it.press(*"draft")
            await it.press("up")
            assert area.text == "second\nline"
            await it.press("up")
            assert area.text == "second\nline", "the first press goes up a line"
            await it.press("up")
            assert area.text == "first"
            await it.press("up", "down")
            assert area.text == "second\nline"
            await it.press("down", "down")
            assert area.text == "draft"

    play(see)


def test_commands_are_completed_from_a_list() -> None:
    """Tab takes the chosen one; arrows choose; Esc hides the list."""

    async def see() -> None:
        async with stage() as it:
            area, completions = it.screen.prompt.area, it.screen.prompt.completions
            await it.press(*"/a")
            assert completions.display
            assert all(line.startswith("/a") for line in completions.lines)
            assert "> /a" in it.shown
            first = completions.lines[0]
            await it.press("tab")
            assert area.text.rstrip() == first
            area.fill("/")
            await it.until(lambda: len(completions.lines) > 2)
            await it.press("down", "down", "up")
            assert completions.chosen == 1
            await it.press("escape")
            assert not completions.display
            assert area.text == "/"

    play(see)


def test_a_refused_message_stays_in_the_entry() -> None:
    """Who writes while an answer is written does not lose the text."""

    async def see() -> None:
        async with stage() as it:
            await it.ask("first")
            await it.write("second")
            await it.until_shown("an answer is being written")
            assert it.screen.prompt.area.text == "second"
            assert questions(it) == ["first"]

    play(see)


def test_a_command_begun_from_the_sliders_gives_the_draft_back() -> None:
    """`a` on a slider writes /add; what stood in the entry comes back when it is done."""

    async def see() -> None:
        async with stage() as it:
            await it.press(*"my draft")
            await it.press("f2", "a")
            area = it.screen.prompt.area
            assert area.has_focus
            assert area.text == "/add "
            area.fill("/add formal.gguf")
            await it.press("enter")
            assert area.text == "my draft"

    play(see)
