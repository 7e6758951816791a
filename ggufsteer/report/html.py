"""A report as one web page, drawn from its document alone: what vectors do, what they cost, and where they come from.

The page is self-contained and runs nothing. It decides the order of the parts; each of them leaves itself out where
the document holds nothing for it. The same document gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ggufsteer.report.charts import key
from ggufsteer.report.charts_dose import effects_chart, series_style, trade_chart
from ggufsteer.report.html_calibration import calibration
from ggufsteer.report.html_evidence import lens, pairs, provenance, samples
from ggufsteer.report.html_parts import block, chart, section, table
from ggufsteer.report.html_style import REPORT_STYLE
from ggufsteer.report.html_vector import controls, curves, layers, made_how, verdict
from ggufsteer.report.page import beginning, figure, head, soft, words
from ggufsteer.report.summary import UNIT, name_of, summary, title_of
from ggufsteer.report.values import (
    JSON,
    between,
    effects,
    interval,
    line,
    lines,
    number,
    percent,
    places,
    plain,
    records,
    signed,
    strength,
)

MADE_BY = "ggufsteer report"
BEGINNING = beginning(MADE_BY)
"""What each report begins with: a file of another beginning is none of ours."""

_KINDS = {"extraction": "A new vector", "evaluation": "Evaluation", "calibration": "Calibration"}


def report_html(document: Mapping[str, Any]) -> str:
    """Write the page.

    Args:
        document: What `report.json` holds. Whatever is missing in it, null or of another kind is left out.

    Returns:
        The whole file.
    """
    return "".join(_page(document))


def _page(document: JSON) -> Iterator[str]:
    vectors = records(document, "vectors")
    yield head(MADE_BY, title_of(document), REPORT_STYLE)
    yield _header(document)
    if len(vectors) == 1:
        yield verdict(document, vectors[0])
        yield _warnings(document)
        yield from _vector(document, vectors[0], "v0", 2)
    else:
        yield _warnings(document)
        yield _comparison(document, vectors)
        for place, vector in enumerate(vectors):
            yield f'<h2 id="v{place}">{words(name_of(vector))}</h2>\n{made_how(vector)}{verdict(document, vector)}'
            yield from _vector(document, vector, f"v{place}", 3)
    yield provenance(document)
    yield "</body></html>\n"


def _header(document: JSON) -> str:
    vectors = records(document, "vectors")
    kind = _KINDS.get(line(document, "kind"), "Report")
    said = f'<p class="eyebrow">{kind}</p>\n<h1>{words(title_of(document))}</h1>\n'
    description = line(document, "description")
    said += f'<p class="lead">{words(description)}</p>\n' if description else ""
    model = line(document, "model", "name")
    said += soft(f"for {model}") if model else ""
    if len(vectors) == 1:
        return said + made_how(vectors[0])
    links = "".join(f'<a href="#v{place}">{words(name_of(vector))}</a>' for place, vector in enumerate(vectors))
    return said + (f"<nav>{links}</nav>\n" if links else "")


def _warnings(document: JSON) -> str:
    found = lines(document, "warnings")
    return f'<div class="warnings">{"".join(f"<p>{words(one)}</p>" for one in found)}</div>\n' if found else ""


def _vector(document: JSON, vector: JSON, prefix: str, level: int) -> Iterator[str]:
    yield curves(document, vector, prefix, level)
    yield samples(vector, level)
    yield controls(document, vector, level)
    yield layers(vector, prefix, level)
    yield lens(vector, level)
    yield pairs(vector, level)
    yield calibration(document, vector, level)


def _comparison(document: JSON, vectors: list[JSON]) -> str:
    """Put the numbers of all vectors into one table, and their curves into one chart."""
    if not vectors:
        return ""
    digits = places(one for vector in vectors for one in effects(vector))
    rows = [
        [
            f'<a href="#v{place}">{key(*series_style(place))}{words(name_of(vector))}</a>',
            _verdict_cell(document, vector),
            figure(signed(number(vector, "at_budget", "effect"), digits)),
            figure(between(interval(vector, "at_budget", "interval"), digits)),
            figure(strength(number(vector, "at_budget", "strength"))),
            figure(signed(number(vector, "slope"), digits)),
            figure(plain(number(vector, "monotonicity"))),
            figure(percent(number(vector, "wrong_way"))),
            figure(strength(number(vector, "recommended"))),
            figure(strength(number(vector, "maximum"))),
        ]
        for place, vector in enumerate(vectors)
    ]
    columns = ["vector", "", "effect", "95 % interval", "at", "slope", "order", "wrong way", "rec.", "max."]
    note = (
        f"Effect in {UNIT}, from minus to plus the strength “at” which the damage is equal; slope a unit of strength; "
        "order is 1 where more strength always has more effect."
    )
    keys = [(key(*series_style(place)), words(name_of(vector))) for place, vector in enumerate(vectors)]
    charts = [
        chart("Effect", "over strength", effects_chart(vectors, "all-effects"), keys),
        chart(
            "Effect for damage", "what each gains for what it costs", trade_chart(document, vectors, "all-trades"), keys
        ),
    ]
    return section(
        2, "Side by side", table(columns, rows, wide=True, named=True) + soft(note) + block("charts", charts)
    )


def _verdict_cell(document: JSON, vector: JSON) -> str:
    return {
        "effect": '<td class="word good">works</td>',
        "no effect": '<td class="word bad">no effect</td>',
        "not measured": '<td class="word">not measured</td>',
    }[summary(document, vector).verdict]
