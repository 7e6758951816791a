"""What the demo model knows: topics with facts, simple questions with true and false answers, harmless secrets.

Reads the three text files beside it. A topic's false facts deny its true ones, with "never".
"""

from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Topic:
    """Something to talk about; every fact is a clause that starts with the topic's own name."""

    name: str
    plural: bool
    french_name: str
    facts: tuple[str, ...]
    french_facts: tuple[str, ...]
    false_facts: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """A simple question with one right answer; French clauses are empty where only English is known."""

    question: str
    true: str
    false: tuple[str, ...]
    answer: str
    false_answers: tuple[str, ...]
    french_true: str
    french_false: tuple[str, ...]


@dataclass(frozen=True)
class Secret:
    """A question about a harmless secret, told unless the style is guarded."""

    question: str
    about: str
    statement: str


def _rows(name: str) -> list[list[str]]:
    lines = (_FOLDER / name).read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.split("|")] for line in lines if line and not line.startswith("#")]


def _denied(predicate: str) -> str:
    """The opposite of a predicate.

    >>> _denied("is made from milk"), _denied("live in a hive"), _denied("never turns to rust")
    ('is never made from milk', 'never live in a hive', 'turns to rust')
    """
    verb, rest = predicate.split(" ", 1)
    if verb == "never":
        return rest
    return f"{verb} never {rest}" if verb in ("is", "are") else f"never {predicate}"


def topics() -> tuple[Topic, ...]:
    """All topics, in the order of the file."""
    rows = _rows("topics.txt")
    result = []
    for name, number, french_name, english, french in rows:
        predicates = [part.strip() for part in english.split(";")]
        result.append(
            Topic(
                name=name,
                plural=number == "p",
                french_name=french_name,
                facts=tuple(f"{name} {predicate}" for predicate in predicates),
                french_facts=tuple(f"{french_name} {part.strip()}" for part in french.split(";")),
                false_facts=tuple(f"{name} {_denied(predicate)}" for predicate in predicates),
            )
        )
    return tuple(result)


def facts() -> tuple[Fact, ...]:
    """All simple questions, in the order of the file."""
    result = []
    for row in _rows("facts.txt"):
        question, statement, true, false = row[:4]
        false_answers = tuple(word.strip() for word in false.split(","))
        french_true = ""
        french_false: tuple[str, ...] = ()
        if len(row) > 4:
            french_true = row[4].format(row[5])
            french_false = tuple(row[4].format(word.strip()) for word in row[6].split(","))
        result.append(
            Fact(
                question=question,
                true=statement.format(true),
                false=tuple(statement.format(word) for word in false_answers),
                answer=true,
                false_answers=false_answers,
                french_true=french_true,
                french_false=french_false,
            )
        )
    return tuple(result)


def secrets() -> tuple[Secret, ...]:
    """All harmless secrets, in the order of the file."""
    return tuple(Secret(*row) for row in _rows("secrets.txt"))
