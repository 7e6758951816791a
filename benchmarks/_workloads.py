"""What extraction is measured on: texts of our own, of which much, little or nothing is shared.

It knows tokenizers and text files, no clock. How many tokens a text has depends on the model; the counts that are
promised here are those of the demo model's vocabulary, which the random models share.
"""

import json
import random
from collections.abc import Callable, Sequence
from itertools import islice, product
from pathlib import Path

from ggufsteer.engine.capture import TokenSequence
from ggufsteer.errors import SteerError

Pairs = list[tuple[str, str]]
"""Positive and negative texts, side by side."""
Tokenizer = Callable[[str], list[int]]

_FRAME = (
    "[INST] Act as if you are extremely {}. Tell me in your own words what you think of this morning and of the long "
    "day that is to come. [/INST]\n"
)
INSTRUCTIONS = (_FRAME.format("happy"), _FRAME.format("angry"))
PERSONAS = tuple(f"{instruction}I" for instruction in INSTRUCTIONS)
"""64 tokens each."""
SHORT_PERSONAS = ("You are happy. I", "You are sad. I")
_VERBS = """
am was did had saw can may will must could should would might think feel know see hear say tell ask find give take
make go come like love want need hope wish wait stay stand sit walk run sing dance play work read write learn teach
help hold keep lose win try start stop begin end open close turn move live sleep dream wake eat drink cook bake
plant grow build paint draw look watch listen speak talk laugh smile cry shout whisper call answer believe remember
forget choose decide follow lead bring carry send buy sell pay count measure visit travel return share care worry
wonder guess mean agree doubt trust miss thank meet greet join leave arrive rest
"""
VERBS = tuple(_VERBS.split())
ADVERBS = ("", " now", " here", " too", " again", " so", " well", " more", " still", " all day", " at home",
           " at night", " with you", " on my own", " in the sun", " for an hour")  # fmt: skip
PLACES = ("", " by the sea", " in town", " at school", " with friends", " in the garden", " on the hill", " at work",
          " near the old bridge", " in winter", " after lunch", " before noon", " on the train")  # fmt: skip
OPENINGS = ("The bread in the kitchen", "My old friend", "A small boat", "Nobody", "Our new neighbour",
            "That yellow house", "The last train", "Some of the people", "Her own garden", "This river")  # fmt: skip
ENDINGS = ("is never late in the day", "looks so quiet today", "was here all day in May", "still waits for the rain",
           "came back too soon", "has changed a lot", "can be heard at night too", "needs a little more time",
           "is down by the road now", "is known to all of us here")  # fmt: skip
LONGEST_ENDING = 3
UNSHARED_TOKENS = 66


def shared_pairs(tokenize: Tokenizer, n_pairs: int) -> Pairs:
    """Two personas, each followed by the same endings, of which the first hundred have 1 to 3 tokens.

    Raises:
        SteerError: There are not so many endings.
    """
    return [(f"{PERSONAS[0]} {ending}", f"{PERSONAS[1]} {ending}") for ending in _endings(tokenize, n_pairs)]


def short_pairs(tokenize: Tokenizer, n_pairs: int) -> Pairs:
    """The same with personas of a few words, for very many pairs."""
    happy, sad = SHORT_PERSONAS
    return [(f"{happy} {ending}", f"{sad} {ending}") for ending in _endings(tokenize, n_pairs)]


def unshared_pairs(tokenize: Tokenizer, n_pairs: int) -> Pairs:
    """Pairs of texts of 66 tokens, the start token included, that have little more than that one in common."""
    generator = random.Random(0)
    return [(_random_text(tokenize, generator), _random_text(tokenize, generator)) for _ in range(n_pairs)]


def _random_text(tokenize: Tokenizer, generator: random.Random) -> str:
    words: list[str] = []
    while (size := len(tokenize(" ".join(words)))) != UNSHARED_TOKENS:
        if size > UNSHARED_TOKENS:
            # Taking one word back could go on for ever, where no word is just long enough.
            del words[-generator.randint(1, 4) :]
        else:
            words.append(generator.choice(VERBS))
    return " ".join(words)


def random_sequences(n_vocab: int, count: int) -> list[TokenSequence]:
    """Sequences of 66 random tokens, the last one wanted; the first few hundred share nothing at all."""
    generator = random.Random(0)
    tokens = range(min(300, n_vocab // 2), min(1000, n_vocab))  # single bytes and control tokens come first
    return [
        _sequence([tokens[number % len(tokens)], *generator.choices(tokens, k=UNSHARED_TOKENS - 1)])
        for number in range(count)
    ]


def sequences_of(pairs: Pairs, tokenize: Tokenizer, *, every_row: bool = False) -> list[TokenSequence]:
    """Give the sequences of pairs, each positive one before its negative one, read at the last token or at all."""
    return [_sequence(tokenize(text), every_row=every_row) for pair in pairs for text in pair]


def _sequence(tokens: Sequence[int], *, every_row: bool = False) -> TokenSequence:
    rows = range(len(tokens)) if every_row else (len(tokens) - 1,)
    return TokenSequence(tuple(tokens), tuple(rows))


def own_suffixes() -> list[str]:
    """A hundred sentences of 12 to 20 tokens."""
    return [f"{opening} {ending}" for opening, ending in product(OPENINGS, ENDINGS)]


def read_suffixes(path: Path) -> list[str]:
    """Read a JSON list of texts.

    Raises:
        SteerError: The file cannot be read, or is none.
    """
    try:
        suffixes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SteerError(
            f"{path}: no JSON file that can be read: {error}", 'give a list such as ["one", "two"]'
        ) from None
    if not isinstance(suffixes, list) or not suffixes or not all(isinstance(text, str) and text for text in suffixes):
        raise SteerError(f"{path}: not a list of texts", 'give a list such as ["one", "two"]')
    return suffixes


def suffix_sequences(suffixes: Sequence[str], tokenize: Tokenizer, *, truncated: bool) -> list[TokenSequence]:
    """Give each suffix under both instructions: whole, or cut after each of its tokens as well."""
    sequences = []
    for instruction, suffix in product(INSTRUCTIONS, suffixes):
        tokens = tokenize(instruction + suffix)
        n_shared = _n_common(tokenize(instruction), tokens)
        first = n_shared + 1 if truncated else len(tokens)
        sequences += [_sequence(tokens[:length]) for length in range(first, len(tokens) + 1)]
    return sequences


def _n_common(one: Sequence[int], other: Sequence[int]) -> int:
    different = (index for index, (mine, theirs) in enumerate(zip(one, other, strict=False)) if mine != theirs)
    return next(different, min(len(one), len(other)))


def n_nodes(sequences: Sequence[TokenSequence]) -> int:
    """Count the different beginnings of sequences, one by one: the nodes of their prefix tree."""
    nodes = set()
    for sequence in sequences:
        nodes |= {sequence.tokens[:length] for length in range(1, len(sequence.tokens) + 1)}
    return len(nodes)


def write_prompts(pairs: Pairs, folder: Path) -> tuple[Path, Path]:
    """Write the two files that cvector-generator reads: a text a line, with what would end the line escaped."""
    paths = folder / "positive.txt", folder / "negative.txt"
    for side, path in enumerate(paths):
        path.write_text("".join(f"{_escaped(pair[side])}\n" for pair in pairs), encoding="utf-8", newline="\n")
    return paths


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace("\r", r"\r").replace("\t", r"\t")


def _endings(tokenize: Tokenizer, count: int) -> list[str]:
    before = len(tokenize(PERSONAS[0]))
    sizes = {verb: len(tokenize(f"{PERSONAS[0]} {verb}")) - before for verb in VERBS}
    short = sorted((verb for verb in VERBS if sizes[verb] <= LONGEST_ENDING), key=lambda verb: -sizes[verb])[:100]
    every = (verb + adverb + place for place, adverb, verb in product(PLACES, ADVERBS, short))
    endings = list(islice(every, count))
    if len(endings) < count:
        raise SteerError(f"{count} pairs: with this vocabulary there are texts for {len(endings)}", "ask for fewer")
    return endings
