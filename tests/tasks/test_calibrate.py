"""Calibration: strength 1.0 does the damage of the budget, whatever the vector came in, and says how fluent that is."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ggufsteer.engine.logits import LogitReading
from ggufsteer.engine.measurement import ScoredText
from ggufsteer.engine.model import Model
from ggufsteer.errors import SteerError
from ggufsteer.files.recipe import make_recipe
from ggufsteer.files.vector import read_vector, write_vector
from ggufsteer.maths.statistics import separation
from ggufsteer.tasks import calibrate as module
from ggufsteer.tasks.calibrate import LARGEST_MAXIMUM, MOST_EVALUATIONS, TOLERANCE, Calibration, calibrate
from ggufsteer.tasks.components import components_of_vector
from ggufsteer.tasks.effect import EffectMeasurement
from ggufsteer.tasks.extract import Extraction, extract
from ggufsteer.tasks.fluent import FluencyMeasurement
from ggufsteer.tasks.items import Items, training_items
from ggufsteer.tasks.layer_search import Found, Judges, candidates_of_vector
from ggufsteer.tasks.neutral_texts import ANSWER_TOKENS, Part, neutral_texts
from ggufsteer.tasks.recipes import changed
from ggufsteer.tasks.saved_states import open_saved

FEW_TEXTS = 4
BUDGET = 0.5
NO_ITEMS = Items((), "none")
CONTRAST = {
    "kind": "personas",
    "positive": ["a formal person"],
    "negative": [""],
    "prompts": [f"Tell me about {thing}." for thing in ("tea", "bread", "sugar", "music", "snow", "the sea", "gold")],
}
RECIPE = make_recipe({"name": "formal", "contrast": CONTRAST, "layers": "2-3", "holdout": 0.25})
Rows = dict[int, np.ndarray]


@pytest.fixture(autouse=True, scope="module")
def _few_texts() -> Iterator[None]:
    """Enough for the laws, which hold on any texts."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "DOSE_TEXTS", FEW_TEXTS)
        patched.setattr("ggufsteer.tasks.neutral_texts.ANSWER_TOKENS", 12)
        patched.setattr(module, "FIRST_TEXTS", 2)
        patched.setattr(module, "SEARCH_TEXTS", (2, 2))
        patched.setattr(module, "WEIGHING_ITEMS", 3)
        patched.setattr("ggufsteer.tasks.extract.SEARCH_ITEMS", 4)
        patched.setattr(module, "FluencyMeasurement", _few_answers)
        yield


def _few_answers(model: Model, **settings: Any) -> FluencyMeasurement:
    return FluencyMeasurement(model, n_answers=3, max_tokens=8, **settings)


def fluent_up_to(limit: Callable[[np.ndarray], bool]) -> Callable[..., SimpleNamespace]:
    """A measurement of fluency that finds all answers fluent, or none."""
    return lambda *_, **__: SimpleNamespace(under=lambda rows: SimpleNamespace(fluent=float(limit(rows))))


def rows_of(model: Model, size: float = 1.0) -> Rows:
    """One direction for each of two layers."""
    made = np.random.default_rng(0).standard_normal((2, model.n_embd)).astype(np.float32)
    return {1: np.float32(size) * made[0], 2: np.float32(size) * made[1]}


def calibrated(model: Model, rows: Rows, budget: float = BUDGET) -> tuple[Rows, Calibration]:
    """Bring one candidate to its dose."""
    found, calibration = calibrate(model, [("whole", rows)], {}, NO_ITEMS, budget=budget)
    return dict(found), calibration


def matrix(model: Model, rows: Rows) -> np.ndarray:
    """As the engine takes it. # (n_layer - 1, n_embd)"""
    full = np.zeros((model.n_layer - 1, model.n_embd), dtype=np.float32)
    for layer, row in rows.items():
        full[layer - 1] = row
    return full


def always(_: np.ndarray) -> bool:
    """Answers never break."""
    return True


@pytest.mark.parametrize("budget", [0.02, 0.5, 3.0])
@pytest.mark.parametrize("size", [0.01, 1.0])
def test_strength_one_does_the_damage_of_the_budget(
    tiny: Model, monkeypatch: pytest.MonkeyPatch, budget: float, size: float
) -> None:
    """Whatever size the vector came in, and measured again by itself."""
    monkeypatch.setattr(module, "FluencyMeasurement", fluent_up_to(always))
    rows, calibration = calibrated(tiny, rows_of(tiny, size), budget)
    assert calibration.p95 == pytest.approx(budget, rel=TOLERANCE)
    again = EffectMeasurement(tiny, (), neutral_texts(tiny, FEW_TEXTS)).under(matrix(tiny, rows)).neutral.p95
    assert again == pytest.approx(calibration.p95, rel=1e-3)
    other = EffectMeasurement(tiny, (), neutral_texts(tiny, FEW_TEXTS, part=Part.JUDGING))
    assert other.under(matrix(tiny, rows)).neutral.p95 == pytest.approx(calibration.check_p95, rel=1e-3)
    assert (calibration.budget, calibration.fluent, calibration.warnings) == (budget, 1.0, ())


def test_only_the_size_is_changed_where_there_is_nothing_to_choose(tiny: Model) -> None:
    """One candidate keeps its layers and the ratio of their lengths."""
    before = rows_of(tiny)
    rows, calibration = calibrated(tiny, before)
    factors = [rows[layer] / before[layer] for layer in before]
    assert np.ptp(factors) < 1e-4 * np.mean(factors)
    assert (calibration.steps, calibration.n_search_evaluations) == ((), 0)


def test_the_model_is_left_as_it_was(tiny: Model) -> None:
    """Unsteered; the same calibration gives the same bits again."""
    key = tiny.context.steering_key
    one, two = calibrated(tiny, rows_of(tiny)), calibrated(tiny, rows_of(tiny))
    assert tiny.context.steering_key == key
    assert one[1] == two[1]
    assert all(np.array_equal(one[0][layer], two[0][layer]) for layer in one[0])


@pytest.mark.parametrize(("breaks_at", "lowest"), [(1.2, 1.0), (1.6, 1.4)])
def test_the_maximum_is_the_largest_strength_that_stays_fluent(
    tiny: Model, monkeypatch: pytest.MonkeyPatch, breaks_at: float, lowest: float
) -> None:
    """Found by halving, never above where answers break."""
    monkeypatch.setattr(module, "FluencyMeasurement", fluent_up_to(always))
    rows, _ = calibrated(tiny, rows_of(tiny))
    limit = breaks_at * float(np.linalg.norm(matrix(tiny, rows)))
    monkeypatch.setattr(module, "FluencyMeasurement", fluent_up_to(lambda tried: bool(np.linalg.norm(tried) <= limit)))
    _, calibration = calibrated(tiny, rows_of(tiny))
    assert lowest <= calibration.maximum <= breaks_at
    assert calibration.warnings == ()


def judges_of(model: Model, monkeypatch: pytest.MonkeyPatch, items: Items) -> Judges:
    """What candidates are judged by on a model."""
    given: list[Judges] = []

    def search(candidates: Any, _: Any, __: Any, ___: Any, judges: Judges, ____: Any) -> Found:
        given.append(judges)
        return Found(candidates[0][1], ())

    monkeypatch.setattr(module, "search_layers", search)
    calibrate(model, [("whole", rows_of(model)), ("other", rows_of(model))], {}, items)
    return given[0]


def test_candidates_are_judged_by_both_signs(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turned round, a candidate has the opposite effect and does the same damage; a small dose moves the other way."""
    judges = judges_of(tiny, monkeypatch, training_items(RECIPE, tiny, 4))
    rows = rows_of(tiny, 0.1)
    back = {layer: -row for layer, row in rows.items()}
    assert judges.effect(rows) == -judges.effect(back) != 0
    assert judges.damage(rows) == judges.damage(back) > 0
    other_texts = neutral_texts(tiny, 4, part=Part.CHOICE)[2:]
    judged = EffectMeasurement(tiny, (), other_texts, with_own=False)
    both = [judged.under(matrix(tiny, one)).neutral.p95 for one in (rows, back)]
    assert judges.damage(rows) == pytest.approx(max(both))
    assert max(both) > 1.001 * min(both)
    ahead, other = judges.moves(rows), judges.moves(back)
    assert ahead.effect == -other.effect != 0
    assert np.array_equal(ahead.shift, -other.shift)
    assert ahead.shift.shape == judges.likely.shape
    assert ahead.shift.any()


def test_components_are_weighed_by_some_of_the_items(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that is all of them, a component's effect is half of what the same rows have as a candidate."""
    items, rows = training_items(RECIPE, tiny, 4), rows_of(tiny, 0.1)
    some = judges_of(tiny, monkeypatch, items)
    monkeypatch.setattr(module, "WEIGHING_ITEMS", 4)
    every = judges_of(tiny, monkeypatch, items)
    assert some.effect(rows) == every.effect(rows) == pytest.approx(2 * every.moves(rows).effect)
    assert some.moves(rows).effect != pytest.approx(every.moves(rows).effect, rel=1e-3)


def test_what_is_chosen_dosed_and_checked_is_measured_on_other_questions(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part of them is for one thing, and as many texts are written as are used."""
    written: dict[Part, int] = {}

    def watched(model: Model, n_texts: int, *, part: Part = Part.DOSE, **settings: Any) -> list[ScoredText]:
        written[part] = written.get(part, 0) + n_texts
        return neutral_texts(model, n_texts, part=part, **settings)

    monkeypatch.setattr(module, "neutral_texts", watched)
    judges_of(tiny, monkeypatch, training_items(RECIPE, tiny, 4))
    assert written == {Part.CHOICE: 4, Part.DOSE: FEW_TEXTS, Part.JUDGING: FEW_TEXTS}


@pytest.mark.parametrize(("fit", "used"), [(1, 2), (3, 3), (1000, FEW_TEXTS)])
def test_there_are_fewer_texts_where_their_distributions_do_not_fit(
    tiny: Model, monkeypatch: pytest.MonkeyPatch, fit: int, used: int
) -> None:
    """But never fewer than what brings the strength near."""
    monkeypatch.setattr(module, "FluencyMeasurement", fluent_up_to(always))
    monkeypatch.setattr(module, "most_followed", lambda _: fit * ANSWER_TOKENS)
    rows, calibration = calibrated(tiny, rows_of(tiny))
    again = EffectMeasurement(tiny, (), neutral_texts(tiny, used)).under(matrix(tiny, rows)).neutral.p95
    assert again == pytest.approx(calibration.p95, rel=1e-3)


def test_every_evaluation_is_counted(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the choice and of the strength, and every token that they computed; only the two of the check are not."""
    monkeypatch.setattr(module, "FluencyMeasurement", fluent_up_to(always))
    computed: list[int] = []
    run = LogitReading.run

    def counted(self: LogitReading, *arguments: Any, **settings: Any) -> None:
        computed.append(self.totals.n_distinct)
        run(self, *arguments, **settings)

    monkeypatch.setattr(LogitReading, "run", counted)
    rows = rows_of(tiny)
    _, calibration = calibrate(
        tiny,
        candidates_of_vector(rows),
        {1: 10.0, 2: 10.0},
        training_items(RECIPE, tiny, 4),
        components=components_of_vector(rows),
    )
    assert calibration.n_search_evaluations + calibration.n_evaluations == len(computed) - 2
    assert calibration.n_tokens == sum(computed[:-2])
    assert calibration.n_evaluations <= MOST_EVALUATIONS


def test_what_never_breaks_has_the_largest_maximum_that_is_told(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """More is not promised from few answers."""
    monkeypatch.setattr(module, "FluencyMeasurement", fluent_up_to(always))
    assert calibrated(tiny, rows_of(tiny))[1].maximum == LARGEST_MAXIMUM


@pytest.mark.parametrize(("breaks_at", "maximum"), [(0.75, "fluent up to 0.7"), (0.1, "no strength")])
def test_a_warning_says_where_answers_break_before_the_budget(
    tiny: Model, monkeypatch: pytest.MonkeyPatch, breaks_at: float, maximum: str
) -> None:
    """The dose stays what the budget says; the maximum is the largest smaller strength that was fluent, or 0."""
    monkeypatch.setattr(module, "FluencyMeasurement", fluent_up_to(always))
    rows, whole = calibrated(tiny, rows_of(tiny))
    limit = breaks_at * float(np.linalg.norm(matrix(tiny, rows)))
    monkeypatch.setattr(module, "FluencyMeasurement", fluent_up_to(lambda tried: bool(np.linalg.norm(tried) <= limit)))
    same, calibration = calibrated(tiny, rows_of(tiny))
    assert all(np.array_equal(rows[layer], same[layer]) for layer in rows)
    assert calibration.p95 == whole.p95
    assert 0 <= calibration.maximum <= breaks_at
    assert calibration.fluent == 0.0
    [warning] = calibration.warnings
    assert maximum in warning


def test_a_vector_that_moves_nothing_is_an_error(tiny: Model) -> None:
    """There is no strength at which it does."""
    with pytest.raises(SteerError, match="moves nothing"):
        calibrated(tiny, rows_of(tiny, 0.0))


def extracted(model: Model) -> Extraction:
    """Calibrate the recipe among its two layers; answers never break."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "FluencyMeasurement", fluent_up_to(always))
        return extract(RECIPE, model, budget=BUDGET)


@pytest.fixture(scope="module")
def run(tiny: Model, _few_texts: None) -> Extraction:
    """One extraction."""
    return extracted(tiny)


def test_the_same_recipe_and_model_give_the_same_bytes(tiny: Model, run: Extraction, tmp_path: Path) -> None:
    """Layers, strength and all that is said of them."""
    again = extracted(tiny)
    for number, one in enumerate((run, again)):
        write_vector(tmp_path / f"{number}.gguf", one.vector)
    assert (tmp_path / "0.gguf").read_bytes() == (tmp_path / "1.gguf").read_bytes()
    assert again.calibration == run.calibration


def test_layers_are_chosen_among_the_recipe_s(run: Extraction) -> None:
    """And only what was chosen is reported."""
    assert set(run.vector.layers) <= {2, 3}
    assert tuple(layer.layer for layer in run.layers) == run.vector.layers == run.vector.provenance.layers
    assert run.calibration is not None
    assert {layer for step in run.calibration.steps for layer in step.layers} == {2, 3}


def test_the_dose_of_an_extraction_is_that_of_the_budget(tiny: Model, run: Extraction) -> None:
    """The vector itself does that damage; what the calibration warns of, the extraction does too."""
    calibration = run.calibration
    assert calibration is not None
    rows = run.vector.as_rows(tiny.n_layer)
    damage = EffectMeasurement(tiny, (), neutral_texts(tiny, FEW_TEXTS)).under(rows).neutral.p95
    assert damage == pytest.approx(calibration.p95, rel=1e-2)
    assert calibration.p95 == pytest.approx(BUDGET, rel=TOLERANCE)
    assert set(calibration.warnings) <= set(run.warnings)
    assert bool(calibration.warnings) == (calibration.maximum < run.vector.provenance.strength_recommended)


def test_it_points_to_the_positive_side(tiny: Model, run: Extraction) -> None:
    """What was chosen makes the positive side of the pairs likelier, and minus it the negative one."""
    assert run.calibration is not None
    [chosen] = [step for step in run.calibration.steps if step.chosen]
    assert chosen.effect > 0
    measurement = EffectMeasurement(tiny, training_items(RECIPE, tiny, 4), (), with_own=False)
    rows = run.vector.as_rows(tiny.n_layer)
    assert float((measurement.under(rows).log_odds - measurement.under(-rows).log_odds).mean()) > 0


def test_the_dose_says_how_many_natural_sizes_are_added(tiny: Model, run: Extraction) -> None:
    """Of the deepest layer's whole direction, which is what the recipe gives without deltas and dose."""
    vector = run.vector
    whole = extract(changed(RECIPE, {"deltas": False, "dose": 1.0}), tiny).vector.directions[max(vector.layers)]
    added = vector.as_rows(tiny.n_layer).astype(np.float64).sum(axis=0)
    assert vector.provenance.dose == pytest.approx(np.linalg.norm(added) / np.linalg.norm(whole), rel=1e-4)


def test_layers_are_judged_by_what_is_added_to_them(tiny: Model, run: Extraction, tmp_path: Path) -> None:
    """On the held-out pairs, read again by themselves; a mixture need not tell them apart as its direction does."""
    extract(RECIPE, tiny, save_to=tmp_path / "states")
    saved = open_saved(tmp_path / "states")
    places = [saved.layers.index(layer) for layer in run.vector.layers]
    sides = (saved.states[name][:, places] for name in ("held_out_positive", "held_out_negative"))
    expected = separation(np.stack([run.vector.directions[layer] for layer in run.vector.layers]), *sides)
    assert [layer.auc for layer in run.layers] == pytest.approx(expected.auc.tolist())
    assert run.vector.provenance.separation == {layer.layer: layer.auc for layer in run.layers}


def test_the_file_keeps_what_was_found(run: Extraction, tmp_path: Path) -> None:
    """Budget, damage and maximum; a part of the vector, or a multiple, is another one that nobody has measured."""
    assert run.calibration is not None
    write_vector(tmp_path / "v.gguf", run.vector)
    vector = read_vector(tmp_path / "v.gguf")
    provenance = vector.provenance
    assert provenance.damage_budget == BUDGET
    assert provenance.damage == pytest.approx(run.calibration.p95)
    assert provenance.strength_maximum == pytest.approx(run.calibration.maximum)
    for other in (vector.limited_to(vector.layers[:1]), 2.0 * vector, -1.0 * vector, vector + vector):
        assert (other.provenance.damage_budget, other.provenance.damage) == (None, None)
    assert vector.limited_to(vector.layers[:1]).provenance.strength_maximum is None
    assert (2.0 * vector).provenance.strength_maximum == pytest.approx(run.calibration.maximum / 2)
    assert (-1.0 * vector).provenance.strength_maximum is None


def test_without_a_budget_the_recipe_s_dose_and_layers_are_taken(tiny: Model) -> None:
    """And nothing is said of damage."""
    recipe = make_recipe({"name": "formal", "contrast": CONTRAST, "layers": "2-3", "dose": 0.6})
    plain = extract(recipe, tiny)
    assert plain.calibration is None
    assert plain.vector.layers == (2, 3)
    assert plain.vector.provenance.dose == recipe.dose
    assert plain.vector.provenance.damage_budget is None
