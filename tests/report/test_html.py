"""The report's page: it says what its document says, runs nothing, and lets no text from outside become markup."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from ggufsteer.report.html import BEGINNING, report_html
from ggufsteer.report.page import POLICY
from ggufsteer.tasks.layer_search import BEST, MIXES
from tests.report import documents

MAKERS = (
    documents.full,
    documents.minimal,
    documents.extraction,
    documents.several,
    documents.no_effect,
    documents.hostile,
)
VOID = {"meta", "link", "img", "br", "hr", "input"}
HARMLESS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "h4", "h5", "p", "b", "small", "span", "div"),
    *("section", "nav", "a", "dl", "dt", "dd", "figure", "figcaption", "table", "thead", "tbody", "tr", "th", "td"),
    *(
        "details",
        "summary",
        "pre",
        "code",
        "svg",
        "g",
        "path",
        "use",
        "text",
        "defs",
        "clippath",
        "rect",
        "line",
        "circle",
    ),
}


class Page(HTMLParser):
    """Reads a page, and complains about tags that are not closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of a tag and remember that it is open."""
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of a tag that closes itself."""
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost tag, which must be this one."""
        assert self._open
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep what a reader sees, charts left out."""
        if not {"style", "text"} & set(self._open):
            self.texts.append(data)

    @property
    def said(self) -> str:
        """Give all that a reader sees."""
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def drawn() -> Callable[[Callable[[], Any]], str]:
    """Give the page of a document; each is drawn once."""
    kept: dict[str, str] = {}

    def page(maker: Callable[[], Any]) -> str:
        if maker.__name__ not in kept:
            kept[maker.__name__] = report_html(maker())
        return kept[maker.__name__]

    return page


Drawn = Callable[[Callable[[], Any]], str]


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
class TestEveryPage:
    """What holds for every page, an attacker's included."""

    def test_is_balanced_and_of_harmless_tags_only(self, drawn: Drawn, maker: Callable[[], Any]) -> None:
        """Every tag is closed in order, and there is none that runs or loads something."""
        page = Page(drawn(maker))
        assert set(page.tags) <= HARMLESS
        assert page.tags["html"] == page.tags["title"] - page.tags["figure"] == page.tags["style"] == 1

    def test_refers_to_nothing_outside(self, drawn: Drawn, maker: Callable[[], Any]) -> None:
        """References stay within the page, no attribute is a handler, and the policy forbids the rest."""
        source = drawn(maker)
        page = Page(source)
        for _, name, value in page.attributes:
            assert not name.startswith("on")
            assert name not in {"src", "srcset", "action", "xlink:href", "xmlns"}
            assert name != "href" or value.startswith("#")
        assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", source)
        assert "@import" not in source
        assert POLICY in source
        assert source.startswith(BEGINNING)

    def test_names_are_unique_and_every_reference_has_one(self, drawn: Drawn, maker: Callable[[], Any]) -> None:
        """Several charts in one page do not take each other's shapes."""
        source = drawn(maker)
        names = Counter(value for _, name, value in Page(source).attributes if name == "id")
        assert all(count == 1 for count in names.values())
        assert set(re.findall(r'(?:url\(#|href="#)([\w-]+)', source)) <= set(names)

    def test_holds_no_control_character(self, drawn: Drawn, maker: Callable[[], Any]) -> None:
        """No escape sequence, no bidirectional control, no half character."""
        source = drawn(maker)
        assert not re.search(
            r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", source
        )
        source.encode()

    def test_the_same_document_gives_the_same_bytes(self, drawn: Drawn, maker: Callable[[], Any]) -> None:
        """Also after it was written to a file and read back, where it can be."""
        text = json.dumps(maker())
        assert report_html(json.loads(text)) == drawn(maker)


def test_hostile_markup_is_shown_as_text(drawn: Drawn) -> None:
    """What somebody named `<script>` is read, not run."""
    page = Page(drawn(documents.hostile))
    assert page.said.count('<script>alert("1")</script>&amp;') > 30
    assert "[31m" not in page.said


def test_colours_are_those_of_the_page(drawn: Drawn) -> None:
    """Charts follow light and dark: no colour of their own is left in any of them."""
    source = drawn(documents.full)
    charts = re.findall(r'<svg class="chart".*?</svg>', source, re.DOTALL)
    assert len(charts) == 6
    assert not [colour for chart in charts for colour in re.findall(r"#[0-9a-f]{6}\b", chart)]
    used = set(re.findall(r"var\(--([\w-]+)\)", source))
    style = source[source.index("<style>") : source.index("</style>")]
    assert used <= set(re.findall(r"--([\w-]+):", style))


def test_every_chart_says_its_gist(drawn: Drawn) -> None:
    """Who cannot see a chart is told what it shows."""
    attributes = Page(drawn(documents.full)).attributes
    labels = [value for tag, name, value in attributes if tag == "svg" and name == "aria-label"]
    assert len(labels) == 6
    assert all(re.search(r"\d", label) for label in labels)


def _rows(source: str, heading: str) -> list[list[str]]:
    """Give the cells of the table after a heading."""
    table = re.search(r"<tbody>(.*?)</tbody>", source[source.index(heading) :], re.DOTALL)
    assert table
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", table[1], re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[re.sub(r"<[^>]*>", " ", cell).replace("−", "-").strip() for cell in row] for row in cells]


def test_the_numbers_of_the_doses_are_those_of_the_document(drawn: Drawn) -> None:
    """Every cell of the table is its number, rounded."""
    vector = documents.full()["vectors"][0]
    rows = _rows(drawn(documents.full), "<h2>Dose by dose</h2>")
    assert len(rows) == len(vector["doses"])
    for row, one in zip(rows, vector["doses"], strict=True):
        low, high = one["interval"]
        wanted = [
            *(one["effect"], low, high, one["wrong_way"] * 100),
            *(one[kind][key] for kind in ("neutral", "own") for key in ("p95", "mean", "perplexity_ratio")),
            *(one["marks"] * 100, one["opposite_marks"] * 100),
        ]
        found = [float(part) for cell in row[1:] for part in re.findall(r"[-+]?\d+(?:\.\d+)?", cell)]
        assert float(row[0].split()[-1]) == one["strength"]
        assert len(found) == len(wanted)
        for shown, value in zip(found, wanted, strict=True):
            assert abs(shown - value) <= (0.5 if shown.is_integer() and abs(value) >= 1 else 0.00501)


def test_the_numbers_of_the_layers_are_those_of_the_document(drawn: Drawn) -> None:
    """Every cell of the table is its number, rounded."""
    figures = documents.full()["vectors"][0]["layer_figures"]
    rows = _rows(drawn(documents.full), "layers in numbers")
    for row, one in zip(rows, figures, strict=True):
        layer, size, share, auc, d_prime = (float(cell.removesuffix(" %")) for cell in row)
        assert layer == one["layer"]
        assert (size, auc) == pytest.approx((one["size"], one["auc"]), abs=0.000501)
        assert share == pytest.approx(one["size"] / one["state_norm"] * 100, abs=0.501)
        assert d_prime == pytest.approx(one["d_prime"], abs=0.00501)


def test_the_verdict_comes_first_with_its_numbers(drawn: Drawn) -> None:
    """The page begins with what the vector does at equal damage, and with the strengths to take."""
    said = Page(drawn(documents.full)).said
    assert said.index("It works") < said.index("Dose by dose")
    assert "From strength −1.6 to +1.6 the log-odds of its positive side change by +1.97 nats a token" in said
    assert "95 % interval 1.78 to 2.16" in said
    assert "Recommended strength 1, at most 1.6." in said


def test_no_effect_is_said_loudly(drawn: Drawn) -> None:
    """A vector that does nothing is not hidden among numbers, and no strength of it is recommended."""
    said = Page(drawn(documents.no_effect)).said
    assert "NO EFFECT" in said
    assert "It works" not in said
    assert "The interval includes 0" in said
    assert "Recommended strength" not in said


def test_the_least_document_makes_a_page(drawn: Drawn) -> None:
    """Where nothing was measured, the page says that and nothing else."""
    page = Page(drawn(documents.minimal))
    assert "has not been measured" in page.said
    assert not page.tags["svg"] + page.tags["table"] + page.tags["h2"]


def test_several_vectors_are_compared(drawn: Drawn) -> None:
    """They share a table and charts, and lines differ by more than colour."""
    source = drawn(documents.several)
    rows = _rows(source, "Side by side")
    assert [row[0].split()[-1] for row in rows] == ["happy-mean", "happy-pca", "happy-random"]
    assert [row[1] for row in rows] == ["works", "works", "no effect"]
    keys = re.findall(r'<svg class="key".*?</svg>', source[source.index("Side by side") :])[:3]
    assert len({re.sub(r"--series-\d", "", key) for key in keys}) == 3


def _paths(part: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(part, dict):
        inner = [path for key, one in part.items() for path in _paths(one, (*at, key))]
    elif isinstance(part, list):
        inner = [path for place, one in enumerate(part[:2]) for path in _paths(one, (*at, place))]
    else:
        inner = []
    return [at, *inner] if at else inner


@pytest.mark.parametrize("offset", [0, 1])
def test_a_part_of_another_kind_is_left_out(offset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever one part of a document is, the rest is drawn all the same."""
    odd: tuple[Any, ...] = (None, "text", -1, {}, [[]])
    for module in ("charts_dose", "charts_layers"):
        monkeypatch.setattr(f"ggufsteer.report.{module}.drawn", _painted_by_nobody)
    for place, path in enumerate(_paths(documents.full())):
        document = documents.full()
        part: Any = document
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = odd[(place + offset) % len(odd)]
        Page(report_html(document))


def _painted_by_nobody(paint: Any, *, gist: str, prefix: str, height: float = 0.0) -> str:
    return "<svg></svg>"


@pytest.mark.parametrize(
    "doses",
    [
        [],
        [{"strength": 1.0, "effect": 0.5}],
        [{"strength": 1.0, "effect": 0.5}, {"strength": 1.0, "effect": 0.7}],
        [{"strength": 0.0, "effect": 0.0}, {"strength": 1.0}],
        [
            {"strength": 0.0, "effect": 1e308, "neutral": {"p95": 2}},
            {"strength": 1.0, "effect": 0.5, "neutral": {"p95": 1}},
        ],
        [{"strength": 2.0, "effect": float("nan")}, {"strength": 1.0, "effect": 1e11}, {"strength": 0, "effect": 0}],
    ],
)
def test_few_or_odd_doses_are_drawn_as_far_as_they_go(doses: list[dict[str, Any]]) -> None:
    """One point is no curve, and what cannot be a measurement is left out."""
    document = documents.full()
    document["vectors"][0]["doses"] = doses
    Page(report_html(document))


def test_the_settings_of_a_person_do_not_change_a_chart(drawn: Drawn) -> None:
    """Another style set for matplotlib elsewhere has no influence, and stays as it was."""
    import matplotlib as mpl

    before = drawn(documents.full)
    with mpl.rc_context({"axes.linewidth": 9.0, "svg.fonttype": "path", "xtick.direction": "in"}):
        assert report_html(documents.full()) == before
        assert mpl.rcParams["axes.linewidth"] == 9.0


def test_matplotlib_is_loaded_only_for_a_chart() -> None:
    """A command that draws nothing does not wait for it."""
    code = "import sys; import ggufsteer.report.html, ggufsteer.report.terminal; print('matplotlib' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "False"


def _calibrated(steps: list[dict[str, Any]], **found: Any) -> str:
    """Draw a page of nothing but a calibration."""
    vector = {"name": "v", "layers": [2, 3], "calibration": {"budget": 0.5, "steps": steps, **found}}
    return report_html({"format": 1, "kind": "calibration", "model": {"n_layer": 8}, "vectors": [vector]})


def _step(what: str, layers: list[int], effect: float, *, chosen: bool = False) -> dict[str, Any]:
    return {"what": what, "layers": layers, "strength": 1.0, "effect": effect, "p95": 0.5, "chosen": chosen}


def test_the_best_choice_of_layers_comes_first_and_the_chosen_one_is_marked() -> None:
    """Whatever the order in the document; the words of the search are explained as far as they occur."""
    page = _calibrated([_step("layer", [3], 0.25), _step("band", [2, 3, 4], 0.75, chosen=True)])
    assert page.index("band") < page.index("2–4") < page.index("0.75") < page.index("0.25")
    assert page.count('<tr class="marked">') == 1
    assert page.count(">chosen<") == 1
    assert "Band: neighbouring layers" in page
    assert "Mixture" not in page


def test_of_choices_of_the_same_layers_the_one_that_was_taken_is_marked() -> None:
    """They differ in their weights, and the document says which it was."""
    page = _calibrated([_step("mixture of all", [2, 3], 0.5), _step("band", [2, 3], 0.25, chosen=True)])
    assert page.count('<tr class="marked">') == page.count(">chosen<") == 1
    assert page.index("mixture of all") < page.index('<tr class="marked">') < page.index(">chosen<")


@pytest.mark.parametrize("what", ["layer", "band", "whole", BEST, *(mix.name for mix in MIXES)])
def test_each_kind_of_choice_that_there_is_is_explained(what: str) -> None:
    """In one sentence, before the table."""
    plain, explained = (_calibrated([_step(kind, [3], 0.25)]) for kind in ("unheard of", what))
    opening = "as far as answers stay fluent."
    assert opening + "</p>" in plain
    assert opening + "</p>" not in explained


def test_many_choices_are_folded_away() -> None:
    """Eight are open, the others a click away."""
    page = _calibrated([_step("layer", [layer], 1.0 / layer) for layer in range(1, 12)])
    assert "3 more that were tried" in page


def test_what_came_of_a_calibration_is_said() -> None:
    """Damage on both kinds of text, fluency, how far one may go, and the cost."""
    page = _calibrated([], p95=0.49, check_p95=0.52, fluent=0.96, maximum=1.4, evaluations=36, tokens=32429)
    for said in ("0.49 nats", "0.52 on text", "96 % of answers", "fluent up to 1.4", "36 evaluations of 32,429 tokens"):
        assert said in page
