"""Models for the tests of tasks: a tiny random one with a chat template, and a real one where it lies."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ggufsteer.engine.model import LoadOptions, Model
from tests.tiny_model import write_tiny_model

STORIES = Path(__file__).resolve().parents[3] / "shared" / "models" / "stories260k-f32.gguf"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A random model of four layers; tests leave it unsteered."""
    path = write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")
    with Model.open(path, LoadOptions(n_ctx=2048, n_threads=1)) as model:
        yield model


@pytest.fixture(scope="session")
def stories() -> Iterator[Model]:
    """A real model that nobody here trained, without a chat template."""
    if not STORIES.is_file():
        pytest.skip(f"the second model is not at {STORIES}")
    with Model.open(STORIES, LoadOptions(n_threads=1)) as model:
        yield model
