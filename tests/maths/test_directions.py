"""The methods: a planted truth is found, the laws of sign and size hold, and wrong input is refused."""

import doctest

import numpy as np
import pytest
from numpy.typing import NDArray

from ggufsteer.errors import SteerError
from ggufsteer.maths import directions
from ggufsteer.maths.directions import METHODS, block_deltas, compute, mean_directions
from tests.maths.planted import Planted, cosines, plant

ALL = sorted(METHODS)
# Seeds 0 to 2 are not picked: none of 0 to 199 crosses a bound below, and the smallest cosine found is 0.9916.
SEEDS = [0, 1, 2]


def found(method: str, planted: Planted) -> NDArray[np.float32]:
    """Run a method on planted states, neutral ones included."""
    return compute(method, planted.positive, planted.negative, neutral=planted.neutral)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("method", ["mean", "pca"])
def test_paired_methods_find_the_planted_direction_under_shared_content(method: str, seed: int) -> None:
    """Content that both halves of a pair share does not turn the direction, even where it is as loud as the concept."""
    planted = plant(seed=seed)
    assert cosines(found(method, planted), planted.truth).min() > 0.99


@pytest.mark.parametrize("seed", SEEDS)
def test_cross_covariance_finds_a_direction_louder_than_the_content(seed: int) -> None:
    """What two sides disagree on stands out of what they share where it is the larger of the two."""
    planted = plant(seed=seed, gap=4.0, content=0.5)
    assert cosines(found("crosscov", planted), planted.truth).min() > 0.99


@pytest.mark.parametrize("seed", SEEDS)
def test_cross_covariance_is_turned_by_content_as_loud_as_the_concept(seed: int) -> None:
    """The limit of the method: with few pairs for the width it takes quiet content for part of the concept."""
    planted = plant(seed=seed)
    assert cosines(found("crosscov", planted), planted.truth).max() < 0.99


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("method", ["mean", "lda", "logistic"])
def test_unpaired_methods_find_the_planted_direction_in_even_noise(method: str, seed: int) -> None:
    """Where every dimension is equally loud and there are many observations, class means and planes agree."""
    planted = plant(seed=seed, pairs=3000, width=16, paired=False, noise=0.0)
    assert cosines(found(method, planted), planted.truth).min() > 0.99


@pytest.mark.parametrize("seed", SEEDS)
def test_whitening_finds_the_direction_that_loud_dimensions_hide_from_the_mean(seed: int) -> None:
    """Dimensions that are always loud spoil the unpaired mean difference, and LDA on neutral text is not misled."""
    planted = plant(seed=seed, pairs=300, width=64, gap=4.0, loud=8, paired=False, content=0.4)
    assert cosines(found("mean", planted), planted.truth).max() < 0.98
    assert cosines(found("lda", planted), planted.truth).min() > 0.99


@pytest.mark.parametrize("seed", SEEDS)
def test_pca_diff_finds_the_direction_only_where_its_amplitude_varies(seed: int) -> None:
    """Pairs that differ by very different amounts along one direction are what centred PCA was made for."""
    planted = plant(seed=seed, gap_spread=1.0)
    assert abs(cosines(found("pca_diff", planted), planted.truth)).min() > 0.99


@pytest.mark.parametrize("seed", SEEDS)
def test_pca_diff_misses_the_direction_where_all_pairs_agree(seed: int) -> None:
    """Pairs that differ by the same amount leave centred PCA nothing but noise, while the mean finds the truth."""
    planted = plant(seed=seed, gap_spread=0.0)
    assert abs(cosines(found("pca_diff", planted), planted.truth)).max() < 0.5
    assert cosines(found("mean", planted), planted.truth).min() > 0.99
    lengths = np.linalg.norm(found("pca_diff", planted), axis=1)
    assert (lengths < 0.5 * np.linalg.norm(found("mean", planted), axis=1)).all()


@pytest.mark.parametrize("method", ALL)
def test_swapping_the_sides_turns_the_direction_round(method: str) -> None:
    """Plus is the positive side because the labels say so, not because of how a solver happened to return its axis."""
    planted = plant(seed=5)
    there = compute(method, planted.positive, planted.negative, neutral=planted.neutral)
    back = compute(method, planted.negative, planted.positive, neutral=planted.neutral)
    np.testing.assert_allclose(back, -there, atol=1e-5)


@pytest.mark.parametrize("method", ALL)
def test_every_direction_points_to_the_positive_side(method: str) -> None:
    """Along any direction the mean of the positive side lies further than that of the negative side."""
    planted = plant(seed=6)
    gap = planted.positive.mean(axis=0) - planted.negative.mean(axis=0)
    assert ((found(method, planted) * gap).sum(axis=1) > 0).all()


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e4])
def test_larger_states_give_a_direction_larger_by_as_much(method: str, factor: float) -> None:
    """The unit of the states is the unit of the direction, for quiet layers and for loud ones."""
    planted = plant(seed=7)
    scaled = compute(
        method,
        planted.positive * np.float32(factor),
        planted.negative * np.float32(factor),
        neutral=planted.neutral * np.float32(factor),
    )
    np.testing.assert_allclose(scaled / factor, found(method, planted), atol=2e-5)


@pytest.mark.parametrize("method", ALL)
def test_natural_size_is_the_distance_of_the_means_along_the_direction(method: str) -> None:
    """One times the direction carries the negative mean to the positive mean, as far as the axis can."""
    planted = plant(seed=8)
    direction = found(method, planted).astype(np.float64)
    gap = (planted.positive.astype(np.float64) - planted.negative).mean(axis=0)
    lengths = np.linalg.norm(direction, axis=1)
    np.testing.assert_allclose((direction * gap).sum(axis=1), lengths**2, rtol=1e-4)


@pytest.mark.parametrize("method", ALL)
def test_the_same_input_gives_the_same_bytes(method: str) -> None:
    """Nothing in a method draws numbers that the seed does not decide."""
    planted = plant(seed=9)
    assert found(method, planted).tobytes() == found(method, planted).tobytes()


@pytest.mark.parametrize("method", ALL)
def test_layers_do_not_mix(method: str) -> None:
    """The direction of a layer is the same whether the layer is looked at alone or among others."""
    planted = plant(seed=10, layers=3)
    alone = compute(method, planted.positive[:, 1:2], planted.negative[:, 1:2], neutral=planted.neutral[:, 1:2])
    assert found(method, planted)[1].tobytes() == alone[0].tobytes()


@pytest.mark.parametrize("method", ALL)
def test_a_direction_has_one_row_a_layer_in_single_precision(method: str) -> None:
    """What comes out can be written into a vector file as it is."""
    result = found(method, plant(seed=11, layers=3, width=20))
    assert result.shape == (3, 20)
    assert result.dtype == np.float32


def test_the_mean_is_exactly_the_difference_of_the_class_means() -> None:
    """The default method is the formula that everybody can check by hand."""
    positive = np.array([[[1, 2]], [[3, 6]]], dtype=np.float32)
    negative = np.array([[[0, 1]], [[0, 1]], [[3, 1]]], dtype=np.float32)
    np.testing.assert_array_equal(compute("mean", positive, negative), np.array([[1, 3]], dtype=np.float32))


@pytest.mark.parametrize("method", ["mean", "pca", "logistic", "crosscov"])
def test_a_layer_without_a_difference_gets_a_zero_direction(method: str) -> None:
    """A dead layer among live ones is left unsteered, not given a direction made of rounding errors."""
    planted = plant(seed=12)
    negative = planted.negative.copy()
    negative[:, 0] = planted.positive[:, 0]
    result = compute(method, planted.positive, negative)
    assert not result[0].any()
    assert result[1].any()


@pytest.mark.parametrize("method", ALL)
def test_two_equal_sides_are_refused(method: str) -> None:
    """A recipe whose sides come out the same is told so, instead of writing a file of zeros."""
    planted = plant(seed=13)
    with pytest.raises(SteerError, match="no difference between"):
        compute(method, planted.positive, planted.positive, neutral=planted.neutral)


def test_pca_diff_refuses_pairs_that_all_differ_alike() -> None:
    """Without variation between the pairs nothing is left after centring, and rounding errors are no direction."""
    positive = np.random.default_rng(0).standard_normal((20, 1, 16)).astype(np.float32)
    with pytest.raises(SteerError, match="pca_diff"):
        compute("pca_diff", positive, positive - np.float32(1.0))


@pytest.mark.parametrize("method", [name for name in ALL if not METHODS[name].needs_pairs])
def test_methods_without_pairs_take_sides_of_different_length(method: str) -> None:
    """Three observations of one side and five of the other are enough where no pairs are compared."""
    planted = plant(seed=14)
    result = compute(method, planted.positive[:3], planted.negative[:5], neutral=planted.neutral)
    assert np.isfinite(result).all()


@pytest.mark.parametrize("method", [name for name in ALL if METHODS[name].needs_pairs])
def test_methods_with_pairs_refuse_sides_of_different_length(method: str) -> None:
    """The message names both numbers and a way out."""
    planted = plant(seed=15)
    with pytest.raises(SteerError, match="3 positive and 5 negative") as caught:
        compute(method, planted.positive[:3], planted.negative[:5], neutral=planted.neutral)
    assert "mean" in caught.value.hint


def test_lda_asks_for_neutral_states() -> None:
    """Whitening without anything to whiten by is refused."""
    planted = plant(seed=16)
    with pytest.raises(SteerError, match="neutral"):
        compute("lda", planted.positive, planted.negative)


def test_neutral_states_that_are_all_alike_leave_the_mean_difference() -> None:
    """There is nothing to whiten by, so nothing is whitened."""
    planted = plant(seed=17)
    alike = np.repeat(planted.neutral[:1], 5, axis=0)
    np.testing.assert_allclose(
        compute("lda", planted.positive, planted.negative, neutral=alike),
        compute("mean", planted.positive, planted.negative),
        atol=1e-6,
    )


def test_a_mistyped_method_is_answered_with_the_nearest_one() -> None:
    """A typo costs one look at the message."""
    planted = plant(seed=18)
    with pytest.raises(SteerError, match="logistics") as caught:
        compute("logistics", planted.positive, planted.negative)
    assert "'logistic'" in caught.value.hint


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: np.full_like(rows, np.nan), "not a finite number"),
        (lambda rows: np.full_like(rows, np.inf), "not a finite number"),
        (lambda rows: rows[:0], "no negative states"),
        (lambda rows: rows[:, 0], "not \\(observations, layers, embd\\)"),
        (lambda rows: rows[:, :, :-1], "width 63"),
        (lambda rows: rows[:, :1], "1 layers"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(spoil, message: str) -> None:
    """Not a number, nothing at all, and shapes that do not belong together each get their own message."""
    planted = plant(seed=19)
    with pytest.raises(SteerError, match=message):
        compute("mean", planted.positive, spoil(planted.negative))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_means_of_the_sides_are_all_that_the_mean_needs(seed: int) -> None:
    """From two means it finds what it finds from all states, sides of different length included."""
    planted = plant(seed=seed, layers=3)
    positive, negative = planted.positive, planted.negative[:100]
    means = (side.astype(np.float64).mean(axis=0) for side in (positive, negative))
    found_of_means = mean_directions(*means)
    np.testing.assert_array_equal(found_of_means, compute("mean", positive, negative))
    assert found_of_means.dtype == np.float32


def test_a_layer_whose_means_are_equal_gets_a_zero_direction() -> None:
    """As from all states: left unsteered, and refused only where no layer differs."""
    result = mean_directions(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 2.0], [3.0, 5.0]]))
    np.testing.assert_array_equal(result, np.array([[0, 0], [0, -1]], dtype=np.float32))
    with pytest.raises(SteerError, match="no difference between"):
        mean_directions(np.ones((2, 4)), np.ones((2, 4)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["positive", "negative"])
def test_means_that_are_no_numbers_are_refused(side: str, value: float) -> None:
    """The message says which side."""
    means = {"positive": np.ones((2, 4)), "negative": np.zeros((2, 4))}
    means[side][1, 2] = value
    with pytest.raises(SteerError, match=f"the {side} states hold a value that is not a finite number"):
        mean_directions(**means)


def test_deltas_add_up_to_the_directions() -> None:
    """What the layers add one after the other is, at each layer, that layer's own direction."""
    whole = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    np.testing.assert_allclose(np.cumsum(block_deltas(whole), axis=0), whole, atol=1e-6)
    np.testing.assert_array_equal(block_deltas(whole)[0], whole[0])


def test_the_deltas_of_one_layer_are_its_direction() -> None:
    """With a single layer there is nothing to count twice."""
    whole = np.ones((1, 4), dtype=np.float32)
    np.testing.assert_array_equal(block_deltas(whole), whole)


def test_every_method_says_what_it_is_for() -> None:
    """A person who chooses a method from a list sees one short line each."""
    assert ALL == ["crosscov", "lda", "logistic", "mean", "pca", "pca_diff"]
    for method in METHODS.values():
        assert 20 < len(method.summary) < 100


def test_the_examples_in_the_documentation_are_true() -> None:
    """The worked examples of the module run as they stand."""
    assert doctest.testmod(directions).failed == 0
