"""Capture and steering on many kinds of models: tiny random ones that llama.cpp's own test makes.

Recurrent and hybrid models cut batches otherwise, sliding windows and experts compute otherwise. The programs are not
part of the project: `GGUFSTEER_STOCK_LLAMA` names the folder that holds them.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ggufsteer.engine import vocabulary
from ggufsteer.engine.capture import TokenSequence, capture
from ggufsteer.engine.generate import generate
from ggufsteer.engine.model import LoadOptions, Model
from ggufsteer.engine.steer import steered
from ggufsteer.errors import ModelError
from ggufsteer.files.control_vector import ControlVector

SUPPORTED = ("mamba", "mamba2", "falcon-h1", "jamba", "qwen3next", "lfm2", "gemma3", "gpt-oss", "phi3", "gpt2")
REFUSED = ("plamo2", "nemotron_h", "rnd1")
OPTIONS = LoadOptions(n_ctx=512, n_threads=1, n_batch=128, n_ubatch=32, flash_attention="off")


def _made(architecture: str, folder: Path) -> Path:
    """A tiny random model of one architecture."""
    programs = os.environ.get("GGUFSTEER_STOCK_LLAMA")
    if not programs:
        pytest.skip("GGUFSTEER_STOCK_LLAMA does not name a folder with llama.cpp's programs")
    program = Path(programs) / "test-llama-archs"
    if not program.is_file():
        pytest.skip(f"{program} is not there")
    subprocess.run([program, "-a", architecture, "-o", folder], capture_output=True, check=True)
    return min(folder.glob(f"{architecture}-*.gguf"))  # there may be one with experts beside the plain one


@pytest.fixture(scope="module", params=SUPPORTED)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """An open model of each architecture; it has no vocabulary, which numbers of tokens do not need."""
    path = _made(request.param, tmp_path_factory.mktemp("architecture"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(vocabulary, "_NO_VOCABULARY", -1)
        with Model.open(path, OPTIONS) as opened:
            yield opened
    path.unlink()


def _sequences(model: Model) -> list[TokenSequence]:
    """Random tokens, in company and longer than a batch; every third row, and the last."""
    generator = np.random.default_rng(0)
    drawn = [generator.integers(0, min(model.n_vocab, 128), length).tolist() for length in (3, 9, 31, 40, 100, 1)]
    return [
        TokenSequence(tuple(tokens), tuple(sorted({*range(0, len(tokens), 3), len(tokens) - 1}))) for tokens in drawn
    ]


def test_a_state_is_the_same_alone_and_in_company(model: Model) -> None:
    """However llama.cpp cuts the batch, each row is that of its own token, and both readers give the same bits."""
    layers, sequences = list(range(model.n_layer)), _sequences(model)
    together = capture(model, sequences, layers, pool=False)
    twins = capture(model, sequences, layers, pool=False, callback="python")
    for sequence, seen, twin in zip(sequences, together, twins, strict=True):
        alone = capture(model, [sequence], layers[:-1], pool=False)[0]
        assert np.array_equal(seen, twin)
        assert np.abs(seen[:, :-1] - alone).max() <= 1e-4 * np.abs(alone).max()


def test_a_direction_moves_its_layer_and_no_earlier_one(model: Model) -> None:
    """The promise of steering holds for every layer from 1 on."""
    layers, sequences = list(range(model.n_layer)), _sequences(model)[:2]
    plain = capture(model, sequences, layers, pool=False)
    for layer in layers[1:]:
        direction = np.random.default_rng(layer).standard_normal(model.n_embd).astype(np.float32)
        with steered(model, [(ControlVector({layer: direction}), 1.0)]):
            moved = capture(model, sequences, layers, pool=False)
        for before, after in zip(plain, moved, strict=True):
            size = max(1.0, float(np.abs(before[:, layer]).max()))
            assert np.abs(after[:, layer] - before[:, layer] - direction).max() < 1e-5 * size
            assert np.array_equal(after[:, :layer], before[:, :layer])


def test_generation_runs(model: Model) -> None:
    """Prompts of different length get their answers."""
    answers = generate(model, [list(sequence.tokens) for sequence in _sequences(model)], max_tokens=4)
    assert all(answer.ended or len(answer.tokens) == 4 for answer in answers)


@pytest.mark.parametrize("architecture", REFUSED)
def test_an_architecture_that_cannot_be_steered_is_refused(architecture: str, tmp_path: Path) -> None:
    """Real files of it are refused by their header, with the reason."""
    with pytest.raises(ModelError, match="are not supported"):
        Model.open(_made(architecture, tmp_path))
