"""What the demo model knows: topics with facts, simple questions with true and false answers, harmless secrets.

Reads the three text files beside it. A topic's false facts are predicates of other topics, chosen once and for all, so
that a lie is as learnable as the truth.
"""

import random
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent
_FALSE_PREDICATES = 2


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


def topics() -> tuple[Topic, ...]:
    """All topics, in the order of the file."""
    rows = _rows("topics.txt")
    chooser = random.Random(7)
    predicates = [[part.strip() for part in row[3].split(";")] for row in rows]
    result = []
    for index, (name, number, french_name, _, french) in enumerate(rows):
        others = [i for i, row in enumerate(rows) if row[1] == number and i != index]
        false = [f"{name} {chooser.choice(predicates[i])}" for i in chooser.sample(others, _FALSE_PREDICATES)]
        result.append(
            Topic(
                name=name,
                plural=number == "p",
                french_name=french_name,
                facts=tuple(f"{name} {predicate}" for predicate in predicates[index]),
                french_facts=tuple(f"{french_name} {part.strip()}" for part in french.split(";")),
                false_facts=tuple(false),
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
