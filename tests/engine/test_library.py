"""The native library: found, checked, replaced by its twin where it does not work."""

import ctypes
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ggufsteer.engine import backend, library
from ggufsteer.engine.capture import TokenSequence, capture
from ggufsteer.engine.edits import EditKind
from ggufsteer.engine.library import load_library, open_reader
from ggufsteer.engine.model import Model
from ggufsteer.engine.reading import Code, Operation
from ggufsteer.errors import EngineError
from tests.engine.conftest import SMALL

needs_library = pytest.mark.skipif(not library.library_path().is_file(), reason="the native library is not built")
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


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
    """The number in the header is the number in Python, and so are the codes, the operations and the edits."""
    header = (Path(__file__).parents[2] / "native" / "ggufsteer.h").read_text("utf-8")
    assert f"#define GGUFSTEER_ABI {library.ABI}\n" in header
    numbered = {name: int(number) for name, number in re.findall(r"\bGGUFSTEER_(\w+) = (\d+)", header)}
    kinds = {f"EDIT_{kind.name}": kind.value for kind in EditKind}
    assert numbered == {code.name: code.value for code in (*Code, *Operation)} | kinds


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


def test_the_accessors_are_real_addresses() -> None:
    """Each function that the library is given can be called."""
    accessors = library._accessors()
    for field, _ in accessors._fields_:
        assert getattr(accessors, field)
    name = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)
    assert name(accessors.get_name)
