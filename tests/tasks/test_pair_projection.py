"""Where pairs lie along a vector's direction and across it, and which layers tell them apart."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from ggufsteer.engine.model import Model
from ggufsteer.files.control_vector import ControlVector, Provenance
from ggufsteer.files.recipe import Recipe
from ggufsteer.tasks import pair_projection as module
from ggufsteer.tasks.contrast import build_contrast
from ggufsteer.tasks.extract import extract
from ggufsteer.tasks.layer_figures import layer_figures
from ggufsteer.tasks.observations import SETS, Observations
from ggufsteer.tasks.pair_projection import PairProjection, pair_projection, projected, thinned
from ggufsteer.tasks.states import states_in_memory
from tests.tasks.contrasts import READ, recipe_of

Rows = NDArray[np.float32]
WIDTH = 6
KINDS = [("positive", False), ("negative", False), ("positive", True), ("negative", True)]


def planted(seed: int, gap: float = 3.0) -> tuple[ControlVector, dict[str, Rows]]:
    """States whose sides differ along the direction of layer 2, and a direction of layer 1 that tells nothing."""
    made = np.random.default_rng(seed)
    rows = made.standard_normal((2, WIDTH)).astype(np.float32)
    sets = {}
    for name, count in zip(SETS, (9, 9, 4, 4), strict=True):
        states = made.standard_normal((count, 2, WIDTH)) * [1, 1, 1, 1, 1, 4]
        if name.endswith("positive"):
            states[:, 1] += gap * rows[1] / np.linalg.norm(rows[1])
        sets[name] = states.astype(np.float32)
    return ControlVector({1: rows[0], 2: rows[1]}), sets


def places(projection: PairProjection) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both coordinates of all points."""
    return np.array([one.x for one in projection.points]), np.array([one.y for one in projection.points])


@pytest.mark.parametrize("seed", range(5))
def test_x_is_the_place_between_the_means_of_the_training_sides(seed: int) -> None:
    """Computed here in another way: least squares on the direction, and a line through two means."""
    vector, sets = planted(seed, gap=12.0)
    found = projected(vector, sets)
    assert found.layer == 2
    direction = vector.directions[2].astype(np.float64)
    shares = {
        name: np.linalg.lstsq(direction[:, None], sets[name][:, 1].T.astype(float), rcond=None)[0] for name in SETS
    }
    negative, positive = shares["negative"].mean(), shares["positive"].mean()
    expected = np.concatenate([(shares[name][0] - negative) / (positive - negative) for name in SETS])
    assert places(found)[0] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert [(one.side, one.held_out) for one in found.points] == [
        kind for kind, name in zip(KINDS, SETS, strict=True) for _ in sets[name]
    ]


@pytest.mark.parametrize("seed", range(5))
def test_y_is_the_first_principal_axis_of_what_is_left(seed: int) -> None:
    """Up to its sign, which is an accident, it is what a singular value decomposition finds."""
    vector, sets = planted(seed, gap=12.0)
    x, y = places(projected(vector, sets))
    unit = vector.directions[2].astype(float)
    unit /= np.linalg.norm(unit)
    states = np.concatenate([sets[name][:, 1] for name in SETS]).astype(float)
    left = states - np.outer(states @ unit, unit)
    left -= left.mean(axis=0)
    u, sizes, _ = np.linalg.svd(left, full_matrices=False)
    unit_of_x = float((states[0] - states[-1]) @ unit / (x[0] - x[-1]))
    expected = u[:, 0] * sizes[0] / unit_of_x
    assert y * np.sign(y @ expected) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_y_does_not_see_the_direction() -> None:
    """What is added along the direction, a different amount for each state, moves x alone."""
    vector, sets = planted(1, gap=12.0)
    unit = vector.directions[2] / np.linalg.norm(vector.directions[2])
    made = np.random.default_rng(0)
    moved = {name: rows.copy() for name, rows in sets.items()}
    for rows in moved.values():
        rows[:, 1] += np.outer(made.uniform(-2, 2, len(rows)), unit).astype(np.float32)
    fixed = Provenance(class_means={2: (0.0, 1.0)})
    vector = dataclasses.replace(vector, provenance=fixed)
    (x, y), (x_moved, y_moved) = (places(projected(vector, one)) for one in (sets, moved))
    assert np.abs(x - x_moved).max() > 1
    assert y == pytest.approx(y_moved, abs=1e-4)


def test_the_layer_is_one_whose_own_direction_tells_the_sides_apart() -> None:
    """Not one that a file calls best by its whole direction, when what it adds there points the other way."""
    vector, sets = planted(2)
    turned = ControlVector({1: vector.directions[1], 2: vector.directions[2]}, Provenance(separation={1: 1.0, 2: 0.9}))
    assert turned.best_layer == 1
    assert projected(turned, sets).layer == 2


def test_the_scale_is_the_one_of_meters() -> None:
    """Where the vector says what counts as 0 and 1, that is taken."""
    vector, sets = planted(3, gap=12.0)
    said = dataclasses.replace(vector, provenance=Provenance(class_means={2: (-1.0, 3.0)}))
    x, _ = places(projected(said, sets))
    scores = np.concatenate([sets[name][:, 1] for name in SETS]) @ said.unit(2)
    assert x == pytest.approx((scores + 1.0) / 4.0, rel=1e-4, abs=1e-5)


def test_a_vector_without_any_length_has_a_picture_too() -> None:
    """All states lie at one x."""
    vector, sets = planted(0)
    x, y = places(projected(vector * 0.0, sets))
    assert set(x.tolist()) == {0.0}
    assert np.isfinite(y).all()


@pytest.mark.parametrize(("contrast", "position"), READ.values(), ids=READ)
def test_states_of_a_model_are_those_of_an_extraction(
    tiny: Model, contrast: Mapping[str, object], position: str | int
) -> None:
    """Pooled or row by row: for few pairs the picture is that of all states, and the positive side lies right."""
    recipe = recipe_of(contrast, position=position, layers=[1, 2], holdout=0.3)
    vector = extract(recipe, tiny).vector
    observations = Observations.of(build_contrast(recipe, tiny))
    seen = pair_projection(vector, tiny, observations)
    states = states_in_memory(tiny, observations, None, list(vector.layers))
    if max(observations.counts.values()) <= module.MOST_SHOWN:
        assert seen == projected(vector, {name: states[name] for name in SETS})
    sides = [
        np.mean([one.x for one in seen.points if one.side == side and not one.held_out])
        for side in ("negative", "positive")
    ]
    assert sides[0] < sides[1]


def test_many_pairs_are_thinned_evenly(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first and the last stay, of each set, in their order."""
    pairs = [[f"Number {number} goes.", f"Number {number} went."] for number in range(30)]
    observations = Observations.of(build_contrast(recipe_of({"kind": "pairs", "pairs": pairs}, holdout=0.5), tiny))
    some = thinned(observations, 4)
    assert set(some.n_sequences.values()) == {4}
    start = kept = 0
    for name in SETS:
        whole = [observations.sequences[start + at] for at in range(observations.n_sequences[name])]
        few = [some.sequences[kept + at] for at in range(4)]
        assert (few[0], few[-1]) == (whole[0], whole[-1])
        assert [whole.index(one) for one in few] == sorted(whole.index(one) for one in few)
        start, kept = start + len(whole), kept + 4
    monkeypatch.setattr(module, "MOST_SHOWN", 3)
    vector = ControlVector({1: np.ones(tiny.n_embd, dtype=np.float32)})
    assert len(pair_projection(vector, tiny, thinned(observations, 3)).points) == 12


@pytest.mark.parametrize("method", ["mean", "lda"])
def test_figures_of_layers_are_those_of_an_extraction(tiny: Model, method: str) -> None:
    """For the layers that it has; the others are there too."""
    recipe: Recipe = recipe_of(method=method, layers=[1, 2], dose=1.0, holdout=0.3)
    observations = Observations.of(build_contrast(recipe, tiny))
    found = {one.layer: one for one in layer_figures(recipe, tiny, observations)}
    assert list(found) == list(range(1, tiny.n_layer))
    for layer in extract(recipe, tiny).layers:
        same = found[layer.layer]
        assert same.auc == layer.auc
        assert same.state_norm == pytest.approx(layer.state_norm, rel=1e-6)
        assert same.d_prime == pytest.approx(layer.d_prime, rel=1e-4)


def test_figures_without_held_out_pairs_judge_nothing(tiny: Model) -> None:
    """Lengths are there, separation is not."""
    recipe = recipe_of(holdout=0.0)
    found = layer_figures(recipe, tiny, Observations.of(build_contrast(recipe, tiny)))
    assert {(one.auc, one.d_prime) for one in found} == {(None, None)}
    assert all(one.state_norm > 0 for one in found)
