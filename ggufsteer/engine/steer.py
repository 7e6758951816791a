"""Control vectors on a running model: combined, checked, applied, proven to act, and undone.

A vector acts on a layer's output: the row of layer N is added to ``l_out-N``, for N from 1 on. llama.cpp takes one
buffer a context, so several vectors are summed up here.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from ggufsteer.engine.capture import TokenSequence, capture
from ggufsteer.engine.model import Model
from ggufsteer.errors import EngineError, MisfitError, SteerError
from ggufsteer.files.control_vector import ControlVector

Float32 = NDArray[np.float32]
Dosed = tuple[ControlVector, float]
"""A vector and the strength that it is applied at."""

_PROBE_TOLERANCE = 1e-3
"""How far, as a share of it, a layer may move otherwise than set: a GPU may round two equal runs differently."""


def combine(vectors: Sequence[Dosed], n_layer: int, n_embd: int) -> Float32:
    """Sum vectors up, each times its strength.

    Args:
        vectors: Vectors and strengths; none gives zeros.
        n_layer: The model's layers.
        n_embd: The width of its states.

    Returns:
        float32 (n_layer - 1, n_embd): row k belongs to layer k + 1, since layer 0 is never steered.

    Raises:
        SteerError: A strength, or the sum, is not a finite number.
        MisfitError: A vector is of another width, or has a layer past the model's end.
    """
    total = np.zeros((n_layer - 1, n_embd), dtype=np.float64)
    for vector, strength in vectors:
        if not math.isfinite(strength):
            raise SteerError(f"strength {strength} is not a finite number", "give a number such as 1.0")
        if vector.n_embd != n_embd:
            raise MisfitError(
                f"a vector is {vector.n_embd} wide and the model {n_embd}", "use the model that it was made for"
            )
        total += vector.as_rows(n_layer).astype(np.float64) * strength
    with np.errstate(over="ignore"):
        rows = total.astype(np.float32)
    if not np.isfinite(rows).all():
        raise SteerError("the strengths are too large: the sum of the vectors is not finite", "give smaller strengths")
    return rows


@contextmanager
def steered(model: Model, vectors: Sequence[Dosed], *, force: bool = False) -> Iterator[list[str]]:
    """Steer a model within a ``with`` block; afterwards it is steered as before.

    The memory of the model's context is cleared when the steering changes.

    Args:
        model: An open model.
        vectors: Vectors and strengths; they replace what steers the model outside of the block.
        force: Whether a vector that was made from another model file of the same shape is let through.

    Yields:
        Warnings for people.

    Raises:
        MisfitError: A vector does not fit the model.
        EngineError: The model does not react to control vectors.
    """
    warnings = [warning for vector, _ in vectors for warning in vector.check_fits(model.identity, force=force)]
    rows = combine(vectors, model.n_layer, model.n_embd)
    context = model.context
    before = context.steering
    try:
        _prove(model, rows)
        context.set_steering(rows)
        yield warnings
    finally:
        context.set_steering(before)


def _prove(model: Model, rows: Float32) -> None:
    """Check once for each lowest steered layer that a control vector really moves it, with one token.

    Only the lowest layer can be checked so: the layers above also move because of what the lower ones pass on.

    Raises:
        EngineError: The layer moved otherwise than it should.
    """
    steered_rows = np.flatnonzero(rows.any(axis=1))
    if len(steered_rows) == 0:
        return
    layer = int(steered_rows[0]) + 1
    if layer in model.proven_layers:
        return
    token = max(model.vocabulary.start_token, 0)
    probe = [TokenSequence((token,), (0,))]
    model.context.set_steering(None)
    plain = capture(model, probe, [layer])[0, 0].astype(np.float64)
    # As large as the state itself: a small vector could not be told from rounding, least of all at the first token.
    expected = rows[layer - 1] / np.abs(rows[layer - 1]).max() * (np.abs(plain).max() or 1.0)
    trial = np.zeros_like(rows)
    trial[layer - 1] = expected
    model.context.set_steering(trial)
    moved = capture(model, probe, [layer])[0, 0].astype(np.float64) - plain
    if np.abs(moved - expected).max() > _PROBE_TOLERANCE * np.abs(expected).max():
        raise EngineError(
            f"{model.path}: the architecture {model.architecture!r} ignores control vectors: the output of layer "
            f"{layer} moved by {np.linalg.norm(moved):.3g} instead of {np.linalg.norm(expected):.3g}",
            "use a model of another architecture, or report this one: llama.cpp leaves control vectors out for a few",
        )
    model.proven_layers.add(layer)
