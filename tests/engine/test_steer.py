"""Steering acts where and as much as it says, and leaves nothing behind."""

from collections.abc import Callable

import numpy as np
import pytest

from ggufsteer.engine.capture import TokenSequence, capture
from ggufsteer.engine.generate import generate
from ggufsteer.engine.interventions import NOTHING, combine
from ggufsteer.engine.model import LoadOptions, Model
from ggufsteer.engine.score import log_probabilities
from ggufsteer.engine.steer import steered
from ggufsteer.errors import EngineError, MisfitError, SteerError
from ggufsteer.files.control_vector import ControlVector, Provenance
from tests.engine.conftest import QUANTISATIONS

PROBE = [TokenSequence((70, 20, 33, 9, 111), (0, 1, 2, 3, 4))]


def random_vector(layers: list[int], n_embd: int = 256, seed: int = 0, size: float = 1.0) -> ControlVector:
    """Random directions, of the size of a state's components."""
    generator = np.random.default_rng(seed)
    return ControlVector({layer: (size * generator.standard_normal(n_embd)).astype(np.float32) for layer in layers})


def states(model: Model) -> np.ndarray:
    """All states of the probe: (rows, layers, embd)."""
    return capture(model, PROBE, list(range(model.n_layer)), pool=False)[0]


@pytest.mark.parametrize("quantisation", QUANTISATIONS)
@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("strength", [1.0, -2.5, 0.125])
def test_a_direction_moves_its_layer_by_exactly_strength_times_itself(
    tiny_models: Callable[[str], Model], quantisation: str, layer: int, strength: float
) -> None:
    """Layer N moves by strength times direction.N, at every token; no earlier layer moves at all."""
    model = tiny_models(quantisation)
    vector = random_vector([layer])
    plain = states(model)
    with steered(model, [(vector, strength)]):
        moved = states(model) - plain
    assert np.abs(moved[:, layer] - strength * vector.directions[layer]).max() < 1e-5
    assert not moved[:, :layer].any()


def test_the_same_on_a_real_model(stories: Model) -> None:
    """Every layer of weights that training made moves by exactly its direction."""
    for layer in range(1, stories.n_layer):
        vector = random_vector([layer], stories.n_embd)
        plain = states(stories)
        with steered(stories, [(vector, 1.5)]):
            moved = states(stories) - plain
        assert np.abs(moved[:, layer] - 1.5 * vector.directions[layer]).max() < 1e-5
        assert not moved[:, :layer].any()


def test_a_later_vector_with_fewer_layers_leaves_nothing_of_the_earlier_one(tiny: Model) -> None:
    """A vector that reaches less far does not leave the earlier one's rows in force."""
    short = random_vector([1], seed=1)
    with steered(tiny, [(short, 1.0)]):
        expected = states(tiny)
    with steered(tiny, [(random_vector([1, 2, 3], seed=2), 1.0)]), steered(tiny, [(short, 1.0)]):
        assert np.array_equal(states(tiny), expected)


def test_nested_steering_is_put_back(tiny: Model) -> None:
    """Leaving an inner block brings the outer block's steering back."""
    with steered(tiny, [(random_vector([2]), 1.0)]):
        outer = states(tiny)
        with steered(tiny, [(random_vector([1]), 1.0)]):
            assert not np.array_equal(states(tiny), outer)
        assert np.array_equal(states(tiny), outer)


def test_steering_is_undone_after_an_error(tiny: Model) -> None:
    """An error inside the block does not leave the model steered."""
    plain = states(tiny)
    with pytest.raises(ZeroDivisionError), steered(tiny, [(random_vector([1, 2]), 1.0)]):
        raise ZeroDivisionError
    assert np.array_equal(states(tiny), plain)
    assert tiny.context.steering is NOTHING


@pytest.mark.parametrize("when", ["_send", "clear"])
def test_an_interrupt_while_the_steering_is_set_leaves_nothing(
    tiny: Model, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Ctrl-C right after llama.cpp took the rows, before or after that was noted: they are taken away again."""
    plain, context = states(tiny), tiny.context
    done = getattr(context, when)

    def interrupted(*arguments: object) -> None:
        done(*arguments)
        monkeypatch.undo()
        raise KeyboardInterrupt

    tiny.proven_layers.add(1)
    monkeypatch.setattr(context, when, interrupted)
    with pytest.raises(KeyboardInterrupt), steered(tiny, [(random_vector([1, 2]), 1.0)]):
        pytest.fail("the block must not run")
    assert np.array_equal(states(tiny), plain)


def test_strength_zero_and_opposite_vectors_change_nothing(tiny: Model) -> None:
    """v times 0, and v minus v, are the unsteered model bit for bit."""
    plain = states(tiny)
    vector = random_vector([1, 2, 3])
    for vectors in ([(vector, 0.0)], [(vector, 1.0), (vector, -1.0)], []):
        with steered(tiny, vectors):
            assert np.array_equal(states(tiny), plain)


def test_several_vectors_add_up(tiny: Model) -> None:
    """Two vectors at their strengths equal their sum."""
    first, second = random_vector([1, 2], seed=1), random_vector([2, 3], seed=2)
    with steered(tiny, [(first, 0.5), (second, -2.0)]):
        apart = states(tiny)
    with steered(tiny, [(first * 0.5 + second * -2.0, 1.0)]):
        assert np.allclose(apart, states(tiny), rtol=1e-5, atol=1e-5)


def test_steering_reaches_generation_and_scores_and_leaves_them(tiny: Model) -> None:
    """Text and probabilities are other ones while steered, and the old ones afterwards."""
    prompt = [list(PROBE[0].tokens)]
    plain_text, plain_scores = generate(tiny, prompt, max_tokens=8), log_probabilities(tiny, prompt)
    with steered(tiny, [(random_vector([1, 2, 3], size=3.0), 2.0)]):
        assert generate(tiny, prompt, max_tokens=8) != plain_text
        assert not np.allclose(log_probabilities(tiny, prompt)[0], plain_scores[0])
    assert generate(tiny, prompt, max_tokens=8) == plain_text
    assert np.array_equal(log_probabilities(tiny, prompt)[0], plain_scores[0])


def test_the_memory_is_cleared_when_the_steering_changes(tiny: Model) -> None:
    """What was computed under an old steering is never built on."""
    context = tiny.context
    context.clear()
    context.decode([65, 66], [0, 1], [0, 0], [False, True])
    context.set_steering(np.ones((3, 256), dtype=np.float32))
    try:
        # llama.cpp refuses a position that it holds already.
        context.decode([65, 66], [0, 1], [0, 0], [False, True])
    finally:
        context.set_steering(None)


def test_equal_steering_keeps_the_memory(tiny: Model) -> None:
    """Setting the same rows again is no change: it costs nothing and clears nothing."""
    context = tiny.context
    rows = np.ones((3, 256), dtype=np.float32)
    context.set_steering(rows)
    try:
        context.decode([65, 66], [0, 1], [0, 0], [False, True])
        context.set_steering(rows.copy())
        with pytest.raises(EngineError):
            context.decode([65, 66], [0, 1], [0, 0], [False, True])
    finally:
        context.set_steering(None)


def test_changing_the_callers_array_changes_no_steering(tiny: Model) -> None:
    """The rows are copied when they are set."""
    rows = np.ones((3, 256), dtype=np.float32)
    tiny.context.set_steering(rows)
    try:
        rows[:] = 7
        assert tiny.context.steering.rows is not None
        assert (tiny.context.steering.rows == 1).all()
    finally:
        tiny.context.set_steering(None)


@pytest.mark.parametrize("shape", [(2, 256), (4, 256), (3, 255), (256,)])
def test_rows_of_the_wrong_shape_are_refused(tiny: Model, shape: tuple[int, ...]) -> None:
    """llama.cpp would take a short buffer in silence and leave the rest as it was."""
    with pytest.raises(EngineError, match="shape"):
        tiny.context.set_steering(np.ones(shape, dtype=np.float32))
    assert tiny.context.steering is NOTHING


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_refused(tiny: Model, bad: float) -> None:
    """One NaN would make every logit NaN."""
    rows = np.ones((3, 256), dtype=np.float32)
    rows[1, 7] = bad
    with pytest.raises(EngineError, match="finite"):
        tiny.context.set_steering(rows)


def test_a_vector_of_another_width_or_depth_never_runs(tiny: Model) -> None:
    """A vector that does not fit is refused before anything is set."""
    for vector in (random_vector([1], n_embd=64), random_vector([4])):
        with pytest.raises(MisfitError), steered(tiny, [(vector, 1.0)]):
            pytest.fail("the block must not run")
        with pytest.raises(MisfitError):
            combine([(vector, 1.0)], tiny.n_layer, tiny.n_embd)
    assert tiny.context.steering is NOTHING


def test_a_vector_of_another_file_runs_only_by_force(tiny: Model, tiny_models: Callable[[str], Model]) -> None:
    """Another model of the same shape is refused, and let through with a warning when forced."""
    vector = ControlVector(random_vector([1]).directions, Provenance(model=tiny_models("Q8_0").identity))
    with pytest.raises(MisfitError), steered(tiny, [(vector, 1.0)]):
        pytest.fail("the block must not run")
    with steered(tiny, [(vector, 1.0)], force=True) as warnings:
        assert warnings


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), 1e39])
def test_strengths_that_are_no_numbers_are_refused(strength: float) -> None:
    """NaN, infinity, and what overflows on the way."""
    with pytest.raises(SteerError):
        combine([(random_vector([1]), strength)], 4, 256)


def test_combine_places_rows_from_layer_one_on() -> None:
    """Row k of the buffer belongs to layer k + 1."""
    rows = combine([(ControlVector({2: np.array([1, 2], dtype=np.float32)}), 3.0)], 4, 2)
    assert rows.dtype == np.float32
    assert rows.tolist() == [[0, 0], [3, 6], [0, 0]]


def test_a_model_that_ignores_vectors_is_found_out(tiny_paths: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the layer does not move as set, steering stops with an error instead of going on unsteered."""
    with Model.open(tiny_paths["F32"], LoadOptions(n_ctx=256, n_threads=1)) as model:
        # What an architecture without build_cvec does: the buffer is taken, and nothing adds it.
        monkeypatch.setattr(type(model.context), "_send", lambda _self, _rows: None)
        for size in (1.0, 1e-7, 1e-40):  # however little the vector adds
            vector = random_vector([2], size=size)
            with pytest.raises(EngineError, match="ignores control vectors"), steered(model, [(vector, 1.0)]):
                pytest.fail("the block must not run")
            assert model.context.steering is NOTHING
            assert not model.proven_layers


def test_the_probe_runs_once_a_layer(tiny_paths: dict) -> None:
    """What was proven once is not proven again."""
    with Model.open(tiny_paths["F32"], LoadOptions(n_ctx=256, n_threads=1)) as model:
        assert model.proven_layers == set()
        for layers in ([2], [2, 3], [1]):
            with steered(model, [(random_vector(layers), 1.0)]):
                pass
        assert model.proven_layers == {1, 2}
