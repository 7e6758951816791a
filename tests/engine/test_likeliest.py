"""The likeliest tokens: their log-probabilities against raw logits, one text after the other in double precision."""

import numpy as np
import pytest

from ggufsteer.engine.interventions import Steering
from ggufsteer.engine.likeliest import LikeliestTokens
from ggufsteer.engine.measurement import ScoredText
from ggufsteer.engine.model import Model
from ggufsteer.errors import EngineError, SteerError
from tests.engine.raw_logits import log_softmax, raw_logits

TEXTS = [
    ScoredText((70, 20, 33, 9, 111, 4, 250), 3),
    ScoredText((70, 20, 33, 9, 111, 12, 99), 1),
    ScoredText((70, 8), 1),
    ScoredText((41, 42, 43, 44, 45, 46, 47, 48), 1),
]
KEPT = 20
EXACT_ENOUGH = 1e-3
"""Nats: rounding of single precision, carried through four blocks in batches of other shapes."""


def rows_of(model: Model, size: float = 1.0) -> np.ndarray:
    """Something to add to each layer. # (n_layer - 1, n_embd)"""
    made = np.random.default_rng(0).standard_normal((model.n_layer - 1, model.n_embd))
    rows: np.ndarray = (size * made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return rows


def every_log(model: Model, rows: np.ndarray | None = None) -> np.ndarray:
    """Log-probabilities of the whole vocabulary at each scored token, text after text. # (tokens, n_vocab)"""
    return np.concatenate([log_softmax(raw_logits(model, text.tokens[:-1], rows))[text.start - 1 :] for text in TEXTS])


def test_the_likeliest_tokens_are_kept_after_each(exact: Model) -> None:
    """Their log-probabilities, whatever their order, are the largest that there are."""
    likely = LikeliestTokens(exact, TEXTS, KEPT)
    expected = -np.sort(-every_log(exact), axis=1)[:, :KEPT]
    assert likely.unsteered.shape == (sum(map(len, TEXTS)), KEPT)
    assert -np.sort(-likely.unsteered, axis=1) == pytest.approx(expected, abs=EXACT_ENOUGH)


@pytest.mark.parametrize("size", [1.0, -1.0, 6.0])
def test_under_a_steering_the_same_tokens_are_told(exact: Model, size: float) -> None:
    """Those that were likely before, although others are now; in the order of the unsteered ones."""
    rows = rows_of(exact, size)
    likely = LikeliestTokens(exact, TEXTS, KEPT)
    plain, steered = every_log(exact), every_log(exact, rows)
    measured = likely.under(rows)
    order = np.argsort(-likely.unsteered, axis=1)
    places = np.argsort(-plain, axis=1)[:, :KEPT]
    found = np.take_along_axis(measured, order, axis=1)
    assert found == pytest.approx(np.take_along_axis(steered, places, axis=1), abs=EXACT_ENOUGH)
    assert (np.argsort(-steered, axis=1)[:, :KEPT] != places).any()
    assert np.array_equal(likely.under(Steering.of(rows)), measured)


def test_nothing_added_changes_nothing(exact: Model) -> None:
    """The same bits, before and after something was added."""
    likely = LikeliestTokens(exact, TEXTS, KEPT)
    before = likely.unsteered.copy()
    assert np.array_equal(likely.under(0 * rows_of(exact)), before)
    likely.under(rows_of(exact))
    assert np.array_equal(likely.under(0 * rows_of(exact)), before)
    assert np.array_equal(likely.unsteered, before)


@pytest.mark.parametrize("n_likeliest", [1, 10_000])
def test_any_number_may_be_kept(exact: Model, n_likeliest: int) -> None:
    """One, or more than there are: then all are, and their probabilities add up to 1."""
    likely = LikeliestTokens(exact, TEXTS, n_likeliest)
    steered = likely.under(rows_of(exact))
    assert steered.shape == likely.unsteered.shape == (sum(map(len, TEXTS)), min(n_likeliest, exact.n_vocab))
    if n_likeliest == 1:
        assert likely.unsteered[:, 0] == pytest.approx(every_log(exact).max(axis=1), abs=EXACT_ENOUGH)
    else:
        for logs in (likely.unsteered, steered):
            assert np.exp(logs.astype(np.float64)).sum(axis=1) == pytest.approx(1.0, abs=1e-5)


def test_the_model_is_steered_afterwards_as_before(exact: Model) -> None:
    """Also where the model fails; and what steered it before has no part in the numbers."""
    context = exact.context
    own = Steering.of(rows_of(exact, 3.0))
    expected = LikeliestTokens(exact, TEXTS, KEPT).unsteered
    before = context.steering
    context.set_steering(own)
    try:
        likely = LikeliestTokens(exact, TEXTS, KEPT)
        assert context.steering == own
        assert np.array_equal(likely.unsteered, expected)
        likely.under(rows_of(exact))
        assert context.steering == own
        with pytest.raises(EngineError, match="not a number"):
            likely.under(np.full_like(rows_of(exact), 3e38))
        assert context.steering == own
    finally:
        context.set_steering(before)


def test_a_beginning_that_texts_share_is_computed_once(exact: Model) -> None:
    """The last token of a text is only scored, so that nothing is computed for it."""
    beginnings = {text.tokens[:end] for text in TEXTS for end in range(1, len(text.tokens))}
    assert LikeliestTokens(exact, TEXTS, KEPT).n_distinct == len(beginnings)


def test_a_text_longer_than_the_context_is_refused(exact: Model) -> None:
    """With its number."""
    with pytest.raises(SteerError, match=r"text 2 has \d+ tokens"):
        LikeliestTokens(exact, [TEXTS[0], ScoredText((70,) * (exact.n_ctx + 2), 1)])
