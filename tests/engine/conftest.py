"""Models for the engine's tests: one tiny Llama in three forms, made once a session, and a real one where it lies."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ggufsteer.engine.builtin import quantise
from ggufsteer.engine.model import LoadOptions, Model
from tests.tiny_model import write_tiny_model

STORIES = Path(__file__).resolve().parents[3] / "shared" / "models" / "stories260k-f32.gguf"
QUANTISATIONS = ("F32", "Q8_0", "Q4_K_M")
SMALL = LoadOptions(n_ctx=1024, n_threads=1, n_ubatch=128)


@pytest.fixture(scope="session")
def tiny_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny model as F32, Q8_0 and Q4_K_M."""
    folder = tmp_path_factory.mktemp("models")
    paths = {"F32": write_tiny_model(folder / "tiny-f32.gguf")}
    for quantisation in QUANTISATIONS[1:]:
        paths[quantisation] = folder / f"tiny-{quantisation.lower()}.gguf"
        quantise(paths["F32"], paths[quantisation], quantisation, n_threads=1)
    return paths


@pytest.fixture(scope="session")
def tiny_models(tiny_paths: dict[str, Path]) -> Iterator[Callable[[str], Model]]:
    """Open models by quantisation, kept open for the session; tests leave them unsteered."""
    opened: dict[str, Model] = {}

    def get(quantisation: str) -> Model:
        if quantisation not in opened:
            opened[quantisation] = Model.open(tiny_paths[quantisation], SMALL)
        return opened[quantisation]

    yield get
    for model in opened.values():
        model.close()


@pytest.fixture
def tiny(tiny_models: Callable[[str], Model]) -> Model:
    """The tiny model as F32."""
    return tiny_models("F32")


@pytest.fixture(scope="session")
def exact(tiny_paths: dict[str, Path]) -> Iterator[Model]:
    """The tiny model without flash attention, whose rounding depends on the shape of the batch (about 1e-3)."""
    with Model.open(tiny_paths["F32"], dataclasses.replace(SMALL, flash_attention="off")) as model:
        yield model


@pytest.fixture(scope="session")
def stories() -> Iterator[Model]:
    """A real model that nobody here trained."""
    if not STORIES.is_file():
        pytest.skip(f"the second model is not at {STORIES}")
    with Model.open(STORIES, LoadOptions(n_threads=1)) as model:
        yield model
