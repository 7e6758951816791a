"""The chat: everything that a person can ask for, whatever the front end.

It decides what may be asked in which state; what it refuses, it says, and it raises nothing. It draws nothing, starts
no threads, and all its calls come from one thread.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from ggufsteer.engine.messages import ChangeSettings, RemoveVector, Statistics, Stop
from ggufsteer.errors import SteerError
from ggufsteer.tasks import chat_file
from ggufsteer.tasks.answering import Answering
from ggufsteer.tasks.chat_options import ChatOptions, WorkerLike
from ggufsteer.tasks.chat_process import ChatProcess
from ggufsteer.tasks.chat_vectors import Wanted
from ggufsteer.tasks.converse import Conversation
from ggufsteer.tasks.equaliser import Equaliser, SliderRecord
from ggufsteer.tasks.notices import (
    AnswerEnded,
    AnswerGrew,
    ConversationChanged,
    Draft,
    EqualiserChanged,
    Notice,
    Progress,
    Quit,
    Said,
    State,
    StateChanged,
)
from ggufsteer.tasks.stock_command import commands_for
from ggufsteer.text import clean

__all__ = [
    "AnswerEnded",
    "AnswerGrew",
    "Chat",
    "ChatOptions",
    "ConversationChanged",
    "Draft",
    "EqualiserChanged",
    "Notice",
    "Progress",
    "Quit",
    "Said",
    "State",
    "StateChanged",
    "WorkerLike",
]

_Arguments = ParamSpec("_Arguments")
_Self = TypeVar("_Self", bound="Chat")


def _says(method: Callable[Concatenate[_Self, _Arguments], None]) -> Callable[Concatenate[_Self, _Arguments], bool]:
    """Make a refusal something said: the method gives True, or False when it was refused."""

    @functools.wraps(method)
    def told(self: _Self, /, *arguments: _Arguments.args, **named: _Arguments.kwargs) -> bool:
        try:
            method(self, *arguments, **named)
        except SteerError as problem:
            self.say("error", problem.message, problem.hint)
            return False
        return True

    return told


class Chat(ChatProcess):
    """A conversation with a model that vectors steer."""

    # -- asking ------------------------------------------------------------------------------------------------------

    @_says
    def send(self, text: str) -> None:
        """Ask something. While the model is being loaded it waits; while an answer is written it is refused.

        It is refused rather than queued, because who writes during an answer has not read it yet; the text stays in
        the entry.
        """
        if not text.strip():
            raise SteerError("the question is empty", "write something, or /help")
        self._when_ready(lambda: self._ask(text), text)

    @_says
    def regenerate(self) -> None:
        """Answer the last question once more, under what steers now; the former answer stays as a branch."""
        if self.conversation.last_question is None:
            raise SteerError("there is no question to answer", "ask something first")
        answer = self.conversation.last_answer
        if answer is not None and not self.sampling.temperature and answer.settings == self.equaliser.settings():
            self.say("info", "at temperature 0 the same settings give the same answer", "/set temperature 0.8")
        self._when_ready(self._answer)

    @_says
    def continue_answer(self) -> None:
        """Write on at the end of the last answer, under what steers now."""
        if self.conversation.last_answer is None:
            raise SteerError("there is no answer to continue", "ask something, or /regenerate")
        self._when_ready(self._continue)

    def stop(self) -> None:
        """End the answer that is being written, or take back the question that waits."""
        if self.state is State.ANSWERING:
            self._send(Stop())
            self._become(State.STOPPING)
        elif self.state is State.STOPPING:
            self.say("info", "the answer was told to stop", "/restart ends the model's process")
        elif self._waiting is not None:
            self._give_back()

    # -- the conversation --------------------------------------------------------------------------------------------

    @_says
    def undo(self) -> None:
        """Take back the last question with its answer; their branch stays."""
        self._need_idle()
        if not self.conversation.undo():
            raise SteerError("there is nothing to undo")
        self._tell(ConversationChanged())

    @_says
    def redo(self) -> None:
        """Take the last undo back."""
        self._need_idle()
        if self._before_new is not None and not self.conversation.messages:
            self.conversation, self._before_new = self._before_new, None
        elif not self.conversation.redo():
            raise SteerError("there is nothing to redo")
        self._tell(ConversationChanged())

    def edit_last(self) -> str:
        """Take back the last question and give its text, to be changed and sent; empty when that is refused."""
        text = ""

        @_says
        def edit(chat: Chat) -> None:
            nonlocal text
            chat._need_idle()
            text = chat.conversation.edit()
            chat._tell(ConversationChanged())

        edit(self)
        return text

    @_says
    def rewrite_answer(self, text: str) -> None:
        """Put a text of the person's in the place of the last answer, which stays as a branch."""
        self._need_idle()
        self.conversation.rewrite_answer(text)
        self._tell(ConversationChanged())

    @_says
    def switch_branch(self, step: int) -> None:
        """Go to the next or previous branch at the last message that has several."""
        self._need_idle()
        if not self.conversation.switch(step):
            raise SteerError("there is only one branch", "/regenerate or /edit makes another")
        self._tell(ConversationChanged())

    @_says
    def new(self) -> None:
        """Begin a new conversation; until something is said in it, redo brings the former one back."""
        self._need_idle()
        if self.conversation.messages:
            self._before_new = self.conversation
        self.conversation = Conversation(self.conversation.system)
        self._n_dropped = 0
        self._tell(ConversationChanged())

    @_says
    def set_system(self, text: str) -> None:
        """Set the system prompt, from the next answer on; an empty text takes it away."""
        self.conversation.system = clean(text).strip()
        self._tell(ConversationChanged())

    # -- the sliders -------------------------------------------------------------------------------------------------

    @_says
    def add_vector(self, path: str, strength: float | None = None) -> None:
        """Have the process read a vector; its slider comes once it is checked."""
        hidden = next((name for name, file in self._shelf.hidden.items() if file == path), None)
        if hidden is not None:
            self._send(RemoveVector(vector=hidden))
        name = self._shelf.put(Wanted(path, strength), hidden)
        self._send_vector(name)

    @_says
    def remove_vector(self, name: str) -> None:
        """Take a vector away; what was written under it stays as it was."""
        lost = self.equaliser.remove(name)
        self._tell_lost_conditions(dict.fromkeys(lost, name))
        self.settings_changed()
        if name in self.conversation.vectors_used:
            self._shelf.hide(name)
        else:
            self._shelf.drop(name)
            self._send(RemoveVector(vector=name))

    def settings_changed(self) -> None:
        """Tell what the equaliser says now to a running answer; to be called after every change of it."""
        self._tell(EqualiserChanged())
        running = self._running
        if running is not None and running.column == "steered" and self.state is State.ANSWERING:
            self._send(ChangeSettings(settings=self.equaliser.settings(), meter=self.meter))

    # -- files and commands ------------------------------------------------------------------------------------------

    @_says
    def save(self, path: str) -> None:
        """Write the conversation with everything that belongs to it."""
        chat_file.save(self, Path(path))
        self.say("info", f"saved to {path}")

    @_says
    def load(self, path: str) -> None:
        """Go on with a saved conversation: its settings, sliders and vectors take the place of the present ones."""
        self._need_idle()
        saved, conversation = chat_file.read(Path(path), self.model)
        self._before_new = self.conversation if self.conversation.messages else None
        for remark in chat_file.remarks(saved, self.model):
            self.say("warning", remark)
        self.conversation, self._n_dropped = conversation, 0
        self.policy, self.sampling = saved.policy, saved.sampling
        self._replace_vectors(saved.equaliser, {one.vector: one.path for one in saved.other_vectors})
        self._tell(ConversationChanged())
        if self.state is State.READY:
            self._become(State.STARTING)
            self._settle()

    def llama_command(self) -> tuple[str, str]:
        """Give the command lines of stock llama.cpp and of ggufsteer for what is set now, with remarks as comments."""
        return commands_for(self)

    @_says
    def ask_statistics(self) -> None:
        """Have the process tell how it is."""
        if self.state is State.BROKEN:
            raise SteerError("there is no process that could tell its memory", "/restart")
        self._awaits_statistics = True
        self._send(Statistics())

    def quit(self) -> None:
        """Tell the front end that the person wants to leave."""
        self._tell(Quit())

    # -- requests ----------------------------------------------------------------------------------------------------

    def _ask(self, text: str) -> None:
        self.conversation.add_question(text, self.equaliser.settings())
        self._before_new = None
        self._answer()

    def _answer(self) -> None:
        settings = self.equaliser.settings()
        message = self.conversation.begin_answer(settings)
        self._begin(Answering(self.conversation, message, self._tell, compare=self.compare and bool(settings)))

    def _continue(self) -> None:
        message = self.conversation.resume_answer()
        self._begin(Answering(self.conversation, message, self._tell, continues=True))

    def _replace_vectors(self, records: Sequence[SliderRecord], hidden: Mapping[str, str]) -> None:
        for name in list(self._shelf.wanted):
            self._shelf.drop(name)
            self._send(RemoveVector(vector=name))
        self.equaliser = Equaliser()
        for record in records:
            self._send_vector(self._shelf.put(Wanted(record.path, record.strength, record), record.vector))
        for name, path in hidden.items():
            self._send_vector(self._shelf.put(Wanted(path, shown=False), name))
        self._tell(EqualiserChanged())
