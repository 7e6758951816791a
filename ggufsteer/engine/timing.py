"""How long a model takes for a prompt and for single tokens, as llama.cpp's own llama-bench times them.

The tokens are random: speed does not depend on what they mean. Making text of them and choosing the next one is left
out. This module times; what is compared with what is decided above.
"""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ggufsteer.engine.capture import capture
from ggufsteer.engine.concepts import Concepts
from ggufsteer.engine.interventions import Steering
from ggufsteer.engine.model import Model
from ggufsteer.engine.reading import Operation, Reading, Targets
from ggufsteer.engine.sequences import TokenSequence
from ggufsteer.files.control_vector import ControlVector

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


_TEXT = 64
"""Tokens of a text that states are read from: a question in its template, and the beginning of an answer."""


class TimedExtraction:
    """What an extraction does with a model, timed: it reads the states behind texts, in every layer that is steered.

    It runs in the model's own context, and its planning counts.
    """

    def __init__(self, model: Model) -> None:
        """Take an open model of at least two layers."""
        self._model = model

    def clear(self) -> None:
        """Do nothing: an extraction clears the memory itself."""

    def prompt(self, tokens: Int64) -> int:
        """Read the states behind texts of at most 64 tokens each; gives nanoseconds. # (tokens,)"""
        parts = [tuple(tokens[start : start + _TEXT].tolist()) for start in range(0, len(tokens), _TEXT)]
        texts = [TokenSequence(part, (len(part) - 1,)) for part in parts]
        began = time.perf_counter_ns()
        capture(self._model, texts, range(1, self._model.n_layer))
        return time.perf_counter_ns() - began


class TimedContext:
    """A context of its own on a model's weights, steered in one way for good, and timed."""

    def __init__(self, model: Model, n_ctx: int, steering: Steering, metered: Sequence[ControlVector] = ()) -> None:
        """Make it.

        Args:
            model: An open model.
            n_ctx: Tokens that it has to hold.
            steering: What steers.
            metered: Vectors whose expression is read at each single token, as the chat's meter does.

        Raises:
            EngineError: There is no memory for it, or the steering does not fit the model.
        """
        self._context = model.new_context(model.options.reader, n_ctx=n_ctx, n_sequences=1)
        self.reader_note = self._context.reader_note
        self._decode: Callable[[int, int], None] = self._context.decode_one
        self.seen: dict[str, float] = {}
        """What the meter read at the last single token, by the vectors' numbers."""
        try:
            self._context.set_steering(steering)
        except BaseException:
            self._context.close()
            raise
        if metered:
            self._decode = self._meter(model, metered)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._context.close()

    def clear(self) -> None:
        """Forget all tokens; not timed, as little as in llama-bench."""
        self._context.clear(with_data=False)
        self._context.wait()

    def prompt(self, tokens: Int64) -> int:
        """Compute a prompt from the first position on, in batches, with logits for each batch's last token.

        Args:
            tokens: # (tokens,)

        Returns:
            Nanoseconds.
        """
        positions = np.arange(len(tokens))
        step = self._context.most_tokens
        began = time.perf_counter_ns()
        for start in range(0, len(tokens), step):
            batch = tokens[start : start + step]
            outputs = np.zeros(len(batch), dtype=np.int8)
            outputs[-1] = 1
            self._context.decode(batch, positions[start : start + step], np.zeros(len(batch), dtype=np.int64), outputs)
        self._context.wait()
        return time.perf_counter_ns() - began

    def generate(self, tokens: Sequence[int], position: int) -> int:
        """Compute tokens one at a time, each with its logits, from a position on; gives nanoseconds."""
        began = time.perf_counter_ns()
        for place, token in enumerate(tokens, start=position):
            self._decode(token, place)
            self._context.wait()
        return time.perf_counter_ns() - began

    def logits(self) -> Float32:
        """Give the logits behind the last single token. # (n_vocab,)"""
        return self._context.logits(0)

    def _meter(self, model: Model, metered: Sequence[ControlVector]) -> Callable[[int, int], None]:
        concepts = Concepts((model.n_layer, model.n_embd))
        for number, vector in enumerate(metered):
            concepts.add(str(number), vector)
        layers = concepts.meter_layers()
        targets = Targets.make(len(layers), model.n_embd, states=1)
        reading = Reading(
            layers=np.array(layers, dtype=np.int32),
            rows=np.zeros(1, dtype=np.int32),
            steps=np.array([(Operation.ROW, 0, 0), (Operation.STORE, 0, 0)], dtype=np.int32),
            targets=targets,
            n_tokens=1,
            rows_are_outputs=True,
            stop_early=False,
        )

        def decode_and_look(token: int, position: int) -> None:
            self._context.read(reading, lambda: self._context.decode_one(token, position))
            read = concepts.expressions(targets.states, layers)
            self.seen = {name: float(row[0]) for name, row in read.items()}

        return decode_and_look
