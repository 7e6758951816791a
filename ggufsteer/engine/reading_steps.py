"""Which rows of a batch are read, and what is done with each: a plan's pieces turned into a reader's steps.

An *observation* is what a person asked for: the mean over the wanted rows of a sequence (pooled), or each wanted row by
itself. A row that many sequences share is fetched once. Means over several rows are summed up while the walk goes down
the tree: where branches leave, the sum so far is put aside, and every branch goes on from a copy of it. So no more sums
are open than the tree has forks above the present place, however many sequences there are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ggufsteer.engine.plan import Batch, Piece
from ggufsteer.engine.prefix_tree import PrefixTree
from ggufsteer.engine.reading import Float32, Int32, Operation, Step

Int64 = NDArray[np.int64]
NOWHERE = -1


@dataclass(frozen=True, eq=False)
class Wanted:
    """What is made of each observation. An array that is None stands for none; -1 in one leaves an observation out."""

    stored: NDArray[np.bool_] | bool = False
    """Whether the state itself is handed out, for each or for all. # (observations,)"""
    sums: Int32 | None = None
    """Which sum it is added to. # (observations,)"""
    n_sums: int = 0
    lengths: Int32 | None = None
    """Where its Euclidean length is noted. # (observations,)"""
    n_lengths: int = 0
    scores: Int32 | None = None
    """Where its scalar product with the layer's direction is noted. # (observations,)"""
    n_scores: int = 0
    directions: Float32 | None = None
    """The directions of the scores. # (layers, embd)"""


@dataclass(frozen=True, eq=False)
class BatchReading:
    """What is read of one batch."""

    rows: Int32
    """Positions in the batch, ascending. # (rows,)"""
    steps: Int32
    """(steps, 3)"""
    states: Int32
    """Which stored state belongs to `observations[i]`: several observations may be the same state. # (stored,)"""
    observations: Int64
    """(stored,)"""

    @property
    def n_states(self) -> int:
        """States that the steps store."""
        return int(self.states[-1]) + 1 if len(self.states) else 0


class StepMaker:
    """Makes the steps of a plan's batches, one after the other, in order."""

    def __init__(self, tree: PrefixTree, wanted: Wanted, *, pool: bool) -> None:
        """Look the tree over.

        Args:
            tree: What is walked; it must tell beginnings apart by their rows where means are taken over several.
            wanted: What is made of each observation.
            pool: Whether an observation is the mean over a sequence's rows, or each row one.
        """
        self._tree = tree
        self._wanted = wanted
        self._pool = pool
        self._sums_up = pool and has_several_rows(tree)
        if self._sums_up and not tree.splits_by_rows:
            raise ValueError("means over several rows need a tree that tells beginnings apart by their rows")
        first_rows = tree.sequences.rows[tree.sequences.row_bounds[:-1]][tree.order]
        self._borrowers: list[int] = [] if self._sums_up else np.flatnonzero(first_rows < tree.shared).tolist()
        self._forks: list[int] = []
        """Depths at which a sum was put aside, ascending: accumulator i belongs to fork i, the open one comes after."""

    def n_accumulators(self) -> int:
        """Give how many sums are open at most."""
        if not self._sums_up:
            return 0
        deepest = 0
        forks: list[int] = []
        for place, start in enumerate(self._tree.shared.tolist()):
            while forks and forks[-1] > start:
                forks.pop()
            forks += reversed([sharing.depth for sharing in self._tree.sharing(place, start)])
            deepest = max(deepest, len(forks))
        return deepest + 1

    def read(self, batch: Batch) -> BatchReading:
        """Make the steps of the next batch."""
        self._draft = _Draft()
        origin = 0
        for piece in batch.pieces:
            if self._sums_up:
                self._sum_up(piece, origin)
            else:
                self._read_rows(piece, origin)
            origin += piece.stop - piece.start
        return self._draft.finished()

    def _read_rows(self, piece: Piece, origin: int) -> None:
        """Read each wanted row of a piece for all sequences that want it."""
        readers: dict[int, list[int]] = {}
        begin = max(piece.start, piece.known)
        for observation, row in self._rows_between(piece.place, begin, piece.stop):
            readers.setdefault(row, []).append(observation)
        for sharing in self._tree.sharing(piece.place, begin):
            stop = min(piece.stop, sharing.depth)
            inside = slice(bisect_left(self._borrowers, sharing.first), bisect_left(self._borrowers, sharing.end))
            for borrower in self._borrowers[inside]:
                for observation, row in self._rows_between(borrower, begin, stop):
                    readers.setdefault(row, []).append(observation)
        for row in sorted(readers):
            self._draft.row(origin + row - piece.start)
            self._consume(readers[row])

    def _rows_between(self, place: int, begin: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield observation and row of a sequence's wanted rows from `begin` to `stop` - 1."""
        number = int(self._tree.order[place])
        rows = self._tree.rows_at(place)
        first, end = np.searchsorted(rows, (begin, stop)).tolist()
        base = int(self._tree.sequences.row_bounds[number])
        for index in range(first, end):
            yield number if self._pool else base + index, int(rows[index])

    def _sum_up(self, piece: Piece, origin: int) -> None:
        """Add the wanted rows of a piece to the open sum, put it aside where branches leave, and take means at ends."""
        tree, draft = self._tree, self._draft
        if piece.start == 0:
            self._forks = []
            draft.step(Operation.CLEAR, 0)
        elif piece.start == tree.shared[piece.place] and not piece.known:
            del self._forks[bisect_right(self._forks, piece.start) :]
            draft.step(Operation.COPY, len(self._forks) - 1, len(self._forks))
        rows = set(tree.rows_at(piece.place).tolist())
        lowest = 0 if piece.known else int(tree.shared[piece.place])
        forks = {sharing.depth for sharing in tree.sharing(piece.place, lowest)}
        for row in range(piece.start, piece.stop):
            if row in rows:
                draft.row(origin + row - piece.start)
                draft.step(Operation.ADD, len(self._forks))
            if row + 1 in forks:
                draft.step(Operation.COPY, len(self._forks), len(self._forks) + 1)
                self._forks.append(row + 1)
        if piece.stop == tree.lengths[piece.place]:
            draft.step(Operation.MEAN, len(self._forks), len(rows))
            self._consume(self._equal_sequences(piece.place))

    def _equal_sequences(self, place: int) -> list[int]:
        """Give the sequences at a place and at those after it that are the same."""
        tree = self._tree
        end = place + 1
        while end < len(tree) and tree.shared[end] == tree.lengths[end] == tree.lengths[place]:
            end += 1
        return [int(number) for number in tree.order[place:end]]

    def _consume(self, observations: Sequence[int]) -> None:
        """Make what is wanted of the state that all these observations have."""
        wanted, draft = self._wanted, self._draft
        stored = wanted.stored
        kept = observations if isinstance(stored, bool) else [number for number in observations if stored[number]]
        if kept and stored is not False:
            draft.store(kept)
        if wanted.sums is not None:
            for number, weight in Counter(wanted.sums[observations].tolist()).items():
                draft.step(Operation.SUM, number, weight)
        for operation, places in ((Operation.LENGTH, wanted.lengths), (Operation.SCORE, wanted.scores)):
            if places is not None:
                for number in places[observations].tolist():
                    draft.step(operation, number)


def has_several_rows(tree: PrefixTree) -> bool:
    """Say whether any sequence of a tree has more than one wanted row."""
    return bool((tree.sequences.row_counts > 1).any())


@dataclass
class _Draft:
    """The steps of one batch, while they are made."""

    rows: list[int] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    states: list[int] = field(default_factory=list)
    observations: list[int] = field(default_factory=list)

    def row(self, position: int) -> None:
        self.step(Operation.ROW, len(self.rows))
        self.rows.append(position)

    def step(self, operation: Operation, first: int, second: int = 0) -> None:
        if first != NOWHERE:
            self.steps.append((operation, first, second))

    def store(self, observations: Sequence[int]) -> None:
        number = self.states[-1] + 1 if self.states else 0
        self.step(Operation.STORE, number)
        self.states += [number] * len(observations)
        self.observations += observations

    def finished(self) -> BatchReading:
        return BatchReading(
            rows=np.array(self.rows, dtype=np.int32),
            steps=np.array(self.steps, dtype=np.int32).reshape(-1, 3),
            states=np.array(self.states, dtype=np.int32),
            observations=np.array(self.observations, dtype=np.int64),
        )
