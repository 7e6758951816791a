"""The answers that the model itself gives under each persona: the material of response pairs.

Each different question (persona and prompt) is asked once, however many pairs it serves; answers are greedy, so that
the same model gives the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ggufsteer.errors import SteerError
from ggufsteer.tasks.kept_answers import KeptAnswers
from ggufsteer.tasks.passages import Passage, chat_text, encode_text
from ggufsteer.tasks.progress import Progress, ReportProgress, ignore
from ggufsteer.tasks.shapes import PlannedPair, PlannedPairs
from ggufsteer.tasks.versions import SETTINGS, versions

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model

STAGE = "letting the model answer"

GROUP = 64
"""Answers that are given side by side, and kept together: what an interruption costs at most."""


Answers = Mapping[tuple[str, str], tuple[str, tuple[int, ...]]]
"""For each question (system prompt and prompt) the text and the tokens of its answer."""


@dataclass(frozen=True)
class _Answered:
    """Pairs with their answers filled in as they come by; those with an empty answer are left out."""

    pairs: PlannedPairs
    answers: Answers

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[PlannedPair]:
        for pair in self.pairs:
            positive, negative = (_filled(passage, self.answers) for passage in (pair.positive, pair.negative))
            if positive.answer_tokens != () and negative.answer_tokens != ():
                yield replace(pair, positive=positive, negative=negative)


def with_own_answers(
    pairs: PlannedPairs,
    model: Model,
    *,
    max_tokens: int,
    keep_beside: Path | None = None,
    report: ReportProgress = ignore,
) -> tuple[PlannedPairs, int]:
    """Fill in every answer that the model is to make itself.

    Args:
        pairs: Pairs whose passages have `asked_under` set where an answer is wanted; others pass unchanged.
        model: Who answers.
        max_tokens: Where an answer is cut off.
        keep_beside: A file of states; answers are kept beside it until it is there, so that an interrupted run goes on.
        report: Told after every answer.

    Returns:
        The pairs with answers, and how many were left out because one of their answers was empty.

    Raises:
        SteerError: Every pair lost an answer.
    """
    asked = (passage for pair in pairs for passage in (pair.positive, pair.negative) if passage.asked_under is not None)
    questions = list(dict.fromkeys(map(_question, asked)))
    if not questions:
        return pairs, 0
    kept = kept_answers(keep_beside, model, questions, max_tokens) if keep_beside else None
    answered = _Answered(pairs, _ask(questions, model, max_tokens, kept, report))
    n_answered = len(answered)
    if not n_answered:
        raise SteerError(
            "the model gave an empty answer to every prompt, so there is nothing to read",
            "use a chat model, other prompts, or given answers: pairs with {prompt, positive, negative}",
        )
    return answered, len(pairs) - n_answered


def _question(passage: Passage) -> tuple[str, str]:
    return passage.asked_under or "", passage.text


def _filled(passage: Passage, answers: Answers) -> Passage:
    if passage.asked_under is None:
        return passage
    text, tokens = answers[_question(passage)]
    return replace(passage, answer=text, answer_tokens=tokens)


def kept_answers(states: Path, model: Model, questions: Sequence[tuple[str, str]], max_tokens: int) -> KeptAnswers:
    """Give the place where the answers to these questions are kept until a file of states is complete."""
    settings = {name: str(getattr(model.options, name)) for name in SETTINGS}
    return KeptAnswers.beside(states, questions, max_tokens, model.identity.content_hash, settings, versions())


def _ask(
    questions: Sequence[tuple[str, str]],
    model: Model,
    max_tokens: int,
    kept: KeptAnswers | None,
    report: ReportProgress,
) -> Answers:
    """Return text and content tokens of each answer; tokens past the last one that is content are cut off.

    They are given in groups: who sits beside whom can change the last digits of a number, and a word with them.
    """
    from ggufsteer.engine.generate import generate
    from ggufsteer.engine.progress import Progress as Decoded

    answers = kept.read(len(questions)) if kept else []
    tokens_before = sum(len(tokens) for _, tokens in answers)
    report(Progress(STAGE, len(answers), len(questions), "answers"))
    while len(answers) < len(questions):
        group = questions[len(answers) : len(answers) + GROUP]
        prompts = [encode_text(model, chat_text(model, text, system)) for system, text in group]

        def on_decode(decoded: Decoded, done: int = len(answers), tokens: int = tokens_before) -> None:
            event = (done + decoded.sequences_done, len(questions), "answers", tokens + decoded.tokens_done)
            report(Progress(STAGE, *event))

        for answer in generate(model, prompts, max_tokens=max_tokens, progress=on_decode):
            tokens = list(answer.tokens)
            tokens_before += len(tokens)
            while tokens and model.is_special(tokens[-1]):
                tokens.pop()
            answers.append((answer.text, tuple(tokens) if answer.text.strip() else ()))
        if kept:
            kept.write(answers)
    return dict(zip(questions, answers, strict=True))
