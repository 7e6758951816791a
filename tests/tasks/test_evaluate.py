"""What an evaluation says of vectors: laws of its curves, its verdict, and its document."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from ggufsteer.engine.model import Model
from ggufsteer.errors import SteerError
from ggufsteer.files.control_vector import ControlVector, Provenance
from ggufsteer.files.recipe import make_recipe
from ggufsteer.maths.dose import Trial, interval_of_mean, trials_to_budget
from ggufsteer.report.html import report_html
from ggufsteer.report.terminal import tables
from ggufsteer.tasks import evaluate as evaluate_module
from ggufsteer.tasks import evaluate_chance
from ggufsteer.tasks.effect import EffectMeasurement
from ggufsteer.tasks.evaluate import evaluate
from ggufsteer.tasks.evaluate_chance import at_equal_damage, chance_rows, size_of_chance, widened
from ggufsteer.tasks.evaluate_result import Evaluation, NamedVector, VectorEvaluation
from ggufsteer.tasks.evaluation_document import Document, report_document
from ggufsteer.tasks.evidence import Evidence
from ggufsteer.tasks.neutral_texts import Part, neutral_texts
from tests.engine.raw_logits import log_softmax, raw_logits

ITEMS = [
    {"prompt": f"What of {thing}?", "positive": f"A joy, my {thing}!", "negative": f"Just {thing}, sadly."}
    for thing in ("tea", "rain", "snow", "bread")
]
RECIPE = make_recipe(
    {
        "name": "glad",
        "contrast": {"kind": "pairs", "pairs": [["Tom was happy.", "Tom was sad."], ["Mia sang.", "Mia wept."]]},
        "eval": {"items": ITEMS, "questions": ["What of tea?"], "marks": ["joy"], "system_prompt": "Be glad."},
    }
)
BUDGET = 0.2


def vector_of(model: Model, size: float = 1.0, seed: int = 3) -> ControlVector:
    """A direction of chance at layers 1 and 2."""
    made = np.random.default_rng(seed).standard_normal((2, model.n_embd))
    rows = (size * made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return ControlVector({1: rows[0], 2: rows[1]}, Provenance(name="chance", model=model.identity))


@pytest.fixture(scope="module", autouse=True)
def _few_texts(module_monkeypatch: pytest.MonkeyPatch) -> None:
    """Less of everything than a real evaluation takes."""
    module_monkeypatch.setattr(evaluate_module, "NEUTRAL_TEXTS", 3)
    module_monkeypatch.setattr(evaluate_chance, "N_CHANCE", 2)


@pytest.fixture(scope="module")
def module_monkeypatch() -> Iterator[pytest.MonkeyPatch]:
    """A monkeypatch that lasts as long as the measured evaluation."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def found(tiny: Model, _few_texts: None) -> Evaluation:
    """A vector, the same turned round, the same again, and one without any length."""
    vector = vector_of(tiny)
    given = {"there": vector, "back": -vector, "again": vector, "nothing": vector * 0.0}
    return evaluate(RECIPE, tiny, [NamedVector(name, one) for name, one in given.items()], budget=BUDGET)


def document_of(found: Evaluation, model: Model) -> Document:
    """Make its document, without what else a report shows."""
    vectors = [vector.named for vector in found.vectors]
    return report_document("evaluation", found.recipe, model, vectors, evaluation=found, evidence=Evidence())


def at(vector: VectorEvaluation, strength: float) -> dict[str, object]:
    """One dose, without its strength."""
    dose = next(one for one in vector.doses if one.strength == strength)
    return {key: value for key, value in dataclasses.asdict(dose).items() if key != "strength"}


def test_strength_0_is_the_unsteered_model(found: Evaluation) -> None:
    """No effect, no damage, nothing the wrong way: to the last bit."""
    for vector in found.vectors:
        zero = at(vector, 0.0)
        assert (zero["effect"], zero["interval"], zero["wrong_way"]) == (0.0, (0.0, 0.0), 0.0)
        assert zero["neutral"] == {"mean": 0.0, "p95": 0.0, "perplexity_ratio": 1.0}


def test_a_turned_vector_has_the_mirrored_curve(found: Evaluation) -> None:
    """What a vector does at a strength, its opposite does at minus that strength, to the last bit."""
    there, back = found.vectors[:2]
    common = {dose.strength for dose in there.doses} & {-dose.strength for dose in back.doses}
    assert {-2.0, 0.0, 2.0} <= common
    for strength in common:
        mirrored, plain = at(back, -strength), at(there, strength)
        assert (mirrored["effect"], mirrored["neutral"]) == (plain["effect"], plain["neutral"])


def test_the_same_vector_gets_the_same_numbers(found: Evaluation) -> None:
    """Whatever was measured between."""
    there, again = found.vectors[0], found.vectors[2]
    assert dataclasses.replace(again, named=there.named) == there


def test_doses_ascend_and_are_few(found: Evaluation) -> None:
    """With 0, the recommended one, one beyond it, and both ends of the headline."""
    for vector in found.vectors[:3]:
        strengths = [dose.strength for dose in vector.doses]
        assert strengths == sorted(set(strengths))
        assert len(strengths) <= evaluate_module.MOST_DOSES
        assert {0.0, 1.0, 2.0, vector.at_budget.strength, -vector.at_budget.strength} <= set(strengths)


def test_the_headline_is_at_the_budget(found: Evaluation) -> None:
    """The damage at its strength is the budget, within a few parts of a hundred; its effect is between its doses."""
    vector = found.vectors[0]
    strength = vector.at_budget.strength
    ahead, back = at(vector, strength), at(vector, -strength)
    assert ahead["neutral"]["p95"] == pytest.approx(BUDGET, rel=0.06)  # type: ignore[index]
    assert vector.at_budget.effect == pytest.approx(ahead["effect"] - back["effect"])  # type: ignore[operator]


def test_a_vector_without_length_has_no_effect(found: Evaluation) -> None:
    """And nobody is told otherwise: verdict, warning, and every number is finite."""
    nothing = found.vectors[3]
    assert nothing.verdict == "no effect"
    assert all(dose.effect == 0.0 for dose in nothing.doses)
    assert any("'nothing'" in warning for warning in found.warnings)
    assert nothing.monotonicity == 0.0


def test_an_independent_computation_agrees(found: Evaluation, tiny: Model) -> None:
    """Effect and damage from raw logits, one text at a time, in double precision."""
    rows = vector_of(tiny).as_rows(tiny.n_layer)
    changes = []
    for item in found.items.items:
        sides = [_mean_log(tiny, text.tokens, text.start, rows) for text in item.scored(tiny) or ()]
        plain = [_mean_log(tiny, text.tokens, text.start, None) for text in item.scored(tiny) or ()]
        changes.append((sides[0] - sides[1]) - (plain[0] - plain[1]))
    divergences = []
    for text in neutral_texts(tiny, 3, part=Part.JUDGING):
        before, after = (log_softmax(raw_logits(tiny, text.tokens[:-1], one)) for one in (None, rows))
        divergences.append((np.exp(before) * (before - after)).sum(axis=1)[text.start - 1 :])
    dose = next(one for one in found.vectors[0].doses if one.strength == 1.0)
    assert dose.effect == pytest.approx(np.mean(changes), abs=2e-4)
    assert dose.interval == pytest.approx(interval_of_mean(changes), abs=2e-4)
    assert dose.neutral.p95 == pytest.approx(np.percentile(np.concatenate(divergences), 95), rel=1e-2)


def _mean_log(model: Model, tokens: tuple[int, ...], start: int, rows: np.ndarray | None) -> float:
    """Mean log-probability of the tokens from `start` on."""
    logs = log_softmax(raw_logits(model, tokens[:-1], rows))[start - 1 :]
    return float(logs[np.arange(len(logs)), list(tokens[start:])].mean())


def test_the_document_can_be_drawn(found: Evaluation, tiny: Model) -> None:
    """It goes through JSON unchanged, into the page and the tables; every part of the contract is there."""
    document = document_of(dataclasses.replace(found, vectors=found.vectors[:1]), tiny)
    text = json.dumps(document, allow_nan=False)
    read = json.loads(text)
    assert json.dumps(read) == text
    assert "chance" in report_html(read)
    assert [rows.title for rows in tables(read)] == ["dose by dose", "beside controls"]
    first = read["vectors"][0]
    assert first["samples"][0]["question"] == "What of tea?"
    assert [one["strength"] for one in first["samples"][0]["answers"]] == sorted(
        dose["strength"] for dose in first["doses"] if dose["fluency"]
    )
    assert read["system_prompt"]["text"] == "Be glad."
    assert first["doses"][0]["own"]["p95"] > 0
    assert {one["score"] for one in first["pairs"]["best"]} & {one["score"] for one in first["pairs"]["worst"]} == set()


def test_two_runs_give_equal_bytes(found: Evaluation, tiny: Model) -> None:
    """Same seed, same document, to the last digit, whatever other vectors were measured beside."""
    one = NamedVector("there", vector_of(tiny))
    first = dataclasses.replace(found, vectors=found.vectors[:1], warnings=(), n_evaluations=0, n_tokens=0)
    alone = evaluate(RECIPE, tiny, [one], budget=BUDGET)
    second = dataclasses.replace(alone, n_evaluations=0, n_tokens=0)
    documents = [json.dumps(document_of(each, tiny)) for each in (first, second)]
    assert documents[0] == documents[1]


def test_another_vector_is_a_control(tiny: Model) -> None:
    """Measured on the same items, brought to the same damage."""
    other = NamedVector("other", vector_of(tiny, seed=4))
    judged = evaluate(
        RECIPE, tiny, [NamedVector("one", vector_of(tiny))], others=[other], budget=BUDGET, with_samples=False
    ).vectors[0]
    assert [(one.kind, one.name) for one in judged.controls] == [
        ("random", "2 random vectors"),
        ("vector", "other"),
    ]
    assert judged.controls[1].neutral.p95 == pytest.approx(BUDGET, rel=0.5)
    assert judged.samples == ()


def test_long_items_are_fewer(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many that their tokens are within what is allowed, from the first to the last; the source says so."""
    one = NamedVector("one", vector_of(tiny))
    every = evaluate(RECIPE, tiny, [one], budget=BUDGET, with_samples=False).items
    n_tokens = sum(len(text.tokens) for item in every.items for text in item.scored(tiny) or ())
    monkeypatch.setattr(evaluate_module, "_LARGE", tiny.n_layer * tiny.n_embd**2)
    monkeypatch.setattr(evaluate_module, "ITEM_TOKENS", n_tokens - 1)
    fewer = evaluate(RECIPE, tiny, [one], budget=BUDGET, with_samples=False).items
    assert [item.question for item in fewer.items] == ["What of tea?", "What of snow?", "What of bread?"]
    assert fewer.source == "3 of 4 the recipe's items"


def test_one_sign_of_chance_tells_both(tiny: Model, found: Evaluation) -> None:
    """What is said of random vectors, measured with one sign, is what both signs give."""
    vector = found.vectors[0]
    measurement = EffectMeasurement(tiny, found.items, neutral_texts(tiny, 3, part=Part.JUDGING), with_own=False)
    rows = np.float32(vector.at_budget.strength) * vector.named.vector.as_rows(tiny.n_layer)
    ahead = [measurement.under(one) for one in chance_rows(rows, 0)]
    back = [measurement.under(-one) for one in chance_rows(rows, 0)]
    gains = [float((one.log_odds - other.log_odds).mean()) for one, other in zip(ahead, back, strict=True)]
    damage = float(np.mean([one.neutral.p95 for one in ahead]))
    reach = size_of_chance([at_equal_damage(gain, damage, BUDGET) for gain in gains])
    assert vector.controls[0].interval[1] == pytest.approx(reach, rel=0.2)


@pytest.mark.parametrize(("budget", "expected"), [(BUDGET, [1.0, 2.0]), (BUDGET / 5, [1.0, 0.5]), (BUDGET * 50, [1.0])])
def test_usual_doses_spare_trials(
    tiny: Model, monkeypatch: pytest.MonkeyPatch, budget: float, expected: list[float]
) -> None:
    """The search for the budget begins with a dose on its other side, unless it lies far off."""
    begun = []

    def watched(*arguments: Any, known: Sequence[Trial], **settings: Any) -> list[Trial]:
        begun.append([trial.strength for trial in known])
        return trials_to_budget(*arguments, known=known, **settings)

    monkeypatch.setattr(evaluate_module, "trials_to_budget", watched)
    judged = evaluate(RECIPE, tiny, [NamedVector("one", vector_of(tiny))], budget=budget, with_samples=False).vectors[0]
    assert begun == [expected]
    assert set(expected) <= {dose.strength for dose in judged.doses}


def test_no_vector_is_refused(tiny: Model) -> None:
    """Before anything is measured."""
    with pytest.raises(SteerError, match="no vector was given"):
        evaluate(RECIPE, tiny, [])


def test_vectors_of_chance_have_the_vectors_lengths() -> None:
    """At each layer; where it has none, they have none either. They differ among themselves, not between calls."""
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0]], dtype=np.float32)
    made = list(chance_rows(rows, 0))
    for one in made:
        assert np.linalg.norm(one, axis=1) == pytest.approx([5.0, 0.0, 2.0])
    assert not np.array_equal(made[0], made[1])
    assert np.array_equal(made[1], list(chance_rows(rows, 0))[1])
    assert not np.array_equal(made[0], next(chance_rows(rows, 1)))


def test_chance_widens_an_interval() -> None:
    """Never narrows it, and covers 0 where chance alone reaches further than the effect."""
    assert widened(0.5, (0.4, 0.6), 0.0) == pytest.approx((0.4, 0.6))
    low, high = widened(0.5, (0.4, 0.6), size_of_chance([0.3, -0.3, 0.3, -0.3]))
    assert low < 0 < high
