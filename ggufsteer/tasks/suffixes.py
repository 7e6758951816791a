"""repeng's shape: a text cut at each of its tokens, every cut a pair.

Where the template ends with the suffix, all cuts of one text are read in a single pass: a state depends only on what
stands before it, so the state at token i of the whole text is the state at the end of the text cut after token i.
"""

from __future__ import annotations

from dataclasses import replace

from ggufsteer.errors import SteerError
from ggufsteer.tasks.passages import Encoded, Passage, Tokenizer, common_prefix_length, encode, encode_text


def readable_in_one_pass(passage: Passage) -> bool:
    """Say whether all cuts of this passage can be read from one sequence."""
    return passage.suffix is not None and not passage.after_suffix


def with_suffix(model: Tokenizer, passage: Passage) -> Encoded:
    """Return the passage with its whole suffix, the suffix in the place of an answer."""
    before = encode_text(model, passage.text)
    filled = encode(model, Passage(f"{passage.text}{passage.suffix}{passage.after_suffix}"))
    return replace(filled, answer_start=common_prefix_length(before, filled.tokens))


def rows_of_suffix(positive: Encoded, negative: Encoded) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return for each side the rows of the suffix's tokens: equally many, counted from the end, where the texts agree.

    Raises:
        SteerError: The suffix has no token.
    """
    lengths = [len(side.tokens) for side in (positive, negative)]
    count = min(len(side.tokens) - side.answer_start for side in (positive, negative))
    if count < 1:
        raise SteerError("the suffix has no token of its own", "remove it")
    return tuple(range(lengths[0] - count, lengths[0])), tuple(range(lengths[1] - count, lengths[1]))


def cuts(model: Tokenizer, passage: Passage) -> list[Passage]:
    """Return one passage for each token of the suffix, the suffix cut after it.

    A cut inside a character that takes several tokens is left out: it is no text.
    """
    suffix = passage.suffix or ""
    tokens = model.tokenize(suffix, special=False, add_start=False)
    texts = (model.detokenize(tokens[: count + 1]) for count in range(len(tokens)))
    # Some vocabularies put a space in front of every text.
    kept = [text if suffix.startswith(text) else text.removeprefix(" ") for text in texts]
    return [Passage(f"{passage.text}{text}{passage.after_suffix}") for text in kept if text and suffix.startswith(text)]
