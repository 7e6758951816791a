"""From a recipe and a model to a contrast: which tokens are run, which of their states are read, which are held out.

It plans; it reads no state. The order of everything is fixed by the recipe and its seed. Only tokens are kept, packed:
whoever wants to see the texts makes the sides of those few pairs again.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ggufsteer.errors import RecipeError
from ggufsteer.tasks.fingerprints import fingerprint
from ggufsteer.tasks.own_answers import with_own_answers
from ggufsteer.tasks.passages import Tokenizer
from ggufsteer.tasks.progress import ReportProgress, ignore
from ggufsteer.tasks.shapes import PlannedPairs, plan
from ggufsteer.tasks.sides import Side, SidePair, Sides

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model
    from ggufsteer.engine.sequences import TokenSequences
    from ggufsteer.files.recipe import Recipe

__all__ = ["Contrast", "Side", "assemble", "build_contrast"]

RESERVED = 1_000_000
"""Numbers for which each side reserves memory: a little less than 4 MiB, from which on numpy takes huge pages whole."""


@dataclass(frozen=True, eq=False)
class Contrast:
    """Pairs of token sequences, side by side: `positive[i]` and `negative[i]` differ in the concept only."""

    positive: TokenSequences
    negative: TokenSequences
    held_out: NDArray[np.bool_]
    """For each pair whether it is kept from the computation, to judge its result. # (pairs,)"""
    pooled: bool
    """Whether a side counts as one observation, the mean over its rows; else each row is one."""
    n_same: int = 0
    """Pairs with the same tokens on both sides."""
    warnings: tuple[str, ...] = ()

    @property
    def n_pairs(self) -> int:
        """Number of pairs of sequences."""
        return len(self.positive)

    @property
    def n_held_out(self) -> int:
        """Number of pairs that are held out."""
        return int(np.count_nonzero(self.held_out))

    @property
    def n_tokens(self) -> int:
        """Tokens of all different sequences. Worked out anew each time."""
        lengths = np.concatenate([self.positive.lengths, self.negative.lengths])
        prints = array("Q")
        for side in (self.positive, self.negative):
            prints.extend(fingerprint(side.tokens_of(number).tobytes()) for number in range(len(side)))
        _, first = np.unique(prints, return_index=True)
        return int(lengths[first].sum())


def build_contrast(
    recipe: Recipe, model: Model, *, keep_beside: Path | None = None, report: ReportProgress = ignore
) -> Contrast:
    """Turn a recipe into a contrast for one model; lets the model answer where the recipe asks for its own answers.

    Args:
        recipe: What to contrast, where to read, how much to hold out.
        model: Whose tokens and chat template are used.
        keep_beside: A file of states; answers are kept beside it until it is there, so that an interrupted run goes on.
        report: Told about the answers.

    Raises:
        RecipeError: No pair differs, or one has no token at the recipe's position.
        SteerError: The model has no chat template, or gives no answers.
    """
    pairs, dropped = answered_pairs(recipe, model, keep_beside=keep_beside, report=report)
    return contrast_of(recipe, model, pairs, dropped)


def answered_pairs(
    recipe: Recipe, model: Model, *, keep_beside: Path | None = None, report: ReportProgress = ignore
) -> tuple[PlannedPairs, int]:
    """Give a recipe's pairs with the model's own answers, and how many were left out; see `build_contrast`."""
    max_tokens = getattr(recipe.contrast, "max_tokens", 0)
    return with_own_answers(plan(recipe), model, max_tokens=max_tokens, keep_beside=keep_beside, report=report)


def contrast_of(recipe: Recipe, model: Tokenizer, pairs: PlannedPairs, dropped: int) -> Contrast:
    """Turn answered pairs into a contrast that is read at the recipe's position; see `build_contrast`.

    Args:
        recipe: Where to read.
        model: Whose tokens are used.
        pairs: What to read.
        dropped: How many pairs were left out because an answer was empty.
    """
    contrast = assemble(recipe, model, pairs)
    if contrast.n_same == contrast.n_pairs:
        raise RecipeError(
            f"recipe '{recipe.name}': both sides are the same in every pair ({contrast.n_pairs}), so they have no "
            "difference",
            "let the sides differ in the concept; for answers of the model choose personas that change what it says",
        )
    found = []
    if dropped:
        found.append(f"{dropped} of {dropped + len(pairs)} pairs were left out because an answer was empty")
    if recipe.holdout > 0 and not contrast.held_out.any():
        found.append("too few different prompts to hold any out: how well the vector separates was not measured")
    return replace(contrast, warnings=(*found, *contrast.warnings))


def assemble(recipe: Recipe, model: Tokenizer, pairs: PlannedPairs) -> Contrast:
    """Turn planned pairs, answers included, into a contrast.

    Args:
        recipe: Where to read.
        model: Whose tokens are used.
        pairs: What to read.

    Raises:
        RecipeError: A pair has no token at the recipe's position.
    """
    sides = Sides(recipe, model, pairs)
    return packed(sides, pooled=sides.pooled)


def packed(pairs: Iterable[SidePair], *, pooled: bool) -> Contrast:
    """Pack the tokens and rows of pairs of sides, each of which is forgotten as soon as it was taken."""
    positive, negative, held_out = _Packer(), _Packer(), bytearray()
    n_same = 0
    for pair in pairs:
        positive.take(pair.positive)
        negative.take(pair.negative)
        held_out.append(pair.planned.held_out)
        n_same += pair.positive.tokens == pair.negative.tokens
    same = f"{n_same} of {len(held_out)} pairs are the same on both sides: they only make the vector shorter"
    return Contrast(
        positive=positive.sequences(),
        negative=negative.sequences(),
        held_out=np.frombuffer(held_out, dtype=np.bool_),
        pooled=pooled,
        n_same=n_same,
        warnings=(same,) if n_same else (),
    )


class _Packer:
    """One side of all pairs. Both sides come out of one stream, so neither can be packed before the other."""

    def __init__(self) -> None:
        self._tokens, self._rows = _Run(), _Run()
        self._token_bounds, self._row_bounds = array("q", [0]), array("q", [0])

    def take(self, side: Side) -> None:
        """Add a sequence."""
        self._token_bounds.append(self._tokens.extend(side.tokens))
        self._row_bounds.append(self._rows.extend(side.rows))

    def sequences(self) -> TokenSequences:
        """Give all of them."""
        from ggufsteer.engine.sequences import TokenSequences

        return TokenSequences(
            self._tokens.numbers(),
            np.frombuffer(self._token_bounds, dtype=np.int64),
            self._rows.numbers(),
            np.frombuffer(self._row_bounds, dtype=np.int64),
        )


class _Run:
    """Numbers that come little by little, in memory that is reserved long before it is used.

    The system gives memory for what is written, not for what is reserved. An array that grows a little at a time is
    moved again and again, and several of them leave holes as large as themselves.
    """

    def __init__(self) -> None:
        self._reserved = np.empty(RESERVED, dtype=np.int32)
        self._length = 0

    def extend(self, numbers: Sequence[int]) -> int:
        """Add some; returns how many there are now."""
        end = self._length + len(numbers)
        while end > len(self._reserved):
            larger = np.empty(2 * len(self._reserved), dtype=np.int32)
            larger[: self._length] = self.numbers()
            self._reserved = larger
        self._reserved[self._length : end] = numbers
        self._length = end
        return end

    def numbers(self) -> NDArray[np.int32]:
        """Give all of them."""
        return self._reserved[: self._length]
