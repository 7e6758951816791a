"""The algebra of control vectors, and the check that one fits a model."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufsteer.errors import ExitCode, FileFormatError, MisfitError, SteerError
from ggufsteer.files.control_vector import ControlVector, Provenance
from tests.files.made_vectors import MODEL, PROVENANCE, vectors


@given(vectors(), vectors())
def test_what_is_added_can_be_taken_away(first: ControlVector, second: ControlVector) -> None:
    """(a + b) - b equals a within the rounding of float32."""
    again = (first + second - second).as_rows(8)
    size = np.abs(first.as_rows(8)) + np.abs(second.as_rows(8))
    assert np.all(np.abs(again - first.as_rows(8)) <= 2e-7 * size + 1e-30)


@given(vectors(), vectors())
def test_addition_does_not_depend_on_the_order(first: ControlVector, second: ControlVector) -> None:
    """a + b equals b + a, exactly."""
    assert np.array_equal((first + second).as_rows(8), (second + first).as_rows(8))


@given(vectors())
def test_strength_zero_is_no_steering(vector: ControlVector) -> None:
    """v * 0 is zero everywhere, in every layer that v has."""
    assert not (vector * 0.0).as_rows(8).any()
    assert (0.0 * vector).layers == vector.layers


@given(vectors(), st.floats(-8, 8, width=32))
def test_scaling_is_the_multiplication_of_every_value(vector: ControlVector, factor: float) -> None:
    """Row by row, v * f is f times v, and -v is v * -1."""
    assert np.array_equal((vector * factor).as_rows(8), vector.as_rows(8) * np.float32(factor))
    assert np.array_equal((-vector).as_rows(8), -vector.as_rows(8))


def test_scaling_changes_what_a_strength_stands_for() -> None:
    """Twice the vector needs half the strength, and of the other side nobody knows how far it stays fluent."""
    vector = ControlVector({1: np.ones(5)}, PROVENANCE)
    doubled, turned = (vector * 2.0).provenance, (-vector).provenance
    assert (doubled.dose, doubled.strength_recommended, doubled.strength_maximum) == (8.2, 0.5, 1.25)
    assert (turned.dose, turned.strength_recommended, turned.strength_maximum) == (-4.1, 1.0, None)
    assert [doubled.name, turned.name, (-(vector + vector)).provenance.name] == [
        "2 * happy", "-1 * happy", "-1 * (happy + happy)",
    ]  # fmt: skip
    assert (vector * 1.0).provenance == PROVENANCE


@given(vectors(), st.floats(-3e38, 3e38))
def test_what_is_known_of_a_scaled_vector_stays_finite(vector: ControlVector, factor: float) -> None:
    """Even a factor of almost nothing leaves numbers that can be written into a file."""
    small = ControlVector({layer: row * np.float32(1e-7) for layer, row in vector.directions.items()}, PROVENANCE)
    found = (small * factor).provenance
    assert np.isfinite([found.dose, found.strength_recommended, found.strength_maximum or 0.0]).all()


@given(vectors(), st.integers(8, 20))
def test_rows_start_at_layer_one_and_are_zero_where_there_is_no_direction(vector: ControlVector, n_layer: int) -> None:
    """The buffer has n_layer - 1 rows of n_embd values; row k is layer k + 1."""
    rows = vector.as_rows(n_layer)
    assert rows.shape == (n_layer - 1, 5)
    assert rows.dtype == np.float32
    for layer in range(1, n_layer):
        expected = vector.directions.get(layer, np.zeros(5, np.float32))
        assert np.array_equal(rows[layer - 1], expected)


@given(vectors(), st.data())
def test_limiting_keeps_the_chosen_layers_as_they_are(vector: ControlVector, data: st.DataObject) -> None:
    """What is left is exactly the chosen layers."""
    chosen = data.draw(st.sets(st.sampled_from(vector.layers), min_size=1))
    limited = vector.limited_to(chosen)
    assert limited.layers == limited.provenance.layers == tuple(sorted(chosen))
    assert set(limited.provenance.separation) == chosen & set(PROVENANCE.separation)
    assert limited.provenance.strength_maximum is None
    assert all(np.array_equal(limited.directions[layer], vector.directions[layer]) for layer in chosen)


PLANTED = ControlVector(
    {2: np.array([0.0, 3.0, 4.0]), 5: np.array([2.0, 0.0, 0.0]), 6: np.zeros(3)},
    Provenance(
        separation={2: 0.9, 5: 0.95, 6: 0.95, 7: 1.0},
        class_means={2: (-1.0, 1.5), 5: (3.0, -2.0), 6: (1.0, 2.0)},
    ),
)
"""A layer whose means ascend, one where they descend, and one that no longer has a direction."""


@given(vectors())
def test_a_unit_direction_has_length_one_and_points_where_the_direction_does(vector: ControlVector) -> None:
    """Times its length it is the direction again, at every size that a float32 has."""
    for layer, direction in vector.directions.items():
        unit, length = vector.unit(layer), vector.length(layer)
        assert unit.dtype == np.float32
        assert np.linalg.norm(unit.astype(np.float64)) == pytest.approx(1.0 if direction.any() else 0.0, abs=1e-6)
        assert np.allclose(unit.astype(np.float64) * length, direction, rtol=1e-6, atol=1e-6 * length)


def test_the_scale_goes_from_one_side_to_the_other() -> None:
    """0 is the negative side's mean and 1 the positive's; where they do not ascend, 0 and the direction's length."""
    assert PLANTED.scale(2) == (-1.0, 1.5)
    assert PLANTED.scale(5) == (0.0, 2.0)
    assert [PLANTED.reference(layer) for layer in (2, 5, 6)] == [-1.0, 3.0, 0.0]
    assert [PLANTED.length(layer) for layer in (2, 5, 6)] == [5.0, 2.0, 0.0]


@given(vectors(), st.floats(-1e300, 1e300), st.floats(-1e300, 1e300))
def test_the_ends_of_a_scale_are_never_equal(vector: ControlVector, negative: float, positive: float) -> None:
    """Whatever the file says, and however short the direction is: the second end is greater."""
    means = dict.fromkeys(vector.layers, (negative, positive))
    vector = ControlVector(vector.directions, Provenance(class_means=means))
    for layer in vector.layers:
        zero, one = vector.scale(layer)
        assert zero < one
        assert (zero, one) == ControlVector(vector.directions).scale(layer) or (zero, one) == (negative, positive)


def test_means_that_rounding_alone_tells_apart_count_as_equal() -> None:
    """An expression measured between them would be noise times a million."""
    vector = ControlVector({1: np.ones(4)}, Provenance(class_means={1: (5.0, 5.000001)}))
    assert vector.scale(1) == (0.0, 2.0)


def test_the_best_layer_is_the_lowest_of_those_that_separate_best() -> None:
    """Of its own layers only; without any figure it is the one in the middle."""
    assert PLANTED.best_layer == 5
    assert PLANTED.limited_to([2]).best_layer == 2
    assert ControlVector({layer: np.ones(1) for layer in (1, 4, 9)}).best_layer == 4
    assert ControlVector({7: np.ones(1)}, Provenance(separation={1: 1.0})).best_layer == 7


@given(vectors(), st.floats(-8, 8, width=32).filter(lambda factor: abs(factor) > 1e-3))
def test_turning_a_vector_turns_its_scale(vector: ControlVector, factor: float) -> None:
    """A state keeps its expression when the vector is made longer; turned around, its sides change places."""
    states = np.random.default_rng(0).normal(size=(4, vector.n_embd)) * 1e3
    means = dict.fromkeys(vector.layers, (-200.0, 300.0))
    vector = ControlVector(vector.directions, Provenance(class_means=means))
    for layer, direction in vector.directions.items():
        if not direction.any() or not (vector * factor).directions[layer].any():
            continue
        before, after = expression(states, vector, layer), expression(states, vector * factor, layer)
        assert np.allclose(after, before if factor > 0 else 1.0 - before, atol=1e-2)


def expression(states: np.ndarray, vector: ControlVector, layer: int) -> np.ndarray:
    """Give how strongly states express the vector's concept."""
    zero, one = vector.scale(layer)
    return np.asarray((states @ vector.unit(layer) - zero) / (one - zero))


def test_where_the_sides_lie_follows_the_vector() -> None:
    """Turned: negated and swapped. Limited: of the layers that stay. Of a sum, and of nothing, nobody knows."""
    means = PLANTED.provenance.class_means
    assert (PLANTED * 3.0).provenance.class_means == means
    assert (-PLANTED).provenance.class_means == {2: (-1.5, 1.0), 5: (2.0, -3.0), 6: (-2.0, -1.0)}
    assert (PLANTED * -1.0 * -2.0).provenance.class_means == means
    assert PLANTED.limited_to([2, 6]).provenance.class_means == {2: (-1.0, 1.5), 6: (1.0, 2.0)}
    for other in (PLANTED + PLANTED, PLANTED - PLANTED, PLANTED * 0.0):
        assert other.provenance.class_means == {}


@pytest.mark.parametrize(
    "ask", [ControlVector.unit, ControlVector.scale, ControlVector.length, ControlVector.reference]
)
def test_a_layer_that_is_not_there_has_no_scale(ask: Callable[[ControlVector, int], Any]) -> None:
    """The error names those that are."""
    with pytest.raises(SteerError, match="no layer 3") as caught:
        ask(PLANTED, 3)
    assert caught.value.hint == "it has 2, 5, 6"


def test_limiting_to_a_layer_that_is_not_there_names_those_that_are() -> None:
    """A wrong layer is an error, not an empty vector."""
    vector = ControlVector({2: np.ones(3), 4: np.ones(3)})
    with pytest.raises(SteerError, match=r"no layer \[3\]") as caught:
        vector.limited_to([2, 3])
    assert caught.value.hint == "it has 2, 4"
    with pytest.raises(SteerError):
        vector.limited_to([])


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 1e300])
def test_a_strength_that_is_no_number_is_refused(factor: float) -> None:
    """NaN and infinity never reach a model."""
    with pytest.raises(SteerError):
        ControlVector({1: np.ones(3)}) * factor


@pytest.mark.parametrize(
    ("directions", "says"),
    [
        ({}, "no layer"),
        ({0: np.ones(3)}, "layer 0"),
        ({-1: np.ones(3)}, "layer -1"),
        ({True: np.ones(3)}, "layer True"),
        ({1: np.ones((1, 3))}, "shape"),
        ({1: np.ones(0)}, "shape"),
        ({1: np.ones(3), 2: np.ones(4)}, "differ in length"),
        ({1: np.array([1.0, np.nan])}, "NaN"),
        ({1: np.array([1.0, np.inf])}, "NaN or infinite"),
        ({1: np.array([1.0, 1e300])}, "NaN or infinite"),
    ],
)
def test_directions_that_cannot_steer_make_no_vector(directions: dict[int, np.ndarray], says: str) -> None:
    """A vector that exists is usable."""
    with pytest.raises(FileFormatError, match=says):
        ControlVector(directions)


def test_layers_may_be_numbers_of_numpy() -> None:
    """Layers that were computed are as good as layers that were typed."""
    (layer,) = ControlVector({np.int64(3): np.ones(2)}).layers
    assert (type(layer), layer) == (int, 3)


def test_a_vector_does_not_change_when_its_source_does() -> None:
    """The directions are copies, and cannot be written to."""
    source = np.ones(3, np.float32)
    vector = ControlVector({1: source})
    source[0] = 9
    assert vector.directions[1][0] == 1
    with pytest.raises(ValueError, match="read-only"):
        vector.directions[1][0] = 9


def test_a_sum_of_vectors_of_different_models_is_refused() -> None:
    """Width, architecture and depth have to agree; another file of the same shape leaves the hash open."""
    other = dataclasses.replace(MODEL, content_hash="ef" * 32)
    deeper = dataclasses.replace(MODEL, n_layer=9)
    vector = ControlVector({1: np.ones(5)}, PROVENANCE)
    with pytest.raises(MisfitError, match="5 and 6 values"):
        vector + ControlVector({1: np.ones(6)}, PROVENANCE)
    with pytest.raises(MisfitError, match="cannot be combined"):
        vector - ControlVector({1: np.ones(5)}, Provenance(model=deeper))
    total = vector + ControlVector({1: np.ones(5)}, Provenance(name="sad", model=other))
    assert total.provenance.name == "happy + sad"
    assert total.provenance.model is not None
    assert total.provenance.model.content_hash == ""


def test_vectors_that_work_differently_cannot_be_combined() -> None:
    """A vector for projection does not become an additive one by adding it to another."""
    projected = ControlVector({1: np.ones(5)}, dataclasses.replace(PROVENANCE, operation="project"))
    with pytest.raises(MisfitError, match="'project' at 'l_out'"):
        projected + ControlVector({1: np.ones(5)}, PROVENANCE)
    assert (projected + projected).provenance.operation == "project"


def test_a_vector_fits_the_model_that_it_was_made_from() -> None:
    """Same file: no error, no warning."""
    assert ControlVector({1: np.ones(5), 7: np.ones(5)}, PROVENANCE).check_fits(MODEL) == []


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("layer", "width", "changes", "says"),
    [
        (1, 6, {}, "6 wide"),
        (8, 5, {}, "steers layer 8, but the last layer .* is 7"),
        (1, 5, {"operation": "project"}, "operation 'project'"),
        (1, 5, {"hook": "attn_out"}, "at 'attn_out'"),
        (1, 5, {"model": dataclasses.replace(MODEL, n_layer=9)}, "made from 'tiny' .llama, 9 layers"),
    ],
)
def test_a_vector_that_cannot_work_is_refused_whatever_is_forced(
    layer: int, width: int, changes: dict[str, Any], says: str, force: bool
) -> None:
    """Wrong width or depth, layers past the end, another operation: exit code 4, with the mend."""
    vector = ControlVector({layer: np.ones(width)}, dataclasses.replace(PROVENANCE, **changes))
    with pytest.raises(MisfitError, match=says) as caught:
        vector.check_fits(MODEL, force=force)
    assert caught.value.hint
    assert caught.value.exit_code is ExitCode.MISFIT


def test_another_model_of_the_same_shape_needs_force() -> None:
    """The hash differs: refused, and with force a warning."""
    vector = ControlVector({1: np.ones(5)}, PROVENANCE)
    other = dataclasses.replace(MODEL, name="other", content_hash="ef" * 32)
    with pytest.raises(MisfitError, match="made from another file") as caught:
        vector.check_fits(other)
    assert "--force" in caught.value.hint
    (warning,) = vector.check_fits(other, force=True)
    assert "'other'" in warning


@pytest.mark.parametrize(
    ("provenance", "says"),
    [
        (Provenance(), "does not say which model"),
        (Provenance(model_hint="mistral"), "made for 'mistral'"),
        (Provenance(model=dataclasses.replace(MODEL, content_hash="")), "cannot be told"),
    ],
)
def test_a_vector_of_unknown_origin_runs_with_a_warning(provenance: Provenance, says: str) -> None:
    """What cannot be checked is said, not refused: other producers store no hash."""
    (warning,) = ControlVector({1: np.ones(5)}, provenance).check_fits(MODEL)
    assert says in warning
