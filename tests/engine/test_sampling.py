"""Which token comes next."""

import numpy as np
import pytest

from ggufsteer.engine import sampling
from ggufsteer.engine.sampling import Sampling, draw, greedy, log_softmax
from ggufsteer.errors import EngineError

LOGITS = np.log(np.array([0.1, 0.5, 0.05, 0.3, 0.05], dtype=np.float32))


def test_greedy_takes_the_first_of_the_likeliest() -> None:
    """Of equal ones the lowest number wins, as in llama.cpp."""
    assert greedy(LOGITS) == 1
    assert greedy(np.array([1, 3, 3], dtype=np.float32)) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_output_that_is_no_number_is_an_error(bad: float) -> None:
    """Too strong a vector is told so, instead of a text of one repeated token."""
    with pytest.raises(EngineError, match="smaller strengths"):
        greedy(np.array([1.0, bad], dtype=np.float32))


def test_drawing_follows_the_probabilities() -> None:
    """10,000 draws come within 0.02 of the probabilities (a false alarm once in 10,000 seeds; the seed is fixed)."""
    generator = np.random.default_rng(0)
    counts = np.bincount([draw(LOGITS, 1.0, 1.0, generator) for _ in range(10_000)], minlength=5) / 10_000
    assert np.abs(counts - np.exp(LOGITS)).max() < 0.02


def test_top_p_leaves_out_the_unlikely() -> None:
    """With 0.75 only the two likeliest, 0.5 and 0.3, can come; with very little only the likeliest."""
    generator = np.random.default_rng(0)
    assert {draw(LOGITS, 1.0, 0.75, generator) for _ in range(500)} == {1, 3}
    assert {draw(LOGITS, 1.0, 1e-6, generator) for _ in range(100)} == {1}


@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0, 6.0])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.95, 0.999])
def test_sorting_few_tokens_draws_what_sorting_all_does(
    spread: float, top_p: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large vocabulary only the likeliest are sorted; equal weights, where the cut could go wrong, included."""
    logits = np.round(np.random.default_rng(0).standard_normal(50_000) * spread, 1).astype(np.float32)

    def drawn() -> list[int]:
        generator = np.random.default_rng(1)
        return [draw(logits, 0.8, top_p, generator) for _ in range(20)]

    few = drawn()
    monkeypatch.setattr(sampling, "_CANDIDATES", ())
    assert drawn() == few


def test_a_low_temperature_is_nearly_greedy() -> None:
    """Dividing by little makes the likeliest certain."""
    generator = np.random.default_rng(0)
    assert {draw(LOGITS, 0.01, 1.0, generator) for _ in range(200)} == {1}


def test_temperature_zero_is_greedy() -> None:
    """No chance at all."""
    assert Sampling().sampler(3)(LOGITS) == 1


def test_log_softmax_survives_large_numbers() -> None:
    """Probabilities sum up to one, whatever is added to all logits."""
    for offset in (0.0, 1e4, -1e4):
        assert np.isclose(np.exp(log_softmax(LOGITS.astype(np.float64) + offset)).sum(), 1.0)
