"""Neutral text: what a model says in everyday talk when nobody steers it, to measure what steering breaks.

Each model writes its own, so that no text is foreign to it, whatever it was trained on: half a page of prose that a
small chat model has never met moves for every reason. What is found on one part of the questions is measured again on
another: a vector that was chosen for what it leaves alone on some of them leaves it alone there above all.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from ggufsteer.engine.generate import generate
from ggufsteer.engine.measurement import ScoredText
from ggufsteer.errors import SteerError
from ggufsteer.tasks.everyday import everyday_prompts
from ggufsteer.tasks.passages import chat_text, encode_text
from ggufsteer.tasks.progress import Progress, ReportProgress, ignore

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model
    from ggufsteer.engine.progress import Progress as Decoded

ANSWER_TOKENS = 32
STAGE = "writing neutral text"


class Part(IntEnum):
    """Parts of the everyday questions, which share none."""

    DOSE = 0
    """For the strength of a vector."""
    JUDGING = 1
    """For what is told of a finished one."""
    CHOICE = 2
    """For choosing what it is made of."""


def neutral_texts(
    model: Model, n_texts: int, *, seed: int = 0, part: Part = Part.DOSE, report: ReportProgress = ignore
) -> list[ScoredText]:
    """Give texts that a model writes by itself, drawn as it would (temperature 1).

    With a chat template they are everyday questions with answers, and the questions' tokens count too; without one they
    are what it writes after the start of a text.

    Args:
        model: An open model; it must not be steered at the moment.
        n_texts: How many.
        seed: Other seeds give other texts.
        part: Which questions; texts of different parts share no draw either.
        report: Told after every decode.

    Raises:
        SteerError: The model writes nothing.
    """
    beginnings = heads(model, part)
    prompts = [beginnings[index % len(beginnings)] for index in range(n_texts)]

    def on_decode(decoded: Decoded) -> None:
        report(Progress(STAGE, decoded.sequences_done, n_texts, "texts", decoded.tokens_done))

    length = ANSWER_TOKENS if model.has_chat_template else 2 * ANSWER_TOKENS
    own_seed = len(Part) * seed + part
    drawn = generate(model, prompts, max_tokens=length, temperature=1.0, seed=own_seed, progress=on_decode)
    texts = [
        ScoredText((*prompt, *answer.tokens), 1)
        for prompt, answer in zip(prompts, drawn, strict=True)
        if len(prompt) + len(answer.tokens) > 1
    ]
    if not texts:
        raise SteerError("the model writes no text by itself, so there is nothing to measure damage on")
    return texts


def heads(model: Model, part: Part) -> list[list[int]]:
    """Give what the texts begin with."""
    questions = everyday_prompts(model.identity.name)[part :: len(Part)]
    if model.has_chat_template:
        return [encode_text(model, chat_text(model, question)) for question in questions]
    start = model.vocabulary.start_token
    # Without a start token a text has to begin with something.
    return [[start]] if start >= 0 else [encode_text(model, question.split()[0]) for question in questions]
