"""`--report` of `extract` and `calibrate`: what is written, what it says, and what is refused before the work."""

import importlib
import json
from pathlib import Path

import pytest

from ggufsteer.cli.main import COMMANDS
from ggufsteer.report.html import BEGINNING
from ggufsteer.tasks import calibrate as calibrating
from ggufsteer.tasks import evaluate as evaluating
from ggufsteer.tasks import evaluate_chance
from ggufsteer.tasks.fluent import FluencyMeasurement
from tests.cli.conftest import Run, files


@pytest.fixture(autouse=True)
def _few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough to see that it happens."""
    for module, name, value in (
        (calibrating, "DOSE_TEXTS", 3),
        (calibrating, "SEARCH_TEXTS", (2, 2)),
        (evaluating, "NEUTRAL_TEXTS", 2),
        (evaluating, "MOST_DOSES", 4),
        (evaluate_chance, "N_CHANCE", 1),
    ):
        monkeypatch.setattr(module, name, value)

    def few_answers(model: object, *, system: str) -> FluencyMeasurement:
        return FluencyMeasurement(model, system=system, n_answers=2, max_tokens=4)  # type: ignore[arg-type]

    monkeypatch.setattr(calibrating, "FluencyMeasurement", few_answers)


def test_an_extraction_is_measured_and_drawn(run: Run, tiny: Path, folder: Path) -> None:
    """The page and its document have every part; the verdict is said; the same again gives the same bytes."""
    arguments = ("extract", "happy.toml", "--calibrate", "--holdout", 0.3, "-m", tiny, "-t", 1, "--report", "out.html")
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert "saved: happy.gguf" in result.stdout
    assert result.stdout.index("saved: happy.gguf") < result.stdout.index("happy: ", 1)
    assert "wrote out.html and out.json" in result.stderr
    page, text = (folder / "out.html").read_text(), (folder / "out.json").read_text()
    assert page.startswith(BEGINNING)
    document = json.loads(text)
    (vector,) = document["vectors"]
    assert (document["kind"], document["title"], vector["path"]) == ("extraction", "happy", "happy.gguf")
    assert vector["doses"]
    assert vector["samples"]
    assert vector["lens"]
    assert [one["layer"] for one in vector["layer_figures"]] == [1, 2, 3]
    assert vector["projection"]["layer"] in vector["layers"]
    assert {one["held_out"] for one in vector["projection"]["points"]} == {False, True}
    steps = vector["calibration"]["steps"]
    assert any(step["chosen"] and step["layers"] == vector["layers"] for step in steps)
    assert "chosen" in page
    assert run(*arguments).exit_code == 0
    assert ((folder / "out.html").read_text(), (folder / "out.json").read_text()) == (page, text)


def test_the_document_of_the_command_names_the_page(run: Run, tiny: Path, folder: Path) -> None:
    """With --json stdout is one document still; the page goes into a folder under the recipe's name."""
    (folder / "out").mkdir()
    result = run("extract", "happy.toml", "--holdout", 0.3, "-m", tiny, "-t", 1, "--report", "out", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["report"] == str(Path("out") / "happy.html")
    assert files(folder / "out") == ["happy.html", "happy.json"]
    assert json.loads((folder / "out" / "happy.json").read_text())["vectors"][0]["calibration"] is None


def test_what_cannot_be_measured_is_said(run: Run, tiny: Path, folder: Path) -> None:
    """Nothing is held out and nobody asks: layers, pairs and words are drawn all the same."""
    result = run("extract", "happy.toml", "--holdout", 0, "-m", tiny, "-t", 1, "--report", "out.html")
    assert result.exit_code == 0, result.stderr
    assert "what the vector does was not measured" in result.stderr
    document = json.loads((folder / "out.json").read_text())
    (vector,) = document["vectors"]
    assert "doses" not in vector
    assert vector["projection"]["points"]
    assert {one["auc"] for one in vector["layer_figures"]} == {None}
    assert "no pair was held out" in document["warnings"][0]
    page = (folder / "out.html").read_text()
    assert "Not measured" in page
    assert "no pair was held out" in page


def test_a_calibration_is_measured_and_drawn(run: Run, tiny: Path, folder: Path) -> None:
    """Its document says what was tried, and what the command's own document says besides."""
    assert run("extract", "happy.toml", "--holdout", 0.3, "-m", tiny, "-t", 1).exit_code == 0
    result = run("calibrate", "happy.gguf", "-m", tiny, "-t", 1, "--report", "out.html", "--json", "-o", "new.gguf")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["report"] == "out.html"
    document = json.loads((folder / "out.json").read_text())
    assert document["kind"] == "calibration"
    (vector,) = document["vectors"]
    assert vector["path"] == "new.gguf"
    found = vector["calibration"]
    assert [step["effect"] for step in found["steps"]] == [step["effect"] for step in said["steps"]]
    assert found["p95"] == said["p95"]
    assert found["evaluations"] == said["n_evaluations"] + said["n_search_evaluations"]


def test_an_evaluation_shows_the_pairs_of_the_recipe(run: Run, tiny: Path, folder: Path) -> None:
    """Read again from the recipe that the vector carries."""
    assert run("extract", "happy.toml", "--holdout", 0.3, "-m", tiny, "-t", 1).exit_code == 0
    result = run("eval", "happy.gguf", "happy.gguf", "-m", tiny, "-t", 1, "--no-samples", "--json")
    assert result.exit_code == 0, result.stderr
    first, second = json.loads(result.stdout)["vectors"]
    assert first["projection"]["points"]
    assert first["projection"] == second["projection"]
    assert all(one["auc"] is not None for one in first["layer_figures"])


@pytest.mark.parametrize("command", [("extract", "happy.toml"), ("calibrate", "happy.gguf")])
@pytest.mark.parametrize(
    ("report", "said"),
    [
        ("out.txt", "no folder, and no page"),
        ("other.html", "exists and is no report"),
        ("kept.html", "exists and is no report"),
        ("nowhere/out.html", "nowhere"),
        ("linked.html", "used otherwise"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_work(
    run: Run, tiny: Path, folder: Path, command: tuple[str, ...], report: str, said: str
) -> None:
    """The page and its document alike; no vector is written, and no file touched."""
    assert run("extract", "happy.toml", "-m", tiny, "-t", 1).exit_code == 0
    before = (folder / "happy.gguf").read_bytes()
    for name in ("other.html", "kept.json"):
        (folder / name).write_text("mine")
    (folder / "linked.html").symlink_to(folder / command[1])
    result = run(*command, "-m", "no-model.gguf", "--report", report)
    assert result.exit_code != 0
    assert (result.stdout, "no-model" in result.stderr) == ("", False)
    assert said in result.stderr
    assert (folder / "happy.gguf").read_bytes() == before
    assert {(folder / name).read_text() for name in ("other.html", "kept.json")} == {"mine"}


def test_saved_states_know_nothing_of_what_a_vector_does(run: Run, folder: Path) -> None:
    """There is no model to ask, and `eval` is the command for that."""
    result = run("extract", "--from-activations", "states.safetensors", "--report", "out.html")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--from-activations and --report do not go together" in result.stderr
    assert "ggufsteer eval" in result.stderr


def test_who_wrote_a_vector_is_asked_alike_everywhere() -> None:
    """One option, in the same words, wherever vectors of other tools are read."""
    commands = [getattr(importlib.import_module(one.module), one.attribute) for one in COMMANDS.values()]
    asked = [option for one in commands for option in one.params if option.name == "producer"]
    assert len(asked) >= 7
    assert len({option.help for option in asked}) == 1
