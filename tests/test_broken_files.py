"""Every broken recipe, pairs file and vector through the command line: exit code 2, plain words, nothing written."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from ggufsteer.cli.main import application
from ggufsteer.errors import ExitCode
from tests.files.broken_vectors import BROKEN_VECTORS
from tests.files.test_broken_recipes import OTHERS, PAIRS, RECIPES, expectation
from tests.tiny_model import write_tiny_model

BROKEN = Path(__file__).parent / "broken"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good model, so that the broken file is the only thing that is wrong."""
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Wide enough that no message is broken into lines.
    monkeypatch.setenv("COLUMNS", "100000")


def _complaint(arguments: Sequence[str], capsys: pytest.CaptureFixture[str], folder: Path) -> str:
    """Run a command that has to be refused; returns what stderr says, in one line."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(SystemExit) as caught:
        application.main(list(arguments))
    shown = capsys.readouterr()
    assert caught.value.code == ExitCode.USAGE
    assert shown.out == ""
    assert "Traceback" not in shown.err
    assert "\x1b" not in shown.err
    assert "fault of ggufsteer" not in shown.err
    assert sorted(folder.rglob("*")) == before
    return " ".join(shown.err.split())


def _squeezed(words: str) -> str:
    return " ".join(words.split())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_broken_recipe_ends_the_command_before_any_work(
    path: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`recipe check` and `extract` say the same: which file, what is wrong, and the mend."""
    says, mend = map(_squeezed, expectation(path))
    for command in (["recipe", "check", str(path)], ["extract", str(path), "-m", str(model), "-o", "out.gguf"]):
        complaint = _complaint(command, capsys, tmp_path)
        assert says in complaint
        assert mend in complaint
        assert str(path.parent) in complaint


@pytest.mark.parametrize("name", PAIRS)
def test_a_broken_pairs_file_ends_the_command_before_any_work(
    name: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pairs file is named, not only the recipe that names it."""
    recipe = tmp_path / "recipe.toml"
    file = (BROKEN / "pairs" / name).as_posix()
    recipe.write_text(f'name = "happy"\n[contrast]\nkind = "pairs"\nfile = "{file}"\n', encoding="utf-8")
    complaint = _complaint(["extract", str(recipe), "-m", str(model), "-o", "out.gguf"], capsys, tmp_path)
    assert all(_squeezed(words) in complaint for words in PAIRS[name])
    assert name in complaint


@pytest.mark.parametrize("name", [name for name, (contrast, _, _) in OTHERS.items() if "positive_file" in contrast])
def test_broken_prompt_files_end_the_command_before_any_work(
    name: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """cvector-generator's own flags are as strict as a recipe."""
    contrast, says, mend = OTHERS[name]
    files = [line.split('"')[1] for line in contrast.split("\n") if "_file" in line]
    positive, negative = (str(BROKEN / "pairs" / file) for file in files)
    arguments = [
        "extract",
        "--positive-file",
        positive,
        "--negative-file",
        negative,
        "-m",
        str(model),
        "-o",
        "out.gguf",
    ]
    complaint = _complaint(arguments, capsys, tmp_path)
    assert _squeezed(says) in complaint
    assert _squeezed(mend) in complaint


@pytest.mark.parametrize("name", BROKEN_VECTORS)
def test_a_broken_vector_never_reaches_a_model(
    name: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stock llama.cpp would go on unsteered in many of these cases; here the command ends."""
    vector = tmp_path / "broken.gguf"
    vector.write_bytes(BROKEN_VECTORS[name].data)
    complaint = _complaint(["try", str(vector), "How are you?", "-m", str(model)], capsys, tmp_path)
    assert _squeezed(BROKEN_VECTORS[name].says) in complaint
    assert _squeezed(BROKEN_VECTORS[name].mend) in complaint
    assert "broken.gguf" in complaint
