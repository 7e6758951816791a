"""Token sequences and the rows wanted of each: one at a time for people, packed into four arrays for many.

A Python tuple of tokens takes eight times the memory of the tokens; forty thousand of them would weigh more than the
states that are computed. It does not know what is done with the rows.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray

from ggufsteer.errors import SteerError

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


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


@dataclass(frozen=True, eq=False)
class TokenSequences(Sequence[TokenSequence]):
    """Many sequences, one after the other in memory. Make them with `pack`."""

    tokens: Int32
    """All tokens of all sequences. # (tokens,)"""
    token_bounds: Int64
    """Sequence i has the tokens from bound i to bound i + 1. # (sequences + 1,)"""
    rows: Int32
    """All wanted positions, each counted from its own sequence's beginning. # (rows,)"""
    row_bounds: Int64
    """Sequence i has the rows from bound i to bound i + 1. # (sequences + 1,)"""

    @classmethod
    def pack(cls, sequences: Iterable[TokenSequence]) -> Self:
        """Pack sequences as they come; each may be forgotten as soon as it was taken."""
        if isinstance(sequences, cls):
            return sequences
        tokens, rows = array("i"), array("i")
        token_bounds, row_bounds = array("q", [0]), array("q", [0])
        for sequence in sequences:
            tokens.extend(sequence.tokens)
            rows.extend(sequence.rows)
            token_bounds.append(len(tokens))
            row_bounds.append(len(rows))
        return cls(
            np.frombuffer(tokens, dtype=np.int32),
            np.frombuffer(token_bounds, dtype=np.int64),
            np.frombuffer(rows, dtype=np.int32),
            np.frombuffer(row_bounds, dtype=np.int64),
        )

    @classmethod
    def selected(cls, parts: Sequence[tuple[TokenSequences, NDArray[np.bool_]]]) -> Self:
        """Put those sequences of all parts one behind the other for which the part's mask (sequences,) is true.

        Nothing is copied twice.
        """
        return cls(
            _compressed([(part.tokens, part.lengths, mask) for part, mask in parts]),
            _bounds(np.concatenate([part.lengths[mask] for part, mask in parts])),
            _compressed([(part.rows, part.row_counts, mask) for part, mask in parts]),
            _bounds(np.concatenate([part.row_counts[mask] for part, mask in parts])),
        )

    def part(self, start: int, stop: int) -> TokenSequences:
        """Give the sequences from `start` to `stop` - 1; their tokens are not copied."""
        tokens, rows = self.token_bounds[start : stop + 1], self.row_bounds[start : stop + 1]
        return TokenSequences(
            self.tokens[tokens[0] : tokens[-1]],
            tokens - tokens[0],
            self.rows[rows[0] : rows[-1]],
            rows - rows[0],
        )

    def __len__(self) -> int:
        return len(self.token_bounds) - 1

    @overload
    def __getitem__(self, index: int) -> TokenSequence: ...

    @overload
    def __getitem__(self, index: slice) -> TokenSequences: ...

    def __getitem__(self, index: int | slice) -> TokenSequence | TokenSequences:
        if isinstance(index, slice):
            return TokenSequences.pack(self[number] for number in range(*index.indices(len(self))))
        number = range(len(self))[index]
        return TokenSequence(tuple(self.tokens_of(number).tolist()), tuple(self.rows_of(number).tolist()))

    def __iter__(self) -> Iterator[TokenSequence]:
        return (self[number] for number in range(len(self)))

    def tokens_of(self, number: int) -> Int32:
        """Give the tokens of one sequence, without a copy."""
        return self.tokens[self.token_bounds[number] : self.token_bounds[number + 1]]

    def rows_of(self, number: int) -> Int32:
        """Give the wanted rows of one sequence, without a copy."""
        return self.rows[self.row_bounds[number] : self.row_bounds[number + 1]]

    @cached_property
    def wanted(self) -> NDArray[np.bool_]:
        """For each of `tokens` whether its row is wanted. # (tokens,)"""
        flags = np.zeros(len(self.tokens), dtype=np.bool_)
        flags[np.repeat(self.token_bounds[:-1], self.row_counts) + self.rows] = True
        return flags

    @property
    def lengths(self) -> Int64:
        """Tokens in each sequence. # (sequences,)"""
        return np.diff(self.token_bounds)

    @property
    def row_counts(self) -> Int64:
        """Wanted rows of each sequence. # (sequences,)"""
        return np.diff(self.row_bounds)


def _compressed(parts: Sequence[tuple[Int32, Int64, NDArray[np.bool_]]]) -> Int32:
    """Copy the numbers of the chosen sequences, of which there are so many each, into one array."""
    sizes = [int(counts[mask].sum()) for _, counts, mask in parts]
    result = np.empty(sum(sizes), dtype=np.int32)
    end = 0
    for (numbers, counts, mask), size in zip(parts, sizes, strict=True):
        result[end : end + size] = numbers[np.repeat(mask, counts)]
        end += size
    return result


def _bounds(counts: Int64) -> Int64:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])
