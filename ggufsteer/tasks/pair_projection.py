"""Where the states of a recipe's pairs lie in two dimensions: along a vector's direction, and across it.

It decides the layer, the pairs that are shown and the second axis. Along the direction 0 is the mean of the negative
side and 1 that of the positive one, as meters show it. It knows no drawing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ggufsteer.engine.capture import Wanted, observe
from ggufsteer.engine.sequences import TokenSequences
from ggufsteer.maths.axes import principal_axis
from ggufsteer.maths.statistics import separation, spread_evenly
from ggufsteer.tasks.observations import SETS, Observations, divided
from ggufsteer.tasks.progress import ReportProgress, ignore
from ggufsteer.tasks.states import reporting

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model
    from ggufsteer.files.control_vector import ControlVector

Rows = NDArray[np.float32]
Float64 = NDArray[np.float64]

MOST_SHOWN = 75
"""States of each side, of the training and of the held-out pairs alike: more of them only hide each other."""
_DIGITS = 6


@dataclass(frozen=True)
class Point:
    """One state."""

    x: float
    """Along the direction: 0 the negative side's mean, 1 the positive one's."""
    y: float
    """Across it, along the first principal axis of what is left, in the same unit as x."""
    side: Literal["positive", "negative"]
    held_out: bool


@dataclass(frozen=True)
class PairProjection:
    """The states of the pairs at one layer."""

    layer: int
    points: tuple[Point, ...]


def pair_projection(
    vector: ControlVector, model: Model, observations: Observations, *, report: ReportProgress = ignore
) -> PairProjection:
    """Read the states of a recipe's pairs and see where they lie.

    Args:
        vector: Gives the direction; it must fit the model.
        model: The model; it must not be steered at the moment.
        observations: The recipe's pairs; some of them, evenly spread, are shown.
        report: Told after every decode.

    Raises:
        EngineError: The model failed.
    """
    return projected(vector, _states(model, thinned(observations), list(vector.layers), report))


def projected(vector: ControlVector, sets: Mapping[str, Rows]) -> PairProjection:
    """See where states lie, at the layer along whose own direction the two sides lie furthest apart.

    Vectors hold what each layer adds to the ones before, so that the layer whose *whole* direction is best can well
    have a direction that tells nothing, or points the other way.

    Args:
        vector: Gives the directions.
        sets: The states of `SETS`, each (observations, layers of the vector, n_embd); there may be no held-out ones.
    """
    place = _telling_place(vector, sets)
    layer = vector.layers[place]
    states = {name: sets[name][:, place].astype(np.float64) for name in SETS}
    unit = vector.unit(layer).astype(np.float64)
    unit /= np.linalg.norm(unit) or 1.0  # a float32 unit is none to the last digits
    zero, one = _scale(vector, layer, states, unit)
    everything = np.concatenate([states[name] for name in SETS])
    x = (everything @ unit - zero) / (one - zero)
    y = _across(everything, unit) / (one - zero)
    kinds = [(name.removeprefix("held_out_"), name.startswith("held_out_")) for name in SETS for _ in states[name]]
    points = tuple(
        Point(_rounded(at), _rounded(across), "positive" if side == "positive" else "negative", held_out)
        for at, across, (side, held_out) in zip(x.tolist(), y.tolist(), kinds, strict=True)
    )
    return PairProjection(layer, points)


def thinned(observations: Observations, most: int = MOST_SHOWN) -> Observations:
    """Keep at most so many sequences of each set, evenly spread over it."""
    chosen = np.zeros(len(observations.sequences), dtype=np.bool_)
    start, kept = 0, {}
    for name, count in observations.n_sequences.items():
        some = spread_evenly(range(start, start + count), most)
        chosen[some] = True
        kept[name] = len(some)
        start += count
    return Observations(TokenSequences.selected([(observations.sequences, chosen)]), kept, observations.pooled)


def _states(model: Model, observations: Observations, layers: list[int], report: ReportProgress) -> dict[str, Rows]:
    """Read states, (observations, layers, n_embd) for each set; of many observations in a set only some."""
    numbers, counts, start = [], {}, 0
    for name, count in observations.counts.items():
        some = spread_evenly(range(start, start + count), MOST_SHOWN)
        numbers += some
        counts[name] = len(some)
        start += count
    stored = np.zeros(start, dtype=np.bool_)
    stored[numbers] = True
    places = np.cumsum(stored) - 1
    states = np.empty((len(numbers), len(layers), model.n_embd), dtype=np.float32)

    def take(seen: NDArray[np.int64], rows: Rows) -> None:
        states[places[seen]] = rows

    observe(
        model,
        observations.sequences,
        layers,
        Wanted(stored=stored),
        pool=observations.pooled,
        on_states=take,
        progress=reporting(report, len(observations.sequences)),
    )
    return divided(states, counts)


def _telling_place(vector: ControlVector, sets: Mapping[str, Rows]) -> int:
    """Give the place of the layer along whose direction positive states lie furthest beyond negative ones."""
    rows = np.stack([vector.directions[layer] for layer in vector.layers])
    sides = [np.concatenate([sets[name], sets[f"held_out_{name}"]]) for name in ("positive", "negative")]
    seen = separation(rows, *sides)
    return max(range(len(rows)), key=lambda place: (seen.auc[place], seen.d_prime[place]))


def _scale(vector: ControlVector, layer: int, states: Mapping[str, Float64], unit: Float64) -> tuple[float, float]:
    """Give what counts as 0 and as 1: by the vector, or where it does not say, the means of the training pairs."""
    if layer not in vector.provenance.class_means:
        negative, positive = (float((states[name] @ unit).mean()) for name in ("negative", "positive"))
        provenance = dataclasses.replace(vector.provenance, class_means={layer: (negative, positive)})
        vector = dataclasses.replace(vector, provenance=provenance)
    return vector.scale(layer)


def _across(states: Float64, unit: Float64) -> Float64:
    """Give places along the axis, at right angles to the direction, on which states differ most. # (observations,)"""
    centred = states - states.mean(axis=0)
    left = centred - np.outer(centred @ unit, unit)
    axis = principal_axis(left)
    axis -= (axis @ unit) * unit
    # The sign of a principal axis is an accident; the same states should always look the same.
    return np.asarray(left @ axis * (np.sign(axis[np.abs(axis).argmax()]) or 1.0))


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
