"""A model's process that does what a test tells it, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ggufsteer.engine.messages import (
    AddVector,
    Died,
    Event,
    Finished,
    Generate,
    Load,
    Loaded,
    Reason,
    Request,
    Started,
    Stop,
    VectorAdded,
    Wrote,
)


class WorkerDouble:
    """Loads and adds at once; writes, ends and dies when the test says so."""

    def __init__(self, on_event: Callable[[Event], None], *, loads: bool = True, n_ctx: int = 4096) -> None:
        self.on_event = on_event
        self.loads = loads
        self.n_ctx = n_ctx
        self.requests: list[Request] = []
        self.alive = False
        self.silent_seconds = 0.0
        self.starts = 0
        self.closed = False
        self._wrote = 0

    def start(self) -> None:
        """Start."""
        self.alive, self.starts = True, self.starts + 1

    def restart(self) -> None:
        """Start again."""
        self.start()

    def close(self) -> None:
        """End."""
        self.alive, self.closed = False, True

    def send(self, request: Request) -> None:
        """Take a request; what needs no telling is answered at once."""
        self.requests.append(request)
        if isinstance(request, Load) and self.loads:
            self.load()
        elif isinstance(request, AddVector):
            self.add(request)
        elif isinstance(request, Generate):
            self.on_event(Started(n_prompt=12, n_reused=0, n_done=12, n_turns_dropped=0))
        elif isinstance(request, Stop):
            self.finish("stopped")

    def asked(self, kind: type[Request]) -> list[Request]:
        """Give what was asked of one kind."""
        return [request for request in self.requests if isinstance(request, kind)]

    def load(self) -> None:
        """Have loaded the model."""
        self.on_event(
            Loaded(
                name="tiny model",
                path="tiny.gguf",
                architecture="llama",
                content_hash="00",
                n_layer=8,
                n_embd=16,
                n_ctx=self.n_ctx,
                has_chat_template=True,
            )
        )

    def add(self, request: AddVector) -> None:
        """Have checked a vector."""
        self.on_event(
            VectorAdded(
                vector=request.vector,
                path=request.path,
                file_hash="11" * 32,
                name=request.vector,
                description=f"towards {request.vector}",
                layers=(2, 3, 4, 5),
                best_layer=3,
                recommended=1.0,
                maximum=1.6,
            )
        )

    def write(self, text: str, expressions: Mapping[str, float] | None = None) -> None:
        """Write a piece of the answer."""
        self._wrote += 1
        self.on_event(
            Wrote(text=text, tokens=(self._wrote,), expressions=dict(expressions or {}), n_context=12 + self._wrote)
        )

    def finish(self, reason: Reason = "end") -> None:
        """End the answer."""
        self.on_event(
            Finished(
                reason=reason,
                n_prompt=12,
                n_reused=0,
                n_answer=self._wrote,
                n_context=12 + self._wrote,
                prompt_seconds=0.1,
                answer_seconds=0.5,
                meter_cost=0.04,
            )
        )

    def die(self, reason: str = "signal SIGABRT: GGML_ASSERT(n > 0) failed") -> None:
        """End unasked."""
        self.alive = False
        self.on_event(Died(reason=reason))
