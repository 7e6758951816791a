"""The demo model's own byte-level BPE vocabulary and its ChatML layout of a conversation."""

from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ggufsteer.demo.training.corpus import Conversation

BEGIN, START, END = "<|begin|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (BEGIN, START, END)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def train_vocabulary(texts: Iterable[str], size: int) -> Tokenizer:
    """A byte-level BPE of `size` tokens, the special ones first; splits words as GPT-2 does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@dataclass(frozen=True)
class TokenisedConversation:
    """Token ids and, beside each, whether it belongs to an answer (its end mark included)."""

    tokens: list[int]
    is_answer: list[bool]


class ConversationEncoder:
    """Lays conversations out as the chat template does and says which tokens the model is trained to write."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._begin, self._start, self.end = (tokenizer.token_to_id(token) for token in SPECIAL)
        self._newline = self.encode("\n")

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def conversation(self, conversation: Conversation) -> TokenisedConversation:
        """The whole conversation, beginning mark included."""
        tokens, is_answer = [self._begin], [False]
        for turn in conversation.turns:
            head = [self._start, *self.encode(f"{turn.role}\n")]
            body = [*self.encode(turn.content), self.end]
            answer = turn.role == "assistant"
            tokens += head + body + self._newline
            is_answer += [False] * len(head) + [answer] * len(body) + [False] * len(self._newline)
        return TokenisedConversation(tokens, is_answer)

    def prompt(self, conversation: Conversation) -> list[int]:
        """The conversation and the start of the answer that comes next."""
        return [*self.conversation(conversation).tokens, self._start, *self.encode("assistant\n")]

    def decode(self, tokens: list[int]) -> str:
        """Text of token ids, without special tokens."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text
