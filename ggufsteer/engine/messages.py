"""What a front end and the model's process say to each other: one JSON object a line, each of a type named here.

Requests go to the process, events come from it. Every field is checked on both sides, so that neither a broken process
nor a text from a model can make the other do what is not listed here. It does not know how lines travel.
"""

import json
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ggufsteer.errors import EngineError

PROTOCOL = 1
LONGEST_LINE = 64 << 20
"""Bytes. A conversation is sent whole, and none is as long as this."""

OperationName = Literal["add", "ablate", "clamp", "gate"]
Scope = Literal["all", "prompt", "answer"]
Policy = Literal["from here on", "as if always"]
Reason = Literal["end", "length", "context", "stopped"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Band(_Record):
    """How one vector steers: a slider of the equaliser, as the model's process sees it."""

    vector: str
    """The name that the vector was added under."""
    strength: float = 1.0
    operation: OperationName = "add"
    layers: tuple[int, int] | None = None
    """First and last layer that it acts on; None for all that the vector has."""
    scope: Scope = "all"
    thinking: bool = True
    """Whether the model's block of thoughts is steered too."""
    condition: str | None = None
    """Of a gate: the vector that decides; None for this one itself."""
    threshold: float = 0.5
    """Of a gate: how strongly its condition must be expressed; 0 is the negative side's mean, 1 the positive's."""
    decided: Literal["prompt", "token"] = "prompt"
    """Of a gate: once, by the mean over the newest message, or for each token by itself."""


Settings = tuple[Band, ...]
"""All that steers at one moment; muted bands are left out, and those of strength 0 that do nothing there."""


class Segment(_Record):
    """A stretch of an answer that was written under one steering."""

    text: str
    settings: Settings = ()
    n_tokens: int = 0
    """How many of the turn's tokens it is; 0 where that is not known."""


class Turn(_Record):
    """One message of the conversation."""

    role: Literal["system", "user", "assistant"]
    content: str
    settings: Settings = ()
    """What steered when it was read; of an answer, see `segments`."""
    segments: tuple[Segment, ...] = ()
    """Of an answer: its text in order. Joined they are `content`, unless a person has edited it."""
    tokens: tuple[int, ...] = ()
    """Of an answer: what the model wrote; empty once a person has edited it."""


class SamplingSettings(_Record):
    """How tokens are chosen."""

    temperature: float = Field(default=0.8, ge=0.0, le=100.0)
    top_p: float = Field(default=0.95, gt=0.0, le=1.0)
    seed: int = Field(default=0, ge=0)
    max_tokens: int | None = Field(default=None, ge=1)
    """None writes until the model ends or the context is full."""


class Load(_Record):
    """Open a model; the first request. Answered by `Loaded`."""

    do: Literal["load"] = "load"
    model: str
    n_gpu_layers: int | Literal["auto", "all"] = "auto"
    n_ctx: int = 0
    n_threads: int | None = None
    n_batch: int = 2048
    n_ubatch: int = 512
    flash_attention: Literal["auto", "on", "off"] = "auto"


class AddVector(_Record):
    """Read a control vector, check that it fits and that it acts. Answered by `VectorAdded`."""

    do: Literal["add vector"] = "add vector"
    vector: str
    """The name for it; the front end chooses it, and it must be new."""
    path: str
    producer: str | None = None
    force: bool = False


class RemoveVector(_Record):
    """Forget a vector; nothing answers."""

    do: Literal["remove vector"] = "remove vector"
    vector: str


class Tokenize(_Record):
    """Count a text's tokens. Answered by `Tokenized`."""

    do: Literal["tokenize"] = "tokenize"
    text: str


class Generate(_Record):
    """Answer a conversation. Answered by `Started`, `Wrote` for each piece of text, and `Finished`."""

    do: Literal["generate"] = "generate"
    turns: tuple[Turn, ...]
    """The last one is the user's, or with `continues` the beginning of the answer."""
    settings: Settings = ()
    policy: Policy = "from here on"
    sampling: SamplingSettings = SamplingSettings()
    meter: bool = False
    continues: bool = False


class ChangeSettings(_Record):
    """Steer otherwise from the next token on; of several that wait, the last wins. `Wrote.settings` tells of it."""

    do: Literal["change settings"] = "change settings"
    settings: Settings
    meter: bool | None = None


class Stop(_Record):
    """End the running answer after the present token; nothing happens when there is none."""

    do: Literal["stop"] = "stop"


class Measure(_Record):
    """Read how strongly each token of a text expresses each vector, unsteered. Answered by `Measured`."""

    do: Literal["measure"] = "measure"
    text: str


class Statistics(_Record):
    """Ask how it is. Answered by `StatisticsRead`."""

    do: Literal["statistics"] = "statistics"


Request = Load | AddVector | RemoveVector | Tokenize | Generate | ChangeSettings | Stop | Measure | Statistics


class Alive(_Record):
    """The heartbeat: sent every second, whatever else happens."""

    event: Literal["alive"] = "alive"
    doing: str
    """Such as "waiting", "loading the model", "answering"."""


class Loaded(_Record):
    """The model is open."""

    event: Literal["loaded"] = "loaded"
    protocol: int = PROTOCOL
    name: str
    path: str
    architecture: str
    content_hash: str
    n_layer: int
    n_embd: int
    n_ctx: int
    has_chat_template: bool
    notes: tuple[str, ...] = ()


class VectorAdded(_Record):
    """A vector fits and acts."""

    event: Literal["vector added"] = "vector added"
    vector: str
    path: str
    file_hash: str
    """SHA-256 of the file, in hexadecimal."""
    name: str
    description: str
    layers: tuple[int, ...]
    best_layer: int
    """The layer at which it tells its two sides apart best; where the meter reads."""
    recommended: float
    maximum: float | None
    """The largest strength that still stays fluent, where it was measured."""
    warnings: tuple[str, ...] = ()


class Tokenized(_Record):
    """A text's number of tokens."""

    event: Literal["tokenized"] = "tokenized"
    n_tokens: int


class Started(_Record):
    """The prompt is being read; sent again while a long one is."""

    event: Literal["started"] = "started"
    n_prompt: int
    """Tokens of the conversation so far."""
    n_reused: int
    """Of them: still in memory, computed under the steering that they should have."""
    n_done: int
    """Of them: in memory now."""
    n_turns_dropped: int
    """Oldest messages that no longer fit into the context, and were left out."""


class Wrote(_Record):
    """A piece of the answer: whole characters, and the tokens that they came from."""

    event: Literal["wrote"] = "wrote"
    text: str
    tokens: tuple[int, ...]
    settings: Settings | None = None
    """Sent with the first piece, and with each piece that was written under another steering than the one before."""
    expressions: dict[str, float] = {}
    """Vector name to how strongly these tokens express it: 0 like the negative side's mean, 1 like the positive's."""
    n_context: int = 0
    """Tokens in memory now."""


class Finished(_Record):
    """The answer is over."""

    event: Literal["finished"] = "finished"
    reason: Reason
    n_prompt: int
    n_reused: int
    n_answer: int
    n_context: int
    prompt_seconds: float
    """For the tokens that were not reused."""
    answer_seconds: float
    meter_cost: float | None = None
    """Share of speed that the meter takes, once tokens with and without it were seen."""
    gates: dict[str, bool] = {}
    """Gates decided on the prompt: vector name to whether it opened."""


class Measured(_Record):
    """What a text expresses, token by token."""

    event: Literal["measured"] = "measured"
    tokens: tuple[str, ...]
    expressions: dict[str, tuple[float, ...]]


class StatisticsRead(_Record):
    """How the process is."""

    event: Literal["statistics read"] = "statistics read"
    n_context: int
    context_size: int
    resident_bytes: int
    seconds_up: float


class Failed(_Record):
    """A request could not be done; the process goes on."""

    event: Literal["failed"] = "failed"
    request: str
    """What was asked for: `do` of the request."""
    subject: str = ""
    """The vector that it was about."""
    message: str
    hint: str = ""
    exit_code: int = 1


class Died(_Record):
    """The process is gone. Made by the front end's side; everything that was running is over."""

    event: Literal["died"] = "died"
    reason: str
    """For people: signal or exit code, and the last words of llama.cpp."""


Event = (
    Alive | Loaded | VectorAdded | Tokenized | Started | Wrote | Finished | Measured | StatisticsRead | Failed | Died
)

_Message = TypeVar("_Message")

_REQUESTS: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="do")])
_EVENTS: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def to_line(message: Request | Event) -> bytes:
    """Write a message as one line, with the line feed at its end; ASCII only."""
    return json.dumps(message.model_dump(mode="json"), separators=(",", ":")).encode("ascii") + b"\n"


def request_from(line: bytes) -> Request:
    """Read a request; raises `EngineError` when it is none."""
    return _read(_REQUESTS, line)


def event_from(line: bytes) -> Event:
    """Read an event; raises `EngineError` when it is none."""
    return _read(_EVENTS, line)


def _read(adapter: TypeAdapter[_Message], line: bytes) -> _Message:
    try:
        return adapter.validate_json(line)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise EngineError(f"a broken line from the model's process: {place}: {problem['msg']}") from error
