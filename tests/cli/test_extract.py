"""`extract`: what it writes and prints, and what it refuses before any work."""

import hashlib
import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ggufsteer.cli import console
from ggufsteer.cli.extract import METHOD_NAMES
from ggufsteer.cli.extraction_report import QUESTION, llama_commands
from ggufsteer.cli.options import load_options, model_options
from ggufsteer.engine import builtin
from ggufsteer.files.recipe import parse_recipe
from ggufsteer.files.vector import read_vector
from ggufsteer.maths.directions import METHODS
from tests.cli.conftest import Run, environment, files, put_pairs


def test_a_recipe_becomes_a_vector_and_a_table(run: Run, tiny: Path, folder: Path) -> None:
    """The file is named after the recipe; the table has a row a layer."""
    result = run("extract", "happy.toml", "-m", tiny, "-t", 1)
    assert result.exit_code == 0, result.stderr
    assert files(folder) == ["happy.gguf", "happy.toml"]
    assert read_vector("happy.gguf").layers == (1, 2)
    table = [line.split() for line in result.stdout.splitlines()]
    assert ["layer", "size", "of", "the", "state", "AUC", "d'"] in table
    assert [row[0] for row in table if row and row[0].isdigit()] == ["1", "2"]


def test_the_printed_commands_are_ready_for_a_shell(run: Run, tiny: Path, folder: Path) -> None:
    """Both of llama.cpp's programs, in the colon form, on one line each."""
    printed = run("extract", "happy.toml", "-m", tiny, "-t", 1, "-o", "my happy.gguf").stdout.splitlines()
    commands = [shlex.split(line) for line in printed if line.startswith("  llama-")]
    assert [command[0] for command in commands] == ["llama-completion", "llama-server"]
    for command in commands:
        assert command[1:5] == ["-m", str(tiny), "--control-vector-scaled", "my happy.gguf:1.0"]
    (ours,) = [shlex.split(line) for line in printed if line.startswith("  ggufsteer try")]
    assert ours[2:] == ["my happy.gguf", QUESTION, "-m", str(tiny)]


@pytest.mark.parametrize(
    ("path", "option"),
    [
        ("it's $HOME; rm.gguf", ["--control-vector-scaled", "it's $HOME; rm.gguf:1.0"]),
        ("a,b/v.gguf", ["--control-vector-scaled", '"a,b/v.gguf":1.0']),
        ("a:b/v.gguf", ["--control-vector", "a:b/v.gguf"]),
        ('"a,b:c/v.gguf', ["--control-vector", '"""a,b:c/v.gguf"']),
        ("-v.gguf", ["--control-vector-scaled", "./-v.gguf:1.0"]),
    ],
)
def test_strange_paths_are_spelled_as_shell_and_llama_cpp_read_them(path: str, option: list[str]) -> None:
    """Quotes for the shell around quotes for llama.cpp's lists; where a colon would cut the path, the plain option."""
    for command in llama_commands(Path(path), Path("-model, large.gguf")):
        words = shlex.split(console.shell(command))
        assert words[1:5] == ["-m", "./-model, large.gguf", *option]


def test_json_is_one_document_and_nothing_else(run: Run, tiny: Path) -> None:
    """stdout parses as a whole, and says what the table says."""
    result = run("extract", "happy.toml", "-m", tiny, "-t", 1, "--json")
    document = json.loads(result.stdout)
    assert document["vector"] == "happy.gguf"
    assert [layer["layer"] for layer in document["layers"]] == [1, 2]
    assert (document["pairs"], document["held_out_pairs"]) == (4, 1)
    assert "--control-vector-scaled happy.gguf:1.0" in document["commands"][0]


def test_the_same_command_writes_the_same_bytes(run: Run, tiny: Path, folder: Path) -> None:
    """Two runs give equal files."""
    for name in ("one.gguf", "two.gguf"):
        assert run("extract", "happy.toml", "-m", tiny, "-t", 1, "-o", name).exit_code == 0
    assert (folder / "one.gguf").read_bytes() == (folder / "two.gguf").read_bytes()


def test_two_files_do_instead_of_a_recipe(run: Run, tiny: Path, folder: Path) -> None:
    """cvector-generator's own input, with its escapes and its flag names."""
    (folder / "p.txt").write_text("I am\\nglad\nI am merry\n")
    (folder / "n.txt").write_text("I am\\nsad\nI am gloomy\n")
    flags = ("--positive-file", "p.txt", "--negative-file", "n.txt", "--method", "mean", "-m", tiny, "-ngl", 0, "-t", 1)
    result = run("extract", *flags, "--no-calibrate", "--output-file", "mood.gguf")
    assert result.exit_code == 0, result.stderr
    provenance = read_vector("mood.gguf").provenance
    assert (provenance.name, provenance.method) == ("mood", "mean")
    assert "glad" in provenance.recipe_text


def test_flags_take_the_place_of_the_recipes_keys(run: Run, tiny: Path) -> None:
    """What a recipe says but for its contrast can be said on the command line, and is written into the recipe."""
    changes = ("--method", "pca", "--position", "-2", "--layers", "1-3", "--dose", "2", "-s", 9, "--no-deltas",
               "--holdout", "0")  # fmt: skip
    result = run("extract", "happy.toml", "-m", tiny, "-t", 1, *changes)
    assert result.exit_code == 0, result.stderr
    provenance = read_vector("happy.gguf").provenance
    assert (provenance.method, provenance.position, provenance.layers) == ("pca", "-2", (1, 2, 3))
    assert (provenance.dose, provenance.seed) == (2.0, 9)
    recorded = parse_recipe(provenance.recipe_text)
    assert (recorded.method, recorded.position, recorded.layers) == ("pca", -2, "1-3")
    assert (recorded.deltas, recorded.holdout, provenance.measured_on) == (False, 0.0, "")
    assert provenance.recipe_hash == hashlib.sha256(provenance.recipe_text.encode()).hexdigest()


def test_the_recorded_recipe_makes_the_vector_again(run: Run, tiny: Path, folder: Path) -> None:
    """What a vector carries is what it was made from, flags included: it gives the same directions."""
    assert run("extract", "happy.toml", "-m", tiny, "-t", 1, "--method", "lda", "--layers", "1,3").exit_code == 0
    made = read_vector("happy.gguf")
    (folder / "recorded.toml").write_text(made.provenance.recipe_text)
    assert run("extract", "recorded.toml", "-m", tiny, "-t", 1, "-o", "again.gguf").exit_code == 0
    assert (folder / "again.gguf").read_bytes() == (folder / "happy.gguf").read_bytes()


def test_the_number_of_threads_does_not_change_a_byte(run: Run, tiny: Path, folder: Path) -> None:
    """Other settings that might are recorded."""
    for threads in (1, 2, 3):
        assert run("extract", "happy.toml", "-m", tiny, "-t", threads, "-o", f"{threads}.gguf").exit_code == 0
    assert (folder / "1.gguf").read_bytes() == (folder / "2.gguf").read_bytes() == (folder / "3.gguf").read_bytes()
    assert run("extract", "happy.toml", "-m", tiny, "-t", 1, "-ub", 16, "-fa", "off").exit_code == 0
    settings = read_vector("happy.gguf").provenance.settings
    assert (settings["n_ubatch"], settings["flash_attention"], "n_threads" in settings) == ("16", "off", False)


def test_llama_cpps_environment_is_honoured(run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LLAMA_ARG_MODEL and its kin do what the flags do."""
    monkeypatch.setenv("LLAMA_ARG_MODEL", str(tiny))
    monkeypatch.setenv("LLAMA_ARG_THREADS", "1")
    assert run("extract", "happy.toml").exit_code == 0
    monkeypatch.setenv("LLAMA_ARG_FLASH_ATTN", "perhaps")
    refused = run("extract", "happy.toml")
    assert refused.exit_code == 2
    assert "LLAMA_ARG_FLASH_ATTN" in refused.stderr


def test_without_a_model_the_one_that_ships_is_taken(run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, a recipe that it cannot show is warned about, and the command to try the vector needs no -m."""
    monkeypatch.setattr(builtin, "_DEMO_MODEL", tiny)
    result = run("extract", "happy.toml", "-t", 1)
    assert result.exit_code == 0, result.stderr
    assert "demo model that comes with ggufsteer" in result.stderr
    assert "warning: recipe 'happy' is written for real chat models" in result.stderr
    assert "  ggufsteer try happy.gguf 'Tell me about the sea.'\n" in result.stdout


@pytest.mark.parametrize(
    ("spelled", "meant"), [("1", "on"), ("enabled", "on"), ("false", "off"), ("-1", "auto"), ("auto", "auto")]
)
def test_llama_cpps_spellings_of_values_are_understood(spelled: str, meant: str) -> None:
    """What a person has in the environment for llama.cpp's programs is no mistake here; -1 stands for the default."""
    command = click.command("c")(model_options(lambda **values: values))
    options = load_options(command.main(["-fa", spelled, "-t", "-1", "-ngl", "-1"], standalone_mode=False))
    assert (options.flash_attention, options.n_threads, options.n_gpu_layers) == (meant, None, -1)


def test_the_help_names_every_method() -> None:
    """The list that is written out is the table's."""
    assert list(METHODS) == list(METHOD_NAMES)


def test_tiny_batches_work(run: Run, tiny: Path) -> None:
    """A batch may be smaller than the number of sequences that would go side by side."""
    assert run("extract", "happy.toml", "-m", tiny, "-t", 1, "-b", 8, "-ub", 8).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "neither a recipe nor --positive-file"),
        (("happy.toml", "--positive-file", "p", "--negative-file", "n"), "both a recipe and --positive-file"),
        (("--positive-file", "p"), "go together"),
        (("missing.toml",), "missing.toml"),
        (("happy.toml", "--method", "maen"), "method"),
        (("happy.toml", "--position", "middle"), "position"),
        (("happy.toml", "--layers", "0-2"), "layer 0"),
        (("happy.toml", "--dose", "-1"), "dose"),
        (("happy.toml", "-ngl", "many"), "-ngl"),
        (("happy.toml", "-c", "-5"), "-c"),
        (("happy.toml", "-b", "8", "-ub", "16"), "--ubatch-size 16"),
        (("happy.toml", "-o", "a:b.gguf"), "a:b.gguf"),
        (("happy.toml", "-o", "nowhere/v.gguf"), "nowhere"),
        (("happy.toml", "-o", "happy.toml"), "also an input"),
        (("happy.toml", "-o", "other.toml"), "ending of a recipe"),
        (("happy.toml", "-o", "."), "not a usable file name"),
        (("happy.toml", "-o", "/"), "/"),
        (("happy.toml", "-o", ".."), "folder"),
        (("happy.toml", "-fa", "perhaps"), "perhaps"),
        (("happy.toml", "-s", "-1"), "--seed"),
    ],
)
def test_a_wrong_request_ends_with_2_and_writes_nothing(
    run: Run, tiny: Path, folder: Path, arguments: tuple[str, ...], said: str
) -> None:
    """The error names what is wrong; there is no traceback and no file."""
    result = run("extract", *arguments, "-m", tiny)
    assert result.exit_code == 2, result.stderr
    assert said in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stdout == ""
    assert files(folder) == ["happy.toml"]


def test_inputs_named_in_a_recipe_or_by_a_flag_are_never_overwritten(run: Run, tiny: Path, folder: Path) -> None:
    """Not even with --force may the output be the recipe's own model, or one of the two files."""
    copy = folder / "model.gguf"
    copy.write_bytes(tiny.read_bytes())
    recipe = folder / "happy.toml"
    recipe.write_text('model = "model.gguf"\n' + recipe.read_text())
    (folder / "p.gguf").write_text("glad\n")
    (folder / "n.gguf").write_text("sad\n")
    two_files = ("--positive-file", "p.gguf", "--negative-file", "n.gguf", "-m", tiny)
    for arguments in (("happy.toml", "-o", copy), (*two_files, "-o", "p.gguf"), (*two_files, "-o", "n.gguf")):
        result = run("extract", *arguments, "--force")
        assert result.exit_code == 2
        assert "also an input" in result.stderr
    assert copy.read_bytes() == tiny.read_bytes()


def test_the_model_is_never_overwritten(run: Run, tiny: Path, folder: Path) -> None:
    """Not even with --force may the output be the model."""
    copy = folder / "model.gguf"
    copy.write_bytes(tiny.read_bytes())
    result = run("extract", "happy.toml", "-m", copy, "-o", copy, "--force")
    assert result.exit_code == 2
    assert copy.read_bytes() == tiny.read_bytes()


def test_a_file_that_is_no_vector_is_overwritten_with_force_only(run: Run, tiny: Path, folder: Path) -> None:
    """Another GGUF, or a letter to an aunt, stays whole; an older vector is replaced."""
    (folder / "v.gguf").write_text("Dear aunt")
    refused = run("extract", "happy.toml", "-m", tiny, "-t", 1, "-o", "v.gguf")
    assert refused.exit_code == 2
    assert (folder / "v.gguf").read_text() == "Dear aunt"
    assert run("extract", "happy.toml", "-m", tiny, "-t", 1, "-o", "v.gguf", "--force").exit_code == 0
    assert run("extract", "happy.toml", "-m", tiny, "-t", 1, "-o", "v.gguf").exit_code == 0


def test_a_model_that_is_not_there_is_named(run: Run) -> None:
    """The error names the file."""
    result = run("extract", "happy.toml", "-m", "gone.gguf")
    assert result.exit_code in (1, 2)
    assert "gone.gguf" in result.stderr
    assert "Traceback" not in result.stderr


def test_ctrl_c_in_the_middle_leaves_no_file(tiny: Path, folder: Path) -> None:
    """SIGINT while states are being read ends the process with 130 and leaves nothing half written."""
    command = [sys.executable, "-m", "ggufsteer", "extract", *put_pairs(folder, 3000)]
    process = subprocess.Popen(
        [*command, "-m", str(tiny), "-t", "1", "-b", "1", "-ub", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment(),
    )
    assert process.stderr is not None
    said = [process.stderr.readline() for _ in range(2)]
    assert said == ["identifying the model file …\n", "reading states (6000 texts) …\n"]
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert files(folder) == ["happy.toml", "n.txt", "p.txt"]
