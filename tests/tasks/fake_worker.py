"""An honest model's process without a model: it answers each request by the events that the real one sends.

Events wait in `events` until `pump` hands them to the chat, so that a test decides when they come. It keeps what it was
sent, knows the vectors that were added, and refuses what the real one refuses.
"""

import hashlib
from collections import deque
from collections.abc import Callable
from pathlib import Path

from ggufsteer.engine.messages import (
    AddVector,
    ChangeSettings,
    Died,
    Event,
    Failed,
    Finished,
    Generate,
    Load,
    Loaded,
    Reason,
    RemoveVector,
    Request,
    Settings,
    Started,
    Statistics,
    StatisticsRead,
    Stop,
    VectorAdded,
    Wrote,
    event_from,
    request_from,
    to_line,
)

MODEL = Loaded(
    name="Fake",
    path="fake.gguf",
    architecture="llama",
    content_hash="0123abcd",
    n_layer=8,
    n_embd=16,
    n_ctx=512,
    has_chat_template=True,
)


class FakeWorker:
    """A process that answers with the same words each time, one word a piece.

    Args:
        words: What it answers; with steering each word is followed by an exclamation mark.
        model: What it loads.
        hold: Whether an answer waits after its `Started` until `write` and `finish` are called.
    """

    def __init__(
        self, words: tuple[str, ...] = ("All", " is", " well."), model: Loaded = MODEL, *, hold: bool = False
    ) -> None:
        self.words = words
        self.model = model
        self.hold = hold
        self.alive = False
        self.silent_seconds = 0.0
        self.sent: list[Request] = []
        self.events: deque[Event] = deque()
        self.vectors: dict[str, str] = {}
        self.n_starts = 0
        self.n_turns_dropped = 0
        self.fail_next: Failed | None = None
        self._settings: Settings = ()
        self._meter = False
        self._answering = False
        self._said_settings = False
        self._n_written = 0

    # -- what a chat calls -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it."""
        self.alive = True
        self.n_starts += 1

    def restart(self) -> None:
        """Start a new one that knows nothing."""
        self.events.clear()
        self.vectors.clear()
        self._answering = False
        self.start()

    def close(self) -> None:
        """End it."""
        self.alive = False

    def send(self, request: Request) -> None:
        """Take a request, over the wire and back, and prepare its events."""
        request = request_from(to_line(request))
        self.sent.append(request)
        if not self.alive:
            return
        if self.fail_next is not None and self.fail_next.request == request.do:
            failed, self.fail_next = self.fail_next, None
            self._put(failed)
        elif isinstance(request, Load):
            self._put(self.model.model_copy(update={"path": request.model}))
        elif isinstance(request, AddVector):
            self._add(request)
        elif isinstance(request, RemoveVector):
            self.vectors.pop(request.vector, None)
        elif isinstance(request, Generate):
            self._generate(request)
        elif isinstance(request, ChangeSettings):
            self._change(request)
        elif isinstance(request, Stop) and self._answering:
            self.finish("stopped")
        elif isinstance(request, Statistics):
            self._put(StatisticsRead(n_context=7, context_size=512, resident_bytes=3 << 20, seconds_up=60.0))

    # -- what a test calls -------------------------------------------------------------------------------------------

    def pump(self, handle: Callable[[Event], None]) -> None:
        """Hand over all events, those included that handling them brings."""
        while self.events:
            handle(self.events.popleft())

    def write(self, text: str) -> None:
        """Write a piece of the running answer."""
        expressions = {band.vector: band.strength / 2 for band in self._settings} if self._meter else {}
        settings = None if self._said_settings else self._settings
        self._said_settings = True
        self._n_written += 1
        tokens = (self._n_written,)
        n_context = 4 + self._n_written
        self._put(Wrote(text=text, tokens=tokens, settings=settings, expressions=expressions, n_context=n_context))

    def finish(self, reason: Reason = "end") -> None:
        """End the running answer."""
        self._answering = False
        self._put(
            Finished(
                reason=reason,
                n_prompt=4,
                n_reused=0,
                n_answer=self._n_written,
                n_context=4 + self._n_written,
                prompt_seconds=0.1,
                answer_seconds=0.5,
            )
        )

    def die(self, reason: str = "signal 6 (aborted): GGML_ASSERT failed") -> None:
        """End unasked."""
        self.alive = False
        self._answering = False
        self._put(Died(reason=reason))

    @property
    def generates(self) -> list[Generate]:
        """All answers that were asked for."""
        return [request for request in self.sent if isinstance(request, Generate)]

    # -- inside ------------------------------------------------------------------------------------------------------

    def _put(self, event: Event) -> None:
        self.events.append(event_from(to_line(event)))

    def _add(self, request: AddVector) -> None:
        path = Path(request.path)
        if len(path.name) > 255 or "\0" in path.name:
            self._fail(request, "not a usable file name")
        elif request.vector in self.vectors:
            self._fail(request, f"there is a vector '{request.vector}' already")
        elif path.name.startswith("missing"):
            self._fail(request, f"{path}: no such file")
        else:
            self.vectors[request.vector] = request.path
            content = path.read_bytes() if path.is_file() else path.name.encode()
            self._put(
                VectorAdded(
                    vector=request.vector,
                    path=request.path,
                    file_hash=hashlib.sha256(content).hexdigest(),
                    name=path.stem,
                    description=f"More {path.stem}.",
                    layers=(2, 3, 4, 5),
                    best_layer=4,
                    recommended=1.0,
                    maximum=1.5,
                )
            )

    def _fail(self, request: AddVector, message: str) -> None:
        self._put(Failed(request=request.do, subject=request.vector, message=message, hint="check it", exit_code=2))

    def _unknown(self, request: Generate) -> set[str]:
        used = [*request.settings]
        for turn in request.turns:
            used += [*turn.settings, *(band for segment in turn.segments for band in segment.settings)]
        names = {band.vector for band in used} | {band.condition for band in used if band.condition}
        return names - set(self.vectors)

    def _generate(self, request: Generate) -> None:
        unknown = self._unknown(request)
        if unknown:
            self._put(Failed(request=request.do, message=f"no vector {sorted(unknown)}"))
            return
        self._settings, self._meter = request.settings, request.meter
        self._answering, self._said_settings, self._n_written = True, False, 0
        self._put(Started(n_prompt=4, n_reused=0, n_done=4, n_turns_dropped=self.n_turns_dropped))
        if self.hold:
            return
        for word in self.words:
            self.write(f"{word}!" if self._settings else word)
        self.finish()

    def _change(self, request: ChangeSettings) -> None:
        if self._answering and request.settings != self._settings:
            self._settings, self._said_settings = request.settings, False
        if request.meter is not None:
            self._meter = request.meter
