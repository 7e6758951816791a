"""What the system says about itself: processor, limits, NVIDIA's driver, copies of llama.cpp.

Each source can be another one: the root folder, the environment, Python's path, the programs that are asked. It does
not import llama.cpp, and judges nothing.
"""

import importlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ggufsteer.engine.devices_facts import Build, Facts, Machine, Nvidia
from ggufsteer.errors import SteerError
from ggufsteer.text import clean

Ask = Callable[[Sequence[str]], str]
"""Runs a program and gives what it wrote; empty text where it is not there or fails."""

_PATIENCE = 10
_MAPPED = re.compile(r"(?:lib)?(?:llama|ggml(?:-[\w-]+)?|cudart)(?:64_\d+)?\.(?:so|dylib|dll)\b")
_DRIVER = re.compile(r"Kernel Module\D*?(?:x86_64|aarch64)?\s+(\d+\.\d+(?:\.\d+)?)")


def ask_program(command: Sequence[str]) -> str:
    """Run a program that only tells something, and give what it wrote to stdout."""
    program = shutil.which(command[0])
    if program is None:
        return ""
    try:
        done = subprocess.run([program, *command[1:]], capture_output=True, timeout=_PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", errors="replace")


def import_crash() -> str:
    """Say how importing llama_cpp ends Python itself, such as by an instruction that the processor lacks.

    Tried in a process of its own; empty text where it lives on, with or without an exception.
    """
    command = [sys.executable, "-c", "import llama_cpp; llama_cpp.llama_backend_init()"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode >= 0:
        return ""
    return f"it ends Python ({signal.strsignal(-done.returncode) or f'signal {-done.returncode}'})"


@dataclass(frozen=True)
class Sources:
    """Where facts about the machine are read from."""

    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    import_path: Sequence[str] = field(default_factory=lambda: tuple(sys.path))
    ask: Ask = ask_program
    import_crash: Callable[[], str] = import_crash
    system: str = sys.platform
    processor: str = field(default_factory=platform.machine)
    python: str = sys.executable
    package: Path = field(default_factory=lambda: Path(__file__).resolve().parents[1])
    """ggufsteer's own folder."""

    def text(self, place: str) -> str:
        """Read a small file below the root; empty text where it cannot be read."""
        try:
            return (self.root / place).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""


def read_machine(sources: Sources) -> Machine:
    """Give what the system says."""
    environment = sources.environment
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    threads = environment.get("LLAMA_ARG_THREADS", "")
    package_parent = sources.package.parent
    return Machine(
        system=sources.system,
        processor=sources.processor,
        python=sources.python,
        cpu_features=_cpu_features(sources.text("proc/cpuinfo")),
        cpu_limit=_cpu_limit(sources),
        memory_available=_memory_available(sources.text("proc/meminfo")),
        nvidia=_nvidia(sources),
        is_apple_silicon=_is_apple_silicon(sources),
        has_nvcc=bool(sources.ask(("nvcc", "--version"))),
        gcc=_gcc(sources.ask),
        copies=_copies(sources.import_path),
        mapped=_mapped(sources.text("proc/self/maps")),
        threads=int(threads) if threads.isdecimal() and int(threads) else None,
        hides_cuda=visible if visible is not None and visible.strip() in ("", "-1") else None,
        python_path=tuple(filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))),
        source_tree=package_parent if (package_parent / "native" / "ggufsteer.h").is_file() else None,
    )


def read_facts(sources: Sources) -> Facts:
    """Give everything that a diagnosis rests on; a llama_cpp that cannot be imported is one of the facts."""
    build: Build | None = None
    native_problem = ""
    import_problem = sources.import_crash()
    if import_problem:
        return Facts(read_machine(sources), None, import_problem, "")
    try:
        importlib.import_module("llama_cpp")
    # What a broken installation raises depends on what is broken: the package wraps the loader's errors in its own.
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        import_problem = clean(f"{type(error).__name__}: {error}")
    else:
        from ggufsteer.engine import library
        from ggufsteer.engine.devices import read_build

        build = read_build()
        try:
            library.load_library(library.library_path(sources.package / "_native"))
        except SteerError as error:
            native_problem = error.message
    # Last, so that what the import has loaded is seen.
    return Facts(read_machine(sources), build, import_problem, native_problem)


def _cpu_features(text: str) -> frozenset[str]:
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def _cpu_limit(sources: Sources) -> float | None:
    """Read the quota of a container, of control groups of version 2 or 1."""
    quota, _, period = sources.text("sys/fs/cgroup/cpu.max").strip().partition(" ")
    if not quota:
        quota = sources.text("sys/fs/cgroup/cpu/cpu.cfs_quota_us").strip()
        period = sources.text("sys/fs/cgroup/cpu/cpu.cfs_period_us").strip()
    if not quota.isdecimal() or not period.isdecimal() or not int(period):
        return None
    return int(quota) / int(period)


def _memory_available(text: str) -> int:
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _nvidia(sources: Sources) -> Nvidia | None:
    """Ask the driver's own program, then the files that the driver leaves; None where no trace of a card is found."""
    listed = sources.ask(("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"))
    rows = [line.rpartition(",") for line in listed.splitlines() if "," in line]
    if rows:
        return Nvidia(tuple(clean(name).strip() for name, _, _ in rows), clean(rows[0][2]).strip())
    driver = _DRIVER.search(sources.text("proc/driver/nvidia/version"))
    cards = _listed_cards(sources)
    if driver is None and not cards and not (sources.root / "dev/nvidia0").exists():
        return None
    return Nvidia(cards, driver[1] if driver else "")


def _listed_cards(sources: Sources) -> tuple[str, ...]:
    places = sorted((sources.root / "proc/driver/nvidia/gpus").glob("*/information"))
    texts = (sources.text(str(place.relative_to(sources.root))) for place in places)
    found = (re.search(r"^Model:\s*(.+)$", text, re.MULTILINE) for text in texts)
    return tuple(clean(match[1]).strip() for match in found if match)


def _is_apple_silicon(sources: Sources) -> bool:
    if sources.system != "darwin":
        return False
    return sources.processor == "arm64" or sources.ask(("sysctl", "-n", "hw.optional.arm64")).strip() == "1"


def _gcc(ask: Ask) -> tuple[int, ...]:
    version = ask(("cc", "-dumpfullversion")).strip()
    return tuple(map(int, version.split("."))) if re.fullmatch(r"\d+(\.\d+)+", version) else ()


def _copies(import_path: Sequence[str]) -> tuple[Path, ...]:
    folders = (Path(entry or ".") / "llama_cpp" for entry in import_path)
    return tuple(dict.fromkeys(folder.resolve() for folder in folders if (folder / "__init__.py").is_file()))


def _mapped(maps: str) -> tuple[Path, ...]:
    paths = (Path(fields[5]) for line in maps.splitlines() if len(fields := line.split(maxsplit=5)) == 6)
    return tuple(dict.fromkeys(path for path in paths if _MAPPED.match(path.name)))
