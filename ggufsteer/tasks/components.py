"""What a vector may be made of: the parts that a calibration weighs against each other.

At a few layers over the depth there is the direction of the recipe's own method, that of the layer before (so that a
layer can also add only what is new), those of other methods, and the axes along which states spread within a side:
these carry nothing of the concept, and serve to take back what the others break. It weighs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ggufsteer.errors import SteerError
from ggufsteer.maths.directions import compute
from ggufsteer.maths.statistics import spread_evenly
from ggufsteer.tasks.observations import NEUTRAL

Float32 = NDArray[np.float32]
Rows = Mapping[int, Float32]
"""What is added, by layer."""

DIRECTION = "direction"
OTHER_METHOD = "other method"
SPREAD = "spread"

N_LAYERS = 8
"""Layers at which something may be added; what one adds stays in the stream, so that few serve any depth."""
N_SPREAD = 3
OTHER_METHODS = ("mean", "lda", "logistic")
_MOST_STATES = 1024
"""As many states of a side say where they spread."""


@dataclass(frozen=True, eq=False)
class Component:
    """One part."""

    kind: str
    """DIRECTION, OTHER_METHOD or SPREAD."""
    rows: Rows


def components_of_states(
    method: str, seed: int, directions: Rows, sets: Mapping[str, Float32], layers: Sequence[int]
) -> list[Component]:
    """Give the parts that a contrast has.

    Args:
        method: The recipe's own.
        seed: For methods that need one.
        directions: The recipe's own directions, by layer.
        sets: States (observations, layers, n_embd) of the sets; see `ggufsteer.tasks.observations`.
        layers: Which layers those states are of.
    """
    chosen = spread_evenly(sorted(directions), N_LAYERS)
    found = components_of_vector({layer: directions[layer] for layer in chosen})
    found += [Component(DIRECTION, {layer: directions[before]}) for before, layer in pairwise(chosen)]
    places = [list(layers).index(layer) for layer in chosen]
    sides = [sets[name][:, places] for name in ("positive", "negative")]
    neutral = sets[NEUTRAL][:, places] if len(sets.get(NEUTRAL, ())) else None
    for other in OTHER_METHODS:
        if other == method:
            continue
        try:
            rows = compute(other, *sides, neutral=neutral, seed=seed)
        except SteerError:
            continue  # it needs more than there is
        found += [Component(OTHER_METHOD, {layer: row}) for layer, row in zip(chosen, rows, strict=True) if row.any()]
    for place, layer in enumerate(chosen):
        found += [Component(SPREAD, {layer: axis}) for axis in _axes_of_spread([side[:, place] for side in sides])]
    return found


def components_of_vector(rows: Rows) -> list[Component]:
    """Give the layers of a finished vector, in at most `N_LAYERS` parts."""
    parts = np.array_split(np.array(sorted(rows)), min(N_LAYERS, len(rows)))
    return [Component(DIRECTION, {layer: rows[layer] for layer in part.tolist()}) for part in parts]


def _axes_of_spread(sides: Sequence[Float32]) -> Iterator[Float32]:
    """Give the main axes along which the states of one layer spread within a side, of unit length. # (n_embd,) each"""
    some = [side[np.linspace(0, len(side) - 1, min(len(side), _MOST_STATES)).astype(int)] for side in sides]
    within = np.concatenate([rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64) for rows in some])
    _, sizes, axes = np.linalg.svd(within, full_matrices=False)
    for size, axis in zip(sizes[:N_SPREAD], axes, strict=False):
        if size > 0:
            yield axis.astype(np.float32)
