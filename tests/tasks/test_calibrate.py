"""Calibration: strength 1.0 does the damage of the budget, whatever the vector came in, and says how fluent that is."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ggufsteer.engine.builtin import builtin_model_path
from ggufsteer.engine.model import LoadOptions, Model
from ggufsteer.errors import SteerError
from ggufsteer.files.recipe import make_recipe
from ggufsteer.files.vector import read_vector, write_vector
from ggufsteer.tasks import calibrate as module
from ggufsteer.tasks.calibrate import LARGEST_MAXIMUM, TOLERANCE, Calibration, calibrate
from ggufsteer.tasks.effect import EffectMeasurement
from ggufsteer.tasks.extract import Extraction, extract
from ggufsteer.tasks.fluent import FluencyMeasurement
from ggufsteer.tasks.items import Items
from ggufsteer.tasks.neutral_texts import Part, neutral_texts

FEW_TEXTS = 4
BUDGET = 0.5
NO_ITEMS = Items((), "none")
CONTRAST = {
    "kind": "personas",
    "positive": ["a formal person"],
    "negative": [""],
    "prompts": [f"Tell me about {thing}." for thing in ("tea", "bread", "sugar", "music", "snow", "the sea", "gold")],
}
Rows = dict[int, np.ndarray]


@pytest.fixture(autouse=True, scope="module")
def _few_texts() -> Iterator[None]:
    """Enough for the laws, which hold on any texts."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "DOSE_TEXTS", FEW_TEXTS)
        patched.setattr(module, "SEARCH_TEXTS", (2, 2))
        patched.setattr("ggufsteer.tasks.extract.SEARCH_ITEMS", 4)
        patched.setattr(module, "FluencyMeasurement", _few_answers)
        yield


def _few_answers(model: Model, **settings: Any) -> FluencyMeasurement:
    return FluencyMeasurement(model, n_answers=4, max_tokens=10, **settings)


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


@pytest.fixture(scope="module")
def demo(_few_texts: None) -> Iterator[Model]:
    """The model that ships."""
    with Model.open(builtin_model_path(), LoadOptions(n_ctx=4096, n_threads=1)) as model:
        yield model


@pytest.fixture(scope="module")
def runs(demo: Model) -> tuple[Extraction, Extraction]:
    """The same recipe, calibrated twice, among two layers."""
    recipe = make_recipe({"name": "formal", "contrast": CONTRAST, "layers": "3-4", "holdout": 0.25})
    return extract(recipe, demo, budget=BUDGET), extract(recipe, demo, budget=BUDGET)


def test_the_same_recipe_and_model_give_the_same_bytes(runs: tuple[Extraction, Extraction], tmp_path: Path) -> None:
    """Layers, strength and all that is said of them."""
    for number, run in enumerate(runs):
        write_vector(tmp_path / f"{number}.gguf", run.vector)
    assert (tmp_path / "0.gguf").read_bytes() == (tmp_path / "1.gguf").read_bytes()
    assert runs[0].calibration == runs[1].calibration


def test_layers_are_chosen_among_the_recipe_s(runs: tuple[Extraction, Extraction]) -> None:
    """And only what was chosen is reported."""
    run = runs[0]
    assert set(run.vector.layers) <= {3, 4}
    assert tuple(layer.layer for layer in run.layers) == run.vector.layers == run.vector.provenance.layers
    assert run.calibration is not None
    assert {layer for step in run.calibration.steps for layer in step.layers} == {3, 4}


def test_the_dose_of_an_extraction_is_that_of_the_budget(demo: Model, runs: tuple[Extraction, Extraction]) -> None:
    """The vector itself does that damage; what the calibration warns of, the extraction does too."""
    run, calibration = runs[0], runs[0].calibration
    assert calibration is not None
    rows = run.vector.as_rows(demo.n_layer)
    damage = EffectMeasurement(demo, (), neutral_texts(demo, FEW_TEXTS)).under(rows).neutral.p95
    assert damage == pytest.approx(calibration.p95, rel=1e-2)
    assert calibration.p95 == pytest.approx(BUDGET, rel=TOLERANCE)
    assert set(calibration.warnings) <= set(run.warnings)
    assert bool(calibration.warnings) == (calibration.maximum < run.vector.provenance.strength_recommended)


def test_it_still_points_to_the_positive_side(runs: tuple[Extraction, Extraction]) -> None:
    """Its best step has an effect, and class means lie as they should on every layer it was trained to tell apart."""
    run = runs[0]
    assert run.calibration is not None
    assert max(step.effect for step in run.calibration.steps) > 0
    assert run.vector.provenance.dose > 0


def test_the_file_keeps_what_was_found(runs: tuple[Extraction, Extraction], tmp_path: Path) -> None:
    """Budget, damage and maximum; a part of the vector, or a multiple, is another one that nobody has measured."""
    run = runs[0]
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


def test_without_a_budget_the_recipe_s_dose_and_layers_are_taken(demo: Model) -> None:
    """And nothing is said of damage."""
    recipe = make_recipe({"name": "formal", "contrast": CONTRAST, "layers": "3-4", "dose": 0.6})
    plain = extract(recipe, demo)
    assert plain.calibration is None
    assert plain.vector.layers == (3, 4)
    assert plain.vector.provenance.dose == recipe.dose
    assert plain.vector.provenance.damage_budget is None
