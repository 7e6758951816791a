"""The ways of steering whose speed is compared with that of the model as it is.

Speed does not depend on what a vector's values are, only on how many layers are steered and in which way. So where
nobody names a vector, made-up ones stand in, which steer every layer that can be: the most that steering can cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ggufsteer.engine.interventions import NOTHING, Condition, Intervention, Steering, compile_steering
from ggufsteer.files.control_vector import ControlVector, Provenance

NONE = "none"
EXTRACT = "extract"
MODES = (NONE, "add", "ablate", "gate", "meter", EXTRACT)
MADE_UP = 3
"""Vectors that are made up where none is named."""
_ALWAYS_OPEN = -1e6


@dataclass(frozen=True)
class Way:
    """One way to run a model."""

    mode: str
    steering: Steering = NOTHING
    metered: tuple[ControlVector, ...] = ()
    """Vectors whose expression is read at each token that is generated."""
    n_vectors: int = 0
    layers: tuple[int, ...] = ()
    """The layers that are changed, or read."""


def made_up_vectors(n_layer: int, n_embd: int) -> list[ControlVector]:
    """Draw vectors of unit length in each layer, the same at each call.

    Args:
        n_layer: The model's layers, at least two.
        n_embd: The width of its states.
    """
    source = np.random.default_rng(0)
    vectors = []
    for number in range(1, MADE_UP + 1):
        rows = source.standard_normal((n_layer - 1, n_embd))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        directions = {layer: rows[layer - 1].astype(np.float32) for layer in range(1, n_layer)}
        vectors.append(ControlVector(directions, Provenance(name=f"made up {number}")))
    return vectors


def way(mode: str, vectors: Sequence[ControlVector], n_layer: int, n_embd: int) -> Way:
    """Say what a mode does with vectors.

    "add" sums all of them up, and "meter" reads all of them; "ablate" and "gate" take the first. The gate is decided
    anew at each token, and is open, so that all it can cost is paid. "extract" reads what a vector is made from.

    Args:
        mode: One of `MODES`.
        vectors: At least one, where the mode steers or meters.
        n_layer: The model's layers.
        n_embd: The width of its states.

    Raises:
        MisfitError: A vector does not fit the model's shape.
    """
    if mode == NONE:
        return Way(NONE)
    if mode == EXTRACT:
        return Way(EXTRACT, layers=tuple(range(1, n_layer)))
    if mode == "meter":
        layers = tuple(sorted({vector.best_layer for vector in vectors}))
        return Way(mode, metered=tuple(vectors), n_vectors=len(vectors), layers=layers)
    first = vectors[0]
    if mode == "ablate":
        interventions = [Intervention(first, operation="ablate")]
    elif mode == "gate":
        condition = Condition(first, threshold=_ALWAYS_OPEN, decided="token")
        interventions = [Intervention(first, operation="gate", condition=condition)]
    else:
        interventions = [Intervention(vector) for vector in vectors]
    steered = tuple(sorted({layer for each in interventions for layer in each.vector.layers}))
    steering = compile_steering(interventions, n_layer, n_embd)
    return Way(mode, steering, n_vectors=len(interventions), layers=steered)
