"""Fluency of a steered model's answers: usual ones are, broken ones are not, and steering is as before afterwards."""

import numpy as np
import pytest

from ggufsteer.engine.generate import Answer
from ggufsteer.engine.interventions import NOTHING
from ggufsteer.engine.model import Model
from ggufsteer.tasks.everyday import everyday_prompts
from ggufsteer.tasks.fluent import FluencyMeasurement
from ggufsteer.tasks.neutral_texts import Part
from ggufsteer.tasks.passages import chat_text, encode_text


@pytest.fixture(scope="module")
def measurement(tiny: Model) -> FluencyMeasurement:
    """Four everyday questions, answered shortly."""
    return FluencyMeasurement(tiny, n_answers=4, max_tokens=12)


def rows_of(model: Model, size: float) -> np.ndarray:
    """Something to add to each layer. # (n_layer - 1, n_embd)"""
    made = np.random.default_rng(0).standard_normal((model.n_layer - 1, model.n_embd))
    rows: np.ndarray = (size * made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return rows


def answer(model: Model, text: str) -> Answer:
    """An answer that somebody gave."""
    return Answer(text, tuple(model.tokenize(text, add_start=False)), ended=True, prompt_tokens=1)


def test_the_unsteered_model_s_answers_are_what_is_usual(measurement: FluencyMeasurement, tiny: Model) -> None:
    """Rows of zeros give the same answers and figures; none of them surprises more than usual by more than a little."""
    plain = measurement.under(NOTHING)
    assert measurement.under(0 * rows_of(tiny, 1.0)) == plain
    assert plain.surprise > 0


def test_words_that_the_model_would_never_say_are_not_fluent(measurement: FluencyMeasurement, tiny: Model) -> None:
    """However varied they are: the unsteered model judges."""
    usual = measurement.answers(NOTHING)
    foreign = [answer(tiny, f"q{number} zx vw {number}kj!") for number in range(4)]
    assert measurement.of(foreign).surprise > measurement.of(usual).surprise + 1
    assert measurement.of(foreign).fluent == 0.0


def test_the_steering_counts_for_the_answer_and_not_for_the_judgement(
    measurement: FluencyMeasurement, tiny: Model
) -> None:
    """Given answers have the same figures whatever steers the model, and it is steered as before afterwards."""
    rows = rows_of(tiny, 8.0)
    given = measurement.answers(rows)
    assert given != measurement.answers(NOTHING)
    before = measurement.of(given)
    tiny.context.set_steering(rows)
    try:
        key = tiny.context.steering_key
        assert measurement.of(given) == before == measurement.under(rows)
        assert measurement.answers(NOTHING) == measurement.answers(0 * rows)
        assert tiny.context.steering_key == key
    finally:
        tiny.context.set_steering(None)


def test_an_empty_answer_is_no_accident(measurement: FluencyMeasurement, tiny: Model) -> None:
    """Between others, or everywhere; the others keep their own surprise."""
    usual = measurement.answers(NOTHING)
    empty = Answer("", (), ended=True, prompt_tokens=1)
    each = [measurement.of([one if index == place else empty for index, one in enumerate(usual)]) for place in range(4)]
    assert sum(found.surprise for found in each) == pytest.approx(measurement.of(usual).surprise, rel=1e-2)
    assert measurement.of([empty] * 4).fluent == 0.0


def test_answers_of_several_steerings_are_judged_as_each_alone(measurement: FluencyMeasurement, tiny: Model) -> None:
    """In their order; the plain answers among them have what is usual."""
    steered = measurement.answers(rows_of(tiny, 8.0))
    together = measurement.of_each([steered, measurement.plain, steered])
    assert together[0] == together[2]
    assert together[1] == measurement.under(NOTHING)
    assert together[0].surprise == pytest.approx(measurement.of(steered).surprise, rel=1e-3)
    assert together[0].surprise > together[1].surprise


def test_what_a_prompt_makes_likely_surprises_less(tiny: Model) -> None:
    """The smaller surprise counts, with the prompt or without it; what is usual stays what it is."""
    plain = FluencyMeasurement(tiny, n_answers=4, max_tokens=12)
    prompted = FluencyMeasurement(tiny, n_answers=4, max_tokens=12, system="Repeat: zx vw kj.")
    given = [answer(tiny, f"zx vw kj {number}") for number in range(4)]
    assert prompted.of(given).surprise <= plain.of(given).surprise + 1e-3


def test_everyday_questions_are_asked_from_one_part(tiny: Model) -> None:
    """The parts share no question; given questions are asked instead."""
    questions = everyday_prompts(tiny.identity.name)
    for part in Part:
        asked = FluencyMeasurement(tiny, n_answers=3, part=part, max_tokens=1).prompts
        assert asked == [encode_text(tiny, chat_text(tiny, question)) for question in questions[part :: len(Part)][:3]]
    own = FluencyMeasurement(tiny, ["Tea?"], max_tokens=1)
    assert own.prompts == [encode_text(tiny, chat_text(tiny, "Tea?"))]
