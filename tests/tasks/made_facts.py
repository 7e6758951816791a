"""Facts about a machine on which all is well, to be spoiled one at a time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ggufsteer.engine.devices_facts import Build, Device, Facts, Machine, Nvidia
from ggufsteer.tasks.doctor_mends import SUPPORTED

GIB = 1 << 30
CPU = Device("CPU", "A processor", "cpu", "CPU", 16 * GIB, 16 * GIB)
CARD = Device("CUDA0", "NVIDIA RTX 4090", "gpu", "CUDA", 23 * GIB, 24 * GIB)
NVIDIA = Nvidia(("NVIDIA RTX 4090",), "550.54.15")
FEATURES = "CPU : SSE3 = 1 | AVX = 1 | AVX2 = 1 | FMA = 1"

BUILD = Build(SUPPORTED, "0.5.0", "0c1e570", FEATURES, ("CPU",), (CPU,), "", 8, False)
CUDA_BUILD = replace(BUILD, backends=("CUDA", "CPU"), devices=(CARD, CPU))
MACHINE = Machine(
    system="linux",
    processor="x86_64",
    python="/venv/bin/python",
    cpu_features=frozenset({"sse3", "avx", "avx2", "fma"}),
    cpu_limit=None,
    memory_available=12 * GIB,
    nvidia=None,
    is_apple_silicon=False,
    has_nvcc=False,
    gcc=(13, 3, 0),
    copies=(Path("/venv/lib/llama_cpp"),),
    mapped=(Path("/venv/lib/llama_cpp/lib/libllama.so"), Path("/venv/lib/llama_cpp/lib/libggml-base.so.0")),
    threads=None,
    hides_cuda=None,
    python_path=(),
    source_tree=None,
)


def facts(build: Build | None = BUILD, *, import_problem: str = "", native_problem: str = "", **machine: Any) -> Facts:
    """Give the facts of a machine that differs from the sound one in what is named."""
    return Facts(replace(MACHINE, **machine), build, import_problem, native_problem)
