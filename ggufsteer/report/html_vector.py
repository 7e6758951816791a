"""The part of a report's page about one vector: verdict, curves, doses, controls, layers.

Every function gives markup, or an empty text where the document holds nothing of the kind.
"""

from __future__ import annotations

from collections.abc import Sequence

from ggufsteer.report.charts import BLUE, DASHES, ORANGE, key
from ggufsteer.report.charts_dose import (
    FLUENCY,
    FLUENCY_STYLES,
    damage_chart,
    effect_chart,
    fluency_chart,
    marks_chart,
    points,
)
from ggufsteer.report.charts_layers import layers_chart, projection_chart, relative_size
from ggufsteer.report.html_parts import block, chart, figure_cell, section, table
from ggufsteer.report.page import details, figure, soft, words
from ggufsteer.report.summary import UNIT, at_budget, summary
from ggufsteer.report.terminal import control_name
from ggufsteer.report.values import (
    ABSENT,
    JSON,
    between,
    dose,
    effects,
    interval,
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

_VERDICTS = {
    "effect": ("works", "It works"),
    "no effect": ("nothing", "NO EFFECT"),
    "not measured": ("unknown", "Not measured"),
}


def verdict(document: JSON, vector: JSON) -> str:
    """Give the verdict, and the numbers that decide."""
    found = summary(document, vector)
    kind, loud = _VERDICTS[found.verdict]
    sentence = found.sentence.removeprefix("It works: ").removeprefix("No effect was found: ")
    sentence = sentence[:1].upper() + sentence[1:]
    advice = f"<p>{figure(found.advice)}</p>" if found.advice else ""
    return f'<div class="verdict {kind}"><b>{loud}</b><p>{figure(sentence)}</p>{advice}</div>\n' + _tiles(vector)


def _tiles(vector: JSON) -> str:
    digits = places(effects(vector))
    at = record(vector, "at_budget")
    bounds, size = interval(at, "interval"), number(at, "strength")
    about = f"{between(bounds, digits)}; strength ±{strength(size)}" if bounds and size is not None else ""
    tiles = [
        ("effect at equal KL", signed(number(at, "effect"), digits), about),
        ("recommended", strength(number(vector, "recommended")), "strength"),
        ("maximum", strength(number(vector, "maximum")), "strength"),
        ("slope", signed(number(vector, "slope"), digits), f"{UNIT} per unit of strength"),
        ("order", plain(number(vector, "monotonicity")), "Spearman; 1: more strength, more effect"),
        ("wrong way", percent(number(vector, "wrong_way")), "of the items move against it"),
    ]
    known = [
        f"<div><dt>{name}</dt><dd>{figure(value)}<small>{figure(note)}</small></dd></div>"
        for name, value, note in tiles
        if value != ABSENT
    ]
    # One alone has been said in words above.
    return f'<dl class="tiles">{"".join(known)}</dl>\n' if len(known) > 1 else ""


def curves(document: JSON, vector: JSON, prefix: str, level: int) -> str:
    """Draw effect, damage and fluency over strength, and write the numbers below."""
    charts = [
        chart(
            "Effect",
            "the log-odds of the positive side; the band is the 95 % interval",
            effect_chart(vector, f"{prefix}-effect"),
        ),
        chart(
            "Damage",
            "how far the distributions move on text without the concept",
            damage_chart(document, vector, f"{prefix}-damage"),
            [(key(ORANGE, (), "o"), "95th percentile"), (key(BLUE, DASHES[1], "s"), "mean")],
        ),
        chart(
            "Fluency",
            "how its answers read",
            fluency_chart(vector, f"{prefix}-fluency"),
            [(key(*style), word) for style, (_, word) in zip(FLUENCY_STYLES, FLUENCY, strict=True)],
        ),
        chart(
            "Marks",
            "answers that show the concept",
            marks_chart(vector, f"{prefix}-marks"),
            [
                (mark, word)
                for name, mark, word in (
                    ("marks", key(ORANGE, (), "o"), "a mark of it"),
                    ("opposite_marks", key(BLUE, DASHES[1], "s"), "a mark of its opposite"),
                )
                if len(points(vector, name)[0]) > 1
            ],
        ),
    ]
    return section(level, "Dose by dose", block("charts", charts) + _doses(vector) + _fluency(vector))


def _doses(vector: JSON) -> str:
    digits = places(effects(vector))
    measured = records(vector, "doses")
    columns = {
        "effect": [
            _below(signed(number(one, "effect"), digits), between(interval(one, "interval"), digits))
            for one in measured
        ],
        "wrong way": [figure(percent(number(one, "wrong_way"))) for one in measured],
        "KL p95": [_damage(record(one, "neutral")) for one in measured],
        "perplexity": [figure(_ratio(number(one, "neutral", "perplexity_ratio"))) for one in measured],
        "own p95": [_damage(record(one, "own")) for one in measured],
        "own perpl.": [figure(_ratio(number(one, "own", "perplexity_ratio"))) for one in measured],
        "marks": [figure(percent(number(one, "marks"))) for one in measured],
        "opposite": [figure(percent(number(one, "opposite_marks"))) for one in measured],
    }
    drawn = _over_strengths(vector, columns)
    note = (
        f"Effect in {UNIT}, below it the 95 % interval; KL in nats on neutral text, and on the model's own answers, "
        "below it the mean; perplexity against unsteered; marks: answers that show a mark of the concept, or of its "
        "opposite."
    )
    return drawn + soft(note) if drawn else ""


def _fluency(vector: JSON) -> str:
    measured = [one for one in records(vector, "doses") if record(one, "fluency")]
    columns = {
        "read well": [figure(percent(number(one, "fluency", "fluent"))) for one in measured],
        "ended": [figure(percent(number(one, "fluency", "ended"))) for one in measured],
        "different pairs": [figure(percent(number(one, "fluency", "distinct_2"))) for one in measured],
        "longest repeat": [figure(percent(number(one, "fluency", "longest_repeat"))) for one in measured],
        "compression": [figure(plain(number(one, "fluency", "compression"))) for one in measured],
        "surprise": [figure(plain(number(one, "fluency", "surprise"))) for one in measured],
    }
    return details("fluency in numbers", _over_strengths({**vector, "doses": measured}, columns))


def _over_strengths(vector: JSON, columns: dict[str, list[str]]) -> str:
    """Write a row a strength, without the columns that nobody has measured."""
    measured = records(vector, "doses")
    wanted = {name: cells for name, cells in columns.items() if any(cell != ABSENT for cell in cells)}
    if not wanted:
        return ""
    rows = [
        [_strength_cell(one, vector), *(cells[place] for cells in wanted.values())]
        for place, one in enumerate(measured)
    ]
    marked = [number(one, "strength") in _marked(vector) for one in measured]
    return table(["strength", *wanted], rows, wide=True, marked=marked)


def _marked(vector: JSON) -> dict[float, str]:
    """Give the strengths that have a name."""
    named: dict[float, str] = {}
    for name in ("recommended", "maximum"):
        at = number(vector, name)
        if at is not None:
            named[at] = f"{named[at]}, {name}" if at in named else name
    return named


def _strength_cell(one: JSON, vector: JSON) -> str:
    at = number(one, "strength")
    name = _marked(vector).get(at or 0.0, "").replace("recommended", "rec.").replace("maximum", "max.")
    tag = f'<span class="tag">{name}</span>' if name and at is not None else ""
    return f"{tag} {figure(dose(at))}".strip()


def _damage(part: JSON) -> str:
    """Write a 95th percentile with the mean below it."""
    return _below(plain(number(part, "p95")), plain(number(part, "mean")))


def _ratio(value: float | None) -> str:
    return ABSENT if value is None else f"×{value:.2f}"


def controls(document: JSON, vector: JSON, level: int) -> str:
    """Compare the vector with what was done in its place, and with a system prompt."""
    at, prompt = at_budget(vector), record(document, "system_prompt")
    others = [(control_name(one), one) for one in records(vector, "controls")]
    said = line(prompt, "text")
    others += [("system prompt", prompt)] if prompt else []
    if not others:
        return ""
    shown = ([("this vector", at)] if at else []) + others
    digits = places(effects(vector))
    ends = [one for _, part in shown for one in (number(part, "effect"), *(interval(part, "interval") or ()))]
    reach = max((abs(one) for one in ends if one is not None), default=0.0)
    rows = [
        [
            words(name),
            f'<td class="plot">{_bar(one, reach, own=one is at)}</td>',
            _below(signed(number(one, "effect"), digits), between(interval(one, "interval"), digits)),
            _below(plain(number(one, "neutral", "p95")), plain(number(one, "neutral", "mean"))),
        ]
        for name, one in shown
    ]
    columns = ["in its place", "", "effect", "KL p95"]
    note = soft(f"Effect in {UNIT}, below it the 95 % interval; KL on neutral text in nats, below it the mean.")
    note += soft(f"The system prompt: {said}") if said else ""
    return section(level, "Beside controls", table(columns, rows, named=True) + note)


def _below(value: str, less: str) -> str:
    """Write a number with a lesser one below it."""
    return figure(value) + (f"<small>{figure(less)}</small>" if less != ABSENT else "")


def _bar(one: JSON, reach: float, *, own: bool) -> str:
    """Draw an effect as a dot with its interval, 0 in the middle.

    Args:
        one: The part of a document that holds the effect.
        reach: The effect at the end of the drawing.
        own: Whether it is the vector's own.
    """
    effect = number(one, "effect")
    bounds = interval(one, "interval")
    if effect is None or not reach:
        return ""
    low, at, high = (
        50 + 46 * one / reach for one in (bounds[0] if bounds else effect, effect, bounds[1] if bounds else effect)
    )
    paint = "orange-ink" if own else "blue-ink"
    return (
        '<svg class="bar" aria-hidden="true"><line class="zero" x1="50%" x2="50%" y1="0" y2="100%"/>'
        f'<line x1="{low:.2f}%" x2="{high:.2f}%" y1="50%" y2="50%" style="stroke:var(--{paint})"/>'
        f'<circle cx="{at:.2f}%" cy="50%" r="4" style="fill:var(--{paint})"/></svg>'
    )


def layers(vector: JSON, prefix: str, level: int) -> str:
    """Draw the layers, and the states of the pairs at the best of them."""
    charts = [
        chart(
            "Layers",
            _about_layers(vector),
            layers_chart(vector, f"{prefix}-layers"),
        ),
        chart(
            f"The pairs in layer {figure_cell(number(vector, 'projection', 'layer'), 0)}",
            "their states along the vector’s direction there, and across it; hollow ones were held out",
            projection_chart(vector, f"{prefix}-pairs"),
            [(key(ORANGE, (), "o", line=False), "positive side"), (key(BLUE, (), "^", line=False), "negative side")],
        ),
    ]
    return section(level, "Layers", block("charts", charts) + details("layers in numbers", _layer_table(vector)))


def _about_layers(vector: JSON) -> str:
    """Say what the chart of the layers shows, as far as it does."""
    added = "how much the vector adds at each"
    if all(number(one, "auc") is None for one in records(vector, "layer_figures")):
        return f"{added}; no pairs were held out to judge them on"
    steered = "; steered ones are full" if numbers(vector, "layers") else ""
    return f"how well the recipe’s direction at each tells held-out pairs apart, and {added}{steered}"


def _layer_table(vector: JSON) -> str:
    figures = records(vector, "layer_figures")
    steered = numbers(vector, "layers")
    return table(
        ["layer", "size", "of the state", "AUC", "d′"],
        [
            [
                figure_cell(number(one, "layer"), 0),
                figure_cell(number(one, "size"), 3),
                figure(percent(relative_size(one))),
                figure_cell(number(one, "auc"), 3),
                figure_cell(number(one, "d_prime"), 2),
            ]
            for one in figures
        ],
        marked=[number(one, "layer") in steered for one in figures],
    )


def made_how(vector: JSON) -> str:
    """Say on one line how a vector was made, and where it is."""
    at = ranges(numbers(vector, "layers"))
    facts = [
        line(vector, "method"),
        f"position {line(vector, 'position')}" if line(vector, "position") else "",
        (f"layers {at}" if "–" in at or "," in at else f"layer {at}") if at else "",
        line(vector, "path"),
    ]
    said = " · ".join(fact for fact in facts if fact)
    return soft(said) if said else ""


def ranges(layers: Sequence[float]) -> str:
    """Write layer numbers, neighbours together.

    >>> ranges([9, 10, 11, 14]), ranges([3])
    ('9–11, 14', '3')
    """
    runs: list[list[int]] = []
    for one in sorted({int(layer) for layer in layers}):
        if runs and runs[-1][-1] == one - 1:
            runs[-1].append(one)
        else:
            runs.append([one])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)
