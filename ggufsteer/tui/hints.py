"""What a person is told once in a chat, at the moment when it helps; it decides the moment, others the place."""

from __future__ import annotations

from ggufsteer.tasks.chat import Chat
from ggufsteer.tasks.notices import State


class Hints:
    """Hints, each of which is given once; the text is empty when it is not the moment, or was given."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def steered_otherwise(self, chat: Chat) -> str:
        """To be asked after a slider was moved: the last answer does not change by that."""
        idle = chat.state is State.READY and chat.conversation.last_answer is not None
        return self._once("ctrl+r answers the last question again under it", wanted=idle)

    def meter_on(self, chat: Chat) -> str:
        """To be asked when the meter is turned on: it cannot measure what is written already."""
        answers = (message for message in chat.conversation.path() if message.role == "assistant")
        unmeasured = any(not expressed for answer in answers for _, expressed in answer.expressions)
        text = "the meter measures what is written from now on; answers before it stay unmeasured"
        return self._once(text, wanted=unmeasured)

    def _once(self, text: str, *, wanted: bool) -> str:
        if not wanted or text in self._given:
            return ""
        self._given.add(text)
        return text
