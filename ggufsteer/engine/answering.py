"""One answer: the conversation is read, then token after token is written, while settings may change between tokens.

Each token is computed under the settings of its moment, and says so; a conversation that is read again later is read
under the very same ones. It does not know how events travel or who asks.
"""

import codecs
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean, median

import numpy as np

from ggufsteer.engine.concepts import Concepts, Place
from ggufsteer.engine.interventions import NOTHING, Phase, Steering
from ggufsteer.engine.messages import Event, Finished, Generate, Reason, Settings, Started, Wrote
from ggufsteer.engine.model import Model
from ggufsteer.engine.sampling import Sampling
from ggufsteer.engine.session import Session, StartAgain
from ggufsteer.engine.transcript import Span, Transcript

_SECONDS_BETWEEN_PROGRESS = 0.1


class Stopped(Exception):
    """The person does not want to read on."""


@dataclass
class Wishes:
    """What holds for the next token; whoever polls for the person's wishes changes it."""

    settings: Settings
    meter: bool
    stopped: bool = False


@dataclass
class Pace:
    """Seconds a token took, with the meter and without it; kept from answer to answer."""

    with_meter: list[float] = field(default_factory=list)
    without: list[float] = field(default_factory=list)

    def take(self, seconds: float, *, meter: bool) -> None:
        """Note one token."""
        kept = self.with_meter if meter else self.without
        kept.append(seconds)
        del kept[:-256]

    @property
    def meter_cost(self) -> float | None:
        """The share of speed that the meter takes; None before both ways were seen often enough to tell."""
        enough = 8
        if min(len(self.with_meter), len(self.without)) < enough:
            return None
        return 1.0 - median(self.without) / median(self.with_meter)


@dataclass(frozen=True)
class _Pending:
    """A token whose text was not sent yet."""

    token: int
    n_bytes: int
    settings: Settings
    expressions: Mapping[str, float]


class Answering:
    """Reads one conversation and writes its answer."""

    def __init__(
        self,
        model: Model,
        session: Session,
        concepts: Concepts,
        request: Generate,
        transcript: Transcript,
        *,
        poll: Callable[[Wishes], None],
        emit: Callable[[Event], None],
        pace: Pace,
    ) -> None:
        """Prepare an answer.

        Args:
            model: Who answers.
            session: Its memory.
            concepts: The vectors that settings speak of.
            request: What is asked.
            transcript: The request's turns as tokens.
            poll: Brings the person's wishes up to date; called between tokens and between batches of a long prompt.
            emit: Takes events.
            pace: How fast tokens came before.
        """
        self._model = model
        self._session = session
        self._concepts = concepts
        self._request = request
        self._poll = poll
        self._emit = emit
        self._pace = pace
        self._thoughts = transcript.thoughts
        self._n_dropped = transcript.n_turns_dropped
        self._n_prompt = transcript.n_tokens
        self._always = request.policy == "as if always"
        self._spans = [replace(span, settings=concepts.known_part(span.settings)) for span in transcript.spans]
        self._wishes = Wishes(request.settings, request.meter)
        self._settings = request.settings
        self._expressed: dict[Place, float] = {}
        """What the newest message expresses, where gates look."""
        self._n_reused = 0
        self._n_answer = 0
        self._told_settings: Settings | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._pending: list[_Pending] = []
        self._last_progress = 0.0

    def run(self) -> Finished:
        """Read and write; the last event is the result.

        Raises:
            SteerError: The settings cannot be carried out.
            EngineError: llama.cpp failed.
        """
        started = time.monotonic()
        reason: Reason = "stopped"
        begun = started
        try:
            self._read_all()
            begun = time.monotonic()
            reason = self._write_all()
        except Stopped:
            begun = begun if begun > started else time.monotonic()
        self._flush()
        return Finished(
            reason=reason,
            n_prompt=self._n_prompt,
            n_reused=self._n_reused,
            n_answer=self._n_answer,
            n_context=self._session.n_tokens,
            prompt_seconds=begun - started,
            answer_seconds=time.monotonic() - begun,
            meter_cost=self._pace.meter_cost,
            gates=self._opened(),
        )

    def _opened(self) -> dict[str, bool]:
        gates = [band for band in self._settings if self._concepts.place(band) is not None]
        return {band.vector: self._concepts.opens(band, self._expressed) for band in gates}

    def _read_all(self) -> None:
        """Bring the whole conversation into memory, each part under the settings that it should have."""
        if self._always:
            self._spans = [replace(span, settings=self._settings) for span in self._spans]
        self._progress(0)
        for _ in range(2):
            try:
                self._read_spans()
                self._session.logits()
            except StartAgain:
                continue
            break
        self._emit_started(self._n_prompt)

    def _read_spans(self) -> None:
        session = self._session
        session.rewind()
        self._n_reused = 0
        for span in self._spans:
            if span.phase == "prompt":
                self._read_prompt(span)
            else:
                self._n_reused += session.read(span.tokens, self._steering(span), on_progress=self._progress)

    def _read_prompt(self, span: Span) -> None:
        """Read a message; where gates are decided on it, all but its last token are read before they are."""
        places = self._concepts.places(span.settings)
        self._expressed = {}
        tokens = span.tokens
        if places:
            mark = hashlib.sha256(repr(places).encode()).digest()
            self._expressed = self._decide(replace(span, tokens=tokens[:-1]), places, mark)
            tokens = tokens[-1:]
        self._n_reused += self._session.read(tokens, self._steering(span), on_progress=self._progress)

    def _decide(self, span: Span, places: list[Place], mark: bytes) -> dict[Place, float]:
        """Read a message's tokens and say how strongly their mean expresses what gates look for."""
        session, steering = self._session, self._steering(span)
        found = session.finding(span.tokens, steering, mark)
        if found is not None:
            self._n_reused += session.read(span.tokens, steering, mark=mark)
            return dict(zip(places, np.frombuffer(found).tolist(), strict=True))
        start = session.n_tokens
        layers = sorted({layer for layer, _ in places})
        states = session.read_states(span.tokens, steering, layers, mark=mark, on_progress=self._progress)
        asked = states[slice(*span.question)]
        if len(asked) == 0:
            return {}
        means = [self._concepts.expression(name, asked[:, layers.index(layer)], layer).mean() for layer, name in places]
        session.note(start, np.array(means).tobytes())
        return dict(zip(places, map(float, means), strict=True))

    def _steering(self, span: Span) -> Steering:
        return self._steering_of(span.settings, span.phase)

    def _steering_of(self, settings: Settings, phase: Phase) -> Steering:
        return self._concepts.steering(settings, phase, self._expressed) if settings else NOTHING

    def _write_all(self) -> Reason:
        sampling = self._request.sampling
        sampler = Sampling(sampling.temperature, sampling.top_p, sampling.seed).sampler(0)
        most = sampling.max_tokens
        while True:
            self._listen()
            token = sampler(self._session.logits())
            if self._model.ends_text(token):
                return "end"
            self._write(token)
            if most is not None and self._n_answer >= most:
                return "length"
            if self._session.n_tokens + 1 >= self._session.n_ctx:
                return "context"

    def _listen(self) -> None:
        """Take the person's wishes in, and read everything anew where that is what they mean.

        Raises:
            Stopped: They do not want to read on.
        """
        self._poll(self._wishes)
        if self._wishes.stopped:
            raise Stopped
        if self._wishes.settings == self._settings:
            return
        self._settings = self._wishes.settings
        if self._always:
            self._read_all()

    def _write(self, token: int) -> None:
        """Put a token into memory and tell of it, the meter's reading with it."""
        phase: Phase = "thinking" if self._thoughts.inside else "answer"
        steering = self._steering_of(self._settings, phase)
        began = time.perf_counter()
        layers = self._concepts.meter_layers() if self._wishes.meter else []
        expressions: Mapping[str, float] = {}
        if layers:
            states = self._session.read_states([token], steering, layers)
            expressions = {name: float(row[0]) for name, row in self._concepts.expressions(states, layers).items()}
            self._tell(token, expressions)
        else:
            # Shown at once: the text does not wait for the token's own computation.
            self._tell(token, expressions)
            self._session.read([token], steering)
        self._pace.take(time.perf_counter() - began, meter=bool(layers))
        self._remember(token, phase)

    def _remember(self, token: int, phase: Phase) -> None:
        """Make the token a part of the conversation, should it have to be read anew."""
        self._n_answer += 1
        (spelled,) = self._model.vocabulary.pieces([token], special=True)
        self._thoughts.feed(spelled.decode("utf-8", errors="replace"))
        last = self._spans[-1]
        if (last.phase, last.settings) == (phase, self._settings):
            self._spans[-1] = replace(last, tokens=(*last.tokens, token))
        else:
            self._spans.append(Span((token,), phase, self._settings))

    def _tell(self, token: int, expressions: Mapping[str, float]) -> None:
        """Send the text that is complete with this token; a character may be spread over several."""
        (piece,) = self._model.vocabulary.pieces([token])
        if self._pending and self._pending[-1].settings != self._settings:
            # Tokens count under the settings that they were computed under, even where they are half a character.
            self._send("", len(self._pending))
        self._pending.append(_Pending(token, len(piece), self._settings, expressions))
        text = self._decoder.decode(piece)
        n_waiting = len(self._decoder.getstate()[0])
        n_kept = 0
        while n_waiting > 0 and n_kept < len(self._pending):
            n_kept += 1
            n_waiting -= self._pending[-n_kept].n_bytes
        if text:
            self._send(text, len(self._pending) - n_kept)

    def _flush(self) -> None:
        """Send what is left."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        if self._pending:
            self._send(text, len(self._pending))

    def _send(self, text: str, n_tokens: int) -> None:
        sent, self._pending = self._pending[:n_tokens], self._pending[n_tokens:]
        readings = [pending.expressions for pending in sent if pending.expressions]
        names = readings[0] if readings else ()
        settings = sent[-1].settings if sent else self._settings
        self._emit(
            Wrote(
                text=text,
                tokens=tuple(pending.token for pending in sent),
                settings=None if self._told_settings == settings else settings,
                expressions={name: fmean(reading.get(name, 0.0) for reading in readings) for name in names},
                n_context=self._session.n_tokens,
            )
        )
        self._told_settings = settings

    def _progress(self, n_done: int) -> None:
        """Tell how far a long prompt has been read, now and then.

        Raises:
            Stopped: The person does not want to wait.
        """
        self._poll(self._wishes)
        if self._wishes.stopped:
            raise Stopped
        now = time.monotonic()
        if n_done and now - self._last_progress < _SECONDS_BETWEEN_PROGRESS:
            return
        self._last_progress = now
        self._emit_started(n_done)

    def _emit_started(self, n_done: int) -> None:
        self._emit(
            Started(
                n_prompt=self._n_prompt,
                n_reused=self._n_reused,
                n_done=min(n_done, self._n_prompt),
                n_turns_dropped=self._n_dropped,
            )
        )
