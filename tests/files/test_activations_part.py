"""Activations while they are written: killed, cut, raced for or without room, no work is lost and no byte is wrong."""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggufsteer.errors import ExitCode, SteerError
from ggufsteer.files import activations_part
from ggufsteer.files.activations import Activations, ActivationsWriter, Layout
from ggufsteer.files.activations_header import header_of
from tests.files.made_activations import SMALL, names_in, partial_of, sets_of, states_of, write_all


def test_work_goes_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    """The counter and what was written before it are there again; the file is the same as in one go."""
    path, states = tmp_path / "a", states_of(SMALL)
    with ActivationsWriter.open(path, SMALL) as writer:
        assert writer.steps_done == 0
        for step in range(3):
            writer.write(np.array([step]), states[step : step + 1])
            writer.checkpoint(step + 1)
        writer.write(np.array([3]), states[3:4])
        assert writer.steps_done == 3
    assert not path.exists()
    with ActivationsWriter.open(path, SMALL) as writer:
        assert writer.steps_done == 3
        writer.write(np.arange(3, 9), states[3:])
        writer.finish()
    write_all(tmp_path / "b", SMALL)
    assert path.read_bytes() == (tmp_path / "b").read_bytes()


def test_all_room_is_taken_before_the_first_row(tmp_path: Path) -> None:
    """Header and size are there from the beginning, and so are the blocks on the disk."""
    layout = Layout({"a": 100}, (1, 2), 1000, {})
    with ActivationsWriter.open(tmp_path / "a", layout):
        status = partial_of(tmp_path / "a").stat()
        assert status.st_size == len(header_of(layout)) + layout.data_bytes + activations_part.FOOTER_BYTES
        assert status.st_blocks * 512 >= layout.data_bytes
        assert partial_of(tmp_path / "a").read_bytes().startswith(header_of(layout))


def test_a_system_without_the_posix_calls_writes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where room cannot be reserved or places not be named, plain writing does it."""
    write_all(tmp_path / "a", SMALL)
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    monkeypatch.delattr(os, "pwrite", raising=False)
    monkeypatch.setattr(activations_part, "_BLOCK", bytes(50))
    write_all(tmp_path / "b", SMALL)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_system_that_cannot_reserve_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that the file system does not know is no failure."""

    def unknown(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unknown, raising=False)
    with ActivationsWriter.open(tmp_path / "a", SMALL):
        size = len(header_of(SMALL)) + SMALL.data_bytes + activations_part.FOOTER_BYTES
        assert partial_of(tmp_path / "a").stat().st_size == size


def _interrupted(path: Path, checkpoints: int) -> bytes:
    """Leave a part file with some checkpoints; gives its bytes."""
    with ActivationsWriter.open(path, SMALL) as writer:
        for step in range(checkpoints):
            writer.write(np.array([step]), states_of(SMALL)[step : step + 1])
            writer.checkpoint(step + 1)
    return partial_of(path).read_bytes()


@pytest.mark.parametrize("checkpoints", [0, 1, 2, 3])
def test_a_damaged_counter_never_says_more_than_is_true(checkpoints: int, tmp_path: Path) -> None:
    """Whatever byte of the footer is wrong, it falls back to the checkpoint before, or to the beginning."""
    path = tmp_path / "a"
    data = _interrupted(path, checkpoints)
    for place in range(len(data) - activations_part.FOOTER_BYTES, len(data)):
        torn = bytearray(data)
        torn[place] ^= 0x41
        partial_of(path).write_bytes(torn)
        with ActivationsWriter.open(path, SMALL) as writer:
            assert writer.steps_done in {checkpoints, max(checkpoints - 1, 0)}


def test_a_footer_that_is_all_wrong_starts_from_the_beginning(tmp_path: Path) -> None:
    """Neither noise nor the counter of another extraction counts."""
    path = tmp_path / "a"
    data = _interrupted(path, 2)
    other = replace(SMALL, metadata={"recipe": "[contrast]\n", "model": "abd"})
    for footer in (os.urandom(64), bytes(64), b"\xff" * 64):
        partial_of(path).write_bytes(data[:-64] + footer)
        with ActivationsWriter.open(path, SMALL) as writer:
            assert writer.steps_done == 0
    assert len(header_of(other)) == len(header_of(SMALL))
    partial_of(path).write_bytes(header_of(other) + data[len(header_of(other)) :])
    with ActivationsWriter.open(path, other) as writer:
        assert writer.steps_done == 0


def test_a_part_file_that_was_cut_starts_from_the_beginning(tmp_path: Path) -> None:
    """Cut anywhere after its header it takes its room again; cut inside the header it is nobody's and stays."""
    path = tmp_path / "a"
    data = _interrupted(path, 2)
    write_all(tmp_path / "whole", SMALL)
    for length in {*range(0, len(data), 7), *range(len(header_of(SMALL)), len(data), 3), len(data) - 64, len(data) - 1}:
        partial_of(path).write_bytes(data[:length])
        if length < len(header_of(SMALL)):
            with pytest.raises(SteerError, match="no work can be resumed from it"):
                ActivationsWriter.open(path, SMALL)
            assert partial_of(path).read_bytes() == data[:length]
            continue
        with ActivationsWriter.open(path, SMALL) as writer:
            assert partial_of(path).stat().st_size == len(data)
            assert writer.steps_done in ({0, 1, 2} if length > len(data) - 33 else {0})
            writer.write(np.arange(9), states_of(SMALL))
            writer.finish()
        assert path.read_bytes() == (tmp_path / "whole").read_bytes()


_KILLED_EVERYWHERE = """
import json, os, signal, sys
from pathlib import Path
import numpy as np
from ggufsteer.files.activations import Activations, ActivationsWriter, Layout

path = Path(sys.argv[1])
layout = Layout({"positive": 5, "negative": 0, "neutral": 4}, (1, 3), 3, {"recipe": "x"})
states = np.arange(1, 55, dtype=np.float32).reshape(9, 2, 3)
steps = np.array_split(np.array([8, 0, 5, 6, 7, 1, 3, 2, 4]), 5)
calls = ["open", "pwrite", "fsync", "ftruncate", "posix_fallocate", "replace", "close"]

def work(report):
    with ActivationsWriter.open(path, layout) as writer:
        for number in range(writer.steps_done, len(steps)):
            writer.write(steps[number], states[steps[number]])
            writer.checkpoint(number + 1)
            report(number + 1)
        writer.finish()

def killed_at(last, half, pipe):
    # In the child: dies at one call to the system, in the middle of it where it is one that writes.
    left = [last]
    def wrapped(call):
        def deadly(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                if half and call is pwrite:
                    pwrite(arguments[0], arguments[1][: len(arguments[1]) // 2], arguments[2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)
        return deadly
    pwrite = os.pwrite
    for name in calls:
        if hasattr(os, name):
            setattr(os, name, wrapped(getattr(os, name)))
    work(lambda done: os.write(pipe, bytes([done])))

work(lambda done: None)
whole = path.read_bytes()
cut = len(whole)
moments = lost = 0
for half in (False, True):
    for moment in range(10_000):
        path.unlink()
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read_end)
            killed_at(moment, half, write_end)
            os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as reports:
            reported = max(reports.read(), default=0)
        survived = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        partial = path.with_name(path.name + ".partial")
        assert path.exists() != partial.exists() or not (path.exists() or reported), moment
        if path.exists():
            assert path.read_bytes() == whole, moment
        else:
            finishing = partial.exists() and partial.stat().st_size == cut
            with ActivationsWriter.open(path, layout) as writer:
                assert writer.steps_done in ((0,) if finishing else (reported, reported + 1)), moment
            lost += finishing
            work(lambda done: None)
            assert path.read_bytes() == whole, moment
        assert os.listdir(path.parent) == [path.name], moment
        if survived:
            break
        moments += 1
print(json.dumps({"moments": moments, "lost": lost}))
"""


def _run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    settings = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=settings)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be killed and forked")
def test_a_kill_at_any_moment_costs_no_more_than_the_last_step(tmp_path: Path) -> None:
    """Killed at, and in the middle of, each single call to the system: the rest is done again, to the same bytes."""
    done = _run(_KILLED_EVERYWHERE, tmp_path / "a")
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout)
    assert counted["moments"] > 80
    # Between cutting off the counter and the rename: a flush and the call after it, in two rounds.
    assert counted["lost"] <= 6


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layers": (1, 2, 3, 7)}, "its layers are 1-3 7, not 1 3"),
        ({"n_embd": 4}, "its states are 4 wide, not 3"),
        ({"counts": {"positive": 6, "negative": 0, "neutral": 4}}, "it has 6 positive observations, not 5"),
        ({"counts": {"positive": 5, "neutral": 4}}, "its sets are positive neutral, not positive negative neutral"),
        (
            {"counts": {"neutral": 4, "positive": 5, "negative": 0}},
            "its sets are neutral positive negative, not positive negative neutral",
        ),
        ({"metadata": {"recipe": "[contrast]\n", "model": "xyz"}}, "'model' is 'xyz', not 'abc'"),
        ({"metadata": {"recipe": "[contrast]\n"}}, "'model' is set only here"),
        ({"metadata": {**SMALL.metadata, "seed": "1"}}, "'seed' is set only there"),
        ({"metadata": {"recipe": "secret " * 100, "model": "abc"}}, "extraction: 'recipe' differs"),
        ({"metadata": {"recipe": "[contrast]", "model": "abc"}}, "extraction: 'recipe' differs"),
        ({"metadata": {"recipe": "[contrast]\n", "model": "\x1b[31m\u202ex\ny"}}, "'model' is 'x y', not 'abc'"),
    ],
)
def test_the_work_of_another_extraction_is_refused_with_what_differs(
    change: dict[str, object], says: str, tmp_path: Path
) -> None:
    """The difference is named in words, long values are not shown, the mend is, and the other work stays."""
    path = tmp_path / "a"
    with ActivationsWriter.open(path, replace(SMALL, **change)) as writer:
        writer.checkpoint(1)
    before = partial_of(path).read_bytes()
    with pytest.raises(SteerError) as caught:
        ActivationsWriter.open(path, SMALL)
    assert caught.value.message.startswith(f"{partial_of(path)}: holds the work of another extraction: ")
    assert says in caught.value.message
    assert f"rm {partial_of(path)}" in caught.value.hint
    assert len(caught.value.message) < 300
    assert partial_of(path).read_bytes() == before
    assert names_in(tmp_path) == [partial_of(path).name]


def test_many_differences_are_counted(tmp_path: Path) -> None:
    """A completely different extraction does not fill the screen."""
    path = tmp_path / "a"
    other = Layout({"x" * 60: 1, "y" * 60: 2}, tuple(range(0, 300, 2)), 8, {f"key {n}": "v" for n in range(50)})
    ActivationsWriter.open(path, other).__exit__()
    with pytest.raises(SteerError, match="and 52 more differences") as caught:
        ActivationsWriter.open(path, SMALL)
    assert len(caught.value.message) < 600 + len(str(path))


@pytest.mark.parametrize("content", [b"", b"x", b"my diary\n" * 99, b"GGUF" + bytes(99), os.urandom(500)])
def test_a_part_file_that_is_not_ours_is_left_alone(content: bytes, tmp_path: Path) -> None:
    """Whatever it is, it is somebody's."""
    path = tmp_path / "a"
    partial_of(path).write_bytes(content)
    with pytest.raises(SteerError, match="no work can be resumed from it") as caught:
        ActivationsWriter.open(path, SMALL)
    assert "choose another file" in caught.value.hint
    assert partial_of(path).read_bytes() == content


@pytest.mark.parametrize("suffix", [".partial", ".partial.new"])
def test_links_folders_and_pipes_in_the_way_are_refused(suffix: str, tmp_path: Path) -> None:
    """Nothing is written through a link that somebody has put there, and nothing waits for a pipe."""
    path, precious = tmp_path / "a", tmp_path / "precious"
    precious.write_text("diary")
    way = path.with_name(path.name + suffix)
    makers: list[Callable[[], object]] = [lambda: way.symlink_to(precious), way.mkdir, lambda: os.mkfifo(way)]
    for make in makers:
        make()
        with pytest.raises(SteerError, match=r"is (not an ordinary file|a folder)"):
            ActivationsWriter.open(path, SMALL)
        way.rmdir() if way.is_dir() else way.unlink()
    assert precious.read_text() == "diary"


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    """In this process or another; after the first is done, the next one gets its turn."""
    path = tmp_path / "a"
    program = (
        "import sys\nfrom ggufsteer.errors import SteerError\n"
        "from ggufsteer.files.activations import ActivationsWriter, Layout\n"
        "try:\n    ActivationsWriter.open(sys.argv[1], Layout({'b': 1}, (1,), 3, {}))\n"
        "except SteerError as error:\n    print(error.message)\n"
    )
    with ActivationsWriter.open(path, SMALL) as writer:
        writer.checkpoint(1)
        with pytest.raises(SteerError, match="another process is writing this file"):
            ActivationsWriter.open(path, SMALL)
        assert "another process is writing this file" in _run(program, path).stdout
        assert "another extraction" not in _run(program, path).stdout
    with ActivationsWriter.open(path, SMALL) as writer:
        assert writer.steps_done == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_a_file_that_is_finished_while_another_writer_opens_it_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking the part file may have become the finished one: then a new one is begun."""
    path, lock = tmp_path / "a", activations_part._lock
    first = [ActivationsWriter.open(path, SMALL)]
    first[0].write(np.arange(9), states_of(SMALL))

    def finished_before(*arguments: object) -> None:
        if first:
            first.pop().finish()
        lock(*arguments)

    monkeypatch.setattr(activations_part, "_lock", finished_before)
    with ActivationsWriter.open(path, SMALL) as second:
        second.write(np.arange(9), -states_of(SMALL))
        assert np.array_equal(Activations.open(path).rows("neutral"), sets_of(SMALL)["neutral"])
    assert names_in(tmp_path) == ["a", "a.partial"]


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_a_part_file_that_another_writer_has_just_made_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking for it and making it, it may have appeared, with work in it."""
    path, create = tmp_path / "a", activations_part._create

    def made_before(*arguments: object) -> None:
        monkeypatch.setattr(activations_part, "_create", create)
        with ActivationsWriter.open(path, SMALL) as first:
            first.checkpoint(4)
        create(*arguments)

    monkeypatch.setattr(activations_part, "_create", made_before)
    with ActivationsWriter.open(path, SMALL) as second:
        assert second.steps_done == 4
    assert names_in(tmp_path) == ["a.partial"]


_RACE = """
import sys, time
import numpy as np
from ggufsteer.errors import SteerError
from ggufsteer.files.activations import ActivationsWriter, Layout
while time.time() < float(sys.argv[2]):
    pass
won = 0
for _ in range(200):
    try:
        with ActivationsWriter.open(sys.argv[1], Layout({"a": 3}, (1,), 3, {})) as writer:
            for number in range(3):
                writer.write(np.array([number]), np.full((1, 1, 3), number + 1, np.float32))
            writer.finish()
        won += 1
    except SteerError as error:
        assert "another process is writing" in error.message, error
print(won)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_of_many_writers_at_once_none_writes_into_anothers_file(tmp_path: Path) -> None:
    """Made, finished and renamed in each other's way for a while: each file that appears is whole."""
    path, begin = tmp_path / "a", time.time() + 1.0
    settings = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACE, str(path), str(begin)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=settings,
        )
        for _ in range(4)
    ]
    while any(racer.poll() is None for racer in racers):
        if path.exists():
            assert Activations.open(path).rows("a")[:, 0, 0].tolist() == [1.0, 2.0, 3.0]
    outputs = [racer.communicate() for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 4, outputs
    assert sum(int(output) for output, _ in outputs) >= 1
    assert names_in(tmp_path) == ["a"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file size are POSIX")
def test_a_disk_without_the_room_says_so_before_the_first_row(tmp_path: Path) -> None:
    """With a true limit set by the system: what is needed and what is free is told, and nothing is left behind."""
    program = (
        "import resource, sys\nfrom ggufsteer.errors import SteerError\n"
        "from ggufsteer.files.activations import ActivationsWriter, Layout\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "if sys.argv[2] == 'written': __import__('os').__dict__.pop('posix_fallocate', None)\n"
        "try:\n    ActivationsWriter.open(sys.argv[1], Layout({'a': 1000}, (1, 2), 1000, {}))\n"
        "except SteerError as error:\n    print(error.message, '|', error.hint, '|', int(error.exit_code))\n"
    )
    for way in ("reserved", "written"):
        said = _run(program, tmp_path / "a", way).stdout
        assert f"{tmp_path / 'a'}" in said
        assert "needs 80" in said
        assert "are free" in said
        assert f"| {int(ExitCode.FAILED)}" in said
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "mend"), [(28, "free some space"), (27, "ulimit -f")])
def test_the_mend_fits_what_the_system_said(
    number: int, mend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk wants space, a limit wants to be raised."""

    def full(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(SteerError, match=os.strerror(number)) as caught:
        ActivationsWriter.open(tmp_path / "a", SMALL)
    assert mend in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fails_in_the_middle_keeps_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer says where it is and how to go on; the last checkpoint still holds."""
    path = tmp_path / "a"

    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with ActivationsWriter.open(path, SMALL) as writer:
        writer.checkpoint(2)
        with monkeypatch.context() as patched:
            for name in ("pwrite", "fsync"):
                patched.setattr(os, name, broken)
            with pytest.raises(SteerError, match=rf"error; the work .* is safe in {partial_of(path)}"):
                writer.write(np.arange(9), states_of(SMALL))
            for call in (lambda: writer.checkpoint(3), writer.finish):
                with pytest.raises(SteerError, match="run the same command again"):
                    call()
    with ActivationsWriter.open(path, SMALL) as writer:
        assert writer.steps_done == 2


def test_a_target_that_cannot_be_replaced_costs_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that took the name meanwhile, or a failing rename: the part file and its counter stay."""
    path = tmp_path / "a"

    def broken(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with ActivationsWriter.open(path, SMALL) as writer:
        writer.write(np.arange(9), states_of(SMALL))
        writer.checkpoint(7)
        path.mkdir()
        with pytest.raises(SteerError, match="is a folder, not a file"):
            writer.finish()
        path.rmdir()
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", broken)
            patched.setattr(os, "rename", broken)
            with pytest.raises(SteerError, match="Operation not permitted"):
                writer.finish()
    with ActivationsWriter.open(path, SMALL) as writer:
        assert writer.steps_done == 7
        writer.finish()
    assert np.array_equal(Activations.open(path).rows("positive"), sets_of(SMALL)["positive"])


def test_a_place_where_no_file_can_be_is_refused_at_once(tmp_path: Path) -> None:
    """A folder, a folder that is missing, a name with no room for the part file's ending."""
    (tmp_path / "folder").mkdir()
    for path, says in (
        (tmp_path / "folder", "is a folder"),
        (tmp_path / "none" / "a", "does not exist"),
        (tmp_path / ("x" * 250), "not a usable file name"),
    ):
        with pytest.raises(SteerError, match=says):
            ActivationsWriter.open(path, SMALL)
    assert [found.name for found in tmp_path.iterdir()] == ["folder"]


def test_a_link_is_followed_and_permissions_stay(tmp_path: Path) -> None:
    """The file that a link points to is replaced, with the permissions that it had."""
    (tmp_path / "store").mkdir()
    real, link = tmp_path / "store" / "real", tmp_path / "link"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to(real)
    write_all(link, SMALL)
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert Activations.open(link).layout == SMALL
    assert names_in(tmp_path) == ["link", "store"]


@settings(max_examples=50)
@given(steps=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5))
def test_the_counter_is_the_last_one_set(steps: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    """It may be any number, and need not rise."""
    path = tmp_path_factory.mktemp("count") / "a"
    for number in steps:
        with ActivationsWriter.open(path, SMALL) as writer:
            writer.checkpoint(number)
            assert writer.steps_done == number
    with ActivationsWriter.open(path, SMALL) as writer:
        assert writer.steps_done == steps[-1]


def test_the_disk_is_flushed_before_anything_relies_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power failure must not find a counter without its rows, nor a finished name without its contents."""
    calls: list[str] = []

    def noted(name: str) -> Callable[..., object]:
        call = getattr(os, name)

        def note(*arguments: object, **options: object) -> object:
            calls.append(name)
            return call(*arguments, **options)

        return note

    with ActivationsWriter.open(tmp_path / "a", SMALL) as writer:
        for name in ("pwrite", "fsync", "ftruncate", "replace"):
            monkeypatch.setattr(os, name, noted(name))
        writer.checkpoint(1)
        assert calls == ["fsync", "pwrite", "fsync"]
        calls.clear()
        writer.finish()
        assert calls == ["fsync", "ftruncate", "fsync", "replace", "fsync"]
