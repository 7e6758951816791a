"""`chat --plain`: through real pipes and terminals, with the model in its own process."""

import io
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ggufsteer.engine.builtin import builtin_vectors
from ggufsteer.text import clean
from tests.cli.conftest import Run, environment

SECONDS = 120.0
GREEDY = ("-t", 1, "--temp", 0, "-n", 16)


def chat(folder: Path, lines: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Chat by pipes: the lines go in, what comes out is kept."""
    command = [sys.executable, "-m", "ggufsteer", "chat", *map(str, arguments)]
    return subprocess.run(
        command,
        input=lines,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(),
        timeout=SECONDS,
        check=False,
    )


@contextmanager
def talking(folder: Path, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """Chat by pipes that stay open; the process is gone afterwards, whatever happened."""
    command = [sys.executable, "-m", "ggufsteer", "chat", "--plain", *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, env=environment(), stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def say(process: subprocess.Popen[bytes], line: str) -> None:
    """Write a line to the chat."""
    assert process.stdin is not None
    process.stdin.write(line.encode() + b"\n")
    process.stdin.flush()


def until(stream: object, wanted: Callable[[bytes], bool]) -> bytes:
    """Read until something has come."""
    read = b""
    while not wanted(read):
        piece = os.read(stream.fileno(), 4096)
        assert piece, read
        read += piece
    return read


@pytest.fixture
def vector(run: Run, tiny: Path) -> str:
    """A vector of the tiny model in the current folder."""
    assert run("extract", "happy.toml", "-m", tiny, "-t", 1).exit_code == 0
    return "happy.gguf"


def test_with_nothing_at_all_it_talks_with_what_ships(folder: Path) -> None:
    """The built-in model and its vectors, at 0; a slider moved between two questions changes the answer."""
    assert builtin_vectors()
    done = chat(folder, "Hello\n/strength happy 1\nHello\n/vectors\n", "--plain", *GREEDY)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), done.stderr
    assert "error" not in done.stderr
    assert set(re.findall(r"^(\w+): strength 0$", done.stderr, re.MULTILINE)) >= set(builtin_vectors()) - {"happy"}


def test_without_a_terminal_it_is_plain(folder: Path, tiny: Path) -> None:
    """And at temperature 0 the same again, answer for answer; stdout holds answers only."""
    first = chat(folder, "Hello\n\nAnd?\n", "-m", tiny, *GREEDY)
    second = chat(folder, "Hello\r\nAnd?", "-m", tiny, *GREEDY)
    assert first.stdout == second.stdout != ""
    assert (first.returncode, second.returncode) == (0, 0)


def test_an_unsteered_answer_is_the_answer_of_try(run: Run, folder: Path, tiny: Path, vector: str) -> None:
    """The chat and the one-shot command agree, without and with a vector."""
    answers = json.loads(
        run("try", vector, "Tea?", "-m", tiny, "--strengths", "0,3", "--json", "-t", 1, "-n", 16).stdout
    )["answers"]
    for answer in answers:
        done = chat(folder, "Tea?\n", "-m", tiny, "--vector", f"{vector}:{answer['strength']}", *GREEDY)
        assert done.stdout.strip() == clean(answer["text"]).strip()


def test_a_backslash_goes_on_in_the_next_line(folder: Path, tiny: Path) -> None:
    """The question has both lines, and the saved file says so."""
    done = chat(folder, "One\\\ntwo?\n/save talk.json\n", "-m", tiny, *GREEDY)
    assert done.returncode == 0
    document = json.loads((folder / "talk.json").read_text())
    assert document["messages"][0]["text"] == "One\ntwo?"
    assert clean(document["messages"][1]["text"]).strip() == done.stdout.strip()


def test_a_saved_conversation_goes_on(folder: Path, tiny: Path, vector: str) -> None:
    """In another process, with the vector that it was held under, the next answer is the same."""
    arguments = ("-m", tiny, *GREEDY)
    first = chat(folder, "One?\n/save talk.json\nTwo?\n", *arguments, "--vector", f"{vector}:2")
    second = chat(folder, "/load talk.json\nTwo?\n", *arguments)
    assert second.stderr.count("warning") == 0
    assert first.stdout.endswith(second.stdout)
    assert second.stdout.strip()


def test_a_comparison_has_both_answers_with_their_names(folder: Path, tiny: Path, vector: str) -> None:
    """Off a screen they stand one after the other; the unsteered one is the model as it is."""
    plain = chat(folder, "Hello\n", "-m", tiny, *GREEDY).stdout
    done = chat(folder, "Hello\n", "-m", tiny, *GREEDY, "--vector", f"{vector}:4", "--run", "/compare on")
    baseline, _, steered = done.stdout.partition("Steered: ")
    assert baseline.removeprefix("Baseline: ").strip() == plain.strip()
    assert steered.strip()


def test_one_answer_of_a_comparison_has_no_name(folder: Path, tiny: Path) -> None:
    """Nothing steers, so there is nothing to tell apart."""
    plain = chat(folder, "Hello\n", "-m", tiny, *GREEDY)
    done = chat(folder, "/compare on\nHello\n", "-m", tiny, *GREEDY)
    assert done.stdout == plain.stdout
    assert "nothing steers now" in done.stderr


def test_statistics_come_before_the_end_of_a_pipe(folder: Path, tiny: Path) -> None:
    """The process is asked and waited for."""
    done = chat(folder, "/stats\n", "-m", tiny, *GREEDY)
    assert re.search(r"tokens in memory; the process has [\d,]+ MiB and runs for \d+ seconds", done.stderr)


def test_a_wrong_line_makes_the_exit_code_and_nothing_else(folder: Path, tiny: Path) -> None:
    """What follows is still answered; the nearest known command is named."""
    done = chat(folder, "/strenght happy 1\nHello\n", "-m", tiny, *GREEDY)
    assert (done.returncode, bool(done.stdout.strip())) == (2, True)
    assert "did you mean /strength?" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-m", "none.gguf"], 2, "none.gguf: no such file"),
        (["-m", "happy.toml"], 2, "happy.toml: is not a GGUF file"),
        (["--vector", "none.gguf:1"], 2, "none.gguf: no such file"),
        (["--vector", "builtin:hapy"], 2, "did you mean 'builtin:happy'"),
        (["--vector", "builtin:happy:lots"], 2, "'lots' is no strength"),
        (["--vector", "happy.toml:lots"], 2, "'lots' is no strength"),
        (["--temp", "-1"], 2, "--temp -1"),
        (["--top-p", "0"], 2, "--top-p 0"),
        (["-b", "8", "-ub", "16"], 2, "--ubatch-size 16"),
        (["--policy", "never"], 2, "never"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_answer(
    folder: Path, arguments: Sequence[str], code: int, words: str
) -> None:
    """With the reason, the code, and nothing on stdout."""
    done = chat(folder, "Hello\n", "--plain", *arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert words in done.stderr


def test_a_vector_that_does_not_fit_ends_the_chat_before_any_answer(folder: Path, tiny: Path) -> None:
    """A script must not get unsteered answers."""
    done = chat(folder, "Hello\n", "-m", tiny, "--vector", "builtin:happy")
    assert (done.returncode, done.stdout) == (4, ""), done.stderr


def test_the_printed_command_does_the_same(folder: Path, tiny: Path, vector: str) -> None:
    """What /command says of ggufsteer, run again, has the same settings."""
    settings = "/strength happy -0.5\n/gate happy above 0.2 on token\n/layers happy 2-2\n/policy always\n/command\n"
    first = chat(folder, settings, "-m", tiny, "-t", 1, "--vector", vector, "-sys", "It's short.")
    command = shlex.split(first.stderr.splitlines()[-1])
    assert command[:2] == ["ggufsteer", "chat"]
    second = chat(folder, "/command\n", *command[2:])
    assert second.returncode == 0, second.stderr
    assert second.stderr.splitlines()[-1] == first.stderr.splitlines()[-1]


@pytest.mark.stock
def test_the_printed_command_of_stock_llama_cpp_gives_the_same_answer(folder: Path) -> None:
    """The built-in model with a vector: llama.cpp's own chat writes the very words."""
    programs = os.environ.get("GGUFSTEER_STOCK_LLAMA")
    if not programs:
        pytest.skip("GGUFSTEER_STOCK_LLAMA does not name a folder with llama.cpp's programs")
    ours = chat(folder, "Hello\n/happy 0.5\n/new\nHello\n/command\n", "--plain", *GREEDY, "-fa", "off")
    (line,) = [line for line in ours.stderr.splitlines() if line.startswith("llama-cli ")]
    command = [f"{programs}/llama-cli", *shlex.split(line)[1:], "-p", "Hello", "-st", "-t", "1", "-fa", "off"]
    theirs = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS, cwd=folder)
    unsteered, steered = ours.stdout.splitlines()
    assert unsteered != steered
    assert steered.strip() in theirs.stdout


def test_ctrl_c_stops_the_answer_and_then_leaves(folder: Path, tiny: Path) -> None:
    """What was written stays; at the prompt it leaves with the shell's code."""
    with talking(folder, "-m", tiny, "-t", 1, "-c", 4096) as process:
        say(process, "Hello")
        until(process.stdout, bool)
        process.send_signal(signal.SIGINT)
        until(process.stderr, lambda read: b"(stopped)" in read)
        # It awaits a line now, or will in a moment; a signal that comes too early waits in line.
        deadline = time.monotonic() + SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
        assert process.returncode == 130


@pytest.mark.skipif(sys.platform != "linux", reason="the child is found by /proc")
def test_a_killed_model_costs_no_conversation(folder: Path, tiny: Path) -> None:
    """The reason is said, what was written is kept, and the next question starts the model anew."""
    with talking(folder, "-m", tiny, "-t", 1, "-c", 4096) as process:
        say(process, "Hello")
        until(process.stdout, bool)
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        said = until(process.stderr, lambda read: b"hint" in read)
        assert b"SIGKILL" in said
        say(process, "/set max-tokens 4")
        say(process, "And?")
        say(process, "/save talk.json")
        until(process.stderr, lambda read: b"saved to" in read)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(SECONDS) == 1
    messages = json.loads((folder / "talk.json").read_text())["messages"]
    assert [message["reason"] for message in messages if message["role"] == "assistant"] == ["died", "length"]


@contextmanager
def on_terminal_plain(folder: Path, tiny: Path) -> Iterator[tuple[subprocess.Popen[bytes], io.FileIO]]:
    """The line mode on a terminal of its own; yields the process and what is written and read there."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ggufsteer", "chat", "--plain", "-m", str(tiny), *map(str, GREEDY)]
    with subprocess.Popen(
        command, cwd=folder, env=environment(TERM="dumb"), stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        terminal = os.fdopen(ours, "rb", buffering=0)
        try:
            yield process, terminal
        finally:
            process.kill()
            terminal.close()


def test_on_a_terminal_lines_are_labelled_and_commands_completed(folder: Path, tiny: Path) -> None:
    """User and Assistant in words, Tab completes, Ctrl-D leaves with 0."""
    with on_terminal_plain(folder, tiny) as (process, terminal):
        until(terminal, lambda read: b"User: " in read)
        os.write(terminal.fileno(), b"Hello\n")
        until(terminal, lambda read: b"Assistant: " in read and b"User: " in read)
        os.write(terminal.fileno(), b"/vecto\t\n")
        until(terminal, lambda read: b"User: " in read.partition(b"no vector is loaded")[2])
        os.write(terminal.fileno(), b"\x04")
        assert process.wait(SECONDS) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the child is found by /proc")
def test_on_a_terminal_a_death_is_told_at_once(folder: Path, tiny: Path) -> None:
    """Though a line is awaited; the reason follows with the next one, an empty one too."""
    with on_terminal_plain(folder, tiny) as (process, terminal):
        until(terminal, lambda read: b"User: " in read)
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        until(terminal, lambda read: b"has ended; Enter tells why" in read)
        os.write(terminal.fileno(), b"\n")
        until(terminal, lambda read: b"User: " in read.partition(b"SIGKILL")[2])
        os.write(terminal.fileno(), b"\x04")
        assert process.wait(SECONDS) in (0, 1)


def test_the_front_end_loads_no_model_library() -> None:
    """llama.cpp lives in the model's process; the one that draws stays small."""
    code = (
        "import sys, ggufsteer.cli.chat, ggufsteer.cli.plain_chat, ggufsteer.engine.worker, ggufsteer.tasks.chat\n"
        "print(*{'llama_cpp', 'sklearn', 'textual', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment(), timeout=SECONDS
    )
    assert done.stdout.strip() == ""
