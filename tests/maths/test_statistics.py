"""Separation and state sizes, against counting by hand and known distributions."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ggufsteer.errors import SteerError
from ggufsteer.maths import statistics
from ggufsteer.maths.statistics import MEASURED, evenly_spread, separation, separation_of_scores, state_norms
from tests.maths.planted import plant

scores = arrays(np.float32, st.integers(1, 12), elements=st.integers(-4, 4).map(float))
ONE_AXIS = np.array([[1.0]], dtype=np.float32)


def rows(values: np.ndarray) -> np.ndarray:
    """Make observations of one layer and one dimension out of plain numbers."""
    return np.asarray(values, dtype=np.float32).reshape(-1, 1, 1)


@given(scores, scores)
def test_auc_is_the_share_of_won_comparisons(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Comparing every positive with every negative state by hand gives the same number, ties counted half."""
    by_hand = np.mean([(a > b) + 0.5 * (a == b) for a in ours for b in theirs])
    assert separation(ONE_AXIS, rows(ours), rows(theirs)).auc[0] == pytest.approx(by_hand)


@given(scores, scores)
def test_turning_the_direction_round_mirrors_the_separation(ours: np.ndarray, theirs: np.ndarray) -> None:
    """The opposite direction wins exactly the comparisons that this one loses."""
    there = separation(ONE_AXIS, rows(ours), rows(theirs))
    back = separation(-ONE_AXIS, rows(ours), rows(theirs))
    np.testing.assert_allclose(there.auc + back.auc, 1.0)
    np.testing.assert_allclose(there.d_prime, -back.d_prime)


def test_d_prime_of_two_bells_is_their_distance() -> None:
    """Two normal distributions of spread 1 whose means lie 1.5 apart have d' 1.5 and the AUC that theory gives."""
    generator = np.random.default_rng(0)
    # With 20,000 draws a side the standard error of d' is 0.012; 0.06 is five of them.
    ours, theirs = generator.standard_normal(20_000) + 1.5, generator.standard_normal(20_000)
    result = separation(ONE_AXIS, rows(ours), rows(theirs))
    assert result.d_prime[0] == pytest.approx(1.5, abs=0.06)
    assert result.auc[0] == pytest.approx(0.8556, abs=0.01)


def test_the_length_of_the_direction_does_not_matter() -> None:
    """Separation is about the axis, not about the dose."""
    planted = plant(seed=1)
    short = planted.truth.astype(np.float32)
    np.testing.assert_allclose(
        separation(short, planted.positive, planted.negative).d_prime,
        separation(short * 100, planted.positive, planted.negative).d_prime,
        rtol=1e-4,
    )


def test_each_layer_is_measured_along_its_own_direction() -> None:
    """A layer with a useless direction does not borrow from its neighbour."""
    planted = plant(seed=2, layers=2)
    directions = planted.truth.astype(np.float32)
    directions[1] = 0.0
    result = separation(directions, planted.positive, planted.negative)
    assert result.auc[0] > 0.9
    assert (result.auc[1], result.d_prime[1]) == (0.5, 0.0)


def test_one_state_a_side_separates_without_limit() -> None:
    """Without any spread the distance in units of the spread is infinite, with the right sign, and no warning."""
    assert separation(ONE_AXIS, rows([1.0]), rows([0.0])).d_prime[0] == np.inf
    assert separation(ONE_AXIS, rows([0.0]), rows([1.0])).d_prime[0] == -np.inf


def test_the_size_of_a_layer_is_not_set_by_one_giant_state() -> None:
    """The first token's state may be a hundred times as long as the others, and the typical one is what counts."""
    states = np.ones((5, 2, 4), dtype=np.float32)
    states[0] *= 1000.0
    np.testing.assert_allclose(state_norms(states), [2.0, 2.0])


def test_scores_are_all_that_the_separation_needs() -> None:
    """Places along the directions give what the states give, sides of different length included."""
    planted = plant(seed=3, layers=3)
    directions = planted.truth.astype(np.float32)
    positive, negative = planted.positive, planted.negative[:100]
    axes = directions.astype(np.float64)
    places = [np.array([[row @ axis for row, axis in zip(rows, axes, strict=True)] for rows in side])
              for side in (positive.astype(np.float64), negative.astype(np.float64))]  # fmt: skip
    from_states, from_scores = separation(directions, positive, negative), separation_of_scores(*places)
    np.testing.assert_array_equal(from_scores.auc, from_states.auc)
    np.testing.assert_allclose(from_scores.d_prime, from_states.d_prime, rtol=1e-9)


@given(scores, scores, st.floats(1e-3, 1e3), st.integers(-9, 9))
def test_neither_unit_nor_origin_of_scores_matters_to_the_auc(
    ours: np.ndarray, theirs: np.ndarray, unit: float, origin: int
) -> None:
    """It compares places with each other only."""
    sides = [side.astype(np.float64)[:, None] for side in (ours, theirs)]
    moved = separation_of_scores(*(unit * (side + origin) for side in sides))
    np.testing.assert_array_equal(moved.auc, separation_of_scores(*sides).auc)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_scores_that_are_no_numbers_are_refused(side: int, value: float) -> None:
    """No AUC is made of a state that holds NaN or infinity."""
    sides = [np.ones((3, 2)), np.zeros((4, 2))]
    sides[side][1, 1] = value
    with pytest.raises(SteerError, match="not a finite number"):
        separation_of_scores(*sides)
    states = [np.ones((3, 1, 2), dtype=np.float32), np.zeros((4, 1, 2), dtype=np.float32)]
    states[side][1, 0, 0] = value
    with pytest.raises(SteerError, match="not a finite number"):
        separation(np.ones((1, 2), dtype=np.float32), *states)


@given(st.integers(0, 3 * MEASURED) | st.integers(0, 1 << 40))
def test_a_few_observations_are_spread_evenly_over_all(total: int) -> None:
    """At most so many, each once, first and last among them, and no stretch left out: all gaps are alike."""
    chosen = evenly_spread(total)
    assert len(chosen) == min(total, MEASURED)
    assert chosen.dtype == np.int64
    if total:
        assert (chosen[0], chosen[-1]) == (0, total - 1)
    gaps = np.diff(chosen)
    assert (gaps > 0).all()
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


def test_the_typical_length_is_known_from_the_few() -> None:
    """The median of those that are measured is that of all, to a few per cent."""
    lengths = np.random.default_rng(0).lognormal(size=50_000)
    assert np.median(lengths[evenly_spread(len(lengths))]) == pytest.approx(np.median(lengths), rel=0.05)


def test_the_examples_in_the_documentation_are_true() -> None:
    """The worked examples of the module run as they stand."""
    assert doctest.testmod(statistics).failed == 0
