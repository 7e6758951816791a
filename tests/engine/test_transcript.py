"""A conversation becomes the model's own tokens, each with its phase and the settings it is read under."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ggufsteer.engine.builtin import builtin_model_path
from ggufsteer.engine.messages import Band, Segment, Settings, Turn
from ggufsteer.engine.model import LoadOptions, Model
from ggufsteer.engine.transcript import Transcript, TranscriptWriter
from ggufsteer.errors import SteerError
from tests.tiny_model import write_tiny_model

HAPPY: Settings = (Band(vector="happy"),)
SAD: Settings = (Band(vector="sad"),)


@pytest.fixture(scope="module")
def builtin() -> Iterator[Model]:
    """The model that ships, without its weights."""
    with Model.open(builtin_model_path(), LoadOptions(vocabulary_only=True)) as model:
        yield model


def all_tokens(transcript: Transcript) -> list[int]:
    """Join the tokens of all spans."""
    return [token for span in transcript.spans for token in span.tokens]


def conversation(*texts: str) -> list[Turn]:
    """Questions and answers in turn."""
    return [Turn(role="assistant" if number % 2 else "user", content=text) for number, text in enumerate(texts)]


def test_a_conversation_has_the_tokens_that_its_text_has(builtin: Model) -> None:
    """Cutting at answers changes nothing about the tokens."""
    turns = [Turn(role="system", content="Be brief."), *conversation("What is tea?", "A drink.", "And coffee?")]
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    transcript = TranscriptWriter(builtin, 1024).write(turns)
    assert all_tokens(transcript) == builtin.encode_chat(messages)
    assert [span.phase for span in transcript.spans] == ["prompt", "answer", "prompt"]


def test_an_answer_keeps_the_tokens_that_the_model_wrote(builtin: Model) -> None:
    """Also where the tokenizer would divide its text otherwise: only then memory can be used again."""
    own = [token for letter in "Tea is good." for token in builtin.tokenize(letter, add_start=False)]
    text = builtin.vocabulary.continuation(own)
    assert own != builtin.tokenize(text, add_start=False)
    turns = conversation("What is tea?", text, "And coffee?")
    turns[1] = turns[1].model_copy(update={"tokens": tuple(own)})
    spans = TranscriptWriter(builtin, 1024).write(turns).spans
    assert spans[1].tokens == tuple(own)
    changed = turns[1].model_copy(update={"content": "Tea is bad."})
    spans = TranscriptWriter(builtin, 1024).write([turns[0], changed, turns[2]]).spans
    assert builtin.detokenize(spans[1].tokens) == "Tea is bad."


def test_each_stretch_of_an_answer_is_read_under_its_own_settings(builtin: Model) -> None:
    """A slider that was moved in the middle of an answer is remembered there."""
    turns = conversation("What is tea?", "Tea is good. I like it.", "And coffee?")
    turns[1] = turns[1].model_copy(
        update={"segments": (Segment(text="Tea is good."), Segment(text=" I like it.", settings=HAPPY))}
    )
    turns[2] = turns[2].model_copy(update={"settings": SAD})
    spans = TranscriptWriter(builtin, 1024).write(turns).spans
    assert [span.settings for span in spans] == [(), (), HAPPY, SAD]
    assert builtin.vocabulary.continuation(spans[2].tokens) == " I like it."


def test_a_prompt_knows_which_tokens_are_the_question(builtin: Model) -> None:
    """Neither the template's signs nor the system prompt decide over a gate."""
    turns = [Turn(role="system", content="Be brief."), *conversation("What is tea?", "A drink.", "And coffee?")]
    spans = TranscriptWriter(builtin, 1024).write(turns).spans
    asked = [builtin.detokenize(span.tokens[slice(*span.question)]) for span in spans if span.phase == "prompt"]
    assert asked == ["What is tea?", "And coffee?"]


def test_a_block_of_thoughts_is_a_phase_of_its_own(builtin: Model) -> None:
    """The tag that closes it belongs to it."""
    spans = TranscriptWriter(builtin, 1024).write(conversation("a", "<think>well</think>Yes.", "b")).spans
    phases = [(span.phase, builtin.vocabulary.continuation(span.tokens)) for span in spans if span.phase != "prompt"]
    assert phases == [("answer", "<think>"), ("thinking", "well</think>"), ("answer", "Yes.")]


def test_the_oldest_turns_are_dropped_whole(builtin: Model) -> None:
    """The system prompt and the newest question stay, and the number of messages left out is told."""
    old = [text for _ in range(12) for text in ("What is tea? " * 8, "A drink. " * 4)]
    turns = [Turn(role="system", content="Be brief."), *conversation(*old, "And coffee?")]
    transcript = TranscriptWriter(builtin, 512).write(turns)
    assert transcript.n_tokens <= 512 - 128
    assert transcript.n_turns_dropped > 0
    assert transcript.n_turns_dropped % 2 == 0
    kept = [turns[0], *turns[1 + transcript.n_turns_dropped :]]
    assert all_tokens(transcript) == all_tokens(TranscriptWriter(builtin, 10_000).write(kept))


def test_a_question_that_is_too_long_by_itself_is_refused(builtin: Model) -> None:
    """With its length, the context's, and what to do."""
    with pytest.raises(SteerError, match=r"1\d\d\d tokens .* holds 512"):
        TranscriptWriter(builtin, 512).write(conversation("What is tea? " * 300))


@pytest.mark.parametrize(
    ("turns", "continues"), [([], False), (conversation("a", "b"), False), (conversation("a"), True)]
)
def test_a_conversation_must_end_where_an_answer_can_follow(builtin: Model, turns: list[Turn], continues: bool) -> None:
    """Anything else is a mistake of the front end, told as one."""
    with pytest.raises(SteerError, match="does not end where an answer can follow"):
        TranscriptWriter(builtin, 512).write(turns, continues=continues)


def test_an_answer_can_go_on(builtin: Model) -> None:
    """The beginning of the answer stands behind the prompt, without a sign that it is over."""
    turns = conversation("What is tea?", "Tea is")
    tokens = all_tokens(TranscriptWriter(builtin, 512).write(turns, continues=True))
    asked = builtin.encode_chat([{"role": "user", "content": "What is tea?"}])
    assert tokens == asked + builtin.tokenize("Tea is", add_start=False)


def test_a_model_without_a_template_continues_the_text(tmp_path: Path) -> None:
    """Questions and answers stand one behind the other, as they are."""
    path = write_tiny_model(tmp_path / "plain.gguf", chat_template=None)
    with Model.open(path, LoadOptions(vocabulary_only=True)) as model:
        transcript = TranscriptWriter(model, 512).write(conversation("Once upon", " a time", " there"))
        assert all_tokens(transcript) == model.tokenize("Once upon a time there")
        assert [span.phase for span in transcript.spans] == ["prompt", "answer", "prompt"]


def test_an_answer_that_the_template_changes_is_read_as_a_part_of_the_prompt(tmp_path: Path) -> None:
    """Templates of thinking models leave old thoughts out; the tokens are those of the text that they write."""
    template = (
        "{% for message in messages %}<|im_start|>{{ message['content'].split('</think>')[-1] }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    path = write_tiny_model(tmp_path / "thinking.gguf", chat_template=template)
    with Model.open(path, LoadOptions(vocabulary_only=True)) as model:
        turns = conversation("a", "<think>b</think>c", "d", "e", "f")
        transcript = TranscriptWriter(model, 512).write(turns)
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        assert all_tokens(transcript) == model.encode_chat(messages)
        assert [model.detokenize(span.tokens) for span in transcript.spans if span.phase == "answer"] == ["e"]
