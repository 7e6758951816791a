"""Timed contexts: they compute what every other context computes, and the meter sees states."""

import numpy as np
import pytest

from ggufsteer.engine import timing
from ggufsteer.engine.bench_facts import build_facts, model_facts
from ggufsteer.engine.interventions import NOTHING, Steering
from ggufsteer.engine.model import Model
from ggufsteer.engine.sequences import TokenSequence
from ggufsteer.engine.timing import TimedContext, TimedExtraction
from ggufsteer.errors import EngineError
from ggufsteer.files.control_vector import ControlVector


def test_single_tokens_give_the_logits_of_a_batch(exact: Model) -> None:
    """The short way to decode one token leads to the same place."""
    tokens = [3, 40, 41, 42]
    expected = model_logits(exact, tokens)
    with TimedContext(exact, 16, NOTHING) as context:
        assert context.generate(tokens, 0) > 0
        np.testing.assert_allclose(context.logits(), expected, atol=2e-3)


def test_a_prompt_in_several_batches_is_whole(exact: Model) -> None:
    """What comes behind a prompt of more than one micro-batch has seen all of it, also while something is edited."""
    tokens = [3, *range(10, 210)]
    expected = model_logits(exact, [*tokens, 7])
    with TimedContext(exact, 256, NOTHING) as context:
        assert context.prompt(np.array(tokens)) > 0
        context.generate([7], len(tokens))
        np.testing.assert_allclose(context.logits(), expected, atol=5e-3)


def test_what_was_cleared_is_forgotten(exact: Model) -> None:
    """A run begins as if it were the first."""
    with TimedContext(exact, 16, NOTHING) as context:
        context.generate([3, 9, 9], 0)
        context.clear()
        context.generate([3], 0)
        np.testing.assert_allclose(context.logits(), model_logits(exact, [3]), atol=2e-3)


def test_the_meter_reads_each_vector(exact: Model) -> None:
    """A state's expression for each of them, and logits as without a meter."""
    vectors = [ControlVector({2: np.eye(256, dtype=np.float32)[number]}) for number in range(2)]
    with TimedContext(exact, 16, NOTHING, vectors) as context:
        context.generate([3, 50], 0)
        assert set(context.seen) == {"0", "1"}
        assert context.seen["0"] != context.seen["1"] != 0.0
        np.testing.assert_allclose(context.logits(), model_logits(exact, [3, 50]), atol=2e-3)


def test_steering_that_does_not_fit_is_refused(exact: Model) -> None:
    """Before anything is timed."""
    with pytest.raises(EngineError, match="shape"):
        TimedContext(exact, 16, Steering.of(np.ones((2, 256), dtype=np.float32)))


@pytest.mark.parametrize("token", [-1, 100_000])
def test_a_token_that_does_not_exist_is_refused(exact: Model, token: int) -> None:
    """llama.cpp would read memory that is not there."""
    with TimedContext(exact, 16, NOTHING) as context, pytest.raises(EngineError, match=f"token id {token}"):
        context.generate([token], 0)


def test_a_full_memory_is_said(exact: Model) -> None:
    """And what is in it is thrown away."""
    with TimedContext(exact, 256, NOTHING) as context, pytest.raises(EngineError, match="no room"):
        context.generate([3] * 257, 0)


def test_facts_come_from_llama_cpp(exact: Model) -> None:
    """Sizes in bytes and in parameters, a name for the processor, and the backends."""
    facts, build = model_facts(exact), build_facts()
    assert facts.model_type.startswith("llama")
    assert facts.model_type.endswith("F32")
    assert facts.model_size == 4 * facts.model_n_params > 0
    assert build.cpu_info
    assert build.backends
    assert build.build_commit


def model_logits(model: Model, tokens: list[int]) -> np.ndarray:
    """Logits behind the last token, computed as one batch."""
    context = model.new_context("auto", n_ctx=256, n_sequences=1)
    try:
        step = context.most_tokens
        for start in range(0, len(tokens), step):
            part = tokens[start : start + step]
            outputs = [False] * (len(part) - 1) + [True]
            context.decode(part, range(start, start + len(part)), [0] * len(part), outputs)
        return context.logits(len(part) - 1)
    finally:
        context.close()


def test_an_extraction_is_timed_text_by_text(exact: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last state of each text of 64 tokens, and of what is left, in every layer that can be steered."""
    asked: list[tuple[list[tuple[int, ...]], list[tuple[int, ...]], list[int]]] = []

    def remember(model: Model, texts: list[TokenSequence], layers: range) -> None:
        asked.append(([text.tokens for text in texts], [text.rows for text in texts], list(layers)))

    tokens = np.arange(3, 153)
    timed = TimedExtraction(exact)
    timed.clear()
    assert timed.prompt(tokens) > 0
    monkeypatch.setattr(timing, "capture", remember)
    timed.prompt(tokens)
    ((texts, rows, layers),) = asked
    assert [token for text in texts for token in text] == tokens.tolist()
    assert rows == [(63,), (63,), (21,)]
    assert layers == [1, 2, 3]
