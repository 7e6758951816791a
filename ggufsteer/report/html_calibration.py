"""The part of a report's page about calibration: which layers were tried, what each does, and what came out.

It decides what is shown first; the choice itself comes with the document.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from types import MappingProxyType

from ggufsteer.report.html_parts import section, table
from ggufsteer.report.html_vector import ranges
from ggufsteer.report.page import details, figure, soft, words
from ggufsteer.report.summary import UNIT
from ggufsteer.report.values import (
    JSON,
    line,
    number,
    numbers,
    percent,
    places,
    plain,
    record,
    records,
    signed,
    strength,
)

_SHOWN = 8
_DEEPEST = 1000
"""A model of more layers is none, and its picture would be as large as the page."""
_MEANINGS = MappingProxyType(
    {
        "layer": "Layer: one alone",
        "band": "Band: neighbouring layers as they are",
        "mixture of directions": "Mixture: layers with the weights that make the most of the budget",
        "mixture of methods": "of methods: of the directions of three methods",
        "mixture of all": "of all: and of axes along which states spread anyway, to take damage back",
        "sum of methods": "Sum: no weight below 0",
        "mixture of the best": "of the best: of what came out best, weighed by what it does at this damage",
        "whole": "Whole: all layers of the vector as they are",
    }
)


def calibration(document: JSON, vector: JSON, level: int) -> str:
    """Say which layers were tried, which were chosen, and what the dose was found to do."""
    part = record(vector, "calibration")
    steps = sorted(records(part, "steps"), key=lambda step: -(number(step, "effect") or 0.0))
    first, rest = _tried(document, steps[:_SHOWN], steps), _tried(document, steps[_SHOWN:], steps)
    opening = soft(_method(part, steps)) if steps else ""
    folded = details(f"{len(steps) - _SHOWN} more that were tried", rest)
    said = _outcome(part)
    return section(level, "Calibration", opening + first + folded + (f"<p>{figure(said)}</p>\n" if said else ""))


def _method(part: JSON, steps: Sequence[JSON]) -> str:
    budget = number(part, "budget")
    named = f" of {plain(budget)} nats" if budget is not None else ""
    kinds = dict.fromkeys(_MEANINGS[kind] for step in steps if (kind := line(step, "what")) in _MEANINGS)
    told = f" {'; '.join(kinds)}." if kinds else ""
    return (
        f"Each choice of layers was brought to about the same damage{named}, and judged by its effect there ({UNIT}, "
        f"from minus to plus, on pairs the vector was made from) as far as answers stay fluent.{told}"
    )


def _tried(document: JSON, shown: Sequence[JSON], steps: Sequence[JSON]) -> str:
    """Draw a row a choice of layers."""
    digits = places(number(step, "effect") for step in steps)
    most = max((number(step, "effect") or 0.0 for step in steps), default=0.0)
    tag = '<span class="tag">chosen</span>'
    rows = [
        [
            words(line(step, "what") or "choice") + (tag if number(step, "chosen") == 1.0 else ""),
            f'<td class="word">{words(ranges(numbers(step, "layers")))}{_strip(document, step, steps)}</td>',
            f'<td class="plot">{_bar(number(step, "effect"), most)}</td>',
            figure(signed(number(step, "effect"), digits)),
            figure(plain(number(step, "p95"))),
        ]
        for step in shown
    ]
    marked = [number(step, "chosen") == 1.0 for step in shown]
    return table(["tried", "layers", "", "effect", "KL p95"], rows, named=True, words=(1,), marked=marked)


def _strip(document: JSON, step: JSON, steps: Sequence[JSON]) -> str:
    """Draw the layers of a choice as parts of the model's depth."""
    deepest = max((layer for one in steps for layer in numbers(one, "layers")), default=0.0)
    depth = int(max(number(document, "model", "n_layer") or 0.0, deepest + 1))
    layers = sorted({int(layer) for layer in numbers(step, "layers") if 0 <= layer < depth})
    if not layers or depth > _DEEPEST:
        return ""
    starts = [layers[0], *(after for before, after in pairwise(layers) if after > before + 1)]
    ends = [*(before for before, after in pairwise(layers) if after > before + 1), layers[-1]]
    full = "".join(
        f'<rect x="{first}" y="0" width="{last - first + 1}" height="1" style="fill:var(--orange-ink)"/>'
        for first, last in zip(starts, ends, strict=True)
    )
    return (
        f'<svg class="strip" viewBox="0 0 {depth} 1" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect x="0" y="0" width="{depth}" height="1" style="fill:var(--line)"/>{full}</svg>'
    )


def _bar(effect: float | None, most: float) -> str:
    if effect is None or effect <= 0 or most <= 0:
        return ""
    return (
        '<svg class="bar" aria-hidden="true"><rect x="0" y="25%" height="50%" rx="2" '
        f'width="{100 * effect / most:.1f}%" style="fill:var(--blue-ink)"/></svg>'
    )


def _outcome(part: JSON) -> str:
    """Say what strength 1 does, how far one may go, and what it took."""
    p95, other, fluent = (number(part, key) for key in ("p95", "check_p95", "fluent"))
    maximum, evaluations, tokens = (number(part, key) for key in ("maximum", "evaluations", "tokens"))
    found = f"a damage of {plain(p95)} nats" if p95 is not None else ""
    checked = f"{plain(other)} on text that the calibration had not seen" if other is not None else ""
    damage = ", ".join(one for one in (found, checked) if one)
    heard = f"{percent(fluent)} of answers are fluent" if fluent is not None else ""
    opening = "; ".join(one for one in (damage, heard) if one)
    sentences = [
        f"At strength 1: {opening}." if opening else "",
        f"Answers stay fluent up to {strength(maximum)}." if maximum else "",
        f"{evaluations:,.0f} evaluations" + (f" of {tokens:,.0f} tokens in all." if tokens else ".")
        if evaluations is not None
        else "",
    ]
    return " ".join(one for one in sentences if one)
