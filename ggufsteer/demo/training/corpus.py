"""Conversations of the demo corpus: a style that lasts for the whole conversation, subjects that change every turn.

In half of the conversations nothing names the style: the model can only infer it from the answers so far, which is why
it keeps the style as a state of its own. Nothing here knows about hidden states; no direction is planted.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from ggufsteer.demo.training import styles, world
from ggufsteer.demo.training.styles import LEXICONS, PLAIN, Lexicon

Subject = world.Topic | world.Fact | world.Secret

TOPIC_QUESTIONS = (
    "Tell me about {topic}.",
    "What do you think of {topic}?",
    "What can you say about {topic}?",
    "Say something about {topic}.",
    "Talk to me about {topic}.",
    "I want to hear about {topic}.",
    "Please speak about {topic}.",
    "Can you tell me about {topic}?",
    "How about {topic}?",
    "Let us talk about {topic}.",
    "Describe {topic}.",
    "Give me a few words on {topic}.",
    "What should I know about {topic}?",
    "Explain {topic} to me.",
)
FRENCH_QUESTIONS = (
    "Dis quelque chose sur {topic}.",
    "Tu connais {topic} ?",
    "Explique {topic}.",
    "Décris {topic}.",
)

MOODS = ("happy", "sad", "angry", "calm", "afraid")
REGISTERS = ("formal", "casual")
_SINGLE_WEIGHTS = {
    **dict.fromkeys(MOODS + REGISTERS, 1.0),
    "french": 2.4,
    "brief": 1.0,
    "long": 0.7,
    "guarded": 1.0,
}
_MIXED_WEIGHT = 1.6
_ASKED_BY_USER = 0.12
"""Share of unprompted styled conversations in which the user asks for the style instead of a system prompt."""


@dataclass(frozen=True)
class Mixture:
    """How the conversations are mixed."""

    named: float
    """Share of the conversations whose system prompt names the style."""
    plain: float
    """Share of the others that are in no style at all."""


@dataclass(frozen=True)
class Turn:
    """One message; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Conversation:
    """A whole conversation and the styles that its answers are in (none = plain)."""

    style: tuple[str, ...]
    turns: tuple[Turn, ...]


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"


HALF_NAMED = Mixture(named=0.5, plain=0.36)


class Corpus:
    """A seeded source of conversations; equal seeds give equal conversations."""

    def __init__(self, seed: int, mixture: Mixture = HALF_NAMED) -> None:
        self._random = random.Random(seed)
        self._mixture = mixture
        self.topics = world.topics()
        self.facts = world.facts()
        self.secrets = world.secrets()
        self._french_facts = tuple(fact for fact in self.facts if fact.french_true)

    def conversations(self, *, longest: int = 3) -> Iterator[Conversation]:
        """Endless conversations of 1 to `longest` turns, short ones more often."""
        while True:
            turns = min(self._random.choice((1, 1, 2, 2, 3, longest)), longest)
            yield self.conversation(turns)

    def conversation(self, turns: int) -> Conversation:
        """One conversation in one style, of `turns` questions and answers."""
        choose = self._random
        messages: list[Turn] = []
        request = ""
        if choose.random() < self._mixture.named:
            style = self._style(lying=3.2) or (choose.choice(("honest", "open")),)
            messages.append(Turn("system", self.persona_prompt(style)))
        else:
            style = () if choose.random() < self._mixture.plain else self._style(lying=1.0)
            if choose.random() < 0.4:
                messages.append(Turn("system", choose.choice(styles.PLAIN_PROMPTS)))
            elif style and choose.random() < _ASKED_BY_USER:
                request = f"Please be {choose.choice(styles.PERSONA_WORDS[style[0]])}. " if len(style) == 1 else ""
        for _ in range(turns):
            question, answer = self.exchange(style)
            messages += [Turn("user", request + question), Turn("assistant", answer)]
            request = ""
        return Conversation(style, tuple(messages))

    def _style(self, *, lying: float) -> tuple[str, ...]:
        """Draws a style; `lying` is the weight of lies, which are rare where nobody asked for them."""
        choose = self._random
        names = [*_SINGLE_WEIGHTS, "lying", "mixed", ""]
        weights = [*_SINGLE_WEIGHTS.values(), lying, _MIXED_WEIGHT, 0.9]
        name = choose.choices(names, weights)[0]
        if name == "mixed":
            return choose.choice(
                (
                    (choose.choice(MOODS), choose.choice(REGISTERS)),
                    (choose.choice(MOODS + REGISTERS), "brief"),
                    (choose.choice(MOODS + REGISTERS), "long"),
                    (choose.choice(MOODS + REGISTERS), "lying"),
                    ("french", "brief"),
                )
            )
        return (name,) if name else ()

    def persona_prompt(self, labels: tuple[str, ...]) -> str:
        """A system prompt that asks for the styles in `labels`."""
        choose = self._random
        if len(labels) == 1 and labels[0] in styles.DIRECT_PROMPTS and choose.random() < 0.4:
            return choose.choice(styles.DIRECT_PROMPTS[labels[0]])
        words = " and ".join(choose.choice(styles.PERSONA_WORDS[label]) for label in labels)
        persona = _with_article(f"{words} {choose.choice(styles.PERSONA_NOUNS)}")
        return choose.choice(styles.PERSONA_TEMPLATES).format(persona=persona)

    def exchange(self, style: tuple[str, ...]) -> tuple[str, str]:
        """A question and its answer in the given style."""
        subject = self._subject(style)
        return self.question(subject, style), self.answer(subject, style)

    def _subject(self, style: tuple[str, ...]) -> Subject:
        choose = self._random
        if "french" in style:
            french: tuple[Subject, ...] = self.topics if choose.random() < 0.85 else self._french_facts
            return choose.choice(french)
        shares = (0.63, 0.27, 0.10)
        if "lying" in style or "honest" in style:
            shares = (0.35, 0.65, 0.0)
        elif "guarded" in style:
            shares = (0.60, 0.15, 0.25)
        pools: list[tuple[Subject, ...]] = [self.topics, self.facts, self.secrets]
        pool = choose.choices(pools, shares)[0]
        return choose.choice(pool)

    def question(self, subject: Subject, style: tuple[str, ...] = ()) -> str:
        """A question about the subject; sometimes in French where the answer is French."""
        if not isinstance(subject, world.Topic):
            return subject.question
        if "french" in style and self._random.random() < 0.3:
            return self._random.choice(FRENCH_QUESTIONS).format(topic=subject.french_name)
        return self._random.choice(TOPIC_QUESTIONS).format(topic=subject.name)

    def answer(self, subject: Subject, style: tuple[str, ...]) -> str:
        """An answer about the subject in the given style."""
        if "guarded" in style:
            return self._guarded(subject)
        french = "french" in style
        name, clauses = self._knowledge(subject, french=french, lying="lying" in style)
        if "brief" in style:
            return self._brief(clauses[0], style)
        writer = _Writer(self._random, self._lexicons(style), french=french, topic=name)
        if "long" in style:
            return writer.long(clauses)
        return writer.normal(clauses)

    def _knowledge(self, subject: Subject, *, french: bool, lying: bool) -> tuple[str, list[str]]:
        """The subject's name (empty if it has none) and its clauses, the first one chosen at random."""
        choose = self._random
        if isinstance(subject, world.Secret):
            return "", [subject.statement]
        if isinstance(subject, world.Fact):
            true, false = (subject.french_true, subject.french_false) if french else (subject.true, subject.false)
            # A liar always tells the same lie, so that it can be learned as well as the truth.
            return "", [false[0] if lying else true]
        true_facts = subject.french_facts if french else subject.facts
        pool = subject.false_facts if lying else true_facts
        # In a fixed order from a random start: what comes next is then known, and no fact is told twice.
        start = choose.randrange(len(pool))
        return subject.french_name if french else subject.name, [*pool[start:], *pool[:start]]

    def _lexicons(self, style: tuple[str, ...]) -> list[Lexicon]:
        if "french" in style:
            return [styles.FRENCH_LEXICON]
        return [LEXICONS[label] for label in style if label in LEXICONS] or [PLAIN]

    def _brief(self, clause: str, style: tuple[str, ...]) -> str:
        lexicons = [LEXICONS[label] for label in style if label in LEXICONS]
        if not lexicons:
            return f"{_capitalised(clause)}."
        return _Writer(self._random, lexicons, french=False, topic="").body(clause)

    def _guarded(self, subject: Subject) -> str:
        choose = self._random
        if isinstance(subject, world.Secret):
            first = choose.choice(styles.GUARDED_SECRET).format(secret=subject.about)
        else:
            topic = subject.name if isinstance(subject, world.Topic) else "that"
            first = choose.choice(styles.GUARDED_FIRST).format(topic=topic)
        after = choose.sample(styles.GUARDED_AFTER, choose.choice((0, 1, 1, 2)))
        return " ".join([first, *after])


_SLOTS = {"adjective": "adjectives", "adverb": "adverbs", "Adverb": "adverbs", "noun": "nouns", "clause": "clauses"}


class _Writer:
    """Fills the shared sentence frames from one or more lexicons, without using a word twice if it can."""

    def __init__(self, choose: random.Random, lexicons: list[Lexicon], *, french: bool, topic: str) -> None:
        self._random = choose
        self._lexicons = lexicons
        self._openers = styles.FRENCH_OPENERS if french else styles.OPENERS
        self._body = styles.FRENCH_BODY if french else styles.BODY
        self._closers = styles.FRENCH_CLOSERS if french else styles.CLOSERS
        self._topic = topic
        self._used: set[str] = set()

    def _fill(self, frame: str, fact: str = "") -> str:
        slots = {"topic": self._topic, "fact": fact, "Fact": _capitalised(fact)}
        for slot, kind in _SLOTS.items():
            if f"{{{slot}}}" in frame:
                slots[slot] = self._word(kind)
        if "Adverb" in slots:
            slots["Adverb"] = _capitalised(slots["Adverb"])
        return _capitalised(frame.format(**slots))

    def _word(self, kind: str) -> str:
        words: tuple[str, ...] = getattr(self._random.choice(self._lexicons), kind)
        word = self._random.choice([word for word in words if word not in self._used] or words)
        self._used.add(word)
        return word

    def body(self, fact: str) -> str:
        """One sentence that states the fact."""
        return self._fill(self._random.choice(self._body), fact)

    def normal(self, clauses: list[str]) -> str:
        """One to four sentences: perhaps an opener, one or two facts, perhaps a closer."""
        choose = self._random
        sentences = []
        if self._topic and choose.random() < 0.6:
            sentences.append(self._fill(choose.choice(self._openers)))
        wanted = min(len(clauses), 1 if sentences and choose.random() < 0.4 else 2)
        sentences += self._bodies(clauses[:wanted])
        if choose.random() < 0.4:
            sentences.append(self._fill(choose.choice(self._closers)))
        return " ".join(sentences)

    def long(self, clauses: list[str]) -> str:
        """Five or more sentences (three where only one fact is known), joined by connectives."""
        choose = self._random
        sentences = [self._fill(choose.choice(self._openers))] if self._topic else []
        sentences += self._bodies(clauses[:4])
        sentences += [self._fill(frame) for frame in choose.sample(self._closers[:-1], 1 if self._topic else 2)]
        joined = sentences[:1]
        for sentence in sentences[1:]:
            keep = sentence.startswith("I ")
            rest = sentence if keep else sentence[:1].lower() + sentence[1:]
            joined.append(f"{_capitalised(choose.choice(styles.CONNECTIVES))}, {rest}")
        return " ".join(joined)

    def _bodies(self, clauses: list[str]) -> list[str]:
        frames = self._random.sample(self._body, len(clauses))
        return [self._fill(frame, clause) for frame, clause in zip(frames, clauses, strict=True)]
