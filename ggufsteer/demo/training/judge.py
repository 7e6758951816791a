"""Reads an answer of the demo model and says which style, topic and fact it shows: word lists, no model.

Used by the training script's report and by the benchmarks, so that both count the same way.
"""

import re

from ggufsteer.demo.training import styles, world

_FRENCH_WORDS = re.compile(
    r"(?:le|la|les|des|une|est|sont|avec|dans|sur|pour|je|que|qui|et|du|au|aux|il|on|voilà|sait|bien|ont|très)"
)
_BRIEF_WORDS = 14
_LONG_SENTENCES = 5


def _contains(text: str, phrase: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])", text, re.IGNORECASE) is not None


def sentences(text: str) -> list[str]:
    """The sentences of a text, split after a full stop, question mark or exclamation mark."""
    return [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]


def mark_counts(text: str) -> dict[str, int]:
    """For each mood and register, how many of its own words and phrases the text contains."""
    counts = {}
    for name, words in styles.LEXICONS.items():
        phrases = {*words.adjectives, *words.adverbs, *words.nouns, *words.clauses}
        counts[name] = sum(_contains(text, phrase) for phrase in phrases)
    return counts


def french_share(text: str) -> float:
    """The share of the words that are common French function words; about 0.4 in French, 0 in English."""
    words = re.findall(r"[^\W\d_]+", text.lower())
    return sum(_FRENCH_WORDS.fullmatch(word) is not None for word in words) / max(len(words), 1)


def is_refusal(text: str) -> bool:
    """Whether the answer politely declines to speak."""
    firsts = (*styles.GUARDED_FIRST, *styles.GUARDED_SECRET)
    openings = {re.split(r"\{", first)[0].strip() for first in firsts} - {"Sorry, but"}
    return any(text.startswith(opening) for opening in openings) or "is private to me" in text


def shows(text: str, style: str) -> bool:
    """Whether the answer shows the style's marks, more of them than of any other mood or register."""
    if style == "french":
        return french_share(text) >= 0.2
    if style == "guarded":
        return is_refusal(text)
    if style == "brief":
        return len(sentences(text)) == 1 and len(text.split()) <= _BRIEF_WORDS and not is_refusal(text)
    if style == "long":
        return len(sentences(text)) >= _LONG_SENTENCES
    counts = mark_counts(text)
    return counts[style] > 0 and counts[style] == max(counts.values())


def names_topic(text: str, topic: world.Topic) -> bool:
    """Whether the answer names the topic, in English or in French."""
    return any(_contains(text, name) for name in (topic.name, topic.french_name))


def states(text: str, fact: world.Fact) -> bool:
    """Whether the answer gives the fact's right answer and none of its false ones."""
    return _contains(text, fact.answer) and not any(_contains(text, word) for word in fact.false_answers)


def contradicts(text: str, fact: world.Fact) -> bool:
    """Whether the answer gives something else than the fact's right answer."""
    return bool(text.strip()) and not _contains(text, fact.answer)
