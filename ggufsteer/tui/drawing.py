"""What the chat tells, drawn in its order and in few strokes: a hundred pieces of an answer are one change of a widget.

The texts themselves are read from the conversation when they are drawn, so that no piece is missed or doubled.
"""

from __future__ import annotations

from ggufsteer.tasks.chat import Chat
from ggufsteer.tasks.notices import (
    AnswerEnded,
    AnswerGrew,
    ConversationChanged,
    Draft,
    EqualiserChanged,
    Notice,
    Quit,
    Said,
    StateChanged,
)
from ggufsteer.tui.equaliser import EqualiserPanel
from ggufsteer.tui.transcript import Transcript


class NoticeBoard:
    """Takes notices, and draws what they tell of."""

    def __init__(self) -> None:
        self._notices: list[Notice] = []
        self._draft: str | None = None
        self.quit_wanted = False

    @property
    def waiting(self) -> bool:
        """Whether there is something to draw."""
        return bool(self._notices)

    def put(self, notice: Notice) -> None:
        """Take a notice."""
        self._notices.append(notice)

    def take_draft(self) -> str | None:
        """Give the text that the person is to change and send, once."""
        draft, self._draft = self._draft, None
        return draft

    async def draw(self, chat: Chat, transcript: Transcript, panel: EqualiserPanel) -> None:
        """Draw everything that was told since the last time."""
        notices, self._notices = self._notices, []
        grown: dict[int, None] = {}
        if any(isinstance(notice, (ConversationChanged, StateChanged)) for notice in notices):
            await transcript.show(chat.conversation)
        if any(isinstance(notice, EqualiserChanged) for notice in notices):
            await panel.redraw()
        for notice in notices:
            if isinstance(notice, (AnswerGrew, AnswerEnded)):
                grown[notice.message_id] = None
            elif isinstance(notice, Said):
                await transcript.remark(notice.level, _joined(notice))
            elif isinstance(notice, Draft):
                self._draft = notice.text
            elif isinstance(notice, Quit):
                self.quit_wanted = True
        for message_id in grown:
            await transcript.show_message(chat.conversation, message_id)


def _joined(notice: Said) -> str:
    return f"{notice.text}\n{notice.hint}" if notice.hint else notice.text
