"""The model's process may die at any moment: the screen stays, says why, and goes on with a new one."""

from collections.abc import Awaitable, Callable

import pytest

from ggufsteer.errors import SteerError
from ggufsteer.tasks.notices import State
from ggufsteer.tui import app as app_module
from ggufsteer.tui.app import ChatScreen, run_screen
from ggufsteer.tui.pages import Page
from ggufsteer.tui.slider_form import SliderForm
from tests.tui.stage import Stage, play, stage


async def loading(it: Stage) -> None:
    """While the model is being loaded."""
    it.worker.fail_next = None
    it.worker.send = lambda request: None  # type: ignore[method-assign]
    it.chat.restart()


async def ready(it: Stage) -> None:
    """While nothing happens."""


async def reading(it: Stage) -> None:
    """While the prompt is being read."""
    await it.ask()


async def answering(it: Stage) -> None:
    """In the middle of a construct of Markdown."""
    await it.ask()
    it.worker.write("It is **ve")
    await it.until_shown("It is")


async def stopping(it: Stage) -> None:
    """After a stop that nobody hears any more."""
    await answering(it)
    it.worker._answering = False
    await it.press("escape")
    assert it.chat.state is State.STOPPING


async def comparing(it: Stage) -> None:
    """While the baseline is being written."""
    await it.press("ctrl+b")
    await answering(it)


async def typing(it: Stage) -> None:
    """While a number is being typed."""
    await answering(it)
    await it.press("f2", "1")


async def in_a_form(it: Stage) -> None:
    """While a form is open."""
    await answering(it)
    await it.press("f2", "enter")
    assert isinstance(it.screen.screen, SliderForm)


async def in_the_help(it: Stage) -> None:
    """While a page is open."""
    await answering(it)
    await it.press("f1")
    assert isinstance(it.screen.screen, Page)


STATES = [loading, ready, reading, answering, stopping, comparing, typing, in_a_form, in_the_help]


@pytest.mark.parametrize("state", STATES)
def test_the_screen_outlives_the_process(state: Callable[[Stage], Awaitable[None]]) -> None:
    """The reason is shown, what was written is still there, and the next message starts a new process."""

    async def see() -> None:
        async with stage() as it:
            send = it.worker.send
            await state(it)
            written = [message.raw for message in it.chat.conversation.path()]
            it.worker.die("signal 6 (aborted): GGML_ASSERT(n > 0) failed")
            await it.until(lambda: it.chat.state is State.BROKEN)
            it.worker.send = send  # type: ignore[method-assign]
            await it.press("escape")
            await it.press("escape")
            await it.until_shown("GGML_ASSERT(n > 0) failed")
            await it.until_shown("no model")
            assert [message.raw for message in it.chat.conversation.path()] == written or state in (reading, comparing)
            it.screen.prompt.area.focus()
            n_starts = it.worker.n_starts
            await it.write("are you there?")
            await it.until(lambda: it.chat.state is State.ANSWERING)
            assert it.worker.n_starts == n_starts + 1
            it.worker.write("yes")
            it.worker.finish()
            if it.chat.compare:
                await it.until(lambda: it.chat._running is not None and it.chat._running.column == "steered")
                it.worker.write("yes")
                it.worker.finish()
            await it.until_shown("yes")

    play(see)


def test_a_mistake_of_the_screen_is_an_error_and_shows_no_texts(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is raised for the command line to tell; the process is closed; no local variables are printed."""
    closed = []

    class Broken(ChatScreen):
        """A screen that fails as soon as it is there."""

        async def on_mount(self) -> None:
            secret_text = "\x1b[2Jsecret"
            raise RuntimeError(f"no {len(secret_text)}")

        def run(self, **_how: object) -> int | None:  # type: ignore[override]
            return super().run(headless=True)

    class Silent:
        """A chat that does nothing."""

        class equaliser:  # noqa: N801
            """No sliders."""

            sliders = ()

        def start(self) -> None:
            """Start."""

        def close(self) -> None:
            """End."""
            closed.append(True)

    monkeypatch.setattr(app_module, "ChatScreen", Broken)
    with pytest.raises(SteerError, match="RuntimeError: no 10"):
        run_screen(lambda deliver, hear: Silent())  # type: ignore[arg-type,return-value]
    assert closed == [True]
    out, error = capfd.readouterr()
    assert "secret" not in out + error
