"""From planned pairs to what the model gets: for each side its text, its tokens, and which of them are read.

Nothing is kept: the sides are made, one pair at a time, whenever they are gone through. It reads no state.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ggufsteer.errors import RecipeError, SteerError
from ggufsteer.files.recipe_schema import Recipe, SuffixContrast
from ggufsteer.tasks import suffixes
from ggufsteer.tasks.fingerprints import fingerprint
from ggufsteer.tasks.passages import Encoded, RememberingTokenizer, Tokenizer, encode
from ggufsteer.tasks.positions import rows_to_read
from ggufsteer.tasks.shapes import PlannedPair, PlannedPairs


@dataclass(frozen=True)
class Side:
    """One side of a pair as the model gets it."""

    text: str
    """What the tokens say, chat template included."""
    tokens: tuple[int, ...]
    rows: tuple[int, ...]
    """Indices of the tokens whose states are read."""


@dataclass(frozen=True)
class SidePair:
    """Both sides of a pair, and the planned pair that they come from; of one with cuts come several."""

    positive: Side
    negative: Side
    planned: PlannedPair


class Sides:
    """The sides of all pairs of a recipe, in order."""

    def __init__(self, recipe: Recipe, model: Tokenizer, pairs: PlannedPairs) -> None:
        """Plan the reading of pairs.

        Args:
            recipe: Where to read.
            model: Whose tokens are used.
            pairs: What to read, answers included.
        """
        self._recipe = recipe
        self._model = RememberingTokenizer(model)
        self._pairs = pairs
        self._are_cut = isinstance(recipe.contrast, SuffixContrast)
        self._in_one_pass = (
            self._are_cut
            and recipe.position == "last"
            and all(suffixes.readable_in_one_pass(side) for pair in pairs for side in (pair.positive, pair.negative))
        )

    @property
    def pooled(self) -> bool:
        """Whether a side is one observation, the mean over its rows; else each of its rows is one."""
        return not (self._in_one_pass or self._recipe.position == "all")

    def __iter__(self) -> Iterator[SidePair]:
        """Make the sides, beginning with the first pair.

        Raises:
            RecipeError: A pair has no token at the recipe's position.
        """
        return self._without_known_beginnings() if self._are_cut else self._all()

    def _all(self) -> Iterator[SidePair]:
        for number, pair in enumerate(self._pairs, start=1):
            try:
                both = self._cut_pair(pair) if self._in_one_pass else self._read_pair(pair)
            except SteerError as problem:
                message = f"recipe '{self._recipe.name}': pair {number}: {problem.message}"
                raise RecipeError(message, problem.hint) from problem
            yield from both

    def _cut_pair(self, pair: PlannedPair) -> list[SidePair]:
        positive, negative = (suffixes.with_suffix(self._model, side) for side in (pair.positive, pair.negative))
        rows = suffixes.rows_of_suffix(positive, negative)
        return [SidePair(_side(positive, rows[0]), _side(negative, rows[1]), pair)]

    def _read_pair(self, pair: PlannedPair) -> list[SidePair]:
        if pair.positive.suffix is None:
            passages = [(pair.positive, pair.negative)]
        else:
            cuts = (suffixes.cuts(self._model, side) for side in (pair.positive, pair.negative))
            passages = list(zip(*cuts, strict=True))
        position = self._recipe.position
        result = []
        for both in passages:
            positive, negative = (encode(self._model, passage) for passage in both)
            ours, theirs = rows_to_read(position, positive), rows_to_read(position, negative)
            result.append(SidePair(_side(positive, ours), _side(negative, theirs), pair))
        return result

    def _without_known_beginnings(self) -> Iterator[SidePair]:
        """Leave out of the held-out pairs every text that also begins a training text.

        Two suffixes that begin with the same word have the same cut after it, and a vector must not be judged on what
        it was made from. Where each row of a pair is a cut of its own, the others of the pair stay.
        """
        for pair in self._all():
            if not pair.planned.held_out:
                yield pair
                continue
            beginnings = zip(self._beginnings(pair.positive), self._beginnings(pair.negative), strict=True)
            unknown = [not any(map(self._is_known, both)) for both in beginnings]
            if self._in_one_pass and any(unknown):
                yield replace(pair, positive=_kept(pair.positive, unknown), negative=_kept(pair.negative, unknown))
            elif any(unknown):
                yield pair

    def _beginnings(self, side: Side) -> list[int]:
        """Return a fingerprint of each text that is read from one side: the tokens up to the row, itself included."""
        tokens = array("i", side.tokens)
        rows = side.rows if self._in_one_pass else side.rows[-1:]
        return [fingerprint(tokens[: row + 1].tobytes()) for row in rows]

    @cached_property
    def _known(self) -> Sequence[int]:
        """Fingerprints of all texts that are read in training, ascending."""
        found = array("Q")
        for pair in self._all():
            if not pair.planned.held_out:
                found.extend(self._beginnings(pair.positive))
                found.extend(self._beginnings(pair.negative))
        np.frombuffer(found, dtype=np.uint64).sort()
        return found

    def _is_known(self, beginning: int) -> bool:
        place = bisect_left(self._known, beginning)
        return place < len(self._known) and self._known[place] == beginning


def _side(encoded: Encoded, rows: tuple[int, ...]) -> Side:
    return Side(encoded.text, encoded.tokens, rows)


def _kept(side: Side, flags: Sequence[bool]) -> Side:
    return replace(side, rows=tuple(row for row, flag in zip(side.rows, flags, strict=True) if flag))
