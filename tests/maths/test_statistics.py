"""Separation and state sizes, against counting by hand and known distributions."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ggufsteer.maths import statistics
from ggufsteer.maths.statistics import separation, state_norms
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


def test_the_examples_in_the_documentation_are_true() -> None:
    """The worked examples of the module run as they stand."""
    assert doctest.testmod(statistics).failed == 0
