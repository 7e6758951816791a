"""Every command that the README prints works as printed."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from textual.binding import BindingsMap

from ggufsteer.engine.builtin import builtin_model_path
from ggufsteer.tasks.chat_commands import COMMANDS
from ggufsteer.tui.app import ChatScreen
from ggufsteer.tui.slider import SliderRow

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
LLAMA_PROGRAMS = ("llama-completion", "llama-server")
PIPES = ("printf", "echo")
SECONDS = 300


def blocks(language: str) -> list[str]:
    """The README's fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The lines of the README's shell blocks, without comments, in order."""
    lines = [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
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
    known = {"ggufsteer", "make", "pip", *LLAMA_PROGRAMS, *PIPES}
    assert {line.split()[0] for line in commands()} == known


def test_ggufsteer_commands_run_in_order(folder: Path) -> None:
    """The commands from the first vector to the last recipe succeed, one after the other, in one folder."""
    program = [sys.executable, "-m", "ggufsteer"]
    for line in of("ggufsteer"):
        arguments = shlex.split(line)[1:]
        # Nobody types: a chat ends at once.
        done = subprocess.run(
            [*program, *arguments], cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a shell finds under the name `ggufsteer`."""
    script = tmp_path / "ggufsteer"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m ggufsteer "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("line", of(*PIPES))
def test_chats_through_a_pipe_print_what_is_shown(folder: Path, line: str) -> None:
    """A shell runs the README's pipes; the greedy answers on stdout are those of the block below the command."""
    (shown,) = re.findall(rf"^```sh\n{re.escape(line)}\n```\n\n```text\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        ["sh", "-c", line], cwd=folder, capture_output=True, text=True, check=False, timeout=SECONDS
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert len(printed) == len(shown.splitlines())
    # The first words: far into an answer another processor's rounding may take another turn.
    assert [row.split()[:4] for row in printed] == [row.split()[:4] for row in shown.splitlines()]


def test_the_python_example_runs(folder: Path) -> None:
    """The README's Python prints an answer."""
    (text,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=folder, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 3


def test_commands_of_the_chat_exist() -> None:
    """Every /command that the README names is one, as are those that it pipes."""
    named = re.findall(r"[`']/([a-z]+)", README)
    assert {"operation", "policy", "regenerate", "save"} <= set(named)
    vectors = {path.stem for path in builtin_model_path().parent.glob("vectors/*.gguf")}
    assert set(named) <= COMMANDS.keys() | vectors


def test_keys_of_the_chat_exist() -> None:
    """Every key in the README's table is bound on the screen or on a slider."""
    table = README.partition("| key | what it does |")[2].partition("\n\n")[0]
    names = {"←": "left", "→": "right", "F1": "f1", "F2": "f2"}
    named = {names.get(key, key) for key in re.findall(r"`([^`/]+)`", table)} - {"shift"}
    bound = {key for key, _ in BindingsMap([*ChatScreen.BINDINGS, *SliderRow.BINDINGS])}
    assert len(named) > 10
    assert named <= bound


def test_the_example_recipe_is_valid(folder: Path) -> None:
    """The recipe that the README shows passes the check."""
    (text,) = blocks("toml")
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
