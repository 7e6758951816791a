"""The parts of a report's page that are read, not measured: answers, pairs, words, provenance.

Nearly all of it is text from outside. Every function gives markup, or an empty text where there is nothing of the kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ggufsteer.report.html_parts import block, facts, figure_cell, section, table
from ggufsteer.report.html_vector import ranges
from ggufsteer.report.page import details, figure, prose, soft, words
from ggufsteer.report.values import (
    JSON,
    dose,
    line,
    lines,
    number,
    percent,
    record,
    records,
    signed,
    text,
)

_QUESTIONS = 4
"""So many questions are open; a page of more of them hides what comes after."""
_CLEAR_CHANCE = 0.1
"""Words of a layer whose chance is higher than that say little."""


def samples(vector: JSON, level: int) -> str:
    """Put the answers to each question side by side, by strength."""
    questions = [one for one in map(_question, records(vector, "samples")) if one]
    more = questions[_QUESTIONS:]
    folded = details(f"{len(more)} more question{'s' * (len(more) > 1)}", "".join(more))
    return section(level, "The same question at several strengths", "".join(questions[:_QUESTIONS]) + folded)


def _question(sample: JSON) -> str:
    cards = [_answer(one) for one in records(sample, "answers")]
    question = line(sample, "question")
    heading = f"<h4>{words(question)}</h4>\n" if question else ""
    return heading + block("answers", cards) if cards else ""


def _answer(one: JSON) -> str:
    at = number(one, "strength")
    kind = ' class="plus"' if (at or 0) > 0 else ' class="minus"' if (at or 0) < 0 else ""
    remark = " <small>unsteered</small>" if at == 0 else ""
    # An answer that was cut off says so; of an unknown one nothing is said.
    cut = "" if number(one, "ended") in (None, 1.0) else " …"
    return f"<section{kind}><h5>{figure(dose(at))}{remark}</h5><p>{prose(text(one, 'text'))}{cut}</p></section>\n"


def pairs(vector: JSON, level: int) -> str:
    """List the pairs that gain most at strength 1, and those that gain least."""
    columns = [
        f"<div><h4>{heading}</h4>{''.join(_pair(one) for one in found)}</div>\n"
        for heading, found in (
            ("gain most", records(vector, "pairs", "best")),
            ("gain least", records(vector, "pairs", "worst")),
        )
        if found
    ]
    note = soft("The number is the gain in log-odds at strength 1, nats a token.")
    return section(level, "Pairs", block("columns", columns) + note if columns else "")


def _pair(one: JSON) -> str:
    shown = [
        f'<p class="side{kind}">{prose(text(one, key))}</p>'
        for key, kind in (("positive", ""), ("negative", " other"))
        if text(one, key)
    ]
    score = figure(signed(number(one, "score")))
    return f'<div class="pair"><b>{score}</b>{prose(text(one, "text"))}{"".join(shown)}</div>\n'


def lens(vector: JSON, level: int) -> str:
    """List the tokens that each layer's direction promotes and suppresses."""
    found = records(vector, "lens")
    rows = [
        [
            figure_cell(number(one, "layer"), 0),
            figure(percent(number(one, "chance"))),
            f'<td class="word">{_tokens(lines(one, "promoted"), "")}</td>',
            f'<td class="word">{_tokens(lines(one, "suppressed"), " down")}</td>',
        ]
        for one in found
    ]
    columns = ["layer", "chance", "promotes", "suppresses"]
    faint = [(number(one, "chance") or 0.0) > _CLEAR_CHANCE for one in found]
    drawn = table(columns, rows, faint=faint, words=(2, 3))
    note = "Chance: the part of random directions whose words stand out as much; pale rows may be noise."
    return section(level, "In the model's own words", drawn + soft(note) if drawn else "")


def _tokens(tokens: Sequence[str], kind: str) -> str:
    return " ".join(f'<span class="token{kind}">{words(token)}</span>' for token in tokens if token)


def provenance(document: JSON) -> str:
    """Say what everything came from, so that it can be measured again."""
    model, recipe = record(document, "model"), record(document, "recipe")
    shown = [
        ("model", words(line(model, "name"))),
        ("architecture", _shape(model)),
        ("model file", words(line(model, "path"))),
        ("content hash", _code(line(model, "content_hash"))),
        ("recipe", words(line(recipe, "name"))),
        ("recipe hash", _code(line(recipe, "hash"))),
        ("measured on", words(line(document, "measured_on"))),
        ("items", _items(record(document, "items"))),
        ("seed", words(line(document, "seed"))),
        ("versions", _free(record(document, "versions"))),
        ("settings", _free(record(document, "settings"))),
    ]
    body = facts(shown)
    whole = text(recipe, "text").strip("\n")
    body += details("the recipe", f"<pre>{prose(whole)}</pre>\n" if whole else "")
    return section(2, "Where this comes from", body)


def _shape(model: JSON) -> str:
    said = [
        line(model, "architecture"),
        f"{number(model, 'n_layer'):.0f} layers" if number(model, "n_layer") is not None else "",
        f"width {number(model, 'n_embd'):.0f}" if number(model, "n_embd") is not None else "",
    ]
    return words(", ".join(one for one in said if one))


def _items(items: JSON) -> str:
    counts = (
        ("count", "items"),
        ("distinct_tokens", "distinct tokens"),
        ("neutral_tokens", "tokens of neutral text"),
        ("evaluations", "evaluations"),
    )
    said = [line(items, "source")]
    said += [f"{number(items, key):,.0f} {word}" for key, word in counts if number(items, key) is not None]
    return words(", ".join(one for one in said if one))


def _code(value: str) -> str:
    return f"<code>{words(value)}</code>" if value else ""


def _free(part: JSON) -> str:
    """Write a free table on one line."""
    return ", ".join(f"{words(str(key))} {words(_flat(value))}" for key, value in part.items() if value is not None)


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_flat(one)}" for key, one in value.items()) + ")"
    if isinstance(value, list):
        whole = [one for one in value if isinstance(one, int) and not isinstance(one, bool)]
        return ranges(whole) if value and len(whole) == len(value) else ", ".join(_flat(one) for one in value)
    return str(value)
