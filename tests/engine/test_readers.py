"""The two readers of hidden states, native library and Python twin: what they refuse, do and report."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggufsteer.engine import library
from ggufsteer.engine.capture import TokenSequence, capture
from ggufsteer.engine.context import Context
from ggufsteer.engine.library import ReaderName, open_reader
from ggufsteer.engine.model import Model
from ggufsteer.engine.reading import Code, Operation, Reading, Report, Targets, check
from ggufsteer.errors import EngineError
from tests.engine.conftest import SMALL

needs_library = pytest.mark.skipif(not library.library_path().is_file(), reason="the native library is not built")
both_readers = pytest.mark.parametrize("name", [pytest.param("native", marks=needs_library), "python"])


STEPS = (
    (Operation.CLEAR, 0, 0),
    (Operation.ROW, 0, 0),
    (Operation.STORE, 0, 0),
    (Operation.ADD, 0, 0),
    (Operation.COPY, 0, 1),
    (Operation.ROW, 1, 0),
    (Operation.STORE, 1, 0),
    (Operation.ADD, 1, 0),
    (Operation.SCORE, 0, 0),
    (Operation.MEAN, 1, 2),
    (Operation.STORE, 2, 0),
    (Operation.SUM, 1, 3),
    (Operation.LENGTH, 2, 0),
)
"""Every operation once at least: two rows stored, and their mean stored, summed up threefold and measured."""


def steps(*those: tuple[int, int, int]) -> np.ndarray:
    """Steps as an int32 array."""
    return np.array(those, dtype=np.int32).reshape(-1, 3)


def targets(n_embd: int = 8, **changes: int) -> Targets:
    """Targets of 2 layers for `STEPS`, with some numbers changed; the directions rise from -1 to 1."""
    counts = {"states": 3, "accumulators": 2, "sums": 2, "lengths": 3, "scores": 1} | changes
    return Targets.make(2, n_embd, directions=np.linspace(-1, 1, 2 * n_embd).reshape(2, n_embd), **counts)


def reading(**changes: object) -> Reading:
    """A sound reading of 2 layers and 2 rows, with some fields changed."""
    fields: dict = {
        "layers": np.array([1, 3], dtype=np.int32),
        "rows": np.array([0, 4], dtype=np.int32),
        "steps": steps(*STEPS),
        "targets": targets(),
        "n_tokens": 5,
        "rows_are_outputs": False,
        "stop_early": True,
    }
    return Reading(**(fields | changes))


def numbers(*values: int) -> np.ndarray:
    """An int32 array."""
    return np.array(values, dtype=np.int32)


# After a row and a mean, each of these is the one unsound step.
UNSOUND_STEPS = (
    *((operation, -1, 1) for operation in Operation),
    *((operation, 3, 1) for operation in Operation),
    (Operation.ROW, 0, 0),  # back from row 1
    (Operation.ROW, 2, 0),
    (Operation.MEAN, 0, 0),
    (Operation.SUM, 0, 0),
    (Operation.COPY, 0, -1),
    (Operation.COPY, 0, 2),
    (-1, 0, 0),
    (9, 0, 0),
)


@both_readers
@pytest.mark.parametrize(
    "changes",
    [
        {"layers": numbers(3, 1)},
        {"layers": numbers(1, 1)},
        {"layers": numbers(-1, 1)},
        {"rows": numbers(4, 0)},
        {"rows": numbers(0, 5)},
        {"rows": numbers(-1, 4)},
        {"rows": numbers(0)},
        {"rows": numbers()},
        {"n_tokens": 0},
        {"n_tokens": 4},
        *({"targets": targets(**{name: 0})} for name in ("states", "accumulators", "sums", "lengths", "scores")),
        {"targets": Targets.make(2, 8, states=3, accumulators=2, sums=2, lengths=3, scores=1)},
        *({"steps": steps((Operation.ROW, 1, 0), (Operation.MEAN, 0, 1), step)} for step in UNSOUND_STEPS),
        *({"steps": steps((operation, 0, 1))} for operation in list(Operation)[4:]),
    ],
    ids=str,
)
def test_readings_that_could_write_astray_are_refused(name: str, changes: dict) -> None:
    """Both implementations refuse the same, before anything is read; an unsound one disarms nothing by halves."""
    reader, _ = open_reader(name)  # type: ignore[arg-type]
    wanted = reading(**changes)
    assert not wanted.is_sound()
    with pytest.raises(ValueError, match="not sound"):
        reader.arm(wanted)
    assert reader.finish().code is Code.NOT_ARMED
    reader.close()


@both_readers
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"steps": steps()},
        {"rows": numbers(), "steps": steps()},
        {"rows": numbers(), "steps": steps((Operation.CLEAR, 1, 0), (Operation.COPY, 1, 0), (Operation.MEAN, 0, 1))},
        {"rows": numbers(), "steps": steps(), "targets": Targets.make(2, 8)},
        {"steps": steps((Operation.ROW, 1, 0), (Operation.ROW, 1, 0), (Operation.STORE, 2, 0))},
        {"layers": numbers(0, 2**31 - 2)},
    ],
    ids=str,
)
def test_sound_readings_are_taken(name: str, changes: dict) -> None:
    """Neither rows nor steps nor targets are a must: an early stop alone is worth a reading."""
    reader, _ = open_reader(name)  # type: ignore[arg-type]
    wanted = reading(**changes)
    assert wanted.is_sound()
    reader.arm(wanted)
    assert reader.finish() == Report(Code.MISSING_ROWS, int(wanted.layers[0]), 0, len(wanted.rows))
    reader.close()


@needs_library
@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1, 9), st.integers(-1, 3), st.integers(-1, 2)), max_size=4),
    st.lists(st.integers(-1, 5), max_size=3),
)
def test_both_readers_have_the_same_idea_of_soundness(those: list[tuple[int, int, int]], rows: list[int]) -> None:
    """What one refuses, the other refuses."""
    wanted = reading(rows=numbers(*rows), steps=steps(*those))
    native, _ = open_reader("native")
    try:
        taken = True
        try:
            native.arm(wanted)
        except ValueError:
            taken = False
        assert taken == wanted.is_sound()
    finally:
        native.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": np.zeros((2, 2), dtype=np.int32)},
        {"steps": np.zeros(3, dtype=np.int32)},
        {"steps": np.zeros((1, 3), dtype=np.int64)},
        {"steps": np.zeros((2, 6), dtype=np.int32)[:, ::2]},
        {"layers": numbers(1)},
        {"layers": np.array([1, 3])},
        {"rows": np.array([0, 4])},
        {"rows": numbers(0, 1, 4)[::2]},
    ],
)
def test_arrays_of_the_wrong_form_are_refused(changes: dict) -> None:
    """The native library gets bare addresses: the arrays behind them must be what it takes them for."""
    with pytest.raises(ValueError):  # noqa: PT011 - several messages
        reading(**changes)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("states", np.zeros((2, 2, 8))),
        ("states", np.zeros((2, 2, 16), dtype=np.float32)[:, :, ::2]),
        ("states", np.zeros((2, 3, 8), dtype=np.float32)),
        ("accumulators", np.zeros((2, 2, 8), dtype=np.float32)),
        ("accumulators", np.zeros((2, 2, 4))),
        ("sums", np.zeros((2, 3, 8))),
        ("sums", np.zeros((2, 2, 8)).T.copy().T),
        ("lengths", np.zeros((2, 3))),
        ("lengths", np.zeros((2, 2), dtype=np.float32)),
        ("scores", np.zeros((2, 2, 8))),
        ("scores", np.zeros((2, 4))[:, ::2]),
        ("directions", np.zeros((2, 8))),
        ("directions", np.zeros((1, 8), dtype=np.float32)),
    ],
)
def test_targets_of_the_wrong_form_are_refused(name: str, array: np.ndarray) -> None:
    """So must be the arrays that are written to."""
    with pytest.raises(ValueError, match="targets must be"):
        dataclasses.replace(targets(), **{name: array})


def states_of_five_tokens(model: Model, layers: list[int]) -> np.ndarray:
    """Every row of the batch that the tests below decode. # (5, layers, embd)"""
    return capture(model, [TokenSequence((5,) * 5, tuple(range(5)))], layers, pool=False)[0]


def decode_five(context: Context, outputs: tuple[int, ...] = ()) -> None:
    """Decode a batch of five equal tokens, with logits at some positions."""
    context.decode([5] * 5, range(5), [0] * 5, [position in outputs for position in range(5)])


@both_readers
@pytest.mark.parametrize("layers", [(1, 2), (0, 3)], ids=str)
def test_each_operation_and_each_field_does_what_the_header_says(
    name: str, layers: tuple[int, int], exact: Model
) -> None:
    """All fields have different values, so that two that changed places would show; the last layer is cut."""
    expected = states_of_five_tokens(exact, list(layers)).astype(np.float64)
    into = targets(256)
    into.sums[:] = 7.0
    into.accumulators[:] = 5.0
    context = exact.new_context(name)  # type: ignore[arg-type]
    try:
        wanted = reading(layers=numbers(*layers), targets=into, rows_are_outputs=layers[-1] == 3)
        context.read(wanted, lambda: decode_five(context, (0, 4)))
    finally:
        context.close()
    first, second = expected[0], expected[4]
    mean = ((first + second) / 2).astype(np.float32)

    def close(seen: np.ndarray, true: np.ndarray) -> bool:
        return bool(np.abs(seen - true).max() <= 1e-5 * np.abs(true).max())

    assert close(into.states, np.stack([first, second, mean]))
    assert close(into.accumulators, np.stack([first, first + second]))
    assert (into.sums[0] == 7.0).all()
    assert close(into.sums[1], 7.0 + 3 * mean.astype(np.float64))
    assert close(into.lengths[2], np.linalg.norm(mean, axis=-1))
    assert not into.lengths[:2].any()
    assert close(into.scores[0], (second * into.directions).sum(axis=-1))


@needs_library
def test_both_readers_give_the_same_bits_for_every_operation(exact: Model) -> None:
    """Also the sums in double precision: the order of additions is the same."""
    native, python = read_three_times(exact, "native"), read_three_times(exact, "python")
    for array in ("states", "accumulators", "sums", "lengths", "scores"):
        assert np.array_equal(getattr(native, array), getattr(python, array)), array


def read_three_times(model: Model, name: ReaderName) -> Targets:
    """What `STEPS` have written after three decodes; sums and accumulators go on from one to the next."""
    into = targets(256)
    context = model.new_context(name)
    try:
        for _ in range(3):
            context.read(reading(layers=numbers(1, 2), targets=into), lambda: decode_five(context))
            context.clear()
    finally:
        context.close()
    return into


@both_readers
def test_a_reading_without_rows_stops_early(name: str, tiny: Model) -> None:
    """Only the graph's end changes: the deeper layers and the logits are not computed."""
    context = tiny.new_context(name)  # type: ignore[arg-type]
    try:
        wanted = reading(layers=numbers(1), rows=numbers(), steps=steps(), targets=Targets.make(1, 256))
        context.read(wanted, lambda: decode_five(context))
        # llama.cpp refuses a position that it holds already: the memory was written nevertheless.
        with pytest.raises(EngineError, match="positions"):
            decode_five(context)
    finally:
        context.close()


@both_readers
def test_a_graph_that_is_not_as_expected_is_reported(name: str, tiny: Model) -> None:
    """Rows that never came by are an error that names layer and numbers, not zeros taken for states."""
    context = tiny.new_context(name)  # type: ignore[arg-type]
    cases = {
        "l_out-9 gave 0 of 2 rows": {"layers": numbers(1, 9), "targets": targets(256)},
        "l_out-1 is 256 wide where 128": {"layers": numbers(1, 2), "targets": targets(128)},
        "l_out-1 has 5 rows for 6 tokens": {"layers": numbers(1, 2), "targets": targets(256), "n_tokens": 6},
        "l_out-3 has 1 rows for 5 tokens": {"targets": targets(256), "rows_are_outputs": True},
    }
    try:
        for message, changes in cases.items():
            wanted = reading(**changes)
            with pytest.raises(EngineError, match=message):
                context.read(wanted, lambda: decode_five(context, (4,)))
            context.clear()
    finally:
        context.close()


@both_readers
def test_a_batch_of_several_micro_batches_is_reported(name: str, tiny: Model) -> None:
    """A layer that comes twice holds other rows than were meant: nothing is taken from it."""
    with Model.open(tiny.path, dataclasses.replace(SMALL, n_ubatch=4)) as model:
        context = model.new_context(name)  # type: ignore[arg-type]
        batch = ([5] * 8, range(8), [0] * 8, [False] * 8)
        try:
            wanted = reading(
                layers=numbers(1, 2), targets=targets(256), n_tokens=4, rows=numbers(0, 3), stop_early=False
            )
            with pytest.raises(EngineError, match="l_out-1 has 4 rows for 4 tokens"):
                context.read(wanted, lambda: context.decode(*batch))
        finally:
            context.close()


@both_readers
def test_an_unarmed_reader_changes_nothing(name: str, tiny: Model) -> None:
    """Between readings the callback lets every graph run to its end."""
    context = tiny.new_context(name)  # type: ignore[arg-type]
    try:
        context.decode([5, 6], [0, 1], [0, 0], [False, True])
        plain = context.logits(1)
        tiny.context.clear()
        tiny.context.decode([5, 6], [0, 1], [0, 0], [False, True])
        assert np.array_equal(plain, tiny.context.logits(1))
    finally:
        tiny.context.clear()
        context.close()


def test_a_reader_is_disarmed_after_a_failed_decode(tiny: Model) -> None:
    """A decode that raises leaves no reader that writes into memory which is gone."""
    wanted = reading(targets=targets(256))
    with pytest.raises(EngineError, match="token ids"):
        tiny.context.read(wanted, lambda: tiny.context.decode([999] * 5, range(5), [0] * 5, [False] * 5))
    assert tiny.context.reader.finish().code is Code.NOT_ARMED


def test_what_is_raised_inside_the_python_callback_comes_out(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt inside the callback crosses llama.cpp's C code and is raised on the other side."""
    context = tiny.new_context("python")

    def interrupt(tensor: int) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(context.reader, "_wants", interrupt)
    wanted = reading(targets=targets(256))
    try:
        with pytest.raises(KeyboardInterrupt):
            context.read(wanted, lambda: context.decode([5] * 5, range(5), [0] * 5, [False] * 5))
    finally:
        context.close()


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
def test_each_way_to_fail_has_words(code: Code) -> None:
    """No code ends in silence."""
    with pytest.raises(EngineError, match="layers 1 to 3"):
        check(Report(code, 3, 1, 2), [1, 2, 3])


@both_readers
def test_rows_are_added_in_double_precision(name: str, tiny: Model) -> None:
    """A sum over many rows is as exact as double precision, not as float32."""
    sequence = TokenSequence(tuple(range(100)), tuple(range(100)))
    rows = capture(tiny, [sequence], [2], pool=False, callback=name)[0]  # type: ignore[call-overload]
    mean = capture(tiny, [sequence], [2], callback=name)[0]  # type: ignore[call-overload]
    assert np.array_equal(mean, (rows.astype(np.float64).sum(axis=0) / 100).astype(np.float32))
