"""The native library: found, checked, replaced by its twin where it does not work."""

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ggufsteer.engine import backend, library
from ggufsteer.engine.capture import TokenSequence, capture
from ggufsteer.engine.library import load_library, open_reader
from ggufsteer.engine.model import Model
from ggufsteer.engine.reading import Code, Reading, Report, check
from ggufsteer.errors import EngineError
from tests.engine.conftest import SMALL

needs_library = pytest.mark.skipif(not library.library_path().is_file(), reason="the native library is not built")
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
both_readers = pytest.mark.parametrize("name", [pytest.param("native", marks=needs_library), "python"])


@pytest.mark.parametrize(
    ("platform", "name"),
    [("linux", "libggufsteer.so"), ("darwin", "libggufsteer.dylib"), ("win32", "ggufsteer.dll")],
)
def test_the_library_is_looked_for_under_the_name_that_the_build_gives_it(
    platform: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each platform has its own custom, and CMakeLists.txt follows it."""
    monkeypatch.setattr(sys, "platform", platform)
    assert library.library_path().name == name


@needs_library
def test_the_native_library_is_used_where_it_is() -> None:
    """Without being asked, the native reader is taken, and there is nothing to say about it."""
    reader, note = open_reader()
    assert (reader.name, note) == ("native", "")
    reader.close()


@needs_library
def test_the_library_needs_neither_ggml_nor_python() -> None:
    """It can be opened in a process that has neither, so it serves every Python and every build of llama.cpp."""
    code = f"import ctypes; print(ctypes.CDLL({str(library.library_path())!r}).ggufsteer_abi())"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(library.ABI)


def test_both_sides_speak_of_the_same_interface() -> None:
    """The number in the header is the number in Python, and so are the codes."""
    header = (Path(__file__).parents[2] / "native" / "ggufsteer.h").read_text("utf-8")
    assert f"#define GGUFSTEER_ABI {library.ABI}\n" in header
    for code in Code:
        assert f"GGUFSTEER_{code.name} = {code.value}" in header


def test_a_missing_library_is_replaced_with_a_note(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: Model
) -> None:
    """Without the library everything works, and a person is told; who insists on it gets an error."""
    monkeypatch.setattr(library, "library_path", lambda: tmp_path / "absent.so")
    library._native_library.cache_clear()
    try:
        reader, note = open_reader()
        assert reader.name == "python"
        assert "absent.so is not there" in note
        with pytest.raises(EngineError, match=r"absent\.so is not there"):
            open_reader("native")
        with Model.open(tiny.path, SMALL) as model:
            assert "absent.so" in model.reader_note
            probe = [TokenSequence((5, 6), (1,))]
            assert np.array_equal(capture(model, probe, [2]), capture(tiny, probe, [2]))
    finally:
        library._native_library.cache_clear()


@needs_compiler
def test_a_library_of_another_interface_is_refused(tmp_path: Path) -> None:
    """Both numbers and the mend are in the message."""
    source = tmp_path / "other.c"
    source.write_text("int ggufsteer_abi(void) { return 99; }\n")
    built = tmp_path / "other.so"
    subprocess.run(["cc", "-shared", "-fPIC", str(source), "-o", str(built)], check=True)
    with pytest.raises(EngineError, match=f"interface 99, this package needs {library.ABI}"):
        load_library(built)


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    """A broken file is an error that names it."""
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no library")
    with pytest.raises(EngineError, match=r"broken\.so cannot be loaded"):
        load_library(broken)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_there_is_one_ggml_in_the_process(tiny: Model) -> None:
    """The functions come from the copy that llama.cpp runs on; a second one would have a registry of its own."""
    capture(tiny, [TokenSequence((5,), (0,))], [1])
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libggml-base" in line}
    assert len(mapped) == 1
    assert "llama_cpp" in mapped.pop()


def test_a_function_that_ggml_does_not_have_is_an_error() -> None:
    """A llama-cpp-python of another version is recognised, not called into nothing."""
    with pytest.raises(EngineError, match="ggml_no_such_function"):
        backend.ggml_function("ggml_no_such_function", None)


def reading(**changes: object) -> Reading:
    """A sound reading of 2 layers and 2 rows, with some fields changed."""
    fields: dict = {
        "layers": np.array([1, 3], dtype=np.int32),
        "rows": np.array([0, 4], dtype=np.int32),
        "slots": np.array([0, 1], dtype=np.int32),
        "target": np.zeros((2, 2, 8), dtype=np.float32),
        "n_tokens": 5,
        "n_ubatch": 5,
        "rows_are_outputs": False,
        "stop_early": True,
    }
    return Reading(**(fields | changes))


def numbers(*values: int) -> np.ndarray:
    """An int32 array."""
    return np.array(values, dtype=np.int32)


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
        {"slots": numbers(0, 2)},
        {"slots": numbers(-1, 0)},
        {"n_tokens": 0},
        {"n_ubatch": 0},
        {"n_ubatch": 4},
        {"rows": numbers(), "slots": numbers()},
    ],
    ids=str,
)
def test_readings_that_could_write_astray_are_refused(name: str, changes: dict) -> None:
    """Both implementations refuse the same, before anything is read."""
    reader, _ = open_reader(name)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not sound"):
        reader.arm(reading(**changes))
    assert reader.finish().code is Code.NOT_ARMED
    reader.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"target": np.zeros((2, 3, 8), dtype=np.float32)},
        {"target": np.zeros((2, 2, 8), dtype=np.float16)},
        {"target": np.zeros((2, 2, 16), dtype=np.float32)[:, :, ::2]},
        {"slots": numbers(0)},
        {"rows": np.array([0, 4])},
    ],
)
def test_arrays_of_the_wrong_form_are_refused(changes: dict) -> None:
    """The native library gets bare addresses: the arrays behind them must be what it takes them for."""
    with pytest.raises(ValueError):  # noqa: PT011 - several messages
        reading(**changes)


@both_readers
def test_a_graph_without_the_wanted_layers_is_reported(name: str, tiny: Model) -> None:
    """Rows that never came by are an error that names layer and numbers, not zeros taken for states."""
    context = tiny.new_context(name)  # type: ignore[arg-type]
    try:
        wanted = reading(layers=numbers(1, 9), target=np.zeros((2, 2, 256), dtype=np.float32))
        batch = ([5] * 5, range(5), [0] * 5, [False] * 5)
        with pytest.raises(EngineError, match="l_out-9 gave 0 of 2 rows"):
            context.read(wanted, lambda: context.decode(*batch))
        context.clear()
        narrow = reading(layers=numbers(1, 2), target=np.zeros((2, 2, 128), dtype=np.float32))
        with pytest.raises(EngineError, match="l_out-1 is 256 wide where 128"):
            context.read(narrow, lambda: context.decode(*batch))
        context.clear()
        longer = reading(layers=numbers(1, 2), target=np.zeros((2, 2, 256), dtype=np.float32), n_tokens=6, n_ubatch=6)
        with pytest.raises(EngineError, match="l_out-1 has 5 rows for 6 tokens"):
            context.read(longer, lambda: context.decode(*batch))
    finally:
        context.close()


@both_readers
def test_a_batch_that_ends_half_way_is_reported(name: str, tiny: Model) -> None:
    """Some rows are not all rows."""
    context = tiny.new_context(name)  # type: ignore[arg-type]
    try:
        target = np.zeros((2, 2, 256), dtype=np.float32)
        wanted = reading(layers=numbers(1, 2), target=target, rows=numbers(0, 5), n_tokens=6, stop_early=False)
        with pytest.raises(EngineError, match="l_out-1 gave 1 of 2 rows"):
            context.read(wanted, lambda: context.decode([5] * 5, range(5), [0] * 5, [False] * 5))
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
    wanted = reading(target=np.zeros((2, 2, 256), dtype=np.float32))
    with pytest.raises(EngineError, match="token ids"):
        tiny.context.read(wanted, lambda: tiny.context.decode([999] * 5, range(5), [0] * 5, [False] * 5))
    assert tiny.context.reader.finish().code is Code.NOT_ARMED


def test_what_is_raised_inside_the_python_callback_comes_out(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt inside the callback crosses llama.cpp's C code and is raised on the other side."""
    context = tiny.new_context("python")

    def interrupt(tensor: int) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(context.reader, "_wants", interrupt)
    wanted = reading(target=np.zeros((2, 2, 256), dtype=np.float32))
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


def test_the_accessors_are_real_addresses() -> None:
    """Each function that the library is given can be called."""
    accessors = library._accessors()
    for field, _ in accessors._fields_:
        assert getattr(accessors, field)
    name = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)
    assert name(accessors.get_name)
