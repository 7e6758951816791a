"""How likely the model finds given tokens: teacher-forced log-probabilities."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ggufsteer.engine.model import Model
from ggufsteer.engine.packing import Piece, pack
from ggufsteer.engine.progress import Progress, ProgressCallback
from ggufsteer.engine.sampling import log_softmax
from ggufsteer.errors import EngineError, SteerError

Float64 = NDArray[np.float64]

_LARGEST_LOGITS = 256 << 20
"""Bytes of logits that one batch may give."""


def log_probabilities(
    model: Model,
    sequences: Sequence[Sequence[int]],
    *,
    starts: Sequence[int] | None = None,
    progress: ProgressCallback | None = None,
) -> list[Float64]:
    """Give log p(token | the tokens before it), natural logarithm, with whatever steers the model at the moment.

    Args:
        model: An open model.
        sequences: Token ids, at least two each.
        starts: The first token to score of each sequence, such as the length of the prompt; 1 where not given. A first
            token has nothing before it and cannot be scored.
        progress: Called after each decode.

    Returns:
        For each sequence a float64 array (tokens from its start on,).

    Raises:
        SteerError: A sequence is too short or too long, or a start is not inside of it.
        EngineError: llama.cpp failed, or gave output that is not a number.
    """
    begin = [1] * len(sequences) if starts is None else list(starts)
    if len(begin) != len(sequences):
        raise SteerError(f"{len(begin)} starts for {len(sequences)} sequences", "give one start a sequence")
    for number, (tokens, start) in enumerate(zip(sequences, begin, strict=True)):
        _check(model, tokens, start, number)
    results = [np.zeros(len(tokens) - start) for tokens, start in zip(sequences, begin, strict=True)]
    context = model.context
    batch_tokens = min(context.most_tokens, max(1, _LARGEST_LOGITS // (4 * model.n_vocab)))
    # The last token is only looked up, never evaluated.
    lengths = [len(tokens) - 1 for tokens in sequences]
    done = tokens_done = 0
    try:
        for round_ in pack(lengths, batch_tokens=batch_tokens, max_sequences=context.n_seq_max):
            context.clear()
            for batch in round_.batches:
                _score_batch(model, batch, sequences, begin, results)
                tokens_done += sum(piece.stop - piece.start for piece in batch)
                done += sum(piece.stop == lengths[piece.sequence] for piece in batch)
                if progress is not None:
                    progress(Progress(done, len(sequences), tokens_done, sum(lengths)))
    finally:
        context.clear()
    return results


def _check(model: Model, tokens: Sequence[int], start: int, number: int) -> None:
    model.vocabulary.check(tokens)
    if not 1 <= start < len(tokens):
        raise SteerError(
            f"sequence {number + 1} has {len(tokens)} tokens and is to be scored from token {start}",
            f"give at least two tokens, and a start from 1 to {max(1, len(tokens) - 1)}",
        )
    if len(tokens) - 1 > model.n_ctx:
        raise SteerError(
            f"sequence {number + 1} has {len(tokens)} tokens, and the context holds {model.n_ctx}",
            "shorten it, or give a larger context with -c",
        )


def _score_batch(
    model: Model,
    batch: Sequence[Piece],
    sequences: Sequence[Sequence[int]],
    begin: Sequence[int],
    results: list[Float64],
) -> None:
    tokens = [token for piece in batch for token in sequences[piece.sequence][piece.start : piece.stop]]
    positions = [position for piece in batch for position in range(piece.start, piece.stop)]
    sequence_ids = [piece.sequence_id for piece in batch for _ in range(piece.start, piece.stop)]
    outputs = [position + 1 >= begin[piece.sequence] for piece in batch for position in range(piece.start, piece.stop)]
    model.context.decode(tokens, positions, sequence_ids, outputs)
    place = 0
    for piece in batch:
        for position in range(piece.start, piece.stop):
            if outputs[place]:
                scores = log_softmax(model.context.logits(place))
                target = position + 1
                score = scores[sequences[piece.sequence][target]]
                if not np.isfinite(score):
                    raise EngineError("the model's output is not a number", "if it is steered, give smaller strengths")
                results[piece.sequence][target - begin[piece.sequence]] = score
            place += 1
