"""The text that the demo model learns from: seeded, in the style that it claims, about the subject that was asked."""

import itertools

import pytest

from ggufsteer.demo.training import judge, world
from ggufsteer.demo.training.corpus import MOODS, REGISTERS, Conversation, Corpus
from ggufsteer.demo.training.styles import LEXICONS, PERSONA_WORDS, PLAIN

STYLES = (*MOODS, *REGISTERS, "french", "brief", "long", "guarded")


def _take(seed: int, count: int) -> list[Conversation]:
    return list(itertools.islice(Corpus(seed).conversations(), count))


def test_equal_seeds_give_equal_conversations() -> None:
    """The corpus can be made again, and another seed makes another one."""
    assert _take(3, 50) == _take(3, 50)
    assert _take(3, 50) != _take(4, 50)


@pytest.mark.parametrize("style", STYLES)
def test_an_answer_shows_its_style_and_no_plain_answer_does(style: str) -> None:
    """The word lists that write a style also recognise it, and do not see it in plain answers."""
    corpus = Corpus(1)
    for topic in corpus.topics:
        assert judge.shows(corpus.answer(topic, (style,)), style)
        assert not judge.shows(corpus.answer(topic, ()), style)


def test_every_answer_about_a_topic_names_it() -> None:
    """Whatever the style, an answer says what it is about."""
    corpus = Corpus(2)
    for topic, style in itertools.product(corpus.topics, STYLES):
        assert judge.names_topic(corpus.answer(topic, (style,)), topic)


def test_lies_are_false_and_other_answers_true() -> None:
    """A lying answer contradicts the fact; every other one states it."""
    corpus = Corpus(5)
    for fact in corpus.facts:
        assert judge.contradicts(corpus.answer(fact, ("lying",)), fact)
        assert judge.states(corpus.answer(fact, ("happy",)), fact)


def test_no_two_styles_share_a_word() -> None:
    """Each marking word belongs to one lexicon, so that counting words tells the styles apart."""
    seen: set[str] = set()
    for lexicon in (PLAIN, *LEXICONS.values()):
        words = {*lexicon.adjectives, *lexicon.adverbs, *lexicon.nouns, *lexicon.clauses}
        assert not words & seen
        seen |= words


def test_facts_about_topics_carry_no_mark_of_a_style() -> None:
    """What is said about a topic never looks like a mood or a register."""
    for topic in world.topics():
        for clause in (*topic.facts, *topic.false_facts):
            assert not any(judge.mark_counts(clause).values()), clause


def test_half_of_the_conversations_do_not_name_their_style() -> None:
    """In about half of the styled conversations no system prompt says which style it is."""
    styled = [item for item in _take(6, 2000) if item.style and set(item.style) & set(LEXICONS)]
    named = [
        item
        for item in styled
        if item.turns[0].role == "system"
        and any(word in item.turns[0].content for style in item.style for word in PERSONA_WORDS[style])
    ]
    assert 0.4 < len(named) / len(styled) < 0.75
