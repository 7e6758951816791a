"""Neutral text: the model's own, the same each time, in two halves that share nothing."""

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from ggufsteer.engine.model import LoadOptions, Model
from ggufsteer.errors import SteerError
from ggufsteer.tasks import neutral_texts as module
from ggufsteer.tasks.everyday import everyday_prompts
from ggufsteer.tasks.neutral_texts import ANSWER_TOKENS, Part, heads, neutral_texts
from ggufsteer.tasks.passages import chat_text, encode_text
from tests.tasks.stand_in import StandIn
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A random model without a chat template."""
    path = write_tiny_model(tmp_path_factory.mktemp("plain") / "plain.gguf", chat_template=None)
    with Model.open(path, LoadOptions(n_ctx=512, n_threads=1)) as model:
        yield model


def test_the_same_model_and_seed_give_the_same_texts(tiny: Model) -> None:
    """Other seeds give other texts."""
    texts = neutral_texts(tiny, 4)
    assert texts == neutral_texts(tiny, 4)
    assert texts != neutral_texts(tiny, 4, seed=1)


def test_the_parts_share_no_question_and_no_draw(tiny: Model) -> None:
    """What one is used for is measured again on the other."""
    questions = [tuple(head) for part in Part for head in heads(tiny, part)]
    assert len(set(questions)) == len(questions) == len(everyday_prompts(tiny.identity.name))
    one, two = neutral_texts(tiny, 6), neutral_texts(tiny, 6, part=Part.JUDGING)
    assert not {text.tokens for text in one} & {text.tokens for text in two}


def test_without_questions_the_parts_are_other_draws(plain: Model) -> None:
    """All begin with the start token; no seed of one part is a seed of another."""
    drawn = [text.tokens for seed in (0, 1) for part in Part for text in neutral_texts(plain, 3, seed=seed, part=part)]
    assert len(set(drawn)) == len(drawn)


def test_a_chat_model_answers_everyday_questions(tiny: Model) -> None:
    """Each text is a question as the template writes it and an answer; all of it is scored."""
    for text, question in zip(neutral_texts(tiny, 3), everyday_prompts(tiny.identity.name)[:: len(Part)], strict=False):
        prompt = tuple(encode_text(tiny, chat_text(tiny, question)))
        assert text.tokens[: len(prompt)] == prompt
        assert len(prompt) < len(text.tokens) <= len(prompt) + ANSWER_TOKENS
        assert text.start == 1


def test_questions_are_asked_again_where_there_are_too_few(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers are other draws."""
    monkeypatch.setattr(module, "everyday_prompts", lambda _: ("Tea?", "Bread?"))
    texts = neutral_texts(tiny, 3)
    assert len({text.tokens for text in texts}) == 3


def test_a_model_without_a_template_writes_from_the_start_of_a_text(plain: Model) -> None:
    """After its start token and nothing else."""
    texts = neutral_texts(plain, 3)
    assert {text.tokens[0] for text in texts} == {plain.vocabulary.start_token}
    assert max(len(text) for text in texts) <= 2 * ANSWER_TOKENS


def test_a_model_without_a_start_token_gets_a_first_word() -> None:
    """Since a text has to begin with something; the parts' words are those of their questions."""
    model = StandIn(chat=False)
    model.tokenize = lambda text, **_: StandIn.tokenize(model, text, add_start=False)  # type: ignore[method-assign]
    model.vocabulary, model.identity = SimpleNamespace(start_token=-1), SimpleNamespace(name="tiny")  # type: ignore[attr-defined]
    for part in Part:
        words = [question.split()[0] for question in everyday_prompts("tiny")[part :: len(Part)]]
        assert [model.detokenize(head) for head in heads(model, part)] == words  # type: ignore[arg-type]


def test_a_model_that_writes_nothing_is_an_error(plain: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to measure on."""
    from ggufsteer.engine.generate import Answer

    monkeypatch.setattr(
        module, "generate", lambda _, prompts, **__: [Answer("", (), ended=True, prompt_tokens=1) for _ in prompts]
    )
    with pytest.raises(SteerError, match="writes no text by itself"):
        neutral_texts(plain, 2)


def test_drawn_texts_are_as_likely_as_the_model_means_them(plain: Model) -> None:
    """Temperature 1: the mean surprise of what is drawn is the mean entropy of what it is drawn from."""
    from ggufsteer.engine.logits import LogitReading
    from ggufsteer.engine.score import log_probabilities
    from ggufsteer.engine.sequences import TokenSequence, TokenSequences

    texts = neutral_texts(plain, 12)
    surprise = -np.concatenate(log_probabilities(plain, [text.tokens for text in texts]))
    entropies = []

    def take(_: np.ndarray, logits: np.ndarray) -> None:
        shifted = logits - logits.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        entropies.extend((-(np.exp(logs) * logs).sum(axis=1)).tolist())

    sequences = [TokenSequence(text.tokens[:-1], tuple(range(len(text.tokens) - 1))) for text in texts]
    LogitReading(plain, TokenSequences.pack(sequences)).run(take)
    error = surprise.std() / np.sqrt(len(surprise))
    assert abs(surprise.mean() - np.mean(entropies)) < 4 * error
