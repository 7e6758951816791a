"""Hidden states of many token sequences, at the wanted layers and tokens only.

The state at layer N is the output of block N, counted from 0 (llama.cpp's ``l_out-N``), steering included if there is
any. Sequences share batches, each graph ends after the deepest wanted layer, and equal sequences are evaluated once.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from ggufsteer.engine import backend
from ggufsteer.engine.context import Context
from ggufsteer.engine.library import ReaderName
from ggufsteer.engine.model import Model
from ggufsteer.engine.plan import Piece, Progress, ProgressCallback, Round, TokenSequence, pack
from ggufsteer.engine.reading import Reading
from ggufsteer.errors import SteerError

__all__ = ["Progress", "ProgressCallback", "TokenSequence", "capture"]

Float32 = NDArray[np.float32]

_LARGEST_LOGITS = 256 << 20
"""Bytes. llama.cpp reserves a row of logits for each output, and the last layer is only computed for outputs."""


@overload
def capture(
    model: Model,
    sequences: Sequence[TokenSequence],
    layers: Sequence[int],
    *,
    pool: Literal[True] = True,
    progress: ProgressCallback | None = None,
    callback: ReaderName = "auto",
) -> Float32: ...


@overload
def capture(
    model: Model,
    sequences: Sequence[TokenSequence],
    layers: Sequence[int],
    *,
    pool: Literal[False],
    progress: ProgressCallback | None = None,
    callback: ReaderName = "auto",
) -> list[Float32]: ...


def capture(
    model: Model,
    sequences: Sequence[TokenSequence],
    layers: Sequence[int],
    *,
    pool: bool = True,
    progress: ProgressCallback | None = None,
    callback: ReaderName = "auto",
) -> Float32 | list[Float32]:
    """Read hidden states.

    Args:
        model: An open model; what steers it at the moment takes part.
        sequences: Tokens, and the rows wanted of each.
        layers: 0-based layer numbers, each once; the result keeps their order.
        pool: Whether the rows of a sequence are averaged (in double precision).
        progress: Called after each decode.
        callback: "native" or "python" to insist on one implementation; they give the same bits.

    Returns:
        Pooled: float32 (sequences, layers, embd). Otherwise one float32 (rows, layers, embd) a sequence.

    Raises:
        SteerError: A sequence is longer than the context, a token is not in the vocabulary, or there is no such layer.
        EngineError: llama.cpp failed, or the model's graph does not hold the layer's output.
    """
    order = _checked_layers(layers, model.n_layer)
    wanted = [_without_tail(sequence) for sequence in sequences]
    for number, sequence in enumerate(wanted):
        _check_sequence(model, sequence, number)
    n_rows = len(wanted) if pool else sum(len(sequence.rows) for sequence in wanted)
    _check_memory((n_rows, len(layers), model.n_embd))
    places: dict[TokenSequence, list[int]] = {}
    for index, sequence in enumerate(wanted):
        places.setdefault(sequence, []).append(index)
    pooled = np.empty((len(wanted) if pool else 0, len(layers), model.n_embd), dtype=np.float32)
    apart = [pooled] * (0 if pool else len(wanted))
    with _context(model, callback) as context:
        work = _Work(model, context, list(places), np.array(sorted(layers), dtype=np.int32), pool)
        for sequence, states in work.run(progress, len(sequences)):
            for index in places[sequence]:
                if pool:
                    pooled[index] = states[0, order]
                else:
                    apart[index] = states[:, order]
    return pooled if pool else apart


def _checked_layers(layers: Sequence[int], n_layer: int) -> list[int]:
    """Give, for each layer as asked for, its place among the layers in ascending order."""
    if not layers or len(set(layers)) != len(layers):
        raise SteerError(f"layers {list(layers)}: each must be given once, and at least one", "name the layers to read")
    for layer in layers:
        if not 0 <= layer < n_layer:
            raise SteerError(f"layer {layer} is not in the model", f"its layers are 0 to {n_layer - 1}")
    ascending = sorted(layers)
    return [ascending.index(layer) for layer in layers]


def _check_memory(shape: tuple[int, int, int]) -> None:
    """Refuse states that could never be held, before the system has to stop the program for it."""
    n_bytes, memory = 4 * math.prod(shape), backend.physical_memory()
    if memory and n_bytes > memory:
        raise SteerError(
            f"{shape[0]} states of {shape[1]} layers take {n_bytes >> 30} GiB, and this machine has {memory >> 30}",
            "read fewer layers or texts, or the mean over each text's tokens instead of every token",
        )


def _without_tail(sequence: TokenSequence) -> TokenSequence:
    """Leave out the tokens after the last wanted one: they cannot change what was before them."""
    return TokenSequence(sequence.tokens[: sequence.rows[-1] + 1], sequence.rows)


def _check_sequence(model: Model, sequence: TokenSequence, number: int) -> None:
    model.vocabulary.check(sequence.tokens)
    if len(sequence.tokens) > model.n_ctx:
        raise SteerError(
            f"text {number + 1} has {len(sequence.tokens)} tokens, and the context holds {model.n_ctx}",
            "shorten it, or give a larger context with -c",
        )


@contextmanager
def _context(model: Model, callback: ReaderName) -> Iterator[Context]:
    """Give the model's own context, or one with the asked implementation; its memory is empty afterwards."""
    if callback in ("auto", model.context.reader.name):
        try:
            yield model.context
        finally:
            # A graph that ended early left the memory of the deeper layers unwritten: nothing may build on it.
            model.context.clear()
        return
    context = model.new_context(callback)
    try:
        context.set_steering(model.context.steering)
        yield context
    finally:
        context.close()


@dataclass
class _Work:
    """One capture: the same for all its rounds."""

    model: Model
    context: Context
    sequences: Sequence[TokenSequence]
    layers: NDArray[np.int32]
    pool: bool

    def run(self, progress: ProgressCallback | None, total: int) -> Iterator[tuple[TokenSequence, Float32]]:
        """Evaluate all sequences; yields each with its states, (rows or 1, layers, embd)."""
        lengths = [len(sequence.tokens) for sequence in self.sequences]
        rounds = pack(lengths, batch_tokens=self._batch_tokens(), max_sequences=self.context.n_seq_max)
        sequences_done = tokens_done = 0
        for round_ in rounds:
            self.context.clear()
            target = self._target(round_)
            for batch in round_.batches:
                self._decode(round_, batch, target)
                tokens_done += sum(piece.stop - piece.start for piece in batch)
                sequences_done += len(round_.sequences) if batch is round_.batches[-1] else 0
                if progress is not None:
                    share = total * sequences_done // len(self.sequences)
                    progress(Progress(share, total, tokens_done, sum(lengths)))
            yield from self._results(round_, target)

    @property
    def _needs_outputs(self) -> bool:
        return int(self.layers[-1]) == self.model.n_layer - 1

    def _batch_tokens(self) -> int:
        """The most tokens in a batch."""
        limit = self.context.n_ubatch if self.model.may_stop_early else self.context.n_batch
        if self._needs_outputs:
            limit = min(limit, max(1, _LARGEST_LOGITS // (4 * self.model.n_vocab)))
        return limit

    def _target(self, round_: Round) -> NDArray[np.float32] | NDArray[np.float64]:
        """Make the array that a round is read into: a slot a sequence, or a slot a row."""
        if self.pool:
            return np.zeros((len(round_.sequences), len(self.layers), self.model.n_embd), dtype=np.float64)
        n_rows = sum(len(self.sequences[sequence].rows) for sequence in round_.sequences)
        return np.zeros((n_rows, len(self.layers), self.model.n_embd), dtype=np.float32)

    def _decode(self, round_: Round, batch: Sequence[Piece], target: NDArray[np.float32] | NDArray[np.float64]) -> None:
        tokens = [token for piece in batch for token in self.sequences[piece.sequence].tokens[piece.start : piece.stop]]
        positions = [position for piece in batch for position in range(piece.start, piece.stop)]
        sequence_ids = [piece.sequence_id for piece in batch for _ in range(piece.start, piece.stop)]
        rows, slots = self._rows_and_slots(round_, batch)
        outputs = np.zeros(len(tokens), dtype=bool)
        if self._needs_outputs:
            outputs[rows] = True
        if not rows:  # a piece of a long sequence, before its first wanted row
            self.context.decode(tokens, positions, sequence_ids, outputs)
            return
        reading = Reading(
            layers=self.layers,
            rows=np.array(rows, dtype=np.int32),
            slots=np.array(slots, dtype=np.int32),
            target=target,
            n_tokens=len(tokens),
            n_ubatch=self.context.n_ubatch,
            rows_are_outputs=self._needs_outputs,
            stop_early=self.model.may_stop_early,
        )
        self.context.read(reading, lambda: self.context.decode(tokens, positions, sequence_ids, outputs))

    def _rows_and_slots(self, round_: Round, batch: Sequence[Piece]) -> tuple[list[int], list[int]]:
        """Find where in the batch the wanted rows are, and where they go."""
        rows: list[int] = []
        slots: list[int] = []
        first_slots = self._first_slots(round_)
        start_of_piece = 0
        for piece in batch:
            for index, row in enumerate(self.sequences[piece.sequence].rows):
                if piece.start <= row < piece.stop:
                    rows.append(start_of_piece + row - piece.start)
                    slots.append(first_slots[piece.sequence] + (0 if self.pool else index))
            start_of_piece += piece.stop - piece.start
        return rows, slots

    def _first_slots(self, round_: Round) -> dict[int, int]:
        slots: dict[int, int] = {}
        next_slot = 0
        for sequence in round_.sequences:
            slots[sequence] = next_slot
            next_slot += 1 if self.pool else len(self.sequences[sequence].rows)
        return slots

    def _results(
        self, round_: Round, target: NDArray[np.float32] | NDArray[np.float64]
    ) -> Iterator[tuple[TokenSequence, Float32]]:
        for number, first in self._first_slots(round_).items():
            sequence = self.sequences[number]
            n_rows = len(sequence.rows)
            states = target[first : first + 1] / n_rows if self.pool else target[first : first + n_rows]
            yield sequence, states.astype(np.float32)
