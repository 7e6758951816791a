"""`extract --search`: what it says, what it leaves behind, and which flags it does not go with."""

import json
from pathlib import Path
from typing import Any

import pytest

from ggufsteer.engine.model import Model
from ggufsteer.files.vector import read_vector
from ggufsteer.tasks import calibrate as calibrating
from ggufsteer.tasks import method_search_judge as judging
from ggufsteer.tasks.fluent import FluencyMeasurement
from ggufsteer.tasks.layer_search import MIXES
from ggufsteer.tasks.method_search import Judgements
from tests.cli.conftest import Run, files


@pytest.fixture(autouse=True)
def _few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough to see that it happens."""
    monkeypatch.setattr(calibrating, "DOSE_TEXTS", 3)
    monkeypatch.setattr(calibrating, "SEARCH_TEXTS", (2, 2))
    monkeypatch.setattr("ggufsteer.tasks.neutral_texts.ANSWER_TOKENS", 8)
    monkeypatch.setattr("ggufsteer.tasks.layer_search.MIXES", MIXES[:1])
    for name in ("SEARCH_ITEMS", "MOST_ITEMS"):
        monkeypatch.setattr(f"ggufsteer.tasks.method_search_run.{name}", 3)

    def few_answers(model: Model, **settings: Any) -> FluencyMeasurement:
        return FluencyMeasurement(model, n_answers=2, max_tokens=4, **settings)

    for module in (calibrating, judging):
        monkeypatch.setattr(module, "FluencyMeasurement", few_answers)


def test_it_shows_the_last_round_and_what_was_chosen(run: Run, tiny: Path, folder: Path) -> None:
    """A named layer stays; the ledger is gone when the vector is there, and a dose of the recipe is no obstacle."""
    result = run("extract", "happy.toml", "--search", 3, "--layers", "2", "-m", tiny, "-t", 1)
    assert result.exit_code == 0, result.stderr
    assert "the best of" in result.stdout
    assert "the usual calibration" in result.stdout
    assert "chosen: " in result.stdout
    assert "searching, round 1 of 1" in result.stderr
    assert files(folder) == ["happy.gguf", "happy.toml"]
    assert read_vector("happy.gguf").layers == (2,)


def test_interrupted_it_says_where_it_goes_on_and_does(
    run: Run, tiny: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document of the second run holds all that was judged; the front and the chosen one are marked in it."""
    command = ("extract", "happy.toml", "--search", 3, "--layers", "2", "-m", tiny, "-t", 1, "--json")
    real, calls = Judgements._of_one, []

    def stopping(self: Judgements, *which: Any) -> Any:
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(which)
        return real(self, *which)

    with monkeypatch.context() as patched:
        patched.setattr(Judgements, "_of_one", stopping)
        stopped = run(*command)
    assert stopped.exit_code != 0
    assert "kept beside happy.gguf" in stopped.stderr
    assert files(folder) == ["happy.gguf.search.json", "happy.toml"]
    result = run(*command)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)["search"]
    names = [entry["candidate"] for entry in found["finalists"]]
    assert found["chosen"] == names[0]
    assert "the usual calibration" in names
    assert found["finalists"][0]["on_front"]
    assert len(names) == found["candidates"] == 4
    assert files(folder) == ["happy.gguf", "happy.toml"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--search", 1), "'1' is not a whole number from 2"),
        (("--search", "many"), "'many' is not a whole number from 2"),
        (("--search", 4, "--no-calibrate"), "--search and --no-calibrate do not go together"),
        (("--search", 4, "--dose", 2), "--search and --dose do not go together"),
        (("--search", 4, "--from-activations", "s"), "--search and --from-activations do not go together"),
        (("--search", 4, "--method", "pca", "--position", "last", "--layers", "1", "--deltas"), "nothing to choose"),
        (("--search", 4, "--budget", "0"), "not between 0.001 and 100"),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_work(
    run: Run, tiny: Path, folder: Path, flags: tuple[object, ...], said: str
) -> None:
    """The message names the flags, and nothing is written."""
    result = run("extract", "happy.toml", *flags, "-m", tiny, "-t", 1)
    assert result.exit_code == 2
    assert said in result.stderr
    assert files(folder) == ["happy.toml"]


def test_a_file_that_is_no_ledger_is_not_overwritten(run: Run, tiny: Path, folder: Path) -> None:
    """It says which file, and what to do."""
    (folder / "happy.gguf.search.json").write_text("notes of mine")
    result = run("extract", "happy.toml", "--search", 3, "-m", tiny, "-t", 1)
    assert result.exit_code == 2
    assert "happy.gguf.search.json: is no ledger of a search" in result.stderr
    assert (folder / "happy.gguf.search.json").read_text() == "notes of mine"
    assert not (folder / "happy.gguf").exists()


def test_a_ledger_is_not_touched_without_the_flag(run: Run, tiny: Path, folder: Path) -> None:
    """Another extraction into the same file is no part of the search."""
    (folder / "happy.gguf.search.json").write_text("notes of mine")
    assert run("extract", "happy.toml", "--no-calibrate", "-m", tiny, "-t", 1).exit_code == 0
    assert files(folder) == ["happy.gguf", "happy.gguf.search.json", "happy.toml"]
