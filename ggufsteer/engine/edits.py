"""What is changed in a layer's output while llama.cpp evaluates its graph: a flat list of row operations.

Control vectors that are only added go to llama.cpp itself; here is what it cannot do. The native library and its Python
twin both carry these out, on every row of a layer's output, as `maths.operations` defines them. It knows no vectors by
name and no phases of a conversation: `interventions` makes the lists.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

LARGEST_LAYER = 99_999
"""As far as a reader looks at the number in a layer's name."""


class EditKind(IntEnum):
    """One operation on each row h of a layer's output; d is a direction of unit length, except for ADD."""

    ABLATE = 0
    """h - number * (h.d) d"""
    CLAMP = 1
    """h + (number - h.d) d: the projection becomes the number."""
    CHECK = 2
    """The row's gate opens where h.d > number, and closes elsewhere; h stays."""
    ADD = 3
    """h + number * d, where the row's gate is open; d of any length."""


@dataclass(frozen=True, eq=False)
class Edits:
    """Operations in the order of their layers, and within a layer in the order in which they are done."""

    steps: NDArray[np.int32]
    """(n, 4): kind, 0-based layer, direction, gate. The gate is -1 where the kind has none."""
    numbers: NDArray[np.float64]
    """(n,): strength, value or threshold."""
    directions: Float32
    """(k, n_embd)"""
    n_gates: int = 0

    def is_sound(self) -> bool:
        """Tell whether every index is within its bounds, layers ascend, and each gate is checked before it is used.

        The same test as in the native library.
        """
        if self.steps.ndim != 2 or self.steps.shape != (len(self.numbers), 4) or len(self.steps) == 0:
            return False
        if self.directions.ndim != 2 or self.directions.size == 0 or self.n_gates < 0:
            return False
        kinds, layers, directions, gates = self.steps.T
        gated = kinds >= EditKind.CHECK
        bounded = (
            bool(((kinds >= 0) & (kinds <= EditKind.ADD)).all())
            and bool(((layers >= 0) & (layers <= LARGEST_LAYER)).all())
            and bool((np.diff(layers) >= 0).all())
            and bool(((directions >= 0) & (directions < len(self.directions))).all())
            and bool(((gates >= 0) & (gates < self.n_gates))[gated].all())
            and bool(np.isfinite(self.numbers).all())
            and bool(np.isfinite(self.directions).all())
        )
        checked: set[int] = set()
        for kind, gate in zip(kinds.tolist(), gates.tolist(), strict=True):
            if kind == EditKind.CHECK:
                checked.add(gate)
            elif kind == EditKind.ADD and gate not in checked:
                return False
        return bounded

    @property
    def layers(self) -> list[int]:
        """The layers that something is done to, ascending."""
        return [int(layer) for layer in np.unique(self.steps[:, 1])]
