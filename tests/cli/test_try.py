"""`try`: the same question at several strengths."""

import json
import re
from pathlib import Path

import pytest

from ggufsteer.engine import builtin
from tests.cli.conftest import Run, on_terminal
from tests.tiny_model import write_tiny_model


@pytest.fixture
def vector(run: Run, tiny: Path) -> str:
    """A vector of the tiny model in the current folder."""
    assert run("extract", "happy.toml", "-m", tiny, "-t", 1).exit_code == 0
    return "happy.gguf"


def test_answers_stand_side_by_side_on_a_terminal(tiny: Path, folder: Path, vector: str) -> None:
    """A column for each strength; 0 is called by what it is."""
    command = ("try", vector, "Tea?", "-m", tiny, "-t", 1, "-n", 4, "--strengths", "0,1.5")
    shown, _ = on_terminal(folder, *command, NO_COLOR="1")
    headings = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line).split() for line in shown.splitlines() if "without" in line]
    assert headings == [["without", "strength", "1.5"]]


@pytest.mark.parametrize("columns", [80, None])
def test_answers_stand_below_each_other_where_columns_do_not_fit(
    run: Run, tiny: Path, folder: Path, vector: str, columns: int | None
) -> None:
    """With many strengths on a narrow screen, and in a file, each answer gets lines of its own."""
    command = ("try", vector, "Tea?", "-m", tiny, "-t", 1, "-n", 4, "--strengths", "-2,-1,0,1,2")
    shown = on_terminal(folder, *command, columns=columns)[0] if columns else run(*command).stdout
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).splitlines()
    headings = [line for line in lines if line.startswith(("strength", "without"))]
    assert headings == ["strength -2", "strength -1", "without", "strength 1", "strength 2"]


@pytest.mark.parametrize("question", ["", " \n"])
def test_an_empty_question_is_refused(run: Run, tiny: Path, vector: str, question: str) -> None:
    """Nothing is asked of the model."""
    result = run("try", vector, question, "-m", tiny)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "question is empty" in result.stderr


def test_strength_0_is_the_model_as_it_is(run: Run, tiny: Path, vector: str) -> None:
    """Between steered answers the plain one is always the same; a strong one differs."""
    arguments = ("-m", tiny, "-t", 1, "-n", 8, "--json", "--strengths", "0,40,0")
    document = json.loads(run("try", vector, "Tea?", *arguments).stdout)
    first, steered, last = document["answers"]
    assert first["text"] == last["text"] != steered["text"]
    assert (document["question"], document["vector"], steered["strength"]) == ("Tea?", vector, 40.0)


def test_a_vector_of_another_model_is_refused_with_4(run: Run, vector: str, folder: Path) -> None:
    """A model of the same shape is refused unless forced, one of another shape always."""
    other = write_tiny_model(folder / "other.gguf", seed=1)
    refused = run("try", vector, "Tea?", "-m", other, "-t", 1, "-n", 2)
    assert (refused.exit_code, refused.stdout) == (4, "")
    assert "--force" in refused.stderr
    forced = run("try", vector, "Tea?", "-m", other, "-t", 1, "-n", 2, "--force")
    assert forced.exit_code == 0
    assert "warning: " in forced.stderr
    short = write_tiny_model(folder / "short.gguf", n_layer=2)
    assert run("try", vector, "Tea?", "-m", short, "-t", 1, "-n", 2, "--force").exit_code == 4


def test_without_a_model_the_built_in_one_is_taken_if_the_vector_is_its(
    run: Run, tiny: Path, vector: str, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """The content decides, not the name."""
    monkeypatch.setattr(builtin, "_DEMO_MODEL", tiny)
    assert run("try", vector, "Tea?", "-t", 1, "-n", 2).exit_code == 0
    monkeypatch.setattr(builtin, "_DEMO_MODEL", write_tiny_model(folder / "other.gguf", seed=1))
    refused = run("try", vector, "Tea?", "-t", 1, "-n", 2)
    assert refused.exit_code == 2
    assert "-m" in refused.stderr


@pytest.mark.parametrize("strengths", ["", "a", "1,,2", "nan", "inf"])
def test_strengths_have_to_be_numbers(run: Run, tiny: Path, vector: str, strengths: str) -> None:
    """Anything else is an error of usage."""
    result = run("try", vector, "Tea?", "-m", tiny, "--strengths", strengths)
    assert result.exit_code == 2
    assert "--strengths" in result.stderr


def test_a_file_that_is_no_vector_is_refused(run: Run, tiny: Path) -> None:
    """A recipe or a model in place of a vector ends with 2, naming the file."""
    for name in ("happy.toml", str(tiny), "gone.gguf"):
        result = run("try", name, "Tea?", "-m", tiny)
        assert result.exit_code == 2, result.stderr
        assert name in result.stderr


def test_a_vector_that_ships_is_called_by_its_name(run: Run) -> None:
    """Its model is the one that ships too; an unknown name is told with the nearest."""
    result = run("try", "builtin:french", "What is tea?", "-t", 1, "-n", 12, "--strengths", "1", "--json")
    assert result.exit_code == 0, result.stderr
    assert "thé" in json.loads(result.stdout)["answers"][0]["text"]
    refused = run("try", "builtin:frensh", "What is tea?")
    assert refused.exit_code == 2
    assert "builtin:french" in refused.stderr
