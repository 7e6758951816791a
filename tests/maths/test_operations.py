"""The operations on rows keep the laws that their names promise."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ggufsteer.maths import operations
from ggufsteer.maths.operations import ablate, add, clamp, gate, project

WIDTH = 96
numbers = st.floats(-8, 8)
seeds = st.integers(0, 2**32 - 1)


def rows(seed: int, count: int = 5) -> NDArray[np.float32]:
    """States with one component that is far larger than the others, as models have them."""
    states = np.random.default_rng(seed).standard_normal((count, WIDTH))
    states[:, 3] += 200
    return states.astype(np.float32)


def unit(seed: int) -> NDArray[np.float32]:
    """A direction of unit length, up to rounding."""
    direction = np.random.default_rng([seed, 1]).standard_normal(WIDTH)
    return (direction / np.linalg.norm(direction)).astype(np.float32)


def close(seen: NDArray[np.floating], expected: NDArray[np.floating] | float) -> bool:
    """Equal up to single precision at the size of the states."""
    return bool(np.abs(seen - expected).max() < 2e-4)


def test_the_examples_in_the_docstrings_are_true() -> None:
    """Every worked example gives what it says."""
    result = doctest.testmod(operations)
    assert result.attempted >= 5
    assert result.failed == 0


def test_the_projection_is_the_scalar_product_in_double_precision() -> None:
    """Neither the large component nor the length of the row costs digits."""
    states, direction = rows(1), unit(1)
    exact = [sum(float(h) * float(d) for h, d in zip(row, direction, strict=True)) for row in states]
    assert project(states, direction).dtype == np.float64
    assert project(states, direction).tolist() == exact


@given(seeds)
def test_nothing_is_left_of_an_ablated_direction(seed: int) -> None:
    """At strength 1 the projection is rounding, and what is orthogonal to the direction stays as it was."""
    states, direction = rows(seed), unit(seed)
    ablated = ablate(states, direction, 1.0)
    assert close(project(ablated, direction), 0.0)
    other = unit(seed + 1)
    other = (other - (other @ direction) * direction).astype(np.float32)
    assert close(project(ablated, other), project(states, other))


@given(seeds, numbers)
def test_ablation_takes_a_share(seed: int, strength: float) -> None:
    """Strength s leaves 1 - s of the projection: 0 changes no bit, 2 mirrors."""
    states, direction = rows(seed), unit(seed)
    left = project(ablate(states, direction, strength), direction)
    assert close(left, (1 - strength) * project(states, direction))
    assert np.array_equal(ablate(states, direction, 0.0), states)


@given(seeds, numbers)
def test_a_clamped_row_has_the_value(seed: int, value: float) -> None:
    """Whatever the projection was; clamping again changes nothing more, and at 0 it is ablation."""
    states, direction = rows(seed), unit(seed)
    clamped = clamp(states, direction, value)
    assert close(project(clamped, direction), value)
    assert close(clamp(clamped, direction, value), clamped)
    assert np.array_equal(clamp(states, direction, 0.0), ablate(states, direction, 1.0))


@given(seeds, numbers)
def test_adding_moves_every_row_alike_and_back(seed: int, strength: float) -> None:
    """(a + b) - b is a."""
    states, direction = rows(seed), 3 * unit(seed)
    moved = add(states, direction, strength)
    assert close(moved - states, strength * direction)
    assert close(add(moved, direction, -strength), states)


@given(seeds)
def test_a_gate_opens_above_its_threshold_only(seed: int) -> None:
    """The projection itself does not open it; anything below does."""
    states, direction = rows(seed), unit(seed)
    for row, projection in enumerate(project(states, direction)):
        assert not gate(states, direction, projection)[row]
        assert gate(states, direction, np.nextafter(projection, -np.inf))[row]


@pytest.mark.parametrize("operation", [ablate, add, clamp])
@settings(max_examples=20, deadline=None)
@given(seed=seeds, number=numbers)
def test_each_row_is_treated_by_itself_and_the_input_stays(operation, seed: int, number: float) -> None:
    """No row depends on its neighbours; the same bits come out of it alone."""
    states, direction = rows(seed), unit(seed)
    before = states.copy()
    together = operation(states, direction, number)
    alone = np.concatenate([operation(states[row : row + 1], direction, number) for row in range(len(states))])
    assert together.dtype == np.float32
    assert np.array_equal(together, alone)
    assert np.array_equal(states, before)


def test_no_rows_are_no_trouble() -> None:
    """A layer that holds no rows is left alone."""
    empty = np.empty((0, WIDTH), dtype=np.float32)
    for operation in (ablate, add, clamp):
        assert operation(empty, unit(0), 1.0).shape == (0, WIDTH)
    assert gate(empty, unit(0), 0.0).shape == (0,)
