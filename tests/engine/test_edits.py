"""What is done to layers' outputs while llama.cpp runs is what the numpy definitions say, on both readers alike."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggufsteer.engine import library
from ggufsteer.engine.builtin import builtin_model_path
from ggufsteer.engine.capture import TokenSequence, capture
from ggufsteer.engine.context import Context
from ggufsteer.engine.edits import EditKind, Edits
from ggufsteer.engine.generate import generate
from ggufsteer.engine.interventions import NOTHING, Condition, Intervention, Steering
from ggufsteer.engine.library import open_reader
from ggufsteer.engine.model import LoadOptions, Model
from ggufsteer.engine.reading import Code, Report
from ggufsteer.engine.score import log_probabilities
from ggufsteer.engine.steer import prove, steered
from ggufsteer.errors import EngineError, SteerError
from ggufsteer.files.control_vector import ControlVector
from ggufsteer.maths import operations
from tests.engine.conftest import QUANTISATIONS, SMALL

needs_library = pytest.mark.skipif(not library.library_path().is_file(), reason="the native library is not built")
both_readers = pytest.mark.parametrize("reader", [pytest.param("native", marks=needs_library), "python"])

TOKENS = (70, 20, 33, 9, 111, 4, 250)
PROBE = [TokenSequence(TOKENS, tuple(range(len(TOKENS))))]
ALWAYS, NEVER = -1e30, 1e30


def unit(seed: int = 0, n_embd: int = 256) -> np.ndarray:
    """A direction of unit length."""
    direction = np.random.default_rng(seed).standard_normal(n_embd)
    return (direction / np.linalg.norm(direction)).astype(np.float32)


def edits(*steps: tuple[EditKind, int, int, int, float], directions: np.ndarray | None = None) -> Edits:
    """Edits of (kind, layer, direction, gate, number) along two directions of unit length and one of length 3."""
    return Edits(
        np.array([step[:4] for step in steps], dtype=np.int32).reshape(-1, 4),
        np.array([step[4] for step in steps], dtype=np.float64),
        np.stack([unit(0), unit(1), 3 * unit(2)]) if directions is None else directions,
        n_gates=2,
    )


def everywhere(kind: EditKind, number: float, layers: range, direction: int = 0) -> Edits:
    """The same operation on each of these layers; what is added is added where an always open gate lets it."""
    steps = [(kind, layer, direction, 0 if kind == EditKind.ADD else -1, number) for layer in layers]
    if kind == EditKind.ADD:
        steps.insert(0, (EditKind.CHECK, layers[0], 0, 0, ALWAYS))
    return edits(*steps)


DEFINITIONS: dict[EditKind, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    EditKind.ABLATE: operations.ablate,
    EditKind.CLAMP: operations.clamp,
    EditKind.ADD: operations.add,
}


@contextmanager
def edited(model: Model, wanted: Edits | None) -> Iterator[None]:
    """Let edits act on the model's context, and on those that take its steering over."""
    model.context.set_steering(Steering.of(None, wanted))
    try:
        yield
    finally:
        model.context.set_steering(None)


def states(model: Model, wanted: Edits | None, reader: str) -> np.ndarray:
    """All states of the probe while edits act: (layers, rows, embd)."""
    with edited(model, wanted):
        read = capture(model, PROBE, list(range(model.n_layer)), pool=False, callback=reader)  # type: ignore[call-overload]
    return read[0].swapaxes(0, 1)


def decode(context: Context, outputs: tuple[int, ...] = (-1,), tokens: tuple[int, ...] = TOKENS) -> np.ndarray:
    """Decode tokens in an empty memory and give the logits at some places. # (outputs, vocab)"""
    context.clear()
    places = [place % len(tokens) for place in outputs]
    flags = [place in places for place in range(len(tokens))]
    context.decode(tokens, range(len(tokens)), [0] * len(tokens), flags)
    return np.stack([context.logits(place) for place in places]) if places else np.empty((0, 0))


@pytest.fixture
def fresh(exact: Model) -> Iterator[Callable[[str], Context]]:
    """Contexts on the tiny model, by reader; closed afterwards."""
    contexts: list[Context] = []

    def make(reader: str) -> Context:
        contexts.append(exact.new_context(reader))  # type: ignore[arg-type]
        return contexts[-1]

    yield make
    for context in contexts:
        context.close()


@both_readers
@pytest.mark.parametrize("layer", range(4))
@pytest.mark.parametrize("kind", list(DEFINITIONS), ids=lambda kind: kind.name)
@pytest.mark.parametrize("number", [1.0, -0.75])
def test_an_edited_layer_holds_what_the_definition_says(
    tiny: Model, reader: str, kind: EditKind, layer: int, number: float
) -> None:
    """Bit for bit, from the states that the layer has without it; no earlier layer is changed at all."""
    plain = states(tiny, None, reader)
    wanted = everywhere(kind, number, range(layer, layer + 1), direction=2 if kind == EditKind.ADD else 0)
    seen = states(tiny, wanted, reader)
    direction = wanted.directions[2 if kind == EditKind.ADD else 0]
    assert np.array_equal(seen[layer], DEFINITIONS[kind](plain[layer], direction, number))
    assert np.array_equal(seen[:layer], plain[:layer])
    assert all(not np.array_equal(seen[above], plain[above]) for above in range(layer, tiny.n_layer))


@both_readers
@pytest.mark.parametrize("kind", list(DEFINITIONS), ids=lambda kind: kind.name)
def test_every_layer_can_be_edited_at_once(tiny: Model, reader: str, kind: EditKind) -> None:
    """Each layer holds what the definition makes of the states that it gets from the edited layers below it."""
    below = states(tiny, None, reader)
    for layer in range(tiny.n_layer):
        wanted = everywhere(kind, 1.5, range(layer + 1))
        seen = states(tiny, wanted, reader)
        assert np.array_equal(seen[layer], DEFINITIONS[kind](below[layer], wanted.directions[0], 1.5))
        below = seen


@both_readers
@pytest.mark.parametrize("quantisation", [*QUANTISATIONS, "built-in"])
def test_nothing_is_left_of_an_ablated_direction(
    tiny_models: Callable[[str], Model], builtin: Model, reader: str, quantisation: str
) -> None:
    """At every edited layer and token, on every kind of weights, the projection is rounding."""
    model = builtin if quantisation == "built-in" else tiny_models(quantisation)
    plain = states(model, None, reader)
    # Where the states lie: a direction that matters, on which they have large projections.
    mean = plain[1:].mean(axis=(0, 1))
    direction = (mean / np.linalg.norm(mean)).astype(np.float32)
    steps = [(EditKind.ABLATE, layer, 0, -1, 1.0) for layer in range(1, model.n_layer)]
    seen = states(model, edits(*steps, directions=direction[None]), reader)
    for layer in range(1, model.n_layer):
        before, after = (np.abs(operations.project(each[layer], direction)).max() for each in (plain, seen))
        assert after <= 1e-4 * before, layer


@pytest.fixture(scope="module")
def builtin() -> Iterator[Model]:
    """The model that ships."""
    with Model.open(builtin_model_path(), dataclasses.replace(SMALL, n_ctx=256)) as model:
        yield model


@both_readers
@pytest.mark.parametrize("quantisation", QUANTISATIONS)
@pytest.mark.parametrize("value", [-4.0, 0.0, 12.5])
def test_a_clamped_projection_has_its_value(
    tiny_models: Callable[[str], Model], reader: str, quantisation: str, value: float
) -> None:
    """At every layer and token."""
    seen = states(tiny_models(quantisation), everywhere(EditKind.CLAMP, value, range(4)), reader)
    for layer in range(4):
        assert np.abs(operations.project(seen[layer], unit(0)) - value).max() <= 1e-3


@both_readers
def test_a_gate_that_never_opens_changes_no_bit(fresh: Callable[[str], Context], reader: str) -> None:
    """Looking at the states costs nothing but time: the logits are those of the unsteered model."""
    context = fresh(reader)
    plain = decode(context)
    closed = edits((EditKind.CHECK, 0, 0, 1, NEVER), *((EditKind.ADD, layer, 2, 1, 5.0) for layer in range(4)))
    context.set_steering(Steering.of(None, closed))
    assert np.array_equal(decode(context), plain)


@both_readers
def test_an_open_gate_is_addition(exact: Model, reader: str) -> None:
    """It does what llama.cpp's own control vectors do."""
    rows = np.stack([3 * unit(2)] * 3)
    exact.context.set_steering(rows * np.float32(1.5))
    try:
        expected = capture(exact, PROBE, range(4), pool=False, callback=reader)[0].swapaxes(0, 1)  # type: ignore[call-overload]
    finally:
        exact.context.set_steering(None)
    opened = edits((EditKind.CHECK, 0, 0, 0, ALWAYS), *((EditKind.ADD, layer, 2, 0, 1.5) for layer in (1, 2, 3)))
    seen = states(exact, opened, reader)
    assert np.abs(seen - expected).max() <= 1e-5 * np.abs(expected).max()


@both_readers
def test_a_gate_is_open_for_the_tokens_that_pass_it(tiny: Model, reader: str) -> None:
    """Each token by itself, at this layer and at all that follow, and anew after the next look."""
    plain = states(tiny, None, reader)
    projections = operations.project(plain[1], unit(0))
    threshold = float(np.median(projections))
    opened = projections > threshold
    assert 0 < opened.sum() < len(opened)
    wanted = edits((EditKind.CHECK, 1, 0, 0, threshold), (EditKind.ADD, 1, 2, 0, 2.0), (EditKind.ADD, 3, 2, 0, 1.0))
    seen = states(tiny, wanted, reader)
    assert np.array_equal(seen[1][~opened], plain[1][~opened])
    assert np.array_equal(seen[1][opened], operations.add(plain[1][opened], 3 * unit(2), 2.0))
    before_last = states(tiny, edits(*[(*step, number) for step, number in list(_steps(wanted))[:2]]), reader)
    assert np.array_equal(seen[3][~opened], before_last[3][~opened])
    assert np.array_equal(seen[3][opened], operations.add(before_last[3][opened], 3 * unit(2), 1.0))


def _steps(wanted: Edits) -> Iterator[tuple[tuple[EditKind, int, int, int], float]]:
    for step, number in zip(wanted.steps.tolist(), wanted.numbers.tolist(), strict=True):
        yield tuple(step), number  # type: ignore[misc]


MIXED = edits(
    (EditKind.ABLATE, 0, 0, -1, 0.5),
    (EditKind.CHECK, 1, 1, 1, 0.0),
    (EditKind.CLAMP, 1, 1, -1, 2.0),
    (EditKind.ADD, 2, 2, 1, 1.25),
    (EditKind.CHECK, 2, 0, 0, 0.1),
    (EditKind.ABLATE, 3, 1, -1, 1.0),
    (EditKind.ADD, 3, 2, 0, -0.5),
    (EditKind.ADD, 3, 2, 1, 1.0),
)
"""Every kind, several of them at one layer, and two gates."""


@needs_library
@pytest.mark.parametrize("quantisation", QUANTISATIONS)
def test_both_readers_give_the_same_bits(tiny_models: Callable[[str], Model], quantisation: str) -> None:
    """States and logits, whatever is done and however many rows the last layer holds."""
    model = tiny_models(quantisation)
    assert np.array_equal(states(model, MIXED, "native"), states(model, MIXED, "python"))
    logits = []
    for reader in ("native", "python"):
        context = model.new_context(reader)  # type: ignore[arg-type]
        context.set_steering(Steering.of(None, MIXED))
        logits.append([decode(context, outputs) for outputs in ((-1,), (1, 4), tuple(range(len(TOKENS))))])
        context.close()
    for native, python in zip(*logits, strict=True):
        assert np.array_equal(native, python)


@both_readers
def test_a_last_layer_of_output_rows_only_is_edited_too(fresh: Callable[[str], Context], reader: str) -> None:
    """A row is steered alike whether or not its neighbours are asked for, with the gate of its own token."""
    context = fresh(reader)
    context.set_steering(Steering.of(None, MIXED))
    every = decode(context, tuple(range(len(TOKENS))))
    for outputs in ((-1,), (0, 3), (2, 4, 5)):
        some = decode(context, outputs)
        assert np.allclose(some, every[list(outputs)], rtol=1e-4, atol=1e-4)


@both_readers
def test_a_batch_without_outputs_is_steered(fresh: Callable[[str], Context], reader: str) -> None:
    """What the memory then holds is what it holds after a batch with outputs."""
    logits = []
    for outputs in ((), (2, 6)):
        context = fresh(reader)
        context.set_steering(Steering.of(None, MIXED))
        decode(context, outputs)
        context.decode([5], [len(TOKENS)], [0], [True])
        logits.append(context.logits(0))
    assert np.allclose(*logits, rtol=1e-4, atol=1e-4)


@both_readers
def test_token_by_token_is_as_in_one_batch(fresh: Callable[[str], Context], reader: str) -> None:
    """Edits know tokens, not batches."""
    context = fresh(reader)
    context.set_steering(Steering.of(None, MIXED))
    together = decode(context)
    context.clear()
    for position, token in enumerate(TOKENS):
        context.decode([token], [position], [0], [True])
    assert np.allclose(context.logits(0), together[0], rtol=1e-3, atol=1e-3)


@both_readers
def test_sequences_of_one_batch_have_gates_of_their_own(fresh: Callable[[str], Context], reader: str) -> None:
    """Two sequences together are steered as each alone."""
    context = fresh(reader)
    context.set_steering(Steering.of(None, MIXED))
    other = (9, 200, 41)
    alone = [decode(context, tokens=tokens)[0] for tokens in (TOKENS, other)]
    context.clear()
    tokens = [*TOKENS, *other]
    positions = [*range(len(TOKENS)), *range(len(other))]
    sequences = [0] * len(TOKENS) + [1] * len(other)
    ends = (len(TOKENS) - 1, len(tokens) - 1)
    context.decode(tokens, positions, sequences, [place in ends for place in range(len(tokens))])
    for end, expected in zip(ends, alone, strict=True):
        assert np.allclose(context.logits(end), expected, rtol=1e-3, atol=1e-3)


@both_readers
def test_a_layer_that_never_comes_by_is_an_error(fresh: Callable[[str], Context], reader: str) -> None:
    """Steering that does not happen is not silent, and what was computed without it is not built on."""
    context = fresh(reader)
    context.set_steering(Steering.of(None, MIXED))
    context.reader.set_edits(edits((EditKind.ABLATE, 2, 0, -1, 1.0), (EditKind.ABLATE, 9, 0, -1, 1.0)))
    with pytest.raises(EngineError, match="steering layer 9 failed: l_out-9 gave 0 of 7 rows"):
        decode(context)
    context.reader.set_edits(MIXED)
    context.decode([5], [0], [0], [True])


@both_readers
def test_a_graph_that_is_not_as_expected_is_an_error(fresh: Callable[[str], Context], reader: str) -> None:
    """A layer of another width is refused before anything is written into it."""
    context = fresh(reader)
    context.set_steering(Steering.of(None, MIXED))
    context.reader.set_edits(edits((EditKind.ABLATE, 1, 0, -1, 1.0), directions=unit(0, 128)[None]))
    with pytest.raises(EngineError, match="steering layer 1 failed: l_out-1 is 256 wide where 128"):
        decode(context)


@both_readers
def test_a_decode_that_nobody_expected_ends(fresh: Callable[[str], Context], reader: str) -> None:
    """Edits for another batch would meet the wrong tokens; the reader says so."""
    each = fresh(reader).reader
    assert each.edits_report() == Report(Code.NOT_ARMED)
    each.set_edits(MIXED)
    assert each.edits_report() == Report(Code.NOT_ARMED)
    for n_tokens, outputs in ((0, []), (2, [2]), (2, [-1]), (3, [1, 1]), (3, [2, 0])):
        with pytest.raises(ValueError, match="outputs"):
            each.expect(n_tokens, np.array(outputs, dtype=np.int32))
    each.expect(3, np.array([0, 2], dtype=np.int32))
    assert each.edits_report() == Report(Code.MISSING_ROWS, 0, 0, 3)


def test_what_is_raised_inside_the_python_callback_comes_out(
    fresh: Callable[[str], Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt is raised on the other side of llama.cpp's code, and half a decode is not built on."""
    context = fresh("python")
    context.set_steering(Steering.of(None, MIXED))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(operations, "clamp", interrupt)
        with pytest.raises(KeyboardInterrupt):
            decode(context)
    context.decode([5], [0], [0], [True])


UNFIT = {
    "another width": edits((EditKind.ABLATE, 1, 0, -1, 1.0), directions=unit(0, 128)[None]),
    "a layer too many": edits((EditKind.ABLATE, 4, 0, -1, 1.0)),
    "a direction that is no number": edits(
        (EditKind.ABLATE, 1, 0, -1, 1.0), directions=unit(0)[None] * np.float32("nan")
    ),
    "a strength that is no number": edits((EditKind.ABLATE, 1, 0, -1, float("inf"))),
    "a kind that there is not": edits((4, 1, 0, -1, 1.0)),  # type: ignore[arg-type]
    "a direction that there is not": edits((EditKind.ABLATE, 1, 3, -1, 1.0)),
    "a gate that nobody checks": edits((EditKind.CHECK, 1, 0, 0, 1.0), (EditKind.ADD, 1, 0, 1, 1.0)),
    "a gate that there is not": edits((EditKind.CHECK, 1, 0, 2, 1.0)),
    "layers that fall": edits((EditKind.ABLATE, 2, 0, -1, 1.0), (EditKind.ABLATE, 1, 0, -1, 1.0)),
}


@pytest.mark.parametrize("name", UNFIT)
def test_edits_that_do_not_fit_are_refused(exact: Model, name: str) -> None:
    """Before anything is set: what steered before still does."""
    exact.context.set_steering(Steering.of(None, MIXED))
    try:
        with pytest.raises(EngineError, match="edits"):
            exact.context.set_steering(Steering.of(None, UNFIT[name]))
        assert exact.context.steering.edits is MIXED
    finally:
        exact.context.set_steering(None)


@both_readers
@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-1, 4), st.integers(-1, 3), st.integers(-1, 3), st.integers(-1, 2), st.just(1.0)),
        max_size=4,
    )
)
def test_what_is_not_sound_is_refused_by_either_reader(reader: str, steps: list) -> None:
    """The readers take exactly what `Edits.is_sound` lets through."""
    each, _ = open_reader(reader)  # type: ignore[arg-type]
    wanted = edits(*steps, directions=np.eye(3, 4, dtype=np.float32))
    try:
        if wanted.is_sound():
            each.set_edits(wanted)
        else:
            with pytest.raises(ValueError, match="not sound"):
                each.set_edits(wanted)
    finally:
        each.close()


def test_batches_are_one_micro_batch_while_edits_act(exact: Model) -> None:
    """A gate belongs to a place in the batch: a longer one is refused, and allowed again without edits."""
    context = exact.context
    assert (context.n_batch, context.n_ubatch, context.most_tokens) == (1024, 128, 1024)
    with edited(exact, MIXED):
        assert context.most_tokens == 128
        with pytest.raises(EngineError, match="batch of 129 tokens; it must be 1 to 128"):
            decode(context, tokens=(5,) * 129)
    context.clear()


def test_long_prompts_are_generated_and_scored_under_edits(exact: Model, tiny_paths: dict) -> None:
    """They are cut into batches that edits can act on, with the same results as in one batch."""
    prompt = [int(token) for token in np.random.default_rng(3).integers(10, 260, 300)]
    options = dataclasses.replace(exact.options, n_ubatch=512)
    with Model.open(tiny_paths["F32"], options) as whole:
        answers, scores = [], []
        for model in (exact, whole):
            with edited(model, MIXED):
                answers.append(generate(model, [prompt, prompt[:40]], max_tokens=4))
                scores.append(log_probabilities(model, [prompt])[0])
    assert answers[0] == answers[1]
    assert np.allclose(*scores, rtol=1e-3, atol=1e-3)
    assert not np.allclose(scores[0], log_probabilities(exact, [prompt])[0], rtol=1e-2, atol=1e-2)


def test_steering_is_undone_after_an_error(tiny: Model) -> None:
    """Neither rows nor edits outlive the block."""
    plain = states(tiny, None, "auto")
    vector = ControlVector({1: 3 * unit(2), 2: unit(1)})
    acting = []

    def fail() -> None:
        acting.append(tiny.context.steering)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), steered(tiny, [Intervention(vector, operation="ablate"), (vector, 2.0)]):
        fail()
    assert acting[0].rows is not None
    assert acting[0].edits is not None
    assert tiny.context.steering is NOTHING
    assert np.array_equal(states(tiny, None, "auto"), plain)


def test_interventions_steer_within_the_block(tiny: Model) -> None:
    """Ablation by way of a vector: its projection is gone at its layers, and the vectors beside it add."""
    vector, other = ControlVector({1: 3 * unit(2), 3: 2 * unit(1)}), ControlVector({2: unit(4)})
    with steered(tiny, [Intervention(vector, operation="ablate"), (other, 2.0)]):
        seen = capture(tiny, PROBE, range(4), pool=False)[0].swapaxes(0, 1)
    ablated = ControlVector({1: 3 * unit(2)})
    with steered(tiny, [Intervention(ablated, operation="ablate")]):
        before = capture(tiny, PROBE, range(4), pool=False)[0].swapaxes(0, 1)
    assert np.abs(operations.project(seen[1], unit(2))).max() < 1e-4
    assert np.abs(operations.project(seen[3], unit(1))).max() < 1e-4
    assert np.abs(seen[2] - before[2] - 2 * unit(4)).max() < 1e-4


@pytest.mark.parametrize(
    "changes",
    [
        {"scope": "answer"},
        {"scope": "prompt"},
        {"thinking": False},
        {"operation": "gate"},
        {"operation": "gate", "condition": Condition(ControlVector({1: unit(3)}), 0.5, "prompt")},
    ],
    ids=str,
)
def test_what_takes_a_conversation_is_refused(tiny: Model, changes: dict) -> None:
    """Without turns nobody can tell a question from an answer: it is not simply done to everything."""
    intervention = dataclasses.replace(Intervention(ControlVector({1: unit(2)})), **changes)
    with pytest.raises(SteerError, match="takes a conversation"), steered(tiny, [intervention]):
        pytest.fail("the block must not run")
    assert tiny.context.steering is NOTHING


def test_a_gate_that_is_decided_for_each_token_steers(tiny: Model) -> None:
    """By its own vector's expression, or by another's."""
    vector, condition = ControlVector({1: 3 * unit(2)}), ControlVector({1: unit(3)})
    plain = states(tiny, None, "auto")[1]
    opened = operations.project(plain, unit(3)) > 0.25
    gate = Intervention(vector, 2.0, "gate", condition=Condition(condition, 0.25, "token"))
    with steered(tiny, [gate]):
        seen = capture(tiny, PROBE, [1], pool=False)[0][:, 0]
    assert np.array_equal((seen != plain).any(axis=1), opened)


def test_the_proof_leaves_the_context_as_it_was(tiny_paths: dict) -> None:
    """Its memory is built on afterwards, and what steers it stays."""
    with Model.open(tiny_paths["F32"], LoadOptions(n_ctx=256, n_threads=1)) as model:
        context = model.context
        context.set_steering(Steering.of(None, MIXED))
        context.decode(TOKENS, range(7), [0] * 7, [False] * 7)
        prove(model, np.ones((3, 256), dtype=np.float32))
        assert model.proven_layers == {1}
        context.decode([5], [7], [0], [True])
        assert context.steering.edits is MIXED


def test_equal_steering_is_no_change_and_edits_alone_do_not_touch_llama_cpp(
    exact: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call of llama.cpp's makes it plan its graph anew: it is called when rows change, and only then."""
    calls = []
    context, send = exact.context, Context._send
    monkeypatch.setattr(Context, "_send", lambda self, rows: (calls.append("rows"), send(self, rows)))
    rows = np.ones((3, 256), dtype=np.float32)
    again = dataclasses.replace(MIXED, numbers=MIXED.numbers.copy())
    other = dataclasses.replace(MIXED, numbers=2 * MIXED.numbers)
    try:
        context.set_steering(Steering.of(rows, MIXED))
        key = context.steering_key
        context.decode([5], [0], [0], [True])
        context.set_steering(Steering.of(rows.copy(), again))
        assert context.steering_key == key
        context.decode([5], [1], [0], [True])  # the memory was kept
        context.set_steering(Steering.of(rows, other), keep_memory=True)
        assert context.steering_key != key
        context.decode([5], [2], [0], [True])
        assert calls == ["rows"]
        context.set_steering(Steering.of(rows, MIXED))
        context.decode([5], [0], [0], [True])  # and now it was cleared
        assert calls == ["rows"]
    finally:
        context.set_steering(None)
        context.clear()
    assert context.steering_key == b""


@both_readers
def test_layers_behind_an_early_stop_are_not_missed(tiny: Model, reader: str) -> None:
    """Reading ends the graph after its deepest layer; what was to be done above that cannot be done, and need not."""
    seen = states(tiny, MIXED, reader)
    with edited(tiny, MIXED):
        read = capture(tiny, PROBE, [1], pool=False, callback=reader)  # type: ignore[call-overload]
    assert np.array_equal(read[0][:, 0], seen[1])
