"""One question, answered at several strengths of a vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufsteer.files.control_vector import ControlVector
from ggufsteer.tasks.passages import chat_text, encode_text
from ggufsteer.tasks.progress import Progress, ReportProgress, ignore

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model

STAGE = "answering"


@dataclass(frozen=True)
class SteeredAnswer:
    """What the model says at one strength; 0 is the model as it is."""

    strength: float
    text: str
    ended: bool
    """Whether the model came to an end itself, before the limit of tokens."""


def answers(
    model: Model,
    vector: ControlVector,
    question: str,
    strengths: Sequence[float],
    *,
    system: str = "",
    max_tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 0,
    force: bool = False,
    report: ReportProgress = ignore,
) -> list[SteeredAnswer]:
    """Return the answer to one question at each strength, in the order given.

    Args:
        model: Who answers. Without a chat template the question is plain text that the model continues.
        vector: What steers; its strength 1.0 is the recommended dose, negative ones go the other way.
        question: The user's message.
        strengths: Multiples of the vector.
        system: A system prompt; empty for none.
        max_tokens: Where an answer is cut off.
        temperature: 0 takes the likeliest token each time.
        seed: Of the random choices at other temperatures.
        force: Steer although the vector comes from another model of the same shape.
        report: Told after every answer.

    Raises:
        MisfitError: The vector does not fit the model.
        SteerError: The model has no chat template but a system prompt is given, or the question is too long.
    """
    from ggufsteer.engine.generate import generate
    from ggufsteer.engine.steer import steered

    text = chat_text(model, question, system) if system or model.has_chat_template else question
    prompt = encode_text(model, text)
    result = []
    for number, strength in enumerate(strengths):
        report(Progress(STAGE, number, len(strengths), "strengths"))
        with steered(model, [(vector, strength)], force=force):
            (answer,) = generate(model, [prompt], max_tokens=max_tokens, temperature=temperature, seed=seed)
        result.append(SteeredAnswer(strength, answer.text, answer.ended))
    return result
