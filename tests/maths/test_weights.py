"""The mixture with the most effect at equal divergence: against the definition, and laws that it has to keep."""

import numpy as np
import pytest

from ggufsteer.maths.weights import best_weights, information

N_PARTS = 5


def some_fisher(seed: int, *, coupling: float = 1.0) -> np.ndarray:
    """A positive definite matrix, in which parts overlap as much as chance and `coupling` will have it."""
    generator = np.random.default_rng(seed)
    own = np.diag(generator.uniform(0.1, 10.0, N_PARTS))
    shared = generator.standard_normal((N_PARTS, N_PARTS))
    made: np.ndarray = own + coupling * shared @ shared.T
    return made


def some_effects(seed: int) -> np.ndarray:
    """Of either sign."""
    return np.random.default_rng(100 + seed).standard_normal(N_PARTS)


def effect_at_equal_divergence(weights: np.ndarray, effects: np.ndarray, fisher: np.ndarray) -> float:
    """What is to be as large as can be."""
    return float(weights @ effects / np.sqrt(weights @ fisher @ weights))


@pytest.mark.parametrize("seed", range(5))
def test_without_a_ridge_they_are_the_natural_gradient(seed: int) -> None:
    """F⁻¹g, computed by itself; and nothing that is drawn at random has more effect at equal divergence."""
    fisher, effects = some_fisher(seed), some_effects(seed)
    weights = best_weights(effects, fisher, ridge=0.0)
    assert weights == pytest.approx(np.linalg.inv(fisher) @ effects, rel=1e-9)
    best = effect_at_equal_divergence(weights, effects, fisher)
    assert best == pytest.approx(float(np.sqrt(effects @ np.linalg.inv(fisher) @ effects)))
    for drawn in np.random.default_rng(seed).standard_normal((1000, N_PARTS)):
        assert effect_at_equal_divergence(drawn, effects, fisher) <= best + 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_a_large_ridge_leaves_each_part_by_itself(seed: int) -> None:
    """Then it counts only how much effect a part has for its own information, whatever the others do."""
    fisher, effects = some_fisher(seed), some_effects(seed)
    weights = best_weights(effects, fisher, ridge=1e9)
    alone = effects / np.diag(fisher)
    assert weights / np.linalg.norm(weights) == pytest.approx(alone / np.linalg.norm(alone), rel=1e-6)


@pytest.mark.parametrize("none_below_zero", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_the_size_that_a_part_comes_in_does_not_matter(seed: int, ridge: float, none_below_zero: bool) -> None:
    """A part a thousand times as large gets a thousandth of the weight: the mixture is the same."""
    fisher, effects = some_fisher(seed), some_effects(seed)
    sizes = np.array([1e-3, 0.1, 1.0, 7.0, 1e3])
    weights = best_weights(effects, fisher, ridge=ridge, none_below_zero=none_below_zero)
    other = best_weights(sizes * effects, np.outer(sizes, sizes) * fisher, ridge=ridge, none_below_zero=none_below_zero)
    assert other * sizes == pytest.approx(weights, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_where_no_part_may_be_turned_round_none_is_and_it_is_best_all_the_same(seed: int) -> None:
    """By the conditions of Karush, Kuhn and Tucker: more of a part that is used, or any of another, would not help."""
    fisher, effects = some_fisher(seed, coupling=3.0), some_effects(seed)
    ridge = 0.05
    weights = best_weights(effects, fisher, ridge=ridge, none_below_zero=True)
    ridged = fisher + ridge * np.diag(np.diag(fisher))
    slope = effects - ridged @ weights
    assert (weights >= 0).all()
    assert slope[weights > 0] == pytest.approx(0.0, abs=1e-8)
    assert (slope[weights == 0] <= 1e-8).all()


def test_some_of_these_would_be_turned_round_if_they_might() -> None:
    """Else the test above would say nothing."""
    below = [(best_weights(some_effects(seed), some_fisher(seed, coupling=3.0), ridge=0.05) < 0) for seed in range(8)]
    assert all(signs.any() for signs in below)
    assert not any(signs.all() for signs in below)


def test_a_part_takes_back_the_damage_of_another() -> None:
    """The first has all the effect, and the second does nothing but break the same: it is turned round."""
    fisher = np.array([[1.0, 0.9], [0.9, 1.0]])
    effects = np.array([1.0, 0.0])
    weights = best_weights(effects, fisher, ridge=0.0)
    assert weights[1] == pytest.approx(-0.9 * weights[0])
    assert effect_at_equal_divergence(weights, effects, fisher) == pytest.approx(1 / np.sqrt(1 - 0.81))
    assert best_weights(effects, fisher, ridge=0.0, none_below_zero=True)[1] == 0


@pytest.mark.parametrize("none_below_zero", [False, True])
def test_a_part_that_moves_nothing_gets_nothing(none_below_zero: bool) -> None:
    """And changes nothing for the others; where none moves anything, all get nothing."""
    fisher, effects = some_fisher(0), np.abs(some_effects(0))
    without = best_weights(effects, fisher, ridge=0.01, none_below_zero=none_below_zero)
    wider = np.zeros((N_PARTS + 1, N_PARTS + 1))
    kept = [0, 1, 3, 4, 5]
    wider[np.ix_(kept, kept)] = fisher
    gains = np.full(N_PARTS + 1, 9.0)
    gains[kept] = effects
    weights = best_weights(gains, wider, ridge=0.01, none_below_zero=none_below_zero)
    assert weights[2] == 0
    assert weights[kept] == pytest.approx(without)
    assert not best_weights(effects, np.zeros_like(fisher), ridge=0.01, none_below_zero=none_below_zero).any()


def test_two_parts_that_do_the_same_share_the_weight() -> None:
    """The ridge makes that well defined: neither is played off against the other."""
    weights = best_weights(np.array([1.0, 1.0]), np.ones((2, 2)), ridge=0.01)
    assert weights[0] == pytest.approx(weights[1])
    assert weights.sum() == pytest.approx(1.0, rel=0.01)


class SoftmaxModel:
    """Logits at some tokens that move linearly with each part."""

    def __init__(self, seed: int = 0, n_tokens: int = 7, n_vocab: int = 11) -> None:
        generator = np.random.default_rng(seed)
        self.logits = 2 * generator.standard_normal((n_tokens, n_vocab))
        self.moves = generator.standard_normal((N_PARTS, n_tokens, n_vocab))

    def logs(self, weights: np.ndarray) -> np.ndarray:
        """Log-probabilities. # (n_tokens, n_vocab)"""
        logits = self.logits + np.tensordot(weights, self.moves, axes=1)
        normalised: np.ndarray = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return normalised

    def divergence(self, weights: np.ndarray) -> float:
        """Mean KL(unsteered ‖ steered)."""
        before = self.logs(np.zeros(N_PARTS))
        return float((np.exp(before) * (before - self.logs(weights))).sum(axis=1).mean())

    def shifts(self, size: float) -> list[np.ndarray]:
        """What each part does at a small dose: half the difference between + and -."""
        units = size * np.eye(N_PARTS)
        return [((self.logs(unit) - self.logs(-unit)) / 2).astype(np.float32) for unit in units]


def test_information_is_the_second_derivative_of_the_divergence() -> None:
    """Found numerically, of every pair of parts, on random distributions."""
    model, step = SoftmaxModel(), 1e-3
    units = step * np.eye(N_PARTS)
    measured = information(model.logs(np.zeros(N_PARTS)).astype(np.float32), model.shifts(step)) / step**2
    expected = np.empty((N_PARTS, N_PARTS))
    for row, one in enumerate(units):
        for column, two in enumerate(units):
            signs = [model.divergence(a * one + b * two) * a * b for a in (1, -1) for b in (1, -1)]
            expected[row, column] = sum(signs) / (4 * step**2)
    assert measured == pytest.approx(expected, rel=1e-2, abs=1e-3)
    assert np.array_equal(measured, measured.T)


def test_half_of_it_says_what_a_mixture_breaks() -> None:
    """The divergence of any small mixture of parts is wᵀFw / 2."""
    model, size = SoftmaxModel(1), 1e-2
    fisher = information(model.logs(np.zeros(N_PARTS)).astype(np.float32), model.shifts(size))
    for drawn in np.random.default_rng(0).standard_normal((5, N_PARTS)):
        assert drawn @ fisher @ drawn / 2 == pytest.approx(model.divergence(size * drawn), rel=0.05)


def test_information_is_a_mean_over_tokens() -> None:
    """Twice the same text says the same; a token that is improbable hardly counts."""
    logs = np.log(np.array([[0.5, 0.25, 1e-12]], dtype=np.float32))
    shift = np.array([[1.0, -2.0, 50.0]], dtype=np.float32)
    once = information(logs, [shift])
    assert once == pytest.approx(np.array([[0.5 * 1 + 0.25 * 4]]), rel=1e-6)
    assert information(np.repeat(logs, 2, axis=0), [np.repeat(shift, 2, axis=0)]) == pytest.approx(once)
