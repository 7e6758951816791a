"""Which layers carry a concept, and with what weight: chosen by effect at equal damage.

Some candidates are bands of layers as they are. The others are mixtures of components, whose weights follow from what
each component does at a small dose, to some items and to neutral text. Each candidate is brought to the strength at
which the damage on other neutral text is the budget, and what it does to all items there is its score; it counts as far
as answers stay fluent. Mixtures are far ahead where small doses say what larger ones do, and bands are there for where
they do not.

The numbers of candidates and of steps do not grow with the model's depth.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ggufsteer.maths.directions import block_deltas
from ggufsteer.maths.dose import Trial, trials_to_budget
from ggufsteer.maths.weights import best_weights, information
from ggufsteer.tasks.components import DIRECTION, OTHER_METHOD, SPREAD, Component

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model

Float32 = NDArray[np.float32]
Rows = Mapping[int, Float32]
"""What is added, by layer."""

N_WINDOWS = 8
"""Into so many parts the depth is divided: each layer of a shallow model, three or four of a usual one."""
_CLOSE = 0.15
"""A trial whose damage differs by less than this part from the budget is near enough to be corrected by the law that
effect grows with the square root of the divergence."""
_TRIALS = 5
_FIRST_SIZE = 0.5
"""The first trial adds this part of the states' length."""
SMALL_DOSE = 0.25
"""Components are measured at this part of the states' length. At a fifth of it the noise of quantised models hides what
they do: on the demo model (Q8_0) mixtures then reach two thirds of the effect that they have so."""


@dataclass(frozen=True)
class Mix:
    """A way to weigh components."""

    name: str
    kinds: tuple[str, ...]
    ridge: float
    none_below_zero: bool = False


MIXES = (
    Mix("mixture of directions", (DIRECTION,), 0.01),
    Mix("mixture of methods", (DIRECTION, OTHER_METHOD), 0.01),
    Mix("mixture of all", (DIRECTION, OTHER_METHOD, SPREAD), 0.03),
    Mix("sum of methods", (DIRECTION, OTHER_METHOD), 0.3, none_below_zero=True),
)
"""None of them wins everywhere: which does is seen when each is tried."""
BEST = "mixture of the best"
_MIXED = 4
_RIDGE = 0.1


@dataclass(frozen=True, eq=False)
class Moves:
    """What a component does at a small dose: half the difference between + and -."""

    effect: float
    """Log-odds of items, in nats a token."""
    shift: Float32
    """Log-probabilities of likely tokens of neutral text. # (tokens, kept)"""


@dataclass(frozen=True)
class Judges:
    """What candidates are judged by."""

    effect: Callable[[Rows], float]
    """Mean over the items of the log-odds at + minus those at -, in nats a token."""
    damage: Callable[[Rows], float]
    """95th percentile of the divergence on neutral text, in nats; of + and - the larger one."""
    fluent: Callable[[Rows], float]
    """Share of answers that are fluent."""
    moves: Callable[[Rows], Moves]
    """What a small dose does, to some of the items and to other neutral text."""
    likely: Float32
    """Log-probabilities, in the unsteered model, of the tokens whose shifts `moves` tells. # (tokens, kept)"""


@dataclass(frozen=True)
class Step:
    """A candidate that was tried."""

    layers: tuple[int, ...]
    strength: float
    """Times the candidate as it came; for a mixture that is of any size."""
    effect: float
    """At equal damage."""
    damage: float
    what: str
    chosen: bool = False


@dataclass(frozen=True, eq=False)
class Found:
    """The best candidate, of a size that does about the damage of the budget."""

    rows: Rows
    steps: tuple[Step, ...]


Entry = tuple[float, Rows, Step]
"""Effect at the budget, what is added there, and the note of it."""


Candidate = tuple[str, Rows]
"""What it is, and what it adds."""


def search_layers(
    candidates: Sequence[Candidate],
    components: Sequence[Component],
    state_norms: Mapping[int, float],
    budget: float,
    judges: Judges,
    tell: Callable[[int, int], None],
) -> Found:
    """Choose layers and their weights.

    Args:
        candidates: What is tried as it is, at least one; of any size.
        components: What mixtures are made of; of any size. Where there are none, nothing is mixed.
        state_norms: Median length of the states, by layer.
        budget: The damage at which candidates are compared.
        judges: What they are judged by.
        tell: Told how much is done, of how much.

    Returns:
        The rows at the budget, and what was tried.
    """
    total = len(components) + len(candidates) + (len(MIXES) if components else 0) + _MIXED + 2
    sized = [_small_dose(component, state_norms) for component in components]
    moves = []
    for number, component in enumerate(sized):
        moves.append(judges.moves(component.rows))
        tell(number + 1, total)
    every = [*candidates, *_mixtures(sized, moves, judges.likely)]
    tried: list[Entry] = []
    size = _FIRST_SIZE
    for number, (what, rows) in enumerate(every):
        relative = relative_size(rows, state_norms)
        trial = _at_budget(rows, size / relative, budget, judges)
        size = min(max(trial.strength * relative, 0.05), 4.0)
        tried.append(_scored(what, rows, trial, budget, judges))
        tell(len(components) + number + 1, total)
    best = sorted((entry for entry in tried if entry[0] > 0), key=lambda entry: -entry[0])[:_MIXED]
    if components and len(best) > 1:
        rows = _mixture_of_the_best([entry[1] for entry in best], judges)
        tried.append(_scored(BEST, rows, _at_budget(rows, 1.0, budget, judges), budget, judges))
        tell(total - 1, total)
    ranked = sorted(tried, key=lambda entry: -entry[0])
    chosen = _best_heard(ranked, judges)
    tell(total, total)
    steps = tuple(dataclasses.replace(entry[2], chosen=entry is chosen) for entry in ranked)
    return Found(chosen[1], steps)


def _mixture_of_the_best(parts: Sequence[Rows], judges: Judges) -> Rows:
    """Give a sum of candidates, weighed by what they do at the size that does the damage of the budget.

    None is turned round: there they would not do the opposite of what they do here.
    """
    moves = [judges.moves(rows) for rows in parts]
    fisher = information(judges.likely, [move.shift for move in moves])
    effects = np.array([move.effect for move in moves])
    weights = best_weights(effects, fisher, ridge=_RIDGE, none_below_zero=True)
    return _weighted(parts, (weights / (np.linalg.norm(weights) or 1.0)).tolist())


def _small_dose(component: Component, state_norms: Mapping[int, float]) -> Component:
    relative = relative_size(component.rows, state_norms)
    return dataclasses.replace(component, rows=scaled(component.rows, SMALL_DOSE / relative))


def _mixtures(components: Sequence[Component], moves: Sequence[Moves], likely: Float32) -> Iterator[Candidate]:
    """Give the components with the weights of each mix, as far as one has an effect, and no two alike."""
    if not components:
        return
    effects = np.array([move.effect for move in moves])
    fisher = information(likely, [move.shift for move in moves])
    seen: set[tuple[str, ...]] = set()
    for mix in MIXES:
        places = [place for place, component in enumerate(components) if component.kind in mix.kinds]
        kinds = tuple(sorted({components[place].kind for place in places}))
        if not places or (not mix.none_below_zero and kinds in seen):
            continue  # a finished vector has no other methods
        seen.add(kinds)
        weights = best_weights(
            effects[places], fisher[np.ix_(places, places)], ridge=mix.ridge, none_below_zero=mix.none_below_zero
        )
        if weights @ effects[places] > 0:
            yield mix.name, _weighted([components[place].rows for place in places], weights.tolist())


def as_matrix(model: Model, rows: Rows) -> Float32:
    """Give rows as the engine takes them. # (n_layer - 1, n_embd)"""
    matrix = np.zeros((model.n_layer - 1, model.n_embd), dtype=np.float32)
    for layer, row in rows.items():
        matrix[layer - 1] = row
    return matrix


def scaled(rows: Rows, strength: float) -> Rows:
    """Give rows times a strength, in single precision."""
    return {layer: np.float32(strength) * row for layer, row in rows.items()}


def _weighted(parts: Sequence[Rows], weights: Sequence[float]) -> Rows:
    """Give the sum of parts, each times its weight."""
    layers = sorted({layer for rows in parts for layer in rows})
    return {
        layer: np.sum(
            [np.float32(weight) * rows[layer] for rows, weight in zip(parts, weights, strict=True) if layer in rows],
            axis=0,
            dtype=np.float32,
        )
        for layer in layers
    }


def _best_heard(ranked: Sequence[Entry], judges: Judges) -> Entry:
    """Give the candidate with the largest effect times the share of fluent answers.

    Broken text can have any effect on given texts: what a candidate makes the model say has to be heard too.
    """
    best, best_score = ranked[0], -math.inf
    for entry in ranked:
        if entry[0] <= max(best_score, 0.0):
            break  # even wholly fluent it would be no better, nor would those after it
        score = entry[0] * judges.fluent(entry[1])
        if score > best_score:
            best, best_score = entry, score
    return best


def _scored(what: str, rows: Rows, trial: Trial, budget: float, judges: Judges) -> Entry:
    """Give the effect at the budget, the rows there, and the note of it."""
    sized = scaled(rows, trial.strength)
    effect = corrected_effect(judges.effect(sized), trial.damage, budget)
    return effect, sized, Step(tuple(rows), trial.strength, effect, trial.damage, what)


def _at_budget(rows: Rows, first: float, budget: float, judges: Judges) -> Trial:
    """Bring rows to the budget, roughly; gives the nearest trial."""
    trials = trials_to_budget(
        lambda strength: judges.damage(scaled(rows, strength)), budget, first=first, tolerance=_CLOSE, most=_TRIALS
    )
    return nearest(trials, budget)


def nearest(trials: Sequence[Trial], budget: float) -> Trial:
    """Give the trial whose damage is nearest to the budget, by their ratio."""
    return min(trials, key=lambda trial: abs(math.log(max(trial.damage, 1e-9) / budget)))


def corrected_effect(effect: float, damage: float, budget: float) -> float:
    """Correct an effect for a damage that is not quite the budget: it grows with the root of the divergence."""
    correction = math.sqrt(budget / damage) if damage > 0 else 1.0
    return effect * min(max(correction, 0.5), 2.0)


def candidates_of_directions(directions: Rows) -> list[Candidate]:
    """Give bands over the depth; they hold block deltas, so that nothing counts twice.

    Args:
        directions: The whole direction of each layer that may be used, of natural size (not block deltas).
    """
    return [(what, _deltas(directions, layers)) for what, layers in _bands(_windows(sorted(directions)))]


def candidates_of_vector(rows: Rows) -> list[Candidate]:
    """Give bands of a finished vector, each layer as it is, and the whole."""
    return [(what, {layer: rows[layer] for layer in layers}) for what, layers in _bands(_windows(sorted(rows)))]


def parts_of_depth(layers: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Give windows over the depth, and bands of several; what each is called, and its layers."""
    windows = _windows(layers)
    found = [("window" if len(window) > 1 else "layer", window) for window in windows]
    return found + ([] if len(windows) == 1 else list(_bands(windows)))


def _windows(layers: Sequence[int]) -> list[list[int]]:
    return [part.tolist() for part in np.array_split(np.array(layers), min(N_WINDOWS, len(layers)))]


def _bands(windows: Sequence[list[int]]) -> Iterator[tuple[str, list[int]]]:
    """Give three windows next to each other, and all of them."""
    for n_windows in sorted({width for width in (3, len(windows)) if width <= len(windows)}):
        for first in range(0, len(windows) - n_windows + 1, max(1, n_windows // 2)):
            layers = [layer for window in windows[first : first + n_windows] for layer in window]
            yield "band" if len(layers) > 1 else "layer", layers


def _deltas(directions: Rows, layers: Sequence[int]) -> Rows:
    """Give what each layer of a band adds to the one before it; the first gives all that it has."""
    return dict(zip(layers, block_deltas(np.stack([directions[layer] for layer in layers])), strict=True))


def relative_size(rows: Rows, state_norms: Mapping[int, float]) -> float:
    """Give the length of what the stream has been given by some layer, where it is largest.

    In parts of the states' length at the first layer. A mixture may take back at the end what it gave before, so that
    the sum of all says nothing of what it does between.
    """
    reference = state_norms.get(min(rows)) or 1.0
    given = np.cumsum([rows[layer].astype(np.float64) for layer in sorted(rows)], axis=0)
    return float(np.linalg.norm(given, axis=1).max()) / reference or 1.0
