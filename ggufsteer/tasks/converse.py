"""A conversation: a tree of messages, of which the way from a root to the head is the one that is talked about.

Nothing that was written gets lost: another answer, a changed question and a changed answer are siblings, and an undo
only moves the head. An answer remembers under which steering each stretch of it was written, because what is in the
model's memory was computed under it. It knows nothing of models, processes and screens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Literal

from ggufsteer.engine.messages import Segment, Settings, Turn
from ggufsteer.errors import SteerError
from ggufsteer.tasks.notices import Column
from ggufsteer.text import StreamCleaner, clean

Role = Literal["user", "assistant"]
EndReason = Literal["end", "length", "context", "stopped", "died", "failed", "edited"]
"""Why an answer is over: the model ended it; the limit of tokens; a full context; the person stopped it; the model's
process died; the request was refused; or the text is the person's own."""
Expressions = Mapping[str, float]
Piece = tuple[str, Expressions]
"""A shown stretch of text, and how strongly it expresses each vector (empty where nothing was measured)."""


@dataclass
class Message:
    """One message. Of a question only the first five and the last fields matter."""

    id: int
    role: Role
    raw: str
    """The very text, as the model reads it."""
    parent: int | None
    settings: Settings = ()
    """What steered when it was sent; of an answer, when it was begun."""
    text: str = ""
    """What may be shown of `raw`."""
    segments: list[Segment] = field(default_factory=list)
    """Stretches of `raw`, each with what steered while it was written."""
    tokens: list[int] = field(default_factory=list)
    """What the model wrote; empty for a text of the person's."""
    expressions: list[Piece] = field(default_factory=list)
    """The pieces of `text` in order; empty for a text of the person's."""
    baseline: str = ""
    """The answer that the model gives without steering, where it was asked for; shown text."""
    baseline_expressions: list[Piece] = field(default_factory=list)
    reason: EndReason | None = None
    """Why the answer is over; None while it is being written, and of a question."""
    children: list[int] = field(default_factory=list)


class Conversation:
    """A tree of messages with a head, and a system prompt before all of them."""

    def __init__(self, system: str = "") -> None:
        self.system = clean(system)
        self._messages: dict[int, Message] = {}
        self._roots: list[int] = []
        self._head: int | None = None
        self._undone: list[int] = []
        self._next_id = 1
        self._cleaners: dict[tuple[int, Column], StreamCleaner] = {}

    # -- looking -----------------------------------------------------------------------------------------------------

    @property
    def head(self) -> Message | None:
        """The last message of the present way; None before the first."""
        return None if self._head is None else self._messages[self._head]

    @property
    def messages(self) -> Sequence[Message]:
        """All messages of all branches, in the order in which they came."""
        return tuple(self._messages.values())

    def message(self, message_id: int) -> Message | None:
        """Give a message by its id; None when it is gone."""
        return self._messages.get(message_id)

    def path(self) -> list[Message]:
        """Give the messages from the root to the head."""
        return self._path_to(self._head)

    def siblings(self, message: Message) -> list[Message]:
        """Give the messages that stand at the same place, itself included, in the order in which they came."""
        return [self._messages[place] for place in self._children_of(message.parent)]

    @property
    def last_question(self) -> Message | None:
        """The last question of the present way."""
        return next((message for message in reversed(self.path()) if message.role == "user"), None)

    @property
    def last_answer(self) -> Message | None:
        """The answer at the head; None when there is none."""
        head = self.head
        return head if head is not None and head.role == "assistant" else None

    @property
    def vectors_used(self) -> set[str]:
        """Names of all vectors that steered any message of any branch."""
        names: set[str] = set()
        for message in self._messages.values():
            for settings in (message.settings, *(segment.settings for segment in message.segments)):
                names.update(band.vector for band in settings)
                names.update(band.condition for band in settings if band.condition is not None)
        return names

    def turns(self, keep: Callable[[Settings], Settings] = lambda settings: settings) -> tuple[Turn, ...]:
        """Give the present way as the model's process takes it.

        A question counts as read under what steered when its answer was begun. An answer that has only begun is left
        out. `keep` is asked for what of a message's settings can still be had.
        """
        path = self.path()
        turns: list[Turn] = []
        for message, after in zip_longest(path, path[1:]):
            if message.role == "assistant" and not message.raw and after is None:
                continue
            answer = after or message
            settings = keep(answer.settings if message.role == "user" else message.settings)
            segments = tuple(one.model_copy(update={"settings": keep(one.settings)}) for one in message.segments)
            turns.append(
                Turn(
                    role=message.role,
                    content=message.raw,
                    settings=settings,
                    segments=segments,
                    tokens=tuple(message.tokens),
                )
            )
        if self.system:
            turns.insert(0, Turn(role="system", content=self.system, settings=turns[0].settings if turns else ()))
        return tuple(turns)

    # -- growing -----------------------------------------------------------------------------------------------------

    def add_question(self, text: str, settings: Settings = ()) -> Message:
        """Ask at the head. A question that stands there without a word of an answer gets a sibling."""
        question = self.last_question
        head = self.head
        # An answer may be there only for what stands beside it.
        unanswered = head is not None and (head.role == "user" or (not head.raw and head.reason not in (None, "end")))
        parent = question.parent if question is not None and unanswered else self._head
        shown = clean(text)
        return self._add(Message(self._next_id, "user", shown, parent, settings, shown))

    def begin_answer(self, settings: Settings = ()) -> Message:
        """Begin an answer to the last question: at the head, or beside the answer that is there.

        Raises:
            SteerError: There is no question.
        """
        question = self.last_question
        if question is None:
            raise SteerError("there is no question to answer", "ask something first")
        return self._add(Message(self._next_id, "assistant", "", question.id, settings))

    def grow_answer(
        self,
        message: Message,
        text: str,
        tokens: Iterable[int] = (),
        settings: Settings | None = None,
        expressions: Expressions | None = None,
    ) -> str:
        """Add a piece to an answer, and give what may be shown of it.

        Args:
            message: The answer.
            text: The piece as the model wrote it.
            tokens: The tokens that it came from.
            settings: What steers from this piece on; None where nothing has changed.
            expressions: Vector name to how strongly the piece expresses it.
        """
        shown = self._cleaner(message, "steered").feed(text)
        written = tuple(tokens)
        if message.raw and not message.tokens:
            written = ()  # after a text of the person's they would not be those of the whole
        steering = message.settings if settings is None else settings
        if message.segments and settings in (None, message.segments[-1].settings):
            last = message.segments.pop()
            n_tokens = last.n_tokens + len(written)
            message.segments.append(Segment(text=last.text + text, settings=last.settings, n_tokens=n_tokens))
        else:
            message.segments.append(Segment(text=text, settings=steering, n_tokens=len(written)))
        message.raw += text
        message.text += shown
        message.tokens.extend(written)
        _append_piece(message.expressions, shown, expressions or {})
        return shown

    def grow_baseline(self, message: Message, text: str, expressions: Expressions | None = None) -> str:
        """Add a piece to the answer without steering that stands beside an answer; give what may be shown of it."""
        shown = self._cleaner(message, "baseline").feed(text)
        message.baseline += shown
        _append_piece(message.baseline_expressions, shown, expressions or {})
        return shown

    def end_answer(self, message: Message, reason: EndReason) -> bool:
        """End an answer; gives False when it was removed because nothing was written and it did not end by itself.

        The answer without steering beside it was written too, and has been read.
        """
        self._cleaners.pop((message.id, "steered"), None)
        self._cleaners.pop((message.id, "baseline"), None)
        message.reason = reason
        if message.raw or message.baseline or reason == "end":
            return True
        self._remove(message)
        return False

    def resume_answer(self) -> Message:
        """Make the answer at the head ready to go on; one that others follow on is copied first.

        Raises:
            SteerError: There is no answer at the head, or it is empty.
        """
        answer = self.last_answer
        if answer is None or not answer.raw:
            raise SteerError("there is no answer to continue", "ask something, or /regenerate")
        if answer.children:
            answer = self._add(
                Message(
                    self._next_id, "assistant", answer.raw, answer.parent, answer.settings, answer.text,
                    list(answer.segments), list(answer.tokens), list(answer.expressions),
                )
            )  # fmt: skip
        answer.reason = None
        answer.baseline, answer.baseline_expressions = "", []
        return answer

    def rewrite_answer(self, text: str) -> Message:
        """Put a text of the person's beside the answer at the head, and go on from there.

        Raises:
            SteerError: There is no answer at the head, or the text is empty.
        """
        answer = self.last_answer
        if answer is None:
            raise SteerError("there is no answer to rewrite", "ask something first")
        text = clean(text)
        if not text.strip():
            raise SteerError("the new answer is empty", "give its text: /rewrite TEXT")
        segments = [Segment(text=text, settings=answer.settings)]
        written = Message(self._next_id, "assistant", text, answer.parent, answer.settings, text, segments)
        written.reason = "edited"
        return self._add(written)

    # -- moving ------------------------------------------------------------------------------------------------------

    def undo(self) -> bool:
        """Move the head before the last question; its branch stays. False when there is none."""
        question = self.last_question
        if question is None or self._head is None:
            return False
        self._undone.append(self._head)
        self._head = question.parent
        return True

    def redo(self) -> bool:
        """Move the head back to where the last undo came from. False when there was none since something was added."""
        if not self._undone:
            return False
        self._head = self._undone.pop()
        return True

    def edit(self) -> str:
        """Move the head before the last question and give its text; the next question becomes its sibling.

        Raises:
            SteerError: There is no question.
        """
        question = self.last_question
        if question is None:
            raise SteerError("there is no question to change", "ask something first")
        self.undo()
        return question.text

    def switch(self, step: int) -> bool:
        """Go to another sibling of the last message that has any, `step` places on, round the end; False if none has.

        The head then is the end of that branch, by the newest message at each place.
        """
        chosen = self.fork
        if chosen is None:
            return False
        branches = self.siblings(chosen)
        self._go_to(branches[(branches.index(chosen) + step) % len(branches)])
        return True

    @property
    def fork(self) -> Message | None:
        """The last message of the present way that has siblings."""
        return next((message for message in reversed(self.path()) if len(self.siblings(message)) > 1), None)

    # -- reading and writing -----------------------------------------------------------------------------------------

    @classmethod
    def restored(cls, system: str, messages: Iterable[Message], head: int | None) -> Conversation:
        """Build a conversation of messages whose `children` and `text` are made here.

        Raises:
            SteerError: An id comes twice or is below 1, a parent does not come before its child, roles do not take
                turns, or the head is none of the messages.
        """
        whole = cls(system)
        for message in messages:
            whole._restore(message)
        if head is not None and head not in whole._messages:
            raise SteerError(f"head: there is no message {head}", "name one of the messages' ids")
        whole._head = head
        return whole

    def _restore(self, message: Message) -> None:
        if message.id < self._next_id:
            raise SteerError(f"message {message.id}: ids do not ascend", "give each message a higher id than before")
        parent = None if message.parent is None else self._messages.get(message.parent)
        if message.parent is not None and parent is None:
            raise SteerError(
                f"message {message.id}: parent {message.parent} is no message before it", "a parent comes first"
            )
        if message.role == (parent.role if parent else "assistant"):
            raise SteerError(f"message {message.id}: follows on a message of the same role", "roles take turns")
        if message.segments and "".join(segment.text for segment in message.segments) != message.raw:
            raise SteerError(
                f"message {message.id}: its segments are not its text", "make the segments' texts add up to the text"
            )
        if sum(segment.n_tokens for segment in message.segments) > len(message.tokens):
            raise SteerError(f"message {message.id}: its segments have more tokens than it", "mend n_tokens")
        message.text = clean(message.raw)
        message.children = []
        self._next_id = message.id
        self._add(message)

    # -- the tree ----------------------------------------------------------------------------------------------------

    def _path_to(self, place: int | None) -> list[Message]:
        path: list[Message] = []
        while place is not None:
            path.append(self._messages[place])
            place = path[-1].parent
        return path[::-1]

    def _children_of(self, place: int | None) -> list[int]:
        return self._roots if place is None else self._messages[place].children

    def _add(self, message: Message) -> Message:
        self._messages[message.id] = message
        self._children_of(message.parent).append(message.id)
        self._next_id = message.id + 1
        self._head = message.id
        self._undone.clear()
        return message

    def _remove(self, message: Message) -> None:
        self._children_of(message.parent).remove(message.id)
        del self._messages[message.id]
        if self._head != message.id:
            return
        self._head = message.parent
        others = self._children_of(message.parent)
        if others:
            self._go_to(self._messages[others[-1]])

    def _go_to(self, message: Message) -> None:
        while message.children:
            message = self._messages[message.children[-1]]
        self._head = message.id
        self._undone.clear()

    def _cleaner(self, message: Message, column: Column) -> StreamCleaner:
        return self._cleaners.setdefault((message.id, column), StreamCleaner())


def _append_piece(pieces: list[Piece], text: str, expressions: Expressions) -> None:
    """Add a piece; texts of which nothing was measured are kept together."""
    if not expressions and pieces and not pieces[-1][1]:
        pieces[-1] = (pieces[-1][0] + text, {})
    elif text or expressions:
        pieces.append((text, dict(expressions)))
