"""A tokenizer of words with a chat template, for tests of planning that need no model."""

import re
from collections.abc import Mapping, Sequence

from ggufsteer.errors import SteerError

SPECIAL = ("<s>", "<|im_start|>", "<|im_end|>")
_PIECES = re.compile("|".join(map(re.escape, SPECIAL)) + r"|\n|[^\s<]+|<| ")


class StandIn:
    """Turns words, spaces and line ends into tokens; knows ChatML."""

    def __init__(self, *, chat: bool = True, drops_system: bool = False, opens_thinking: bool = False) -> None:
        self.has_chat_template = chat
        self.words: list[str] = list(SPECIAL)
        self._drops_system = drops_system
        self._opens_thinking = opens_thinking

    def tokenize(self, text: str, *, special: bool = True, add_start: bool = True) -> list[int]:
        """Give a number to each piece of text, a new one to a new piece."""
        pieces = _PIECES.findall(text)
        for piece in pieces:
            if piece not in self.words:
                self.words.append(piece)
        return [0] * add_start + [self.words.index(piece) for piece in pieces]

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Join the pieces again."""
        return "".join(self.words[token] for token in tokens if not self.is_special(token))

    def is_special(self, token: int) -> bool:
        """The marks of ChatML are special."""
        return token < len(SPECIAL)

    def ends_text(self, token: int) -> bool:
        """Only the end of a turn ends a text."""
        return self.words[token] == "<|im_end|>"

    def render_chat(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> str:
        """Write ChatML."""
        if not self.has_chat_template:
            raise SteerError("the model has no chat template", "use another")
        shown = [message for message in messages if not (self._drops_system and message["role"] == "system")]
        text = "".join(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in shown)
        beginning = "<|im_start|>assistant\n" + ("<think>\n" if self._opens_thinking else "")
        return text + (beginning if add_generation_prompt else "")
