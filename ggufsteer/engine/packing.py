"""How many token sequences become few decodes where each is evaluated whole: pure arithmetic on lengths, no model.

Each *round* starts with an empty memory. A round holds either several whole sequences in one batch, or one sequence
that is longer than a batch, cut into consecutive pieces. It does not look for common beginnings; `plan` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """Consecutive tokens of one sequence, within one batch."""

    sequence: int
    """Number of the sequence, in the order that they were given."""
    start: int
    stop: int
    """Tokens start to stop - 1."""
    sequence_id: int
    """llama.cpp's name for it while the round lasts."""


@dataclass(frozen=True)
class Round:
    """Decodes that share one memory."""

    sequences: tuple[int, ...]
    batches: tuple[tuple[Piece, ...], ...]


def pack(lengths: Sequence[int], *, batch_tokens: int, max_sequences: int) -> tuple[Round, ...]:
    """Pack sequences into rounds, in the order given.

    Args:
        lengths: Tokens in each sequence, each at least 1. # (sequences,)
        batch_tokens: The most tokens in one batch.
        max_sequences: The most sequences in one batch.

    Returns:
        Rounds that hold each token of each sequence exactly once, in order.

    For example, lengths 3, 2 and 9 with 6 tokens a batch make two rounds: both short sequences in one batch, then the
    long one in batches of 6 and 3.
    """
    if batch_tokens < 1 or max_sequences < 1 or any(length < 1 for length in lengths):
        raise ValueError("lengths, batch_tokens and max_sequences must be positive")
    rounds: list[Round] = []
    together: list[Piece] = []
    used = 0
    for sequence, length in enumerate(lengths):
        # A sequence that is longer than a batch closes the round too: so rounds keep the order of the sequences.
        full = used + length > batch_tokens or len(together) == max_sequences
        if together and full:
            rounds.append(_one_batch(together))
            together, used = [], 0
        if length > batch_tokens:
            rounds.append(_cut(sequence, length, batch_tokens))
            continue
        together.append(Piece(sequence, 0, length, len(together)))
        used += length
    if together:
        rounds.append(_one_batch(together))
    return tuple(rounds)


def _one_batch(pieces: Sequence[Piece]) -> Round:
    return Round(tuple(piece.sequence for piece in pieces), (tuple(pieces),))


def _cut(sequence: int, length: int, batch_tokens: int) -> Round:
    """Divide one sequence that is longer than a batch."""
    starts = range(0, length, batch_tokens)
    batches = tuple((Piece(sequence, start, min(start + batch_tokens, length), 0),) for start in starts)
    return Round((sequence,), batches)
