"""From the states of two sides to one direction a layer: the table of methods, and the sign and size all of them share.

Sign: `+` points to the positive side, because every axis is given the sign of the mean difference along it.

Size ("natural"): a direction is the unit axis that the method finds, times the projection of the mean difference on
it. So 1.0 times the direction is the distance between the two class means along that axis, in the units of the layer;
an axis that the means do not differ along comes out short, and says so by that. For `mean` this is the mean difference
itself, and no method's direction is longer than that.

This module knows layers only as an axis of its arrays; which layers they are is the caller's business.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggufsteer.errors import SteerError
from ggufsteer.maths import axes
from ggufsteer.text import nearest

Rows = NDArray[np.float32]
"""States, (observations, layers, embd)."""
Directions = NDArray[np.float32]
"""One direction a layer, (layers, embd)."""
MethodFunction = Callable[[Rows, Rows, Rows | None, int], Directions]
"""Takes positive, negative and neutral rows and a seed; gives directions with sign and natural size."""
_AxisFunction = Callable[[axes.LayerStates], axes.Axis]


@dataclass(frozen=True)
class Method:
    """One way to find directions, and what it asks of the rows."""

    function: MethodFunction
    needs_pairs: bool
    """Row i of the positive side belongs to row i of the negative side."""
    needs_neutral: bool
    """States of text that has nothing to do with the concept have to be given too."""
    summary: str
    """One line for a person who has to choose."""


def compute(
    method: str,
    positive: Rows,
    negative: Rows,
    *,
    neutral: Rows | None = None,
    seed: int = 0,
) -> Directions:
    """Find the direction from the negative to the positive side in every layer.

    Args:
        method: A key of `METHODS`.
        positive: States of the positive side, (observations, layers, embd).
        negative: States of the negative side, (observations, layers, embd); for methods that need pairs, in the order
            of `positive`.
        neutral: States of unrelated text, (observations, layers, embd), for the methods that use them.
        seed: Start of the iteration that the PCA methods use on more than a thousand pairs; the others ignore it.

    Returns:
        Directions (layers, embd), `+` towards the positive side, of natural size (see the module's text). The same
        input gives the same numbers.

    Raises:
        SteerError: Unknown method, shapes that do not belong together, a value that is not finite, pairs or neutral
            rows that the method needs and does not get, or two sides between which it finds no difference anywhere.

    >>> positive = np.array([[[3.0, 1.0]], [[3.0, -1.0]]], dtype=np.float32)  # 2 observations, 1 layer, embd 2
    >>> negative = np.array([[[1.0, 1.0]], [[1.0, -1.0]]], dtype=np.float32)
    >>> compute("mean", positive, negative)
    array([[2., 0.]], dtype=float32)
    """
    chosen = METHODS.get(method)
    if chosen is None:
        meant = nearest(method, METHODS)
        hint = f"did you mean {meant!r}?" if meant else f"known methods: {', '.join(METHODS)}"
        raise SteerError(f"unknown method {method!r}", hint)
    _check_rows(positive, negative, neutral)
    if chosen.needs_pairs and len(positive) != len(negative):
        raise SteerError(
            f"method {method!r} compares pairs, but there are {len(positive)} positive "
            f"and {len(negative)} negative states",
            "give as many of one side as of the other, or use method 'mean'",
        )
    if chosen.needs_neutral and (neutral is None or len(neutral) < 2):
        raise SteerError(f"method {method!r} needs the states of at least two neutral texts", "or use method 'mean'")
    directions = chosen.function(positive, negative, neutral, seed)
    _check_difference(method, directions)
    return directions


def mean_directions(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> Directions:
    """Find what `compute` finds by the method "mean", from the means of the sides instead of all states.

    Args:
        positive: Mean state of the positive side, (layers, embd).
        negative: Mean state of the negative side, (layers, embd).

    Raises:
        SteerError: A mean is not finite, or the two are equal in every layer.

    >>> mean_directions(np.array([[3.0, 0.0]]), np.array([[1.0, 0.0]]))
    array([[2., 0.]], dtype=float32)
    """
    for name, mean in (("positive", positive), ("negative", negative)):
        check_finite(name, mean)
    differences = positive - negative
    directions = np.array([_natural(difference, difference) for difference in differences], dtype=np.float32)
    _check_difference("mean", directions)
    return directions


def block_deltas(directions: Directions) -> Directions:
    """Turn directions of several layers into what each listed layer adds to the one listed before it.

    What one layer adds stays in the stream, so adding the whole direction at K layers counts the same difference about
    K times. Adding the deltas instead makes the sum up to each listed layer equal to that layer's own direction.

    Args:
        directions: (layers, embd), in the order of the layers; gaps between them do not matter.

    Returns:
        (layers, embd): the first row as it is, then `v_l - v_(l-1)`.

    >>> block_deltas(np.array([[1.0, 0.0], [1.0, 2.0], [4.0, 2.0]], dtype=np.float32))
    array([[1., 0.],
           [0., 2.],
           [3., 0.]], dtype=float32)
    """
    return np.diff(directions, axis=0, prepend=np.zeros_like(directions[:1]))


def _check_rows(positive: Rows, negative: Rows, neutral: Rows | None) -> None:
    """Refuse rows that do not belong together or that no method could use."""
    for name, rows in (("positive", positive), ("negative", negative), ("neutral", neutral)):
        if rows is None:
            continue
        if rows.ndim != 3:
            raise SteerError(f"the {name} states have shape {rows.shape}, not (observations, layers, embd)")
        if rows.shape[1:] != positive.shape[1:]:
            raise SteerError(
                f"the {name} states have {rows.shape[1]} layers of width {rows.shape[2]}, "
                f"the positive ones {positive.shape[1]} of width {positive.shape[2]}"
            )
        if rows.size == 0:
            raise SteerError(f"there are no {name} states: their shape is {rows.shape}")
        check_finite(name, rows)


def check_finite(name: str, states: NDArray[np.floating[Any]]) -> None:
    """Refuse states, or what was computed from them, that hold NaN or infinity."""
    if not np.isfinite(states).all():
        raise SteerError(
            f"the {name} states hold a value that is not a finite number",
            "the model computes NaN or infinity on this text; another quantisation of it may not",
        )


def _check_difference(method: str, directions: Directions) -> None:
    if not directions.any():
        raise SteerError(
            f"method {method!r} finds no difference between the positive and the negative side in any layer",
            "check that the two sides really differ at the chosen token position",
        )


def _in_every_layer(find_axis: _AxisFunction) -> MethodFunction:
    """Make a method of a formula for one layer: walk over the layers, and give each axis its sign and natural size."""

    def find_directions(positive: Rows, negative: Rows, neutral: Rows | None, seed: int) -> Directions:
        directions = np.zeros(positive.shape[1:], dtype=np.float32)
        for layer in range(len(directions)):
            # One layer at a time in double precision: late layers have a few dimensions a thousand times the others.
            states = axes.LayerStates(
                positive=positive[:, layer].astype(np.float64),
                negative=negative[:, layer].astype(np.float64),
                neutral=(positive[:0] if neutral is None else neutral)[:, layer].astype(np.float64),
                seed=seed,
            )
            directions[layer] = _natural(find_axis(states), axes.mean_difference(states))
        return directions

    return find_directions


def _natural(axis: axes.Axis, difference: axes.Axis) -> axes.Axis:
    """Project the mean difference on the axis; whichever way the axis points, the result points the same way."""
    length = np.linalg.norm(axis)
    if length == 0.0:
        return np.zeros_like(axis)
    unit = axis / length
    return np.asarray(unit * (unit @ difference))


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "mean": Method(
            _in_every_layer(axes.mean_difference),
            needs_pairs=False,
            needs_neutral=False,
            summary="difference of the two class means: the default, and the one to beat",
        ),
        "pca": Method(
            _in_every_layer(axes.pca),
            needs_pairs=True,
            needs_neutral=False,
            summary="main axis of the pair differences, not centred: close to the mean on clean pairs",
        ),
        "pca_diff": Method(
            _in_every_layer(axes.pca_diff),
            needs_pairs=True,
            needs_neutral=False,
            summary="repeng's centred PCA of the pair differences: removes their mean; only for comparison",
        ),
        "lda": Method(
            _in_every_layer(axes.lda),
            needs_pairs=False,
            needs_neutral=True,
            summary="mean difference whitened by neutral text: ignores dimensions that are always loud",
        ),
        "logistic": Method(
            _in_every_layer(axes.logistic),
            needs_pairs=False,
            needs_neutral=False,
            summary="normal of a logistic regression: tells the sides apart well, steers less well",
        ),
        "crosscov": Method(
            _in_every_layer(axes.crosscov),
            needs_pairs=True,
            needs_neutral=False,
            summary="cross-covariance axes that tell the sides apart: wants about as many pairs as the model is wide",
        ),
    }
)
"""Every method by the name that recipes and `--method` use."""
