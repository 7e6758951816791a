"""From a prefix tree to batches: which tokens go together into one decode, and what the memory holds in between.

Pure arithmetic, no model. A batch is a stretch of the tree's depth-first walk. Each *piece* of it is a run of new
tokens of one sequence, on a *lane* (llama.cpp's sequence id): lane 0 is the path that was in memory before, the others
branch off from it, or from an earlier piece of the same batch, whose tokens then belong to all lanes that go through
them. After the batch only the path to the next piece stays. So the memory holds one path and one batch, whatever the
number of sequences.

A *round* begins with an empty memory. A long walk is cut into rounds, so that it can be resumed where one begins with
the same numbers bit for bit; the path there is evaluated again, which is at most 1 % of the round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ggufsteer.engine.prefix_tree import PrefixTree
from ggufsteer.errors import SteerError

ROUND_TOKENS = 8192
"""The fewest tokens in a round, the last one excepted."""
_PATH_SHARE = 100
"""A round is at least this many times as long as the path that the next one evaluates again. Below 2 no round would
come further than its own path."""
_WELL_FILLED = 0.75
"""A batch filled this far is not topped up with the beginning of a sequence that fits into the next one whole."""


@dataclass(frozen=True)
class Limits:
    """What a context can take."""

    batch_tokens: int
    """The most tokens in a batch."""
    memory_tokens: int
    """The most tokens in memory."""
    lanes: int
    """The most lanes in a batch."""


@dataclass(frozen=True)
class Piece:
    """Consecutive new tokens of one sequence, within one batch."""

    place: int
    """Of the sequence in the tree's walk."""
    start: int
    stop: int
    """Tokens start to stop - 1."""
    known: int
    """Tokens before this one were evaluated in an earlier round, and their rows were read then."""
    cached: int
    """How many of the tokens before it are in memory before the batch; the others are in the batch."""
    lane: int
    """From 0, in the order of the pieces; a piece that goes on where the one before it ended has the same."""


@dataclass(frozen=True)
class Batch:
    """One decode, and what to do with the memory after it."""

    pieces: tuple[Piece, ...]
    keep: int
    """How many first tokens of the last piece's sequence stay in memory; 0 empties it."""
    round: int
    """Number of the round, from 0."""

    @property
    def n_tokens(self) -> int:
        """Tokens in the batch."""
        return sum(piece.stop - piece.start for piece in self.pieces)

    @property
    def n_lanes(self) -> int:
        """Lanes in the batch."""
        return self.pieces[-1].lane + 1

    @property
    def n_cells(self) -> int:
        """Tokens that the memory must hold during the decode."""
        return self.pieces[0].start + self.n_tokens


@dataclass(frozen=True)
class Plan:
    """All batches of a tree. They are made anew with each walk over `batches`, so that none has to be kept."""

    tree: PrefixTree
    limits: Limits

    def __post_init__(self) -> None:
        """Refuse what cannot be evaluated.

        Raises:
            SteerError: A sequence is longer than the memory.
        """
        if min(self.limits.batch_tokens, self.limits.memory_tokens, self.limits.lanes) < 1:
            raise ValueError("batch_tokens, memory_tokens and lanes must be positive")
        longest = int(self.tree.lengths.max(initial=0))
        if longest > self.limits.memory_tokens:
            number = int(self.tree.order[self.tree.lengths.argmax()]) + 1
            raise SteerError(
                f"text {number} has {longest} tokens, and the context holds {self.limits.memory_tokens}",
                "shorten it, or give a larger context with -c",
            )

    def batches(self) -> Iterator[Batch]:
        """Make the batches, in order."""
        return _Walk(self.tree, self.limits).batches()

    @cached_property
    def totals(self) -> Totals:
        """What the plan comes down to; the first use walks over it."""
        n_batches = n_evaluated = n_rounds = n_cells = n_lanes = 0
        for batch in self.batches():
            n_batches += 1
            n_evaluated += batch.n_tokens
            n_rounds = batch.round + 1
            n_cells = max(n_cells, batch.n_cells)
            n_lanes = max(n_lanes, batch.n_lanes)
        return Totals(
            n_sequences=len(self.tree),
            n_total=self.tree.n_total,
            n_distinct=self.tree.n_distinct,
            n_evaluated=n_evaluated,
            n_batches=n_batches,
            n_rounds=n_rounds,
            n_cells=n_cells,
            n_lanes=n_lanes,
        )


@dataclass(frozen=True)
class Totals:
    """A plan in numbers."""

    n_sequences: int
    n_total: int
    """Tokens of all sequences, up to the last row that is read of each."""
    n_distinct: int
    """Different beginnings among them: nodes of the prefix tree."""
    n_evaluated: int
    """Tokens that go through the model: the distinct ones, and the paths that rounds begin with."""
    n_batches: int
    n_rounds: int
    n_cells: int
    """The most tokens that are in memory at once."""
    n_lanes: int
    """The most lanes in one batch."""


class _Walk:
    """The walk over a tree that fills one batch after the other."""

    def __init__(self, tree: PrefixTree, limits: Limits) -> None:
        self._tree = tree
        self._limits = limits
        self._pieces: list[Piece] = []
        self._used = 0
        self._round = 0
        self._round_tokens = 0

    def batches(self) -> Iterator[Batch]:
        lengths = self._tree.lengths.tolist()
        for place, shared in enumerate(self._tree.shared.tolist()):
            start, length, known = shared, lengths[place], 0
            while start < length:
                take = self._take(start, length)
                if take == 0:
                    yield self._flush(start)
                    if self._round_tokens == 0:
                        start, known = 0, max(start, known)
                    continue
                self._add(place, start, start + take, known)
                start += take
        if self._pieces:
            yield self._flush(0)

    def _take(self, start: int, length: int) -> int:
        """Say how many of the tokens from `start` on go into the batch as it is; 0 where it has to end first."""
        base = self._pieces[0].start if self._pieces else start
        capacity = min(self._limits.batch_tokens, self._limits.memory_tokens - base)
        room = capacity - self._used
        if room == 0 or self._lane(start) == self._limits.lanes:
            return 0
        if length - start <= room:
            return length - start
        next_capacity = min(self._limits.batch_tokens, self._limits.memory_tokens - start)
        if self._used >= _WELL_FILLED * capacity and length - start <= next_capacity:
            return 0
        return room

    def _lane(self, start: int) -> int:
        """Give the lane of a piece that begins at `start`."""
        if not self._pieces:
            return 0
        last = self._pieces[-1]
        return last.lane if start == last.stop else last.lane + 1

    def _add(self, place: int, start: int, stop: int, known: int) -> None:
        # Everything before the first piece is in memory; a later piece shares of it what all in between share.
        cached = min(start, self._pieces[-1].cached) if self._pieces else start
        self._pieces.append(Piece(place, start, stop, known, cached, self._lane(start)))
        self._used += stop - start
        self._round_tokens += stop - start

    def _flush(self, path: int) -> Batch:
        """End the batch; `path` is how many tokens of the next piece's path have been evaluated."""
        ends_round = self._round_tokens >= max(ROUND_TOKENS, _PATH_SHARE * path)
        batch = Batch(tuple(self._pieces), 0 if ends_round else path, self._round)
        self._pieces, self._used = [], 0
        if ends_round:
            self._round, self._round_tokens = self._round + 1, 0
        return batch
