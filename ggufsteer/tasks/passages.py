"""One side of a pair: what the model reads, as text and as tokens.

A passage is either plain text or a chat of one question, each with or without an answer after it. This module decides
how it becomes tokens; which of them are read is decided in `positions`. It knows no recipe and no hidden state.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ggufsteer.errors import SteerError

OPEN_THINKING = "<think>"
CLOSED_THINKING = "<think>\n\n</think>\n\n"


class Tokenizer(Protocol):
    """The part of the engine's model that turns text into tokens; a test can stand in for it without a model."""

    @property
    def has_chat_template(self) -> bool:
        """Whether the model brought a chat template."""

    def tokenize(self, text: str, *, special: bool = True, add_start: bool = True) -> list[int]:
        """Turn text into tokens."""

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Turn tokens into text, special ones left out."""

    def is_special(self, token: int) -> bool:
        """Whether a token is no content: a start of text, a role mark, an end of turn."""

    def ends_text(self, token: int) -> bool:
        """Whether a token ends an answer."""

    def render_chat(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> str:
        """Write a chat by the model's template."""


class RememberingTokenizer:
    """A tokenizer that asks the model about each token only once, and tokenises a text that comes again only once.

    Thousands of passages are made of the same few thousand tokens, and asking llama.cpp about one takes longer than
    all else that is done with it.
    """

    def __init__(self, model: Tokenizer) -> None:
        """Take the tokenizer to ask."""
        self._model = model
        self._last_tokens = functools.lru_cache(maxsize=64)(self._tokens)
        self.is_special = functools.cache(model.is_special)
        self.ends_text = functools.cache(model.ends_text)

    @property
    def has_chat_template(self) -> bool:
        """Whether the model brought a chat template."""
        return self._model.has_chat_template

    def tokenize(self, text: str, *, special: bool = True, add_start: bool = True) -> list[int]:
        """Turn text into tokens."""
        return list(self._last_tokens(text, special, add_start))

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Turn tokens into text, special ones left out."""
        return self._model.detokenize(tokens)

    def render_chat(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> str:
        """Write a chat by the model's template."""
        return self._model.render_chat(messages, add_generation_prompt=add_generation_prompt)

    def _tokens(self, text: str, special: bool, add_start: bool) -> tuple[int, ...]:
        return tuple(self._model.tokenize(text, special=special, add_start=add_start))


@dataclass(frozen=True)
class Passage:
    """What is read on one side of a pair."""

    text: str
    """The question of a chat, or plain text."""
    chat: bool = False
    """Whether `text` goes through the model's chat template as a user message."""
    system: str = ""
    """The system prompt of the chat; empty means that there is none: the model's plain self."""
    answer: str | None = None
    """What follows the question; None where the state is read before any answer."""
    asked_under: str | None = None
    """The system prompt under which the model is to make the answer itself; None where it has not to."""
    answer_tokens: tuple[int, ...] | None = None
    """The tokens of an answer that the model made, so that they are read back exactly as they were made."""
    suffix: str | None = None
    """A text after `text` that is cut at each of its tokens, every cut a pair of its own (repeng's shape)."""
    after_suffix: str = ""
    """What follows the suffix."""


@dataclass(frozen=True)
class Encoded:
    """A passage as tokens."""

    text: str
    """What the tokens say, chat template and answer included."""
    tokens: tuple[int, ...]
    answer_start: int
    """Index of the first token of the answer; `len(tokens)` where there is none."""
    special: tuple[bool, ...]
    """For each token whether it is a special one (start of text, end of turn) that is no content."""
    opens_answer: bool
    """Whether the last token is the one that the answer follows: a chat prompt without an answer."""


def chat_text(model: Tokenizer, question: str, system: str = "") -> str:
    """Return the chat of one question as the model's own template writes it, ready for the answer.

    A template that drops system messages gets the system prompt in front of the question instead. A template that opens
    a block of reasoning gets it closed, so that an answer begins where the prompt ends.

    Args:
        model: Whose chat template is used.
        question: The user's message.
        system: The system prompt; empty leaves the message out.

    Raises:
        SteerError: The model has no chat template, or the template fails.
    """
    user = {"role": "user", "content": question}
    rendered = _with_system(model, user, system) if system else model.render_chat([user])
    if rendered.rstrip().endswith(OPEN_THINKING):
        rendered = rendered.rstrip().removesuffix(OPEN_THINKING) + CLOSED_THINKING
    return rendered


def _with_system(model: Tokenizer, user: Mapping[str, str], system: str) -> str:
    rendered = model.render_chat([{"role": "system", "content": system}, user])
    # Some templates drop a system message in silence. They trim what they keep, so look for the trimmed words.
    if system.strip() in rendered:
        return rendered
    return model.render_chat([{"role": "user", "content": f"{system}\n\n{user['content']}"}])


def encode(model: Tokenizer, passage: Passage) -> Encoded:
    """Turn a passage into tokens.

    A given answer is tokenised together with what stands before it, as the model would meet it, and begins where the
    tokens first differ from those of the prompt alone. An answer that the model made keeps its tokens.

    Raises:
        SteerError: There is no chat template for a chat.
    """
    prompt = chat_text(model, passage.text, passage.system) if passage.chat else passage.text
    prompt_tokens = encode_text(model, prompt)
    tokens, answer_start = prompt_tokens, len(prompt_tokens)
    if passage.answer_tokens is not None:
        tokens = prompt_tokens + list(passage.answer_tokens)
    elif passage.answer is not None:
        tokens = encode_text(model, prompt + passage.answer)
        answer_start = common_prefix_length(prompt_tokens, tokens)
    without_answer = passage.answer is None and passage.answer_tokens is None
    return Encoded(
        text=prompt + (passage.answer or ""),
        tokens=tuple(tokens),
        answer_start=answer_start,
        special=tuple(map(model.is_special, tokens)),
        opens_answer=passage.chat and without_answer and not model.ends_text(tokens[-1]),
    )


def encode_text(model: Tokenizer, text: str) -> list[int]:
    """Return the tokens of a text with exactly one start token, for models that want one.

    Text from a chat template, or written by hand, may spell the start token out; then none is added.

    Raises:
        SteerError: There is no token.
    """
    tokens = model.tokenize(text)
    if len(tokens) > 1 and tokens[0] == tokens[1] and model.is_special(tokens[0]):
        tokens = tokens[1:]
    if not tokens:
        raise SteerError(f"the text {text!r:.60} has no token", "write something that can be read")
    return tokens


def common_prefix_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many tokens two sequences share from their beginning.

    >>> common_prefix_length([1, 2, 3], [1, 2, 9, 3])
    2
    """
    for index, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return index
    return min(len(first), len(second))
