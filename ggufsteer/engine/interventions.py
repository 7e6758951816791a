"""What steers a model at one moment: rows that llama.cpp adds, and edits that our reader carries out.

It knows no llama.cpp, so that a front end may use its words.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggufsteer.engine.edits import Edits

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Steering:
    """All that acts on the layers' outputs during a decode. Equal keys mean equal steering."""

    rows: Float32 | None
    """What is added to the outputs of layers 1 to n_layer - 1, (n_layer - 1, n_embd)."""
    edits: Edits | None
    key: bytes
    """Empty where nothing steers."""

    @classmethod
    def of(cls, rows: Float32 | None, edits: Edits | None = None) -> "Steering":
        """Give the steering of these rows and edits, with its key; rows of zeros and edits without steps are none.

        The rows are copied, and cannot be written to.
        """
        if rows is not None:
            # Adding zero makes -0.0 and 0.0 the same: they steer alike.
            rows = np.array(rows, dtype=np.float32, order="C") + np.float32(0)
            rows.setflags(write=False)
            rows = rows if rows.any() else None
        edits = edits if edits is not None and len(edits.steps) > 0 else None
        return NOTHING if rows is None and edits is None else cls(rows, edits, _key(rows, edits))


NOTHING = Steering(None, None, b"")
"""The model as it is."""


def _key(rows: Float32 | None, edits: Edits | None) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    arrays: list[NDArray[Any]] = [] if rows is None else [rows]
    if edits is not None:
        arrays += [edits.steps, edits.numbers, edits.directions]
        digest.update(edits.n_gates.to_bytes(8, "little"))
    for array in arrays:
        digest.update(repr((array.dtype.str, array.shape)).encode() + np.ascontiguousarray(array).tobytes())
    return digest.digest()
