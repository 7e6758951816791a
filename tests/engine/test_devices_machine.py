"""What the system says: read from staged files, programs and variables, never from the machine that runs the tests."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ggufsteer.engine.devices_facts import Nvidia
from ggufsteer.engine.devices_machine import Sources, ask_program, read_facts, read_machine

NVIDIA_PROC = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (someone)\n"
OLD_PROC = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.82.01  Wed Oct 27 21:21:55 UTC 2021\nGCC version: 9\n"
MAPS = """\
7f00-7f01 r--p 00000000 fe:00 11 /a b/llama_cpp/lib/libllama.so.0
7f01-7f02 r-xp 00001000 fe:00 11 /a b/llama_cpp/lib/libllama.so.0
7f02-7f03 r--p 00000000 fe:00 12 /a b/llama_cpp/lib/libggml-cpu-haswell.so
7f03-7f04 r--p 00000000 fe:00 13 /usr/lib/libcudart.so.12
7f04-7f05 r--p 00000000 fe:00 14 /usr/lib/libllamafoo.so
7f05-7f06 rw-p 00000000 00:00 0
7f06-7f07 rw-p 00000000 00:00 0 [heap]
"""


def sources(root: Path, answers: Mapping[str, str] | None = None, **more: Any) -> Sources:
    """Stage a machine: a root folder, and what programs answer by their name."""

    def ask(command: Sequence[str]) -> str:
        return (answers or {}).get(command[0], "")

    defaults: dict[str, Any] = {"environment": {}, "import_path": (), "system": "linux", "processor": "x86_64"}
    return Sources(root=root, ask=ask, python="/python", **{**defaults, **more})


def put(root: Path, place: str, text: str = "") -> None:
    """Write a file of the staged machine."""
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).write_text(text)


def test_an_empty_machine_says_nothing(tmp_path: Path) -> None:
    """Where no source answers, nothing is claimed."""
    machine = read_machine(sources(tmp_path))
    assert (machine.nvidia, machine.cpu_limit, machine.threads, machine.hides_cuda) == (None, None, None, None)
    assert (machine.copies, machine.mapped, machine.cpu_features, machine.gcc) == ((), (), frozenset(), ())
    assert (machine.memory_available, machine.is_apple_silicon, machine.has_nvcc) == (0, False, False)


@pytest.mark.parametrize(
    ("files", "answer", "expected"),
    [
        ({}, "NVIDIA H200, 580.65.06\nNVIDIA H200, 580.65.06\n", Nvidia(("NVIDIA H200",) * 2, "580.65.06")),
        ({"proc/driver/nvidia/version": NVIDIA_PROC}, "", Nvidia((), "580.65.06")),
        ({"proc/driver/nvidia/version": OLD_PROC, "proc/driver/nvidia/gpus/0/information": "Model: \t Tesla T4\n"}, "",
         Nvidia(("Tesla T4",), "470.82.01")),
        ({"dev/nvidia0": ""}, "", Nvidia((), "")),
        ({"dev/nvidiactl": ""}, "No devices were found\n", None),
    ],
    ids=["nvidia-smi", "open driver", "old driver", "device file", "driver without a card"],
)  # fmt: skip
def test_a_card_leaves_traces(tmp_path: Path, files: Mapping[str, str], answer: str, expected: Nvidia | None) -> None:
    """Each of the three traces shows that there is a card."""
    for place, text in files.items():
        put(tmp_path, place, text)
    assert read_machine(sources(tmp_path, {"nvidia-smi": answer})).nvidia == expected


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, None),
    ],
)
def test_a_containers_limit_is_read(tmp_path: Path, files: Mapping[str, str], limit: float | None) -> None:
    """Control groups of both versions."""
    for place, text in files.items():
        put(tmp_path, place, text)
    assert read_machine(sources(tmp_path)).cpu_limit == limit


def test_the_processor_and_its_memory(tmp_path: Path) -> None:
    """Features and available memory come from the kernel's files, versions from the compilers."""
    put(tmp_path, "proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu avx avx2\n\nprocessor\t: 1\n")
    put(tmp_path, "proc/meminfo", "MemTotal:  2048 kB\nMemAvailable:  1024 kB\n")
    machine = read_machine(sources(tmp_path, {"cc": "12.2.0\n", "nvcc": "nvcc: NVIDIA (R)"}))
    assert machine.cpu_features == {"fpu", "avx", "avx2"}
    assert (machine.memory_available, machine.gcc, machine.has_nvcc) == (1 << 20, (12, 2, 0), True)


def test_loaded_libraries_are_named_once(tmp_path: Path) -> None:
    """llama.cpp's, ggml's and CUDA's files, with spaces in their paths; no others."""
    put(tmp_path, "proc/self/maps", MAPS)
    assert [str(path) for path in read_machine(sources(tmp_path)).mapped] == [
        "/a b/llama_cpp/lib/libllama.so.0", "/a b/llama_cpp/lib/libggml-cpu-haswell.so", "/usr/lib/libcudart.so.12"
    ]  # fmt: skip


def test_copies_on_pythons_path_are_counted_once_each(tmp_path: Path) -> None:
    """A folder that stands on the path twice, or as a link, is one copy."""
    for name in ("one", "two"):
        put(tmp_path, f"{name}/llama_cpp/__init__.py")
    (tmp_path / "link").symlink_to(tmp_path / "one")
    (tmp_path / "three" / "llama_cpp").mkdir(parents=True)
    path = [str(tmp_path / name) for name in ("one", "three", "link", "two", "one")]
    assert read_machine(sources(tmp_path, import_path=path)).copies == (
        tmp_path / "one/llama_cpp", tmp_path / "two/llama_cpp"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "threads", "hides"),
    [
        ({"LLAMA_ARG_THREADS": "12", "CUDA_VISIBLE_DEVICES": ""}, 12, ""),
        ({"LLAMA_ARG_THREADS": "-1", "CUDA_VISIBLE_DEVICES": "-1"}, None, "-1"),
        ({"LLAMA_ARG_THREADS": "many", "CUDA_VISIBLE_DEVICES": "0,1"}, None, None),
    ],
)
def test_the_environment_is_read(
    tmp_path: Path, environment: Mapping[str, str], threads: int | None, hides: str | None
) -> None:
    """A number of threads counts where it is one; cards are hidden by an empty list or -1."""
    machine = read_machine(sources(tmp_path, environment=environment))
    assert (machine.threads, machine.hides_cuda) == (threads, hides)


@pytest.mark.parametrize(("processor", "answer"), [("arm64", ""), ("x86_64", "1\n")])
def test_apple_silicon_is_seen_through_translation(tmp_path: Path, processor: str, answer: str) -> None:
    """Also where Python is an Intel program."""
    mac = sources(tmp_path, {"sysctl": answer}, system="darwin", processor=processor)
    assert read_machine(mac).is_apple_silicon
    assert not read_machine(sources(tmp_path, {"sysctl": answer}, system="linux", processor=processor)).is_apple_silicon


def test_a_program_that_is_missing_or_fails_says_nothing() -> None:
    """Neither is an error: the question is then open."""
    assert ask_program(("ggufsteer-no-such-program",)) == ""
    assert ask_program(("false",)) == ""
    assert ask_program(("echo", "hello")) == "hello\n"


def test_facts_of_the_llama_cpp_in_use() -> None:
    """The build is read from the library itself, and its files are among those that are loaded."""
    facts = read_facts(Sources())
    assert facts.build is not None
    assert facts.import_problem == ""
    assert [device.name for device in facts.build.devices if device.kind == "cpu"] == ["CPU"]
    assert all(device.memory_total >= device.memory_free > 0 for device in facts.build.devices)
    assert "CPU" in facts.build.backends
    assert facts.build.system_info.startswith("CPU")
    assert facts.build.version
    assert facts.build.cores >= 1


def test_a_missing_native_library_is_a_fact(tmp_path: Path) -> None:
    """Looked for in the package's own folder."""
    facts = read_facts(sources(tmp_path, package=tmp_path))
    assert str(tmp_path / "_native") in facts.native_problem
    assert "is not there" in facts.native_problem


@pytest.mark.parametrize("line", ["raise OSError('libcudart.so.13: cannot open')", "raise RuntimeError('no library')"])
def test_a_llama_cpp_that_cannot_be_imported_is_a_fact(tmp_path: Path, line: str) -> None:
    """The doctor must be able to speak where nothing else of the engine can."""
    put(tmp_path, "llama_cpp/__init__.py", line)
    code = (
        "from ggufsteer.engine.devices_machine import Sources, read_facts\n"
        "facts = read_facts(Sources())\n"
        "print(facts.build, facts.import_problem)"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).resolve().parents[2])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.startswith("None ")
    assert line.partition("'")[2].partition("'")[0] in done.stdout


def test_a_llama_cpp_that_ends_python_is_a_fact(tmp_path: Path) -> None:
    """It is tried in a process of its own, and not again in this one."""
    put(tmp_path, "llama_cpp/__init__.py", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    code = "from ggufsteer.engine.devices_machine import import_crash; print(import_crash())"
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).resolve().parents[2])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout == "it ends Python (Illegal instruction)\n"
    facts = read_facts(sources(tmp_path, import_crash=lambda: "it ends Python"))
    assert (facts.build, facts.import_problem) == (None, "it ends Python")
