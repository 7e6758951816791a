"""Random models: the sizes of the real ones, the demo model's tokens, and states that a benchmark can compute with."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks import _random_models
from benchmarks._random_models import SHAPES, Shape, random_model, write_f16
from ggufsteer.engine.builtin import builtin_model_path
from ggufsteer.engine.capture import TokenSequence, capture
from ggufsteer.engine.model import LoadOptions, Model
from ggufsteer.errors import SteerError

SMALL = {
    "llama": Shape("llama", 3, 96, 6, 2, 160, 1100, 256, 1e4),
    "qwen2": Shape("qwen2", 3, 64, 4, 2, 96, 1024, 256, 1e6, rms_epsilon=1e-6, has_attention_biases=True),
}
TEXTS = ("What do you think of coffee?", "<|im_start|>user\nÇa va ? 日本 🎉\t<|im_end|>\n", "<|unused_1050|>", "  x")


@pytest.fixture(scope="module", params=SMALL)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shape, Model]]:
    """A small model of each architecture, open."""
    shape = SMALL[request.param]
    path = tmp_path_factory.mktemp("random") / "small.gguf"
    write_f16(path, shape, "small")
    with Model.open(path, LoadOptions(n_ctx=128, n_threads=1)) as model:
        yield shape, model


@pytest.mark.parametrize(
    ("name", "n_parameters"),
    [("smollm2-135m", 134_515_008), ("qwen2.5-0.5b", 494_032_768), ("llama-3.2-1b", 1_235_814_400)],
)
def test_a_shape_has_as_many_parameters_as_the_real_model(name: str, n_parameters: int) -> None:
    """The published numbers."""
    assert SHAPES[name].n_parameters == n_parameters


def test_a_written_model_has_the_shape(small: tuple[Shape, Model]) -> None:
    """llama.cpp loads it and says the same sizes."""
    shape, model = small
    assert (model.architecture, model.n_layer, model.n_embd, model.n_vocab, model.n_ctx_train) == (
        (shape.architecture, shape.n_layer, shape.n_embd, shape.n_vocab, shape.n_ctx_train)
    )


def test_text_becomes_the_same_tokens_as_with_the_demo_model(small: tuple[Shape, Model]) -> None:
    """Control tokens, other scripts, the name of an unused token, and the chat template."""
    _, model = small
    messages = [{"role": "user", "content": TEXTS[0]}]
    with Model.open(builtin_model_path(), LoadOptions(vocabulary_only=True)) as demo:
        for text in TEXTS:
            assert model.tokenize(text) == demo.tokenize(text)
        assert model.encode_chat(messages) == demo.encode_chat(messages)


def test_states_are_finite_and_differ_from_token_to_token(small: tuple[Shape, Model]) -> None:
    """At every layer."""
    shape, model = small
    tokens = model.tokenize(TEXTS[0])
    wanted = TokenSequence(tuple(tokens), tuple(range(len(tokens))))
    states = capture(model, [wanted], range(shape.n_layer), pool=False)[0]  # (tokens, layers, embd)
    assert np.isfinite(states).all()
    assert (states.std(axis=0) > 0).all()


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    """The weights are seeded."""
    for name in ("a", "b"):
        write_f16(tmp_path / name, SMALL["llama"], "small")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_model_is_made_once_and_nothing_stays_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call takes the file of the first."""
    monkeypatch.setattr(_random_models, "SHAPES", SMALL)
    path = random_model("llama", tmp_path)
    made = path.stat()
    assert random_model("llama", tmp_path) == path
    assert path.stat() == made
    assert [file.name for file in tmp_path.iterdir()] == ["random-llama-q4_k_m.gguf"]


@pytest.mark.parametrize(("name", "quantisation"), [("smollm-135m", "Q4_K_M"), ("smollm2-135m", "Q4_K")])
def test_an_unknown_name_is_refused_with_the_nearest_known_one(tmp_path: Path, name: str, quantisation: str) -> None:
    """Before anything is written."""
    with pytest.raises(SteerError) as raised:
        random_model(name, tmp_path, quantisation)
    assert raised.value.hint in ("give smollm2-135m", "give Q4_K_M")
    assert not list(tmp_path.iterdir())


def test_a_vocabulary_smaller_than_the_demo_models_is_refused(tmp_path: Path) -> None:
    """Its tokens would be cut off."""
    with pytest.raises(SteerError, match="cannot hold the demo model's 1024 tokens"):
        write_f16(tmp_path / "small.gguf", Shape("llama", 1, 64, 4, 2, 64, 1000, 256, 1e4), "small")
