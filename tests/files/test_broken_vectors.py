"""Each broken vector file gets its own plain answer, and llama.cpp's reader agrees on which files are damaged."""

import json
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from ggufsteer.errors import ExitCode, FileFormatError
from ggufsteer.files.vector import read_vector
from tests.files.broken_vectors import BROKEN_VECTORS, GOOD, Broken
from tests.files.raw_gguf import Raw, array_key, key, one, tensor, text_key, uint32_key

# Good files of every odd but legal kind.
ACCEPTED = {
    "plain": GOOD,
    "version 2": Raw(version=2),
    "one layer only": one("direction.7", 1, 2, 3),
    "trailing bytes": Raw(data=GOOD.data + b"trailing"),
    "other alignment": Raw(
        keys=(*GOOD.keys, uint32_key("general.alignment", 16)),
        tensors=(tensor("direction.1", [4], 0), tensor("direction.2", [4], 16)),
        data=GOOD.data[:16] + GOOD.data[32:48],
        alignment=16,
    ),
    "foreign keys": GOOD.with_keys(
        text_key("general.name", "x"), array_key("a", 8, 0), key("b", 7, b"\1"), array_key("c", 0, 3, b"abc")
    ),
}


@pytest.mark.parametrize("name", BROKEN_VECTORS)
def test_a_broken_vector_is_refused_with_its_reason_and_mend(name: str, tmp_path: Path) -> None:
    """The answer names the file, says what is wrong and how to mend it, and leads to exit code 2."""
    broken: Broken = BROKEN_VECTORS[name]
    path = tmp_path / "broken.gguf"
    path.write_bytes(broken.data)
    with pytest.raises(FileFormatError) as caught:
        read_vector(path)
    assert str(path) in caught.value.message
    assert broken.says in caught.value.message
    assert broken.mend in caught.value.hint
    assert caught.value.exit_code is ExitCode.USAGE


def test_no_two_broken_vectors_get_the_same_answer_by_accident(tmp_path: Path) -> None:
    """The messages tell the faults apart: at most a handful of closely related files share one."""
    path = tmp_path / "broken.gguf"
    messages = set()
    for broken in BROKEN_VECTORS.values():
        path.write_bytes(broken.data)
        with pytest.raises(FileFormatError) as caught:
            read_vector(path)
        messages.add(caught.value.message)
    assert len(messages) >= len(BROKEN_VECTORS) - 4


@pytest.mark.parametrize("name", BROKEN_VECTORS)
def test_a_broken_vector_costs_neither_time_nor_memory(name: str, tmp_path: Path) -> None:
    """A small crafted file is refused at once, however much it announces."""
    path = tmp_path / "broken.gguf"
    path.write_bytes(BROKEN_VECTORS[name].data)
    tracemalloc.start()
    try:
        began = time.process_time()
        with pytest.raises(FileFormatError):
            read_vector(path)
        seconds, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seconds < 1.0
    assert peak < 50e6


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_odd_but_legal_vector_is_read(name: str, tmp_path: Path) -> None:
    """Strictness stops at what llama.cpp takes and uses as it is meant."""
    path = tmp_path / "good.gguf"
    path.write_bytes(ACCEPTED[name].made())
    assert read_vector(path).layers


def test_llama_cpps_own_reader_refuses_the_same_damage(tmp_path: Path) -> None:
    """A file that llama.cpp's GGUF reader refuses is refused here, and the table says which it takes."""
    library = _ggml_library()
    files = {f"broken/{name}": broken.data for name, broken in BROKEN_VECTORS.items()}
    files |= {f"good/{name}": raw.made() for name, raw in ACCEPTED.items()}
    paths = {}
    for number, (name, data) in enumerate(files.items()):
        paths[name] = tmp_path / f"{number}.gguf"
        paths[name].write_bytes(data)
    verdicts = _verdicts_of_llama_cpp(library, list(paths.values()))
    taken = {name: verdicts[str(path)] for name, path in paths.items()}
    expected = {f"broken/{name}": broken.llama_cpp_reads for name, broken in BROKEN_VECTORS.items()}
    expected |= {f"good/{name}": True for name in ACCEPTED}
    assert taken == expected


def _ggml_library() -> Path:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    for name in ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll"):
        path = Path(llama_cpp.__file__).parent / "lib" / name
        if path.exists():
            return path
    pytest.skip("llama-cpp-python has no separate ggml library here")


_READER = """
import ctypes, json, sys
class Parameters(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("context", ctypes.POINTER(ctypes.c_void_p))]
library = ctypes.CDLL(sys.argv[1])
library.gguf_init_from_file.restype = ctypes.c_void_p
library.gguf_init_from_file.argtypes = [ctypes.c_char_p, Parameters]
verdicts = {}
for path in sys.argv[2:]:
    context = ctypes.c_void_p()
    found = library.gguf_init_from_file(path.encode(), Parameters(False, ctypes.pointer(context)))
    verdicts[path] = bool(found)
print(json.dumps(verdicts))
"""


def _verdicts_of_llama_cpp(library: Path, paths: list[Path]) -> dict[str, bool]:
    """Run in a process of its own: a crafted file may abort a reader that is not ours."""
    done = subprocess.run(
        [sys.executable, "-c", _READER, str(library), *map(str, paths)], capture_output=True, text=True, check=True
    )
    verdicts: dict[str, bool] = json.loads(done.stdout)
    return verdicts
