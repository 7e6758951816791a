"""What the command line's tests share: a runner, a random model, a recipe that works on it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ggufsteer.cli.main import application
from tests.tiny_model import write_tiny_model

Run = Callable[..., Result]

RECIPE = """
name = "happy"
description = "Glad instead of sad."
layers = [1, 2]

[contrast]
kind = "pairs"
pairs = [
    ["Tom was so happy.", "Tom was so sad."],
    ["Lily was so happy.", "Lily was so sad."],
    ["Ben was so happy.", "Ben was so sad."],
    ["Mia was so happy.", "Mia was so sad."],
]
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a random model of four layers with a chat template."""
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: an empty one but for `happy.toml`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "happy.toml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Run:
    """Run a command in the current folder; gives exit code, stdout and stderr."""

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(application, [str(argument) for argument in arguments])

    return invoke


def files(folder: Path) -> Sequence[str]:
    """Name all files of a folder, temporary ones included."""
    return sorted(path.name for path in folder.iterdir())
