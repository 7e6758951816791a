"""Which tokens of a passage are read.

Special tokens (start of text, role marks, end of turn) are never averaged: their states say where a turn ends, not what
it says, and vectors made from them are degenerate. The one exception is the last token of a chat prompt, which is read
even where it is special, because it is the place from which the answer begins.
"""

from __future__ import annotations

from ggufsteer.errors import SteerError
from ggufsteer.tasks.passages import Encoded

Position = str | int


def rows_to_read(position: Position, passage: Encoded) -> tuple[int, ...]:
    """Return the indices of the tokens whose states are wanted, in ascending order.

    | position | tokens |
    |---|---|
    | `"last"` | the last one that is not special; in a chat prompt the last one, from which the answer begins |
    | -1, -2, … | counted back from there (-1 is `"last"`), special tokens left out |
    | `"prompt"` | all in front of the answer, the template's words and the system prompt included |
    | `"response"` | all of the answer |
    | `"all"` | all |

    Args:
        position: One of the above.
        passage: Its tokens.

    Raises:
        SteerError: The passage has no such token.
    """
    content = [index for index, special in enumerate(passage.special) if not special]
    if position == "all":
        rows = content
    elif position == "prompt":
        rows = [index for index in content if index < passage.answer_start]
    elif position == "response":
        rows = [index for index in content if index >= passage.answer_start]
    else:
        rows = _counted_back(content, passage, -1 if position == "last" else int(position))
    if not rows:
        raise SteerError(*_explain(position, passage))
    return tuple(rows)


def _counted_back(content: list[int], passage: Encoded, offset: int) -> list[int]:
    end = len(passage.tokens) - 1
    if passage.opens_answer and (not content or content[-1] != end):
        content = [*content, end]
    return [content[offset]] if -offset <= len(content) else []


def _explain(position: Position, passage: Encoded) -> tuple[str, str]:
    if position == "response" and passage.answer_start == len(passage.tokens):
        return (
            'position "response" reads the answer, but this contrast has none',
            'use kind = "responses", pairs with {prompt, positive, negative}, or position = "last"',
        )
    count = sum(not special for special in passage.special)
    return (
        f"position {position!r}: there is no such token in a text of {len(passage.tokens)} tokens, {count} not special",
        'use position = "last", or a smaller offset',
    )
