"""A contrast as the observations that are read of it: four sets, one after the other, in the engine's own numbering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ggufsteer.engine.sequences import TokenSequences

if TYPE_CHECKING:
    from ggufsteer.tasks.contrast import Contrast

SETS = ("positive", "negative", "held_out_positive", "held_out_negative")
"""The order of the sets: those that a vector is made from come first."""

NEUTRAL = "neutral"
"""A fifth set, for the methods that use it: text that has nothing to do with the concept."""

Rows = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Observations:
    """What is read of a contrast. An observation is a whole sequence where it is pooled, else each of its rows."""

    sequences: TokenSequences
    """Of all sets, in the order of `SETS`; within a set in the order of the pairs."""
    n_sequences: Mapping[str, int]
    """Sequences in each set."""
    pooled: bool

    @classmethod
    def of(cls, contrast: Contrast) -> Observations:
        """Sort the sequences of a contrast into their sets."""
        held_out = contrast.held_out
        sides = (contrast.positive, contrast.negative)
        parts = [(side, mask) for mask in (~held_out, held_out) for side in sides]
        counts = {name: int(np.count_nonzero(mask)) for name, (_, mask) in zip(SETS, parts, strict=True)}
        return cls(TokenSequences.selected(parts), counts, contrast.pooled)

    @property
    def counts(self) -> dict[str, int]:
        """Observations in each set."""
        if self.pooled:
            return dict(self.n_sequences)
        bounds = np.cumsum([0, *self.n_sequences.values()])
        rows = self.sequences.row_bounds[bounds].tolist()
        return {name: end - start for name, (start, end) in zip(SETS, pairwise(rows), strict=True)}


def divided(states: Rows, counts: Mapping[str, int]) -> dict[str, Rows]:
    """Cut states that lie one set behind the other into the sets."""
    ends: Sequence[int] = np.cumsum(list(counts.values())).tolist()
    return dict(zip(counts, np.split(states, ends[:-1]), strict=True))
