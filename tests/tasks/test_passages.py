"""How a passage becomes tokens."""

from ggufsteer.tasks.passages import Passage, RememberingTokenizer, chat_text, encode, encode_text
from tests.tasks.stand_in import StandIn


def test_the_plain_self_has_no_system_prompt() -> None:
    """An empty system prompt leaves the message out, it does not send an empty one."""
    assert "system" not in chat_text(StandIn(), "Hello", "")


def test_a_template_that_drops_the_system_prompt_gets_it_in_the_question() -> None:
    """The persona reaches the model on every template."""
    text = chat_text(StandIn(drops_system=True), "Hello", "You are sad.")
    assert text == "<|im_start|>user\nYou are sad.\n\nHello<|im_end|>\n<|im_start|>assistant\n"


def test_an_open_block_of_reasoning_is_closed() -> None:
    """The prompt ends where the answer begins, not where thoughts begin."""
    assert chat_text(StandIn(opens_thinking=True), "Hello").endswith("assistant\n<think>\n\n</think>\n\n")


def test_a_start_token_that_the_text_spells_out_is_not_doubled() -> None:
    """Templates that write the start token themselves get no second one."""
    model = StandIn()
    assert encode_text(model, "<s>Hello") == encode_text(model, "Hello")


def test_an_answer_of_the_model_keeps_its_tokens() -> None:
    """The tokens that the model made are read back as they were made."""
    model = StandIn()
    prompt = encode(model, Passage("Hello", chat=True))
    answered = encode(model, Passage("Hello", chat=True, answer="x", answer_tokens=(7, 8, 9)))
    assert answered.tokens == (*prompt.tokens, 7, 8, 9)
    assert answered.answer_start == len(prompt.tokens)


def test_a_given_answer_begins_where_the_tokens_part() -> None:
    """The answer of a plain text that merges with its prompt starts at the first token that differs."""
    model = StandIn()
    encoded = encode(model, Passage("so hap", answer="py now"))
    assert [model.words[token] for token in encoded.tokens[encoded.answer_start :]] == ["happy", " ", "now"]


def test_a_tokenizer_that_remembers_says_the_same() -> None:
    """Each question twice: the second answer comes from memory, and a caller may change the first."""
    plain = StandIn()
    model = RememberingTokenizer(plain)
    for special, add_start in ((True, True), (True, False), (False, True)):
        wanted = plain.tokenize("so happy<|im_end|>", special=special, add_start=add_start)
        for _ in range(2):
            tokens = model.tokenize("so happy<|im_end|>", special=special, add_start=add_start)
            assert tokens == wanted
            tokens.append(0)
    for _ in range(2):
        assert [model.is_special(token) for token in (0, 2, 3)] == [True, True, False]
        assert [model.ends_text(token) for token in (0, 2, 3)] == [False, True, False]
    assert model.detokenize([0, 3]) == plain.detokenize([0, 3])
    assert encode(model, Passage("Hello", chat=True, system="s")) == encode(
        plain, Passage("Hello", chat=True, system="s")
    )
    assert model.has_chat_template
