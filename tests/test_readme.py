"""Every command that the README prints works as printed."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ggufsteer.engine.builtin import builtin_model_path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
LLAMA_PROGRAMS = ("llama-completion", "llama-server")


def commands() -> list[str]:
    """The lines of the README's shell blocks, without comments, in order."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def of(*programs: str) -> list[str]:
    """The README's commands that run one of these programs."""
    return [line for line in commands() if line.split()[0] in programs]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader types: a model of his own, his two files of texts, and the README's example of a recipe."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copy(builtin_model_path(), folder / "model.gguf")
    names = ("Tom", "Lily", "Ben", "Mia", "Sue", "Max", "Tim", "Ann")
    for word, name in (("happy", "positive.txt"), ("sad", "negative.txt")):
        (folder / name).write_text("".join(f"{who} came home and was {word}.\n" for who in names))
    return folder


def test_every_command_is_known_here() -> None:
    """No command slips into the README without being run or checked below."""
    known = {"ggufsteer", "make", "pip", *LLAMA_PROGRAMS}
    assert {line.split()[0] for line in commands()} == known


def test_ggufsteer_commands_run_in_order(folder: Path) -> None:
    """The commands from the first vector to the last recipe succeed, one after the other, in one folder."""
    program = [sys.executable, "-m", "ggufsteer"]
    for line in of("ggufsteer"):
        arguments = shlex.split(line)[1:]
        done = subprocess.run([*program, *arguments], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_the_example_recipe_is_valid(folder: Path) -> None:
    """The recipe that the README shows passes the check."""
    (text,) = re.findall(r"^```toml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (folder / "example.toml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "ggufsteer", "recipe", "check", "example.toml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_make_targets_exist() -> None:
    """What the README makes is in the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [line.split()[1] for line in of("make")]
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_pinned_llama_cpp_python_is_the_one_that_is_named() -> None:
    """The wheels that the README names are of the version that the package asks for."""
    (pin,) = set(re.findall(r"llama-cpp-python==[\d.]+", (ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    assert all(pin in line for line in of("pip") if "llama-cpp" in line)


def test_llama_cpp_commands_load_the_vector(folder: Path) -> None:
    """Unmodified llama-completion takes the README's line and applies the vector."""
    programs = os.environ.get("GGUFSTEER_STOCK_LLAMA")
    if not programs:
        pytest.skip("GGUFSTEER_STOCK_LLAMA does not name a folder with llama.cpp's programs")
    extract = next(line for line in of("ggufsteer") if "formal.gguf" in line)
    subprocess.run([sys.executable, "-m", *shlex.split(extract)], cwd=folder, capture_output=True, check=True)
    (line,) = of("llama-completion")
    program, *arguments = shlex.split(line)
    done = subprocess.run(
        [Path(programs) / program, *arguments, "-n", "8", "-no-cnv", "-t", "1", "-lv", "4"],
        cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0
    assert "failed to load control vector" not in done.stderr
