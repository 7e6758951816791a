"""The mean that is summed up while the model runs, against the mean of states that were all kept."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from ggufsteer.engine.capture import Wanted, observe
from ggufsteer.engine.model import Model
from ggufsteer.engine.sequences import TokenSequences
from ggufsteer.errors import SteerError
from ggufsteer.files.recipe import Recipe
from ggufsteer.tasks import streamed_mean
from ggufsteer.tasks.contrast import build_contrast
from ggufsteer.tasks.extract import extract
from ggufsteer.tasks.findings import Findings, findings_of_states
from ggufsteer.tasks.observations import Observations, divided
from ggufsteer.tasks.progress import Progress
from ggufsteer.tasks.streamed_mean import mean_findings
from tests.tasks.contrasts import PLAIN, READ, recipe_of

LAYERS = (1, 3)


@dataclass
class Walks:
    """How often the model was walked through, and what was kept of it."""

    stored: list[bool]


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> Walks:
    """Watch the engine."""
    seen = Walks([])

    def watched(model: Model, sequences: Any, layers: Any, wanted: Wanted, **options: Any) -> Any:
        seen.stored.append(bool(np.any(wanted.stored)))
        return observe(model, sequences, layers, wanted, **options)

    monkeypatch.setattr(streamed_mean, "observe", watched)
    return seen


@pytest.fixture
def two_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no held-out state be kept."""
    monkeypatch.setattr(streamed_mean, "KEPT_BYTES", 0)


def both(recipe: Recipe, model: Model, *, apart: bool = False) -> tuple[Findings, Findings, float]:
    """Give what is found by summing up and by keeping all states, and the largest number in a state.

    `apart` reads held-out texts by themselves: what else is in the memory changes the last digits of a state.
    """
    observations = Observations.of(build_contrast(recipe, model))
    sequences, end = observations.sequences, len(observations.sequences)
    middle = sum(list(observations.n_sequences.values())[:2])
    bounds = [0, middle, end] if apart else [0, end]
    parts = [_states(model, sequences.part(*part), pooled=observations.pooled) for part in pairwise(bounds)]
    states = np.concatenate(parts)
    kept = findings_of_states("mean", recipe.seed, divided(states, observations.counts))
    return mean_findings(model, observations, LAYERS), kept, float(np.abs(states).max())


def _states(model: Model, sequences: TokenSequences, *, pooled: bool) -> np.ndarray:
    """Keep the states of all observations, (observations, layers, embd)."""
    states = np.full((len(sequences) if pooled else len(sequences.rows), len(LAYERS), model.n_embd), np.nan, np.float32)

    def keep(numbers: np.ndarray, rows: np.ndarray) -> None:
        states[numbers] = rows

    observe(model, sequences, LAYERS, Wanted(stored=True), pool=pooled, on_states=keep)
    return states


def assert_same(streamed: Findings, kept: Findings, largest: float, *, tolerance: float) -> None:
    """Directions to a part of the largest number in a state; every comparison of held-out states alike."""
    assert streamed.directions.dtype == np.float32
    assert np.abs(streamed.directions - kept.directions).max() <= tolerance * largest
    assert streamed.means.shape == kept.means.shape == (2, *streamed.directions.shape)
    assert np.abs(streamed.means - kept.means).max() <= tolerance * largest
    np.testing.assert_allclose(streamed.state_norms, kept.state_norms, rtol=1e-5)
    assert (streamed.judged is None) == (kept.judged is None)
    if streamed.judged and kept.judged:
        np.testing.assert_array_equal(streamed.judged.auc, kept.judged.auc)
        np.testing.assert_allclose(streamed.judged.d_prime, kept.judged.d_prime, rtol=1e-4)


@pytest.mark.parametrize("read", READ)
def test_held_out_states_that_are_kept_change_nothing(tiny: Model, walks: Walks, read: str) -> None:
    """One walk: the same directions, AUC, d' and lengths as from states in memory, wherever they are read."""
    contrast, position = READ[read]
    streamed, kept, largest = both(recipe_of(contrast, position=position, holdout=0.4), tiny)
    assert walks.stored == [True]
    assert_same(streamed, kept, largest, tolerance=1e-6)
    assert streamed.judged is not None


@pytest.mark.usefixtures("two_walks")
@pytest.mark.parametrize("read", READ)
def test_held_out_states_that_are_read_afterwards_change_nothing(tiny: Model, walks: Walks, read: str) -> None:
    """Two walks, and not one state is kept in either."""
    contrast, position = READ[read]
    recipe = recipe_of(contrast, position=position, holdout=0.4)
    streamed, kept, largest = both(recipe, tiny, apart=True)
    assert walks.stored == [False, False]
    assert_same(streamed, kept, largest, tolerance=1e-6)
    assert streamed.judged is not None
    _, together, _ = both(recipe, tiny)
    assert np.abs(streamed.directions - together.directions).max() <= 1e-4 * largest


@pytest.mark.parametrize("read", READ)
def test_without_a_hold_out_nothing_is_kept_or_judged(tiny: Model, walks: Walks, read: str) -> None:
    """One walk that stores no state."""
    contrast, position = READ[read]
    streamed, kept, largest = both(recipe_of(contrast, position=position, holdout=0.0), tiny)
    assert walks.stored == [False]
    assert_same(streamed, kept, largest, tolerance=1e-6)
    assert streamed.judged is None


@pytest.mark.parametrize("bound", [0, 1])
def test_what_is_kept_is_bounded(tiny: Model, walks: Walks, monkeypatch: pytest.MonkeyPatch, bound: int) -> None:
    """Held-out states up to the bound are kept, a byte more is read afterwards."""
    recipe = recipe_of(holdout=0.5)
    n_held_out = build_contrast(recipe, tiny).n_held_out
    monkeypatch.setattr(streamed_mean, "KEPT_BYTES", 2 * n_held_out * len(LAYERS) * tiny.n_embd * 4 - bound)
    both(recipe, tiny)
    assert len(walks.stored) == 1 + bound


def test_lengths_are_measured_of_the_same_states_either_way(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only some lengths are measured, they are spread over training and held-out states alike."""
    from ggufsteer.maths import statistics

    monkeypatch.setattr(statistics, "MEASURED", 7)
    recipe = recipe_of(holdout=0.5)
    one_walk, kept, _ = both(recipe, tiny)
    monkeypatch.setattr(streamed_mean, "KEPT_BYTES", 0)
    for found in (one_walk, both(recipe, tiny)[0]):
        np.testing.assert_allclose(found.state_norms, kept.state_norms, rtol=1e-5)


@pytest.mark.usefixtures("two_walks")
def test_progress_rises_through_both_walks(tiny: Model) -> None:
    """A person sees one stage, from nothing to all texts."""
    events: list[Progress] = []
    extract(recipe_of(holdout=0.5), tiny, report=events.append)
    own = [event for event in events if event.stage == "reading states"]
    assert {event.total for event in own} == {2 * len(PLAIN["pairs"])}
    assert (own[0].done, own[-1].done) == (0, own[-1].total)
    assert all(earlier.done <= later.done for earlier, later in pairwise(own))


@pytest.mark.parametrize(
    "spoil", [lambda sums: sums.fill(np.nan), lambda sums: sums.fill(np.inf)], ids=["nan", "infinity"]
)
def test_sums_that_are_not_finite_are_refused(
    tiny: Model, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Any], None]
) -> None:
    """A model that computes NaN on the training texts gives an error, not a vector."""

    def spoiled(*arguments: Any, **options: Any) -> Any:
        targets = observe(*arguments, **options)
        spoil(targets.sums)
        return targets

    monkeypatch.setattr(streamed_mean, "observe", spoiled)
    with pytest.raises(SteerError, match="not a finite number"):
        extract(recipe_of(), tiny)
