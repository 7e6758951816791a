"""What a chat tells its front end: small frozen records, in the order in which things happened.

All text in them may be shown as it is: what came from a model, a file or an error has passed the cleaner. They say what
changed, not how it is drawn; whoever needs more reads the chat itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

Column = Literal["steered", "baseline"]
Level = Literal["info", "warning", "error"]


class State(Enum):
    """What a chat is doing."""

    STARTING = "starting"
    """The model or its vectors are being loaded; a question waits."""
    READY = "ready"
    ANSWERING = "answering"
    STOPPING = "stopping"
    """The answer was told to end, and has not yet."""
    BROKEN = "broken"
    """There is no model: its process is gone, or it could not be loaded."""


@dataclass(frozen=True)
class StateChanged:
    """The chat does something else now."""

    state: State


@dataclass(frozen=True)
class ConversationChanged:
    """Messages came, went or changed; not sent for each piece of an answer."""


@dataclass(frozen=True)
class AnswerGrew:
    """A piece was added to an answer."""

    message_id: int
    text: str
    """The piece alone."""
    column: Column = "steered"
    expressions: Mapping[str, float] = field(default_factory=dict)
    """Vector name to how strongly the piece expresses it; empty where nothing was measured."""


@dataclass(frozen=True)
class AnswerEnded:
    """An answer is over."""

    message_id: int
    """The message may be gone, if nothing was written."""
    column: Column
    reason: str
    """As in `converse.EndReason`."""


@dataclass(frozen=True)
class EqualiserChanged:
    """A slider came, went or was set otherwise."""


@dataclass(frozen=True)
class Said:
    """Something for the person to read."""

    level: Level
    text: str
    hint: str = ""


@dataclass(frozen=True)
class Progress:
    """So many tokens of the conversation are read."""

    done: int
    total: int


@dataclass(frozen=True)
class Draft:
    """A text for the person to change and send: it goes into the entry, in place of what is there."""

    text: str


@dataclass(frozen=True)
class Quit:
    """The person wants to leave."""


Notice = (
    StateChanged | ConversationChanged | AnswerGrew | AnswerEnded | EqualiserChanged | Said | Progress | Draft | Quit
)
