"""What a vector may be made of: which parts there are, where, and that the axes of spread are nothing but spread."""

from collections.abc import Mapping

import numpy as np
import pytest

from ggufsteer.maths.directions import compute
from ggufsteer.tasks import components as module
from ggufsteer.tasks.components import (
    DIRECTION,
    N_LAYERS,
    N_SPREAD,
    OTHER_METHOD,
    OTHER_METHODS,
    SPREAD,
    Component,
    components_of_states,
    components_of_vector,
)
from tests.maths.planted import plant

LAYERS = (2, 3, 5)
WIDTH = 16
Sets = Mapping[str, np.ndarray]


def planted_sets(n_layers: int = len(LAYERS), *, neutral: bool = True) -> Sets:
    """States of two sides that differ along a known direction, and neutral ones. # (observations, layers, WIDTH)"""
    made = plant(seed=0, pairs=24, layers=n_layers, width=WIDTH)
    sets = {"positive": made.positive, "negative": made.negative}
    return sets | {"neutral": made.neutral if neutral else made.neutral[:0]}


def directions_of(sets: Sets, layers: tuple[int, ...] = LAYERS) -> dict[int, np.ndarray]:
    """The difference of the means."""
    return dict(zip(layers, compute("mean", sets["positive"], sets["negative"]), strict=True))


def of_kind(components: list[Component], kind: str) -> list[tuple[int, np.ndarray]]:
    """Layer and row of each part of a kind; each has one."""
    found = [(layer, row) for part in components if part.kind == kind for layer, row in part.rows.items()]
    assert len(found) == sum(part.kind == kind for part in components)
    return found


def same(one: tuple[int, np.ndarray], other: tuple[int, np.ndarray]) -> bool:
    """The same row at the same layer."""
    return one[0] == other[0] and np.array_equal(one[1], other[1])


def test_each_layer_has_its_direction_and_that_of_the_layer_before() -> None:
    """The first has none before it. With both, a layer can add only what is new there."""
    sets = planted_sets()
    directions = directions_of(sets)
    found = of_kind(components_of_states("mean", 0, directions, sets, LAYERS), DIRECTION)
    expected = [*directions.items(), (3, directions[2]), (5, directions[3])]
    assert len(found) == len(expected)
    assert all(map(same, found, expected))


@pytest.mark.parametrize("method", ["mean", "lda", "logistic", "pca"])
def test_each_layer_has_the_directions_of_other_methods(method: str) -> None:
    """Those that the methods themselves give there; the recipe's own does not come twice."""
    sets = planted_sets()
    found = of_kind(components_of_states(method, 0, directions_of(sets), sets, LAYERS), OTHER_METHOD)
    others = [name for name in OTHER_METHODS if name != method]
    expected = [
        (layer, row)
        for name in others
        for layer, row in zip(
            LAYERS, compute(name, sets["positive"], sets["negative"], neutral=sets["neutral"]), strict=True
        )
    ]
    assert len(found) == len(others) * len(LAYERS)
    assert all(map(same, found, expected))


@pytest.mark.parametrize("missing", ["empty", "not read"])
def test_a_method_that_needs_more_than_there_is_is_left_out(missing: str) -> None:
    """Here the one that whitens by neutral text; all other parts are as they were."""
    sets = planted_sets(neutral=False)
    whole = planted_sets()
    if missing == "not read":
        sets = {name: rows for name, rows in sets.items() if name != "neutral"}
    found = components_of_states("mean", 0, directions_of(sets), sets, LAYERS)
    every = components_of_states("mean", 0, directions_of(whole), whole, LAYERS)
    assert len(of_kind(found, OTHER_METHOD)) == len(LAYERS) == len(of_kind(every, OTHER_METHOD)) / 2
    for kind in (DIRECTION, SPREAD):
        assert all(map(same, of_kind(found, kind), of_kind(every, kind)))


def test_a_layer_where_a_method_finds_nothing_is_left_out() -> None:
    """Both sides are the same there."""
    sets = {name: rows.copy() for name, rows in planted_sets(neutral=False).items()}
    sets["negative"][:, 1] = sets["positive"][:, 1]
    found = components_of_states("lda", 0, directions_of(sets), sets, LAYERS)
    assert [layer for layer, _ in of_kind(found, OTHER_METHOD)] == [2, 5, 2, 5]


def test_axes_of_spread_are_of_unit_length_and_square_to_each_other() -> None:
    """So many at each layer."""
    sets = planted_sets()
    found = of_kind(components_of_states("mean", 0, directions_of(sets), sets, LAYERS), SPREAD)
    assert [layer for layer, _ in found] == [layer for layer in LAYERS for _ in range(N_SPREAD)]
    for layer in LAYERS:
        axes = np.stack([row for at, row in found if at == layer]).astype(np.float64)
        assert axes @ axes.T == pytest.approx(np.eye(N_SPREAD), abs=1e-5)


def spread_sets(n_states: int, gap: float, sizes: tuple[float, ...]) -> Sets:
    """Sides that lie `gap` apart along the last axis, and spread along the first ones by these sizes."""
    generator = np.random.default_rng(0)
    sets = {}
    for name, sign in (("positive", 1.0), ("negative", -1.0)):
        rows = np.zeros((n_states, 1, WIDTH), dtype=np.float32)
        rows[:, 0, : len(sizes)] = generator.standard_normal((n_states, len(sizes))) * sizes + 5.0
        rows[:, 0, -1] = sign * gap / 2
        sets[name] = rows
    return sets


def axes_of(sets: Sets) -> np.ndarray:
    """The axes of spread of one layer. # (axes, WIDTH)"""
    components = components_of_states("mean", 0, {1: sets["positive"][0, 0]}, sets, (1,))
    return np.stack([row for _, row in of_kind(components, SPREAD)])


def test_the_difference_of_the_sides_is_no_spread() -> None:
    """Nor is what all states share: however far apart the sides lie, the axes are those along which a side spreads."""
    axes = axes_of(spread_sets(200, gap=1000.0, sizes=(9.0, 6.0, 3.0, 1.0)))
    assert np.abs(axes[:, -1]).max() < 1e-6
    assert np.abs(np.diag(axes)) == pytest.approx(1.0, abs=0.05)


def test_there_are_no_more_axes_than_states_spread_along() -> None:
    """Two states a side that lie at one place each give none."""
    assert len(axes_of(spread_sets(50, gap=1.0, sizes=(2.0, 1.0)))) >= 2
    still = {name: np.full((2, 1, WIDTH), size, np.float32) for name, size in (("positive", 1.0), ("negative", 2.0))}
    assert not [
        part
        for part in components_of_states("mean", 0, {1: still["positive"][0, 0]}, still, (1,))
        if part.kind == SPREAD
    ]


def test_where_there_are_many_states_some_of_all_over_say_where_they_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of each side is about something else than the other half, and both are seen."""
    monkeypatch.setattr(module, "_MOST_STATES", 10)
    sets = spread_sets(100, gap=1.0, sizes=(1.0, 1.0))
    for rows in sets.values():
        rows[:50, 0, 1] = rows[50:, 0, 0] = 0.0
    axes = axes_of(sets)
    assert np.linalg.norm(axes[:2, :2], axis=1) == pytest.approx(1.0, abs=1e-6)
    for rows in sets.values():
        # The same axes come of exactly those states: the first, the last, and evenly between.
        rows[np.setdiff1d(np.arange(100), np.arange(0, 100, 11))] = np.nan
    assert np.array_equal(axes_of(sets), axes)


@pytest.mark.parametrize("n_layers", [1, 3, N_LAYERS, 47])
def test_parts_are_at_a_few_layers_however_deep_the_model_is(n_layers: int) -> None:
    """The first and the last of those that may be used are among them, and the number of parts has a bound."""
    layers = tuple(range(4, 4 + n_layers))
    sets = planted_sets(n_layers)
    found = components_of_states("mean", 0, directions_of(sets, layers), sets, layers)
    used = sorted({layer for part in found for layer in part.rows})
    assert len(used) == min(N_LAYERS, n_layers)
    assert {layers[0], layers[-1]} <= set(used)
    gaps = np.diff(used)
    assert not len(gaps) or gaps.max() - gaps.min() <= 1
    assert len(found) == len(used) * (1 + len(OTHER_METHODS) - 1 + N_SPREAD) + len(used) - 1


def test_layers_that_may_not_be_used_are_read_over() -> None:
    """States of more layers are given than directions, and those of the right ones are taken."""
    sets = planted_sets()
    directions = directions_of(sets)
    some = {layer: directions[layer] for layer in (2, 5)}
    found = components_of_states("mean", 0, some, sets, LAYERS)
    chosen = {name: rows[:, [0, 2]] for name, rows in sets.items()}
    expected = components_of_states("mean", 0, some, chosen, (2, 5))
    assert [part.kind for part in found] == [part.kind for part in expected]
    for part, other in zip(found, expected, strict=True):
        assert all(map(same, part.rows.items(), other.rows.items()))


@pytest.mark.parametrize("n_layers", [1, 2, N_LAYERS, 30])
def test_a_finished_vector_falls_into_parts_over_its_depth(n_layers: int) -> None:
    """Each layer as it is, in one part; parts are directions, and there are few."""
    rows = {layer: np.full(WIDTH, layer, dtype=np.float32) for layer in range(3, 3 + n_layers)}
    parts = components_of_vector(rows)
    assert len(parts) == min(N_LAYERS, n_layers)
    assert {part.kind for part in parts} == {DIRECTION}
    assert [layer for part in parts for layer in part.rows] == sorted(rows)
    assert all(np.array_equal(row, rows[layer]) for part in parts for layer, row in part.rows.items())
