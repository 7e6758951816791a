"""A model's service in this very process, its wishes brought in after a given number of written pieces."""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ggufsteer.engine.answering import Answering
from ggufsteer.engine.messages import (
    AddVector,
    ChangeSettings,
    Event,
    Failed,
    Finished,
    Generate,
    Load,
    Policy,
    Request,
    SamplingSettings,
    Segment,
    Settings,
    Turn,
    Wrote,
)
from ggufsteer.engine.serving import Service
from ggufsteer.files.control_vector import ControlVector, Provenance
from ggufsteer.files.model_identity import ModelIdentity
from ggufsteer.files.vector import write_vector

GREEDY = SamplingSettings(temperature=0.0, max_tokens=8)


class Served:
    """A service with a model, and all that it has said."""

    def __init__(self, model: Path, *, n_ctx: int = 512, flash_attention: str = "auto") -> None:
        self.events: list[Event] = []
        self._waiting: deque[tuple[int, Request]] = deque()
        self._written = 0
        self.present: Settings = ()
        """What steered at the end of the last answer."""
        self.service = Service(self._take, self._hear)
        self.do(Load(model=str(model), n_ctx=n_ctx, n_threads=1, flash_attention=flash_attention))

    def _take(self) -> Request | None:
        if self._waiting and self._waiting[0][0] <= self._written:
            request = self._waiting.popleft()[1]
            self.present = request.settings if isinstance(request, ChangeSettings) else self.present
            return request
        return None

    def _hear(self, event: Event) -> None:
        self._written += isinstance(event, Wrote)
        self.events.append(event)

    def do(self, request: Request) -> Event:
        """Carry out a request; gives its last event."""
        self.service.handle(request)
        assert not isinstance(self.events[-1], Failed), self.events[-1]
        return self.events[-1]

    def refused(self, request: Request) -> Failed:
        """Carry out a request that must fail."""
        self.service.handle(request)
        failed = self.events[-1]
        assert isinstance(failed, Failed)
        return failed

    def add(self, name: str, path: Path) -> None:
        """Add a vector."""
        self.do(AddVector(vector=name, path=str(path)))

    def ask(
        self,
        turns: Sequence[Turn],
        settings: Settings = (),
        *,
        policy: Policy = "from here on",
        sampling: SamplingSettings = GREEDY,
        meter: bool = False,
        continues: bool = False,
        meanwhile: Sequence[tuple[int, Request]] = (),
    ) -> tuple[Turn, Finished]:
        """Let the model answer; requests of `meanwhile` come in when that many pieces were written."""
        first = len(self.events)
        self._written, self.present = 0, settings
        self._waiting = deque(meanwhile)
        finished = self.do(
            Generate(
                turns=tuple(turns),
                settings=settings,
                policy=policy,
                sampling=sampling,
                meter=meter,
                continues=continues,
            )
        )
        assert isinstance(finished, Finished)
        return answer_of([event for event in self.events[first:] if isinstance(event, Wrote)]), finished

    def read(self, turns: Sequence[Turn], settings: Settings, policy: Policy, *, forget: bool) -> np.ndarray:
        """Read a conversation that ends with an answer, and write nothing; gives the logits behind it."""
        opened = self.service._open
        assert opened is not None
        if forget:
            opened.session._forget()
        transcript = opened.writer.write(turns, continues=True)
        request = Generate(turns=tuple(turns), settings=settings, policy=policy, continues=True)
        answering = Answering(
            opened.model,
            opened.session,
            opened.concepts,
            request,
            transcript,
            poll=lambda wishes: None,
            emit=lambda event: None,
            pace=opened.pace,
        )
        answering._read_all()
        return self.logits

    @property
    def logits(self) -> np.ndarray:
        """The logits behind the last token in memory."""
        assert self.service._open is not None
        return self.service._open.session.logits().copy()

    def close(self) -> None:
        """Free the model."""
        self.service.close()


def answer_of(pieces: Sequence[Wrote]) -> Turn:
    """Put an answer together as a front end does."""
    segments: list[Segment] = []
    for piece in pieces:
        if piece.settings is not None or not segments:
            segments.append(Segment(text="", settings=piece.settings or ()))
        last = segments[-1]
        segments[-1] = Segment(
            text=last.text + piece.text, settings=last.settings, n_tokens=last.n_tokens + len(piece.tokens)
        )
    return Turn(
        role="assistant",
        content="".join(piece.text for piece in pieces),
        segments=tuple(segments),
        tokens=tuple(token for piece in pieces for token in piece.tokens),
    )


def question(text: str, settings: Settings = ()) -> Turn:
    """What a person says."""
    return Turn(role="user", content=text, settings=settings)


def random_vector(
    seed: int, identity: ModelIdentity, size: Callable[[int], float], layers: Sequence[int]
) -> ControlVector:
    """A vector of random directions, as long as `size` says for each layer, made from that model."""
    generator = np.random.default_rng(seed)
    directions = {}
    for layer in layers:
        direction = generator.standard_normal(identity.n_embd)
        directions[layer] = (direction * size(layer) / np.linalg.norm(direction)).astype(np.float32)
    return ControlVector(directions, Provenance(name=f"random {seed}", model=identity, layers=tuple(layers)))


def written(path: Path, vector: ControlVector) -> Path:
    """Write a vector; gives its path."""
    write_vector(path, vector)
    return path
