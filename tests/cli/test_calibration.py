"""When `extract` calibrates, what it then says, and which flags contradict each other."""

import json
from pathlib import Path

import pytest

from ggufsteer.engine.model import Model
from ggufsteer.files.vector import read_vector
from ggufsteer.tasks import calibrate as calibrating
from ggufsteer.tasks.calibrate import BUDGET, TOLERANCE
from ggufsteer.tasks.fluent import FluencyMeasurement
from tests.cli.conftest import Run, files


@pytest.fixture(autouse=True)
def _few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough to see that it happens."""
    monkeypatch.setattr(calibrating, "DOSE_TEXTS", 3)
    monkeypatch.setattr(calibrating, "SEARCH_TEXTS", (2, 2))

    def few_answers(model: Model, *, system: str) -> FluencyMeasurement:
        return FluencyMeasurement(model, system=system, n_answers=2, max_tokens=4)

    monkeypatch.setattr(calibrating, "FluencyMeasurement", few_answers)


@pytest.mark.parametrize("budget", [None, 0.1])
def test_it_calibrates_where_it_is_asked_to(run: Run, tiny: Path, budget: float | None) -> None:
    """Even where the recipe names a dose; the document and the file tell what was found."""
    flags = ("--calibrate",) if budget is None else ("--budget", budget)
    result = run("extract", "happy.toml", *flags, "--layers", "1", "-m", tiny, "-t", 1, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)["calibration"]
    assert found["budget"] == (budget or BUDGET)
    assert found["p95"] == pytest.approx(found["budget"], rel=TOLERANCE)
    provenance = read_vector("happy.gguf").provenance
    assert provenance.damage_budget == found["budget"]
    assert provenance.damage == pytest.approx(found["p95"])


def test_it_calibrates_where_no_dose_is_named(run: Run, tiny: Path, folder: Path) -> None:
    """The words say the budget, too."""
    recipe = (folder / "happy.toml").read_text().replace("dose = 1.0", "")
    (folder / "open.toml").write_text(recipe)
    result = run("extract", "open.toml", "--layers", "1", "-m", tiny, "-t", 1)
    assert result.exit_code == 0, result.stderr
    assert f"budget {BUDGET:g}" in result.stdout
    assert read_vector("happy.gguf").provenance.damage_budget == BUDGET


@pytest.mark.parametrize(
    ("changes", "flags"), [((), ()), (("dose = 1.0", ""), ("--no-calibrate",)), (("dose = 1.0", ""), ("--dose", "2"))]
)
def test_it_does_not_where_a_dose_is_named_or_it_is_told_not_to(
    run: Run, tiny: Path, folder: Path, changes: tuple[str, ...], flags: tuple[str, ...]
) -> None:
    """The document says so with null."""
    text = (folder / "happy.toml").read_text()
    (folder / "open.toml").write_text(text.replace(*changes) if changes else text)
    result = run("extract", "open.toml", *flags, "-m", tiny, "-t", 1, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["calibration"] is None
    assert read_vector("happy.gguf").provenance.damage_budget is None


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--budget", "1", "--no-calibrate"), "--budget and --no-calibrate"),
        (("--budget", "1", "--dose", "2"), "--budget and --dose"),
        (("--calibrate", "--dose", "2"), "--calibrate and --dose"),
        (("--budget", "0"), "not between 0.001 and 100"),
        (("--budget", "-1"), "not between 0.001 and 100"),
        (("--budget", "nan"), "not between 0.001 and 100"),
        (("--budget", "1000"), "not between 0.001 and 100"),
    ],
)
@pytest.mark.parametrize("command", [("extract", "happy.toml"), ("make", "a pirate")])
def test_what_does_not_go_together_is_refused_before_any_work(
    run: Run, tiny: Path, folder: Path, command: tuple[str, ...], flags: tuple[str, ...], said: str
) -> None:
    """The message names both flags, or the bounds."""
    result = run(*command, *flags, "-m", tiny, "-t", 1)
    assert result.exit_code == 2
    assert said in result.stderr
    assert files(folder) == ["happy.toml"]


def test_a_finished_vector_is_calibrated_without_turning_it(run: Run, tiny: Path) -> None:
    """`calibrate --keep-layers` writes the same directions at the dose of the budget, and says what it found."""
    assert run("extract", "happy.toml", "--layers", "1,2", "-m", tiny, "-t", 1).exit_code == 0
    result = run("calibrate", "happy.gguf", "--keep-layers", "-m", tiny, "-t", 1, "-o", "dosed.gguf", "--json")
    assert result.exit_code == 0, result.stderr
    before, after = read_vector("happy.gguf"), read_vector("dosed.gguf")
    assert before.layers == after.layers
    factors = [after.length(layer) / before.length(layer) for layer in before.layers]
    assert factors[0] == pytest.approx(factors[1], rel=1e-5)
    assert factors[0] != pytest.approx(1.0, rel=1e-3)
    for layer in before.layers:
        assert after.unit(layer) == pytest.approx(before.unit(layer), abs=1e-6)
    found = json.loads(result.stdout)
    assert found["p95"] == pytest.approx(BUDGET, rel=TOLERANCE)
    assert after.provenance.damage == pytest.approx(found["p95"])
    assert after.provenance.dose == pytest.approx(before.provenance.dose * factors[1])


def test_what_cannot_be_calibrated_is_refused(run: Run, folder: Path) -> None:
    """The vectors that ship stay as they are, and a budget has bounds; nothing is written."""
    before = files(folder)
    for arguments, said in (
        (("builtin:happy",), "stays as it is"),
        (("builtin:happy", "-o", "mine.gguf", "--budget", "0"), "not between 0.001 and 100"),
    ):
        result = run("calibrate", *arguments)
        assert result.exit_code != 0
        assert said in result.stderr
    assert files(folder) == before
