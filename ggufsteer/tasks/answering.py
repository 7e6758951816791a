"""One answer while it is being written: what is asked for it, and where its pieces go.

With a comparison the answer without steering comes first, then the steered one, which is the turn of the conversation.
It knows the conversation and what a front end is told, but sends nothing and decides nothing about states.
"""

from __future__ import annotations

from collections.abc import Callable

from ggufsteer.engine.messages import Finished, Generate, Policy, SamplingSettings, Settings, Wrote
from ggufsteer.tasks.converse import Conversation, EndReason, Message
from ggufsteer.tasks.notices import AnswerEnded, AnswerGrew, Column, ConversationChanged, Notice

Tell = Callable[[Notice], None]


class Answering:
    """An answer that is being written, from the first request to its end."""

    def __init__(
        self,
        conversation: Conversation,
        message: Message,
        tell: Tell,
        *,
        compare: bool = False,
        continues: bool = False,
    ) -> None:
        self.message = message
        self.column: Column = "baseline" if compare else "steered"
        self._conversation = conversation
        self._tell = tell
        self._continues = continues

    def request(
        self,
        settings: Settings,
        policy: Policy,
        sampling: SamplingSettings,
        available: Callable[[Settings], Settings],
        *,
        meter: bool,
    ) -> Generate:
        """Say what the process has to write now.

        The answer without steering differs by the policy: from the last question on, or in the whole conversation.
        """
        turns = self._conversation.turns(available)
        if self.column == "baseline":
            settings = ()
            turns = (*turns[:-1], turns[-1].model_copy(update={"settings": ()}))
        # Another answer to the same question should be another one, and the same again when all is done again.
        place = [one.id for one in self._conversation.siblings(self.message)].index(self.message.id)
        return Generate(
            turns=turns,
            settings=settings,
            policy=policy,
            sampling=sampling.model_copy(update={"seed": sampling.seed + place}),
            meter=meter,
            continues=self._continues,
        )

    def wrote(self, event: Wrote) -> None:
        """Add a piece."""
        if self.column == "baseline":
            shown = self._conversation.grow_baseline(self.message, event.text, event.expressions)
        else:
            shown = self._conversation.grow_answer(
                self.message, event.text, event.tokens, event.settings, event.expressions
            )
        self._tell(AnswerGrew(self.message.id, shown, self.column, dict(event.expressions)))

    def finished(self, event: Finished, *, stopping: bool) -> bool:
        """Take the end of what was asked for; gives True when the steered answer has still to be asked for."""
        if self.column == "baseline" and not stopping and event.reason != "stopped":
            self._tell(AnswerEnded(self.message.id, "baseline", event.reason))
            self.column = "steered"
            return True
        self.end(event.reason)
        return False

    def end(self, reason: EndReason) -> None:
        """End it, whatever was written; an answer without a word leaves the conversation."""
        self._conversation.end_answer(self.message, reason)
        self._tell(AnswerEnded(self.message.id, self.column, reason))
        self._tell(ConversationChanged())
