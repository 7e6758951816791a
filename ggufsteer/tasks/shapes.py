"""From a recipe's contrast to pairs of passages: one function a shape, in a table.

Works on words alone: no model, no tokens. A plan keeps no pair: it makes them, one at a time, whenever it is gone
through, because a recipe may have very many. What the shapes have in common is that both sides of a pair say the same
except for the concept, so that the difference of their states is the concept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Protocol

from ggufsteer.errors import RecipeError
from ggufsteer.files.recipe_schema import (
    Contrast,
    PairContrast,
    PersonaContrast,
    Recipe,
    ResponseContrast,
    SuffixContrast,
)
from ggufsteer.files.recipe_texts import render
from ggufsteer.tasks.passages import Passage
from ggufsteer.tasks.split import held_out

CUT = "\0"
"""Stands for the suffix while a template is filled; no text of a recipe may hold it."""


@dataclass(frozen=True)
class PlannedPair:
    """Two passages that differ in the concept, and the texts that tie them to other pairs."""

    positive: Passage
    negative: Passage
    keys: tuple[str, ...]
    """The prompt, or the texts: pairs that share one are never divided between training and hold-out."""
    held_out: bool = False
    """Whether the pair is kept from the computation, to judge its result."""


class PlannedPairs(Protocol):
    """Planned pairs in a fixed order, which may be gone through as often as one likes."""

    def __len__(self) -> int:
        """How many pairs there are."""

    def __iter__(self) -> Iterator[PlannedPair]:
        """Begin with the first pair."""


@dataclass(frozen=True)
class Plan:
    """The pairs of a recipe in a fixed order, with those marked that are held out."""

    contrast: Contrast
    held_out: tuple[bool, ...]
    """For each pair."""

    def __len__(self) -> int:
        return len(self.held_out)

    def __iter__(self) -> Iterator[PlannedPair]:
        for pair, flag in zip(SHAPES[self.contrast.kind](self.contrast), self.held_out, strict=True):
            yield replace(pair, held_out=flag)


@dataclass(frozen=True)
class _Keys:
    """The keys of all pairs, each pair looked at as it comes by."""

    recipe: Recipe

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        contrast = self.recipe.contrast
        for number, pair in enumerate(SHAPES[contrast.kind](contrast), start=1):
            if pair.positive == pair.negative:
                raise RecipeError(
                    f"recipe '{self.recipe.name}': contrast: pair {number} is the same on both sides: "
                    f"{pair.positive.text!r:.80}",
                    "let the sides differ in the concept",
                )
            yield pair.keys


def plan(recipe: Recipe) -> Plan:
    """Return the pairs of a recipe.

    Raises:
        RecipeError: No pair, or a pair with the same words on both sides.
    """
    flags = held_out(_Keys(recipe), recipe.holdout, recipe.seed)
    if not flags:
        raise RecipeError(f"recipe '{recipe.name}': contrast: gives no pair", "add prompts, pairs or suffixes")
    return Plan(recipe.contrast, flags)


def system_prompt(template: str, persona: str) -> str:
    """Return the system prompt of a persona; the empty persona is the model's plain self and has none.

    >>> system_prompt("You are {persona}.", "a happy clerk")
    'You are a happy clerk.'
    >>> system_prompt("You are {persona}.", "")
    ''
    """
    return render(template, persona=persona) if persona else ""


def uses_chat(contrast: Contrast) -> bool:
    """Say whether texts of this contrast go through the model's chat template."""
    return isinstance(contrast, (PersonaContrast, ResponseContrast)) or (
        isinstance(contrast, PairContrast) and contrast.chat
    )


def _combinations(contrast: PersonaContrast | ResponseContrast) -> Iterator[tuple[str, str, str, str]]:
    """Yield (template, prompt, positive persona, negative persona); the shorter lists are cycled."""
    positive, negative, templates, prompts = contrast.positive, contrast.negative, contrast.templates, contrast.prompts
    personas = range(max(len(positive), len(negative)))
    chosen: Iterable[tuple[str, str, int]]
    if contrast.combine == "zip":
        count = max(len(personas), len(templates), len(prompts))
        chosen = ((templates[i % len(templates)], prompts[i % len(prompts)], i) for i in range(count))
    else:
        chosen = product(templates, prompts, personas)
    for template, prompt, index in chosen:
        yield template, prompt, positive[index % len(positive)], negative[index % len(negative)]


def _personas(contrast: PersonaContrast) -> Iterator[PlannedPair]:
    for template, prompt, *personas in _combinations(contrast):
        positive, negative = (
            Passage(prompt, chat=True, system=system_prompt(template, persona)) for persona in personas
        )
        yield PlannedPair(positive, negative, (prompt,))


def _responses(contrast: ResponseContrast) -> Iterator[PlannedPair]:
    for template, prompt, *personas in _combinations(contrast):
        systems = [system_prompt(template, persona) for persona in personas]
        positive, negative = (
            Passage(prompt, chat=True, system=system if contrast.keep_persona else "", asked_under=system)
            for system in systems
        )
        yield PlannedPair(positive, negative, (prompt,))


def _pairs(contrast: PairContrast) -> Iterator[PlannedPair]:
    for pair in contrast.pairs:
        if pair.prompt is None:
            positive, negative = (Passage(text, chat=contrast.chat) for text in (pair.positive, pair.negative))
            yield PlannedPair(positive, negative, (pair.positive, pair.negative))
        else:
            positive, negative = (
                Passage(pair.prompt, chat=contrast.chat, answer=text) for text in (pair.positive, pair.negative)
            )
            yield PlannedPair(positive, negative, (pair.prompt,))


def _suffixes(contrast: SuffixContrast) -> Iterator[PlannedPair]:
    personas = range(max(len(contrast.positive), len(contrast.negative)))
    for suffix, index in product(contrast.suffixes, personas):
        sides = []
        for choices in (contrast.positive, contrast.negative):
            filled = render(contrast.template, persona=choices[index % len(choices)], suffix=CUT)
            before, _, after = filled.partition(CUT)
            sides.append(Passage(before, suffix=suffix, after_suffix=after))
        yield PlannedPair(sides[0], sides[1], (suffix,))


SHAPES: Mapping[str, Callable[[Any], Iterator[PlannedPair]]] = {
    "personas": _personas,
    "responses": _responses,
    "pairs": _pairs,
    "suffixes": _suffixes,
}
"""The shapes of a contrast by the word that a recipe uses for them.

Files of pairs and of suffixes are no shape of their own: reading a recipe has put their content in its place.
"""
