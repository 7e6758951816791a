"""Vector files: written and read back exact, plain for llama.cpp, and never half written."""

import dataclasses
import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggufsteer.errors import FileFormatError, SteerError
from ggufsteer.files.vector import ControlVector, Provenance, read_vector, write_vector
from tests.files.broken_vectors import GOOD
from tests.files.made_vectors import PROVENANCE, vectors

SMALL = ControlVector({1: np.arange(5.0), 3: np.ones(5)}, PROVENANCE)
OTHER = ControlVector({2: np.full(5, 9.0)}, PROVENANCE)


@given(vectors())
def test_what_is_written_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, vector: ControlVector) -> None:
    """Directions come back bit by bit, and so does the whole provenance."""
    path = tmp_path_factory.mktemp("vector") / "v.gguf"
    write_vector(path, vector)
    again = read_vector(path)
    assert again.layers == vector.layers
    assert all(again.directions[layer].tobytes() == row.tobytes() for layer, row in vector.directions.items())
    assert again.provenance == vector.provenance
    assert again.notes == ()


@given(
    st.builds(
        Provenance,
        name=st.text(),
        description=st.text(),
        recipe_text=st.text(),
        method=st.text(),
        measured_on=st.text(),
        dose=st.floats(allow_nan=False, allow_infinity=False),
        strength_maximum=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        seed=st.none() | st.integers(-(2**63), 2**63 - 1),
        separation=st.dictionaries(st.integers(1, 999), st.floats(0, 1), max_size=4),
        class_means=st.dictionaries(
            st.integers(1, 999), st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2), max_size=4
        ),
        versions=st.dictionaries(st.text(min_size=1), st.text(), max_size=3),
        settings=st.dictionaries(st.text(min_size=1), st.text(), max_size=3),
    )
)
def test_any_provenance_survives_the_file(tmp_path_factory: pytest.TempPathFactory, provenance: Provenance) -> None:
    """Every text, number and gap comes back as it was."""
    path = tmp_path_factory.mktemp("vector") / "v.gguf"
    write_vector(path, ControlVector({1: np.ones(3)}, provenance))
    assert read_vector(path).provenance == provenance


def test_where_the_sides_lie_is_optional(tmp_path: Path) -> None:
    """A file without the class means has no such keys, reads back without them, and its layers still have a scale."""
    bare = ControlVector({1: np.array([3.0, 4.0])}, dataclasses.replace(PROVENANCE, class_means={}))
    write_vector(tmp_path / "v.gguf", bare)
    assert b"class_means" not in (tmp_path / "v.gguf").read_bytes()
    again = read_vector(tmp_path / "v.gguf")
    assert again.provenance.class_means == {}
    assert again.scale(1) == (0.0, 5.0)


def test_a_name_that_is_no_unicode_does_not_stop_the_writing(tmp_path: Path) -> None:
    """A file name in another encoding becomes the name of a foreign vector, half surrogates and all."""
    write_vector(tmp_path / "v.gguf", ControlVector({1: np.ones(3)}, Provenance(name="caf\udce9")))
    assert read_vector(tmp_path / "v.gguf").provenance.name == "caf?"


def test_equal_vectors_give_equal_bytes(tmp_path: Path) -> None:
    """Nothing of the hour, the folder or the order of the directions gets into the file."""
    reordered = ControlVector(dict(reversed(SMALL.directions.items())), SMALL.provenance)
    write_vector(tmp_path / "one.gguf", SMALL)
    write_vector(tmp_path / "two.gguf", reordered)
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()


def test_the_file_is_a_plain_control_vector_of_llama_cpp(tmp_path: Path) -> None:
    """The reference library sees the keys that llama.cpp's tools write, and F32 tensors of one dimension."""
    write_vector(tmp_path / "v.gguf", SMALL)
    reader = gguf.GGUFReader(tmp_path / "v.gguf")
    assert reader.get_field("general.architecture").contents() == "controlvector"
    assert reader.get_field("controlvector.model_hint").contents() == "llama"
    assert reader.get_field("controlvector.layer_count").contents() == 2
    assert reader.get_field("ggufsteer.recipe.text").contents() == PROVENANCE.recipe_text
    assert reader.get_field("ggufsteer.model.content_hash").contents() == "ab" * 32
    found = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    assert list(found) == ["direction.1", "direction.3"]
    assert all(array.dtype == np.float32 and array.shape == (5,) for array in found.values())
    assert np.array_equal(found["direction.1"], SMALL.directions[1])


@pytest.mark.parametrize("name", ["mistral-large:123b.gguf", "happy,sad.gguf"])
def test_a_name_that_llama_cpp_would_cut_in_two_is_refused(name: str, tmp_path: Path) -> None:
    """FILE:SCALE and FILE,FILE split at these characters; a better name is offered, and nothing is written."""
    with pytest.raises(SteerError, match="splits at") as caught:
        write_vector(tmp_path / name, SMALL)
    assert name.replace(":", "-").replace(",", "-") in caught.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["no/such/folder/v.gguf", "v.gguf/below"])
def test_a_folder_that_is_not_there_is_named(missing: str, tmp_path: Path) -> None:
    """The mend is the command that makes it."""
    (tmp_path / "v.gguf").write_bytes(b"x")
    with pytest.raises(SteerError) as caught:
        write_vector(tmp_path / missing, SMALL)
    assert str(tmp_path / missing) in caught.value.message


def test_a_folder_is_not_written_over(tmp_path: Path) -> None:
    """A target that is a folder is refused."""
    (tmp_path / "v.gguf").mkdir()
    with pytest.raises(SteerError, match="is a folder"):
        write_vector(tmp_path / "v.gguf", SMALL)


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    """Somebody who links the vector to another place keeps the link."""
    (tmp_path / "real.gguf").write_bytes(b"old")
    (tmp_path / "link.gguf").symlink_to("real.gguf")
    write_vector(tmp_path / "link.gguf", SMALL)
    assert (tmp_path / "link.gguf").is_symlink()
    assert read_vector(tmp_path / "real.gguf").layers == (1, 3)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX")
def test_a_file_keeps_its_permissions_when_it_is_replaced(tmp_path: Path) -> None:
    """Somebody who keeps a vector to himself does not find it open to all."""
    path = tmp_path / "v.gguf"
    write_vector(path, OTHER)
    path.chmod(0o640)
    write_vector(path, SMALL)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


class _Failing:
    """Lets the n-th call of some operations fail as a full disk does."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.calls = 0

    def wrap(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            self.left -= 1
            if self.left == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return operation(*arguments, **named)

        return call


@pytest.mark.parametrize("at", range(1, 8))
def test_a_failure_at_any_step_leaves_the_old_file_or_the_new_one(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever open, write, flush or rename fails: the file is whole, and no temporary file is left behind."""
    path = tmp_path / "v.gguf"
    write_vector(path, OTHER)
    failing = _Failing(at)
    plain_open = Path.open

    def opened(self: Path, mode: str = "r", *arguments: Any, **named: Any) -> BinaryIO:
        file = plain_open(self, mode, *arguments, **named)
        if "x" in mode:
            file.write = failing.wrap(file.write)  # type: ignore[method-assign]
        return file  # type: ignore[return-value]

    # The raw file, because a buffered one has no place for another write method.
    monkeypatch.setattr(Path, "open", lambda self, mode, **_: opened(self, mode, buffering=0))
    monkeypatch.setattr(os, "fsync", failing.wrap(os.fsync))
    monkeypatch.setattr(Path, "replace", failing.wrap(Path.replace))
    problem = None
    try:
        write_vector(path, SMALL)
    except SteerError as error:
        problem = error
    finally:
        monkeypatch.undo()
    succeeded = problem is None
    assert problem is None or (str(path) in problem.message and problem.hint)
    expected = SMALL if succeeded else OTHER
    assert np.array_equal(read_vector(path).as_rows(8), expected.as_rows(8))
    assert [entry.name for entry in tmp_path.iterdir()] == ["v.gguf"]
    # write, flush of the file, rename, flush of the folder
    assert failing.calls == min(at if not succeeded else 4, 4)


def test_a_file_that_reads_back_differently_is_not_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that lies is found out before the old file is gone."""
    path = tmp_path / "v.gguf"
    write_vector(path, OTHER)
    before = path.read_bytes()
    other_directions = ("ggufsteer.files.vector.read_vector", lambda _: OTHER)
    other_metadata = (Path, "read_bytes", lambda _: before)
    for patch in (other_directions, other_metadata):
        with monkeypatch.context() as patched:
            patched.setattr(*patch)
            with pytest.raises(SteerError, match="reads back differently"):
                write_vector(path, SMALL)
        assert path.read_bytes() == before
        assert len(list(tmp_path.iterdir())) == 1


def test_ctrl_c_in_the_middle_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption is no exception to the rule."""

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_vector(tmp_path / "v.gguf", SMALL)
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file size are POSIX")
def test_a_real_limit_of_the_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """With a true limit set by the system, not a simulated one, the old file stays and the answer is plain."""
    path = tmp_path / "v.gguf"
    write_vector(path, OTHER)
    program = (
        "import resource, signal, sys, numpy as np\n"
        "from ggufsteer.errors import SteerError\n"
        "from ggufsteer.files.vector import ControlVector, write_vector\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    write_vector(sys.argv[1], ControlVector({1: np.ones(100_000)}))\n"
        "except SteerError as error:\n"
        "    print(error.message)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout
    assert read_vector(path).layers == (2,)
    assert len(list(tmp_path.iterdir())) == 1


_WRITER = """
import sys, numpy as np
from ggufsteer.files.vector import ControlVector, write_vector
number = 0
while True:
    number += 1
    write_vector(sys.argv[1], ControlVector({1: np.full(200_000, float(number))}))
    print(number, flush=True)
"""


@pytest.mark.parametrize("writes", [1, 2, 3])
def test_a_process_killed_while_it_writes_leaves_a_whole_file(writes: int, tmp_path: Path) -> None:
    """Killed outright at no particular moment: what is there is one of the vectors that were being written."""
    path = tmp_path / "v.gguf"
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(writes):
            process.stdout.readline()
        process.kill()
    (direction,) = read_vector(path).directions.values()
    assert direction.size == 200_000
    assert (direction == direction[0]).all()
    assert direction[0] >= writes


def test_two_writers_of_one_file_never_mix(tmp_path: Path) -> None:
    """Whoever comes last wins, and a reader in between sees one of the two whole."""
    path = tmp_path / "v.gguf"
    both = [ControlVector({1: np.full(5, fill), 2: np.full(5, fill)}) for fill in (1.0, 2.0)]
    write_vector(path, both[0])
    with ThreadPoolExecutor(2) as pool:
        writes = [pool.submit(write_vector, path, vector) for vector in both * 10]
        seen = [read_vector(path).as_rows(3) for _ in range(40)]
        for write in writes:
            write.result()
    for rows in [*seen, read_vector(path).as_rows(3)]:
        assert (rows == rows[0, 0]).all()
    assert len(list(tmp_path.iterdir())) == 1


_EXTREMES = (0, 1, 0x7F, 0xFF, 1 << 31, 1 << 40, 1 << 63, (1 << 64) - 1)


def _damaged(data: st.DataObject, whole: bytes) -> bytes:
    """One to four accidents: a changed byte, an extreme number, a cut, a doubled or a lost stretch."""
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(damaged) - 1)))
        length = data.draw(st.integers(0, 40))
        match data.draw(st.sampled_from(("byte", "number", "cut", "double", "lose"))):
            case "byte":
                damaged[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
            case "number":
                damaged[at : at + 8] = data.draw(st.sampled_from(_EXTREMES)).to_bytes(8, "little")
            case "cut":
                del damaged[at:]
            case "double":
                damaged[at:at] = damaged[at : at + length]
            case "lose":
                del damaged[at : at + length]
    return bytes(damaged)


@settings(max_examples=600, deadline=1000)
@given(st.data())
def test_a_damaged_file_gives_our_error_or_a_sound_vector(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever happens to the bytes: `FileFormatError`, or a vector of finite numbers; nothing else, and at once."""
    folder = tmp_path_factory.getbasetemp()
    source = folder / "fuzz-source.gguf"
    if not source.exists():
        write_vector(source, dataclasses.replace(SMALL, notes=("one", "two")))
    whole = data.draw(st.sampled_from((source.read_bytes(), GOOD.made())))
    path = folder / "fuzz.gguf"
    path.write_bytes(_damaged(data, whole))
    try:
        vector = read_vector(path)
    except FileFormatError as error:
        refused: str | None = error.message
    else:
        refused = None
        assert np.isfinite(vector.as_rows(vector.layers[-1] + 1)).all()
    assert refused is None or str(path) in refused


@pytest.mark.parametrize("kind", ["folder", "missing", "pipe", "device", "too large"])
def test_what_is_no_ordinary_file_is_refused_without_waiting(kind: str, tmp_path: Path) -> None:
    """A folder, a pipe that nobody writes to, an endless device, a huge file: an answer at once."""
    path = tmp_path / "v.gguf"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "too large":
        with path.open("wb") as file:
            file.truncate((1 << 30) + 1)
    says = {"missing": "no such file", "folder": "a folder", "too large": "too large"}.get(kind, "not an ordinary file")
    with pytest.raises(FileFormatError, match=says):
        read_vector(path)
