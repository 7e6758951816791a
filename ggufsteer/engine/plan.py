"""How many token sequences become few decodes: pure arithmetic on lengths, no model.

Each *round* starts with an empty memory. A round holds either several whole sequences in one batch, or one sequence
that is longer than a batch, cut into consecutive pieces. It does not know what a token is, nor look for common
beginnings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ggufsteer.errors import SteerError


@dataclass(frozen=True)
class TokenSequence:
    """Tokens to evaluate, and the positions among them whose states are wanted."""

    tokens: tuple[int, ...]
    rows: tuple[int, ...]
    """Token positions, counted from 0, strictly ascending."""

    def __post_init__(self) -> None:
        """Refuse what cannot be read.

        Raises:
            SteerError: There are no tokens or rows, or a row is not a position among the tokens.
        """
        if not self.tokens:
            raise SteerError("a sequence without tokens has no state", "give it at least one token")
        if not self.rows:
            raise SteerError("a sequence of which no row is wanted", "ask for at least one token's state")
        ascending = all(first < second for first, second in zip(self.rows, self.rows[1:], strict=False))
        if not ascending or self.rows[0] < 0 or self.rows[-1] >= len(self.tokens):
            raise SteerError(
                f"rows {self.rows} are not ascending positions among {len(self.tokens)} tokens",
                f"use each position from 0 to {len(self.tokens) - 1} once at most, in order",
            )


@dataclass(frozen=True)
class Progress:
    """How far a long piece of work has come."""

    sequences_done: int
    sequences_total: int
    tokens_done: int
    tokens_total: int
    """0 where nobody can know it beforehand."""


ProgressCallback = Callable[[Progress], None]
"""Called after each decode; what it raises (such as KeyboardInterrupt) ends the work cleanly."""


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
