"""A conversation as a file: everything that is needed to go on with it, and to see how each answer came about.

The file is JSON that says its own format and version. A damaged or foreign one is refused with file, key, value and
mend; that the model or a vector is another one now is only remarked, because the words are still worth reading.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ggufsteer.engine.messages import LONGEST_LINE, Loaded, Policy, SamplingSettings, Segment, Settings
from ggufsteer.errors import FileFormatError, SteerError
from ggufsteer.files.atomic import check_target, write_text_atomically
from ggufsteer.files.inputs import open_bounded, read_text
from ggufsteer.tasks.converse import Conversation, EndReason, Message, Piece, Role
from ggufsteer.tasks.equaliser import SliderRecord, name_for
from ggufsteer.tasks.json_record import Record, from_text, to_text
from ggufsteer.text import clean
from ggufsteer.version import VERSION

if TYPE_CHECKING:
    from ggufsteer.tasks.chat import Chat

FORMAT: Literal["ggufsteer conversation"] = "ggufsteer conversation"
FORMAT_VERSION: Literal[1] = 1


class ModelRecord(Record):
    """The model that was talked to."""

    name: str
    content_hash: str


class MessageRecord(Record):
    """One message; see `converse.Message`."""

    id: int = Field(ge=1)
    parent: int | None
    role: Role
    text: str
    settings: Settings = ()
    segments: tuple[Segment, ...] = ()
    tokens: tuple[int, ...] = ()
    expressions: tuple[tuple[str, dict[str, float]], ...] = ()
    baseline: str = ""
    baseline_expressions: tuple[tuple[str, dict[str, float]], ...] = ()
    reason: EndReason | None = None


class VectorRecord(Record):
    """A vector without a slider, under which messages were written."""

    vector: str
    path: str


class SavedChat(Record):
    """The whole file."""

    format: Literal["ggufsteer conversation"]
    version: Literal[1]
    program: str
    model: ModelRecord | None
    system: str
    policy: Policy
    sampling: SamplingSettings
    equaliser: list[SliderRecord]
    other_vectors: list[VectorRecord]
    messages: list[MessageRecord]
    head: int | None


def save(chat: Chat, path: Path) -> None:
    """Write a chat's conversation.

    Raises:
        SteerError: The file cannot be written, or there is one that is no conversation.
    """
    _check_overwrites_nothing(path)
    model = chat.model
    saved = SavedChat(
        format=FORMAT,
        version=FORMAT_VERSION,
        program=f"ggufsteer {VERSION}",
        model=None if model is None else ModelRecord(name=model.name, content_hash=model.content_hash),
        system=chat.conversation.system,
        policy=chat.policy,
        sampling=chat.sampling,
        equaliser=chat.slider_records,
        other_vectors=[
            VectorRecord(vector=name, path=str(Path(file).absolute())) for name, file in chat.hidden_vectors.items()
        ],
        messages=[_record(message) for message in chat.conversation.messages],
        head=None if chat.conversation.head is None else chat.conversation.head.id,
    )
    write_text_atomically(path, to_text(saved))


def read(path: Path, model: Loaded | None = None) -> tuple[SavedChat, Conversation]:
    """Read a conversation, to go on with it under a model.

    Tokens of another model's vocabulary are left out: the texts say what was written.

    Raises:
        FileFormatError: The file cannot be read, is damaged, or is something else.
    """
    saved = from_text(SavedChat, read_text(path, LONGEST_LINE), str(path), FORMAT)
    try:
        messages = list(map(_message, saved.messages))
        conversation = Conversation.restored(saved.system, messages, saved.head)
        _check_names(saved)
    except SteerError as problem:
        raise FileFormatError(f"{path}: {problem.message}", problem.hint) from problem
    if _is_of_another_model(saved, model):
        for message in messages:
            message.tokens = []
            message.segments = [segment.model_copy(update={"n_tokens": 0}) for segment in message.segments]
    return saved, conversation


def remarks(saved: SavedChat, model: Loaded | None) -> list[str]:
    """Say what is otherwise than when the conversation was saved."""
    if saved.model is None or not _is_of_another_model(saved, model):
        return []
    return [f"the conversation was held with another model: {clean(saved.model.name)}"]


def _is_of_another_model(saved: SavedChat, model: Loaded | None) -> bool:
    """Say whether it is known to be another one."""
    return saved.model is not None and model is not None and saved.model.content_hash != model.content_hash


def _check_overwrites_nothing(path: Path) -> None:
    check_target(path)
    if not path.is_file():
        return
    file, size = open_bounded(path, sys.maxsize)
    with file:
        beginning = file.read(200)
    if size and FORMAT.encode() not in beginning:
        raise SteerError(f"{path}: exists and is no conversation; it would be overwritten", "give another name")


def _check_names(saved: SavedChat) -> None:
    names = [record.vector for record in saved.equaliser] + [record.vector for record in saved.other_vectors]
    for number, name in enumerate(names):
        if name_for(name, names[:number]) != name:
            raise SteerError(
                f"vector {number + 1} is called '{clean(name)}'", "give each a short name of its own, without spaces"
            )


def _record(message: Message) -> MessageRecord:
    return MessageRecord(
        id=message.id,
        parent=message.parent,
        role=message.role,
        text=message.raw,
        settings=message.settings,
        segments=tuple(message.segments),
        tokens=tuple(message.tokens),
        expressions=_plain(message.expressions),
        baseline=message.baseline,
        baseline_expressions=_plain(message.baseline_expressions),
        reason=message.reason,
    )


def _plain(pieces: list[Piece]) -> tuple[tuple[str, dict[str, float]], ...]:
    return tuple((text, dict(expressions)) for text, expressions in pieces)


def _message(record: MessageRecord) -> Message:
    return Message(
        id=record.id,
        role=record.role,
        raw=record.text,
        parent=record.parent,
        settings=record.settings,
        segments=list(record.segments),
        tokens=list(record.tokens),
        expressions=[(clean(text), expressions) for text, expressions in record.expressions],
        baseline=clean(record.baseline),
        baseline_expressions=[(clean(text), expressions) for text, expressions in record.baseline_expressions],
        reason=record.reason,
    )
