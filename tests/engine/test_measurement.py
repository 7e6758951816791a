"""What steering does, in numbers: against raw logits in double precision, and laws of probability and divergence."""

from collections.abc import Sequence

import numpy as np
import pytest

from ggufsteer.engine import measurement as measurement_module
from ggufsteer.engine.interventions import NOTHING, Steering
from ggufsteer.engine.measurement import Measured, Measurement, ScoredText, divergence, most_followed
from ggufsteer.engine.model import Model
from ggufsteer.errors import EngineError, SteerError
from tests.engine.raw_logits import log_softmax, raw_logits

TEXTS = [
    ScoredText((70, 20, 33, 9, 111, 4, 250), 3),
    ScoredText((70, 20, 33, 9, 111, 12, 99), 1),
    ScoredText((70, 8), 1),
]
FOLLOWED = [
    ScoredText((70, 20, 33, 77, 5, 6), 2),
    ScoredText((41, 42, 43, 44, 45, 46, 47, 48), 1),
]
EXACT_ENOUGH = 1e-3
"""Nats: rounding of single precision, carried through four blocks in batches of other shapes."""


def rows_of(model: Model, size: float = 1.0, seed: int = 0) -> np.ndarray:
    """Something to add to each layer. # (n_layer - 1, n_embd)"""
    made = np.random.default_rng(seed).standard_normal((model.n_layer - 1, model.n_embd))
    rows: np.ndarray = (size * made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return rows


def same_bits(one: Measured, other: Measured) -> bool:
    """Whether two measurements agree in every bit."""
    return all(
        len(these) == len(those) and all(map(np.array_equal, these, those))
        for these, those in (
            (one.log_probabilities, other.log_probabilities),
            (one.divergences, other.divergences),
        )
    )


def expected(model: Model, rows: np.ndarray | None, text: ScoredText) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of the scored tokens and divergences before them, each text by itself."""
    plain = log_softmax(raw_logits(model, text.tokens[:-1]))[text.start - 1 :]
    steered = log_softmax(raw_logits(model, text.tokens[:-1], rows))[text.start - 1 :]
    targets = list(text.tokens[text.start :])
    return steered[np.arange(len(targets)), targets], (np.exp(plain) * (plain - steered)).sum(axis=1)


@pytest.mark.parametrize("size", [0.0, 1.0, -1.0, 6.0])
def test_they_are_what_the_raw_logits_say(exact: Model, size: float) -> None:
    """Log-probabilities of all texts, divergences of those that are followed; each text evaluated by itself here."""
    rows = rows_of(exact, size)
    measured = Measurement(exact, TEXTS, FOLLOWED).under(rows)
    for text, scores in zip([*TEXTS, *FOLLOWED], measured.log_probabilities, strict=True):
        assert scores == pytest.approx(expected(exact, rows, text)[0], abs=EXACT_ENOUGH)
    for text, moved in zip(FOLLOWED, measured.divergences, strict=True):
        assert moved == pytest.approx(expected(exact, rows, text)[1], abs=EXACT_ENOUGH)


def test_steering_by_nothing_moves_nothing(exact: Model) -> None:
    """The same bits as the unsteered model, and no divergence at all."""
    measurement = Measurement(exact, TEXTS, FOLLOWED)
    plain = measurement.unsteered()
    for nothing in (NOTHING, 0 * rows_of(exact)):
        measured = measurement.under(nothing)
        assert all(map(np.array_equal, measured.log_probabilities, plain.log_probabilities))
        assert not any(moved.any() for moved in measured.divergences)


@pytest.mark.parametrize("size", [0.5, -0.5, 4.0, -4.0])
def test_steering_moves_every_distribution_and_no_divergence_is_negative(exact: Model, size: float) -> None:
    """Either way; the unsteered model's own are 0."""
    measurement = Measurement(exact, (), FOLLOWED)
    assert all(not moved.any() for moved in measurement.unsteered().divergences)
    for moved in measurement.under(rows_of(exact, size)).divergences:
        assert (moved > 1e-6).all()


def test_what_was_measured_before_does_not_matter(exact: Model) -> None:
    """The unsteered model is measured once and kept; the same steering gives the same bits again."""
    measurement = Measurement(exact, TEXTS, FOLLOWED)
    first = measurement.under(rows_of(exact))
    measurement.under(rows_of(exact, 5.0))
    assert same_bits(measurement.under(Steering.of(rows_of(exact))), first)
    assert measurement.unsteered() is measurement.unsteered()


def test_the_order_of_texts_does_not_matter(exact: Model) -> None:
    """Each text keeps its own numbers, bit for bit, wherever it stands."""
    rows = rows_of(exact, 2.0)
    ahead = Measurement(exact, TEXTS, FOLLOWED).under(rows)
    back = Measurement(exact, TEXTS[::-1], FOLLOWED[::-1]).under(rows)
    n_texts = len(TEXTS)
    back = Measured(
        (*back.log_probabilities[:n_texts][::-1], *back.log_probabilities[n_texts:][::-1]), back.divergences[::-1]
    )
    assert same_bits(ahead, back)


def test_a_text_can_be_scored_and_followed_at_once(exact: Model) -> None:
    """Also twice in the same list."""
    measured = Measurement(exact, [FOLLOWED[0], FOLLOWED[0]], [FOLLOWED[0]]).under(rows_of(exact))
    one, two, three = measured.log_probabilities
    assert np.array_equal(one, two)
    assert np.array_equal(one, three)


def test_only_distinct_beginnings_are_computed(exact: Model) -> None:
    """The last token of a text is looked up, never evaluated."""
    beginnings = {text.tokens[:stop] for text in [*TEXTS, *FOLLOWED] for stop in range(1, len(text.tokens))}
    assert Measurement(exact, TEXTS, FOLLOWED).n_distinct == len(beginnings)


@pytest.mark.parametrize("texts", [[], TEXTS[:1]])
@pytest.mark.parametrize("followed", [[], FOLLOWED[:1]])
def test_either_list_may_be_empty(exact: Model, texts: Sequence[ScoredText], followed: Sequence[ScoredText]) -> None:
    """What comes back has as many parts as the lists."""
    measured = Measurement(exact, texts, followed).under(rows_of(exact))
    assert list(map(len, measured.log_probabilities)) == [len(text) for text in [*texts, *followed]]
    assert list(map(len, measured.divergences)) == [len(text) for text in followed]


def test_other_beginnings_are_compared_place_by_place(exact: Model) -> None:
    """The unsteered model after a longer beginning, against itself after the first one."""
    longer = [ScoredText((9, 9, *text.tokens), text.start + 2) for text in FOLLOWED]
    measured = Measurement(exact, TEXTS, FOLLOWED).reworded(longer)
    for plain, other, scores, moved in zip(
        FOLLOWED, longer, measured.log_probabilities, measured.divergences, strict=True
    ):
        before = log_softmax(raw_logits(exact, plain.tokens[:-1]))[plain.start - 1 :]
        behind = log_softmax(raw_logits(exact, other.tokens[:-1]))[other.start - 1 :]
        assert scores == pytest.approx(expected(exact, None, other)[0], abs=EXACT_ENOUGH)
        assert moved == pytest.approx((np.exp(before) * (before - behind)).sum(axis=1), abs=EXACT_ENOUGH)


def test_texts_can_be_scored_beside_other_beginnings(exact: Model) -> None:
    """They come first, and have nothing to be compared with."""
    longer = [ScoredText((9, 9, *text.tokens), text.start + 2) for text in FOLLOWED]
    measurement = Measurement(exact, TEXTS, FOLLOWED)
    beside, alone = measurement.reworded(longer, TEXTS), measurement.reworded(longer)
    for text, scores in zip(TEXTS, beside.log_probabilities, strict=False):
        assert scores == pytest.approx(expected(exact, None, text)[0], abs=EXACT_ENOUGH)
    for one, other in zip(beside.divergences, alone.divergences, strict=True):
        assert one == pytest.approx(other, abs=EXACT_ENOUGH)


@pytest.mark.parametrize(
    ("texts", "followed"), [((0, 2), (1,)), ((), (1, 0)), ((1,), ()), ((2, 1, 0), (0, 1)), ((), ())]
)
def test_a_part_has_the_numbers_of_the_whole(exact: Model, texts: Sequence[int], followed: Sequence[int]) -> None:
    """In the order that is asked for; also a part of a part. Nothing steered is compared with another text's past."""
    rows, whole = rows_of(exact, 2.0), Measurement(exact, TEXTS, FOLLOWED)
    expected_all = whole.under(rows)
    part = whole.part(texts, followed)
    for chosen in (part, part.part(range(len(texts)), range(len(followed)))):
        measured = chosen.under(rows)
        numbers = [*texts, *(len(TEXTS) + number for number in followed)]
        for number, scores in zip(numbers, measured.log_probabilities, strict=True):
            assert scores == pytest.approx(expected_all.log_probabilities[number], abs=EXACT_ENOUGH)
        for number, moved in zip(followed, measured.divergences, strict=True):
            assert moved == pytest.approx(expected_all.divergences[number], abs=EXACT_ENOUGH)


def test_a_part_does_not_measure_the_unsteered_model_again(exact: Model) -> None:
    """What the whole has found of it is what the part gives; only steered tokens are computed and counted."""
    whole = Measurement(exact, TEXTS, FOLLOWED)
    plain = whole.unsteered()
    part = whole.part([1], [0])
    assert part.unsteered().log_probabilities == (plain.log_probabilities[1], plain.log_probabilities[len(TEXTS)])
    assert (whole.n_computed, part.n_computed) == (whole.n_distinct, 0)
    part.under(rows_of(exact))
    assert (whole.n_computed, part.n_computed) == (whole.n_distinct, part.n_distinct)


@pytest.mark.parametrize(
    "others",
    [
        [ScoredText((*FOLLOWED[0].tokens[:-1], 7), FOLLOWED[0].start), FOLLOWED[1]],
        FOLLOWED[:1],
        FOLLOWED[::-1],
    ],
    ids=["another token", "one text too few", "another order"],
)
def test_other_tokens_cannot_be_compared(exact: Model, others: list[ScoredText]) -> None:
    """Their distributions stand in other places."""
    with pytest.raises(SteerError, match="same tokens"):
        Measurement(exact, TEXTS, FOLLOWED).reworded(others)


@pytest.mark.parametrize(("tokens", "start"), [((70, 8), 0), ((70, 8), 2), ((70, 8), -1), ((70,), 1), ((), 1)])
def test_a_text_without_a_scored_token_is_refused(tokens: tuple[int, ...], start: int) -> None:
    """The first token has nothing before it."""
    with pytest.raises(SteerError, match=f"{len(tokens)} tokens is to be scored from token {start}"):
        ScoredText(tokens, start)


def test_more_tokens_than_can_be_kept_are_refused(exact: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those that are followed count; as many as can be kept pass."""
    n_followed = sum(map(len, FOLLOWED))
    monkeypatch.setattr(measurement_module, "_KEPT_BYTES", 4 * exact.n_vocab * n_followed)
    assert most_followed(exact) == n_followed
    Measurement(exact, TEXTS, FOLLOWED)
    with pytest.raises(SteerError, match=f"distributions of {n_followed + 5} tokens"):
        Measurement(exact, TEXTS, [*FOLLOWED, ScoredText((1, 2, 3, 4, 5, 6), 1)])


def test_the_model_is_steered_as_before_afterwards(exact: Model) -> None:
    """Also when the measurement has failed; and what steers it meanwhile does not count."""
    rows, before = rows_of(exact), exact.context.steering
    expected_plain = Measurement(exact, TEXTS, FOLLOWED).unsteered()
    exact.context.set_steering(rows)
    try:
        measurement = Measurement(exact, TEXTS, FOLLOWED)
        assert same_bits(measurement.unsteered(), expected_plain)
        measurement.under(rows_of(exact, 3.0))
        measurement.reworded(FOLLOWED)
        assert exact.context.steering.key == Steering.of(rows).key
        with pytest.raises(EngineError, match="not a number"):
            measurement.under(np.full_like(rows, 3e38))
        assert exact.context.steering.key == Steering.of(rows).key
    finally:
        exact.context.set_steering(before)


@pytest.mark.parametrize("sharpness", [0.1, 3.0, 30.0])
def test_the_divergence_is_the_sum_of_its_definition(sharpness: float) -> None:
    """Of flat distributions and of such as leave one word; against double precision, never below 0."""
    generator = np.random.default_rng(1)
    one, other = (sharpness * generator.standard_normal((2, 6, 300))).astype(np.float32)
    p, q = log_softmax(one.astype(np.float64)), log_softmax(other.astype(np.float64))
    normalisers = other[:, 0].astype(np.float64) - q[:, 0]
    moved = divergence(p.astype(np.float32), other, normalisers)
    assert moved == pytest.approx((np.exp(p) * (p - q)).sum(axis=1), rel=1e-5, abs=1e-5)
    assert (divergence(q.astype(np.float32), other, normalisers) >= 0).all()
