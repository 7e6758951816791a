"""A chat screen without a terminal and without a model, for the tests of this folder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import textual.app
import textual.pilot
from textual.pilot import Pilot

from ggufsteer.engine.messages import Event, Load, event_from, to_line
from ggufsteer.tasks.chat import Chat
from ggufsteer.tasks.chat_options import ChatOptions
from ggufsteer.tasks.notices import Notice, State
from ggufsteer.tui.app import ChatScreen
from tests.tasks.fake_worker import FakeWorker

SMALL = (80, 24)
LARGE = (120, 40)
_PATIENCE_SECONDS = 20.0
_ROUNDS = 5
"""A key goes from the screen to a widget, from there as a message to the panel, to the chat, and back to be drawn."""


async def _at_once(*_: float) -> None:
    """Take the place of Textual's waiting until the processor idles, which takes seconds where it is slow."""
    await asyncio.sleep(0)


class StageWorker(FakeWorker):
    """Its events go to the screen by themselves, as a real process's do."""

    def __init__(self, deliver: Callable[[Event], None], **how: Any) -> None:
        super().__init__(**how)
        self._deliver = deliver

    def _put(self, event: Event) -> None:
        self._deliver(event_from(to_line(event)))


class Stage:
    """The screen with whoever sits before it and the process behind it."""

    def __init__(self, pilot: Pilot[int], screen: ChatScreen, worker: StageWorker) -> None:
        self.pilot = pilot
        self.screen = screen
        self.chat = screen.chat
        self.worker = worker

    async def until(self, condition: Callable[[], object], why: str = "") -> None:
        """Wait for something to become true; fails with `why` when it never does."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < end, why or "it never came to that"
            await self.pilot.pause(0.005)
        await self.settle()

    async def press(self, *keys: str) -> None:
        """Press keys one after the other, and let the screen settle after each."""
        for key in keys:
            await self.pilot.press(key)
            await self.settle()

    async def settle(self) -> None:
        """Let every widget handle what it has been told, and what comes of that."""
        for _ in range(_ROUNDS):
            await self.pilot.pause(0)

    async def write(self, text: str) -> None:
        """Write a line and send it."""
        self.screen.prompt.area.fill(text)
        await self.press("enter")

    async def ask(self, text: str = "How are you?") -> None:
        """Ask something, and wait until it is being answered."""
        await self.write(text)
        await self.until(lambda: self.chat.state is State.ANSWERING, "no answer began")

    async def until_shown(self, text: str) -> None:
        """Wait for a text on the screen."""
        await self.until(lambda: text in self.shown, f"{text!r} is not on the screen:\n{self.shown}")

    @property
    def shown(self) -> str:
        """What stands on the screen, as characters."""
        strips = self.screen.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in strips)


@asynccontextmanager
async def stage(
    size: tuple[int, int] = SMALL,
    vectors: tuple[tuple[str, float | None], ...] = (("happy.gguf", 0.5), ("honest.gguf", -1.0)),
    **how: Any,
) -> AsyncIterator[Stage]:
    """Open a screen, and wait until it can be used; answers wait for the test unless it says otherwise."""
    workers: list[StageWorker] = []

    def make_chat(deliver: Callable[[Event], None], hear: Callable[[Notice], None]) -> Chat:
        workers.append(StageWorker(deliver, **{"hold": True, **how}))
        return Chat(workers[0], ChatOptions(load=Load(model="fake.gguf"), vectors=vectors), hear)

    screen = ChatScreen(make_chat)
    screen.chat.start()
    with pytest.MonkeyPatch.context() as patched:
        for module in (textual.app, textual.pilot):
            patched.setattr(module, "wait_for_idle", _at_once)
        async with screen.run_test(size=size) as pilot:
            it = Stage(pilot, screen, workers[0])
            await it.until(lambda: screen.chat.state is State.READY and len(screen.panel.rows) == len(vectors))
            yield it


def play(play_it: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test that has to wait."""
    asyncio.run(play_it())
