"""Which tokens are read, with special tokens never among them."""

import pytest

from ggufsteer.errors import SteerError
from ggufsteer.tasks.passages import Encoded, Passage, encode
from ggufsteer.tasks.positions import rows_to_read
from tests.tasks.stand_in import StandIn


def read(model: StandIn, passage: Passage, position: str | int) -> str:
    """Give the text of the tokens that are read, joined by `|`."""
    encoded = encode(model, passage)
    return "|".join(model.words[encoded.tokens[row]] for row in rows_to_read(position, encoded))


CHAT = Passage("Why now?", chat=True)
ANSWERED = Passage("Why now?", chat=True, answer="Because not.")


def test_last_of_a_chat_prompt_is_where_the_answer_begins() -> None:
    """The last token of the generation prompt is read: the line end after `assistant`."""
    model = StandIn()
    encoded = encode(model, CHAT)
    assert rows_to_read("last", encoded) == (len(encoded.tokens) - 1,)
    assert model.words[encoded.tokens[-1]] == "\n"


def test_last_of_plain_text_is_its_last_word() -> None:
    """Without a template the last token of the text is read."""
    assert read(StandIn(), Passage("so happy"), "last") == "happy"


def test_last_skips_an_end_of_turn() -> None:
    """A text that ends with an end of turn is read before it."""
    assert read(StandIn(), Passage("so happy<|im_end|>"), "last") == "happy"


def test_last_of_a_chat_prompt_is_read_even_if_it_is_special() -> None:
    """A template whose generation prompt ends with a special token is read there: the answer follows it."""
    encoded = Encoded("", tokens=(5, 6, 1), answer_start=3, special=(False, False, True), opens_answer=True)
    assert rows_to_read("last", encoded) == (2,)
    assert rows_to_read(-2, encoded) == (1,)


def test_minus_one_is_last() -> None:
    """Counting back begins at the last token."""
    assert read(StandIn(), ANSWERED, -1) == read(StandIn(), ANSWERED, "last") == "not."


def test_offsets_count_tokens_that_are_no_marks() -> None:
    """Going back from the generation prompt, role marks and ends of turns are stepped over."""
    assert [read(StandIn(), CHAT, -offset) for offset in range(1, 5)] == ["\n", "assistant", "\n", "now?"]


def test_response_reads_the_answer_alone() -> None:
    """Every token of the answer, none of the prompt."""
    assert read(StandIn(), ANSWERED, "response") == "Because| |not."


def test_response_leaves_out_the_end_of_turn() -> None:
    """An end of turn that was written after the answer is not averaged."""
    passage = Passage("Why now?", chat=True, answer="Because not.<|im_end|>")
    assert read(StandIn(), passage, "response") == "Because| |not."


def test_prompt_reads_everything_in_front_of_the_answer() -> None:
    """The words of the prompt and of the template, without the marks."""
    assert read(StandIn(), ANSWERED, "prompt") == "user|\n|Why| |now?|\n|assistant|\n"


def test_all_reads_every_token_that_is_no_mark() -> None:
    """Prompt and answer."""
    both = read(StandIn(), ANSWERED, "prompt") + "|" + read(StandIn(), ANSWERED, "response")
    assert read(StandIn(), ANSWERED, "all") == both


def test_response_without_an_answer_says_how_to_get_one() -> None:
    """The error names the kinds of contrast that have answers."""
    with pytest.raises(SteerError, match="reads the answer") as caught:
        read(StandIn(), CHAT, "response")
    assert "responses" in caught.value.hint


def test_an_offset_past_the_beginning_is_refused() -> None:
    """The error names the position and the number of tokens."""
    encoded = Encoded("", tokens=(0, 5, 6), answer_start=3, special=(True, False, False), opens_answer=False)
    with pytest.raises(SteerError, match=r"position -9.* 3 tokens, 2 not special"):
        rows_to_read(-9, encoded)
