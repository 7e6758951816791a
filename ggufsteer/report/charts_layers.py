"""Charts of the layers of a vector, and of the states of its pairs at one of them.

It decides what is drawn where, and takes nothing but the parts of a document; where there is nothing, the answer is an
empty text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ggufsteer.report.charts import BLUE, LINE, ORANGE, SOFT, drawn
from ggufsteer.report.values import JSON, line, number, numbers, percent, plain, record, records

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT = 4.6
SIDES = (("positive", ORANGE, "o"), ("negative", BLUE, "^"))


def relative_size(figures: JSON) -> float | None:
    """Give the length of what is added in a layer as a share of a state's."""
    size, norm = number(figures, "size"), number(figures, "state_norm")
    return size / norm if size is not None and norm else None


def layers_chart(vector: JSON, prefix: str) -> str:
    """Draw how well each layer separates the pairs, and how much is added there."""
    figures = [one for one in records(vector, "layer_figures") if number(one, "layer") is not None]
    steered = set(numbers(vector, "layers"))
    auc, d_prime = (_known(figures, [number(one, name) for one in figures]) for name in ("auc", "d_prime"))
    sizes = _known(figures, [relative_size(one) for one in figures])
    painters: list[Callable[[Axes], None]] = []
    if auc:
        painters.append(lambda axes: _separation(axes, auc, steered, "AUC", chance=0.5))
    if d_prime:
        painters.append(lambda axes: _separation(axes, d_prime, steered, "d′", chance=0.0))
    if sizes:
        painters.append(lambda axes: _sizes(axes, sizes, steered))
    if not painters:
        return ""

    def paint(figure: Figure) -> None:
        panels = figure.subplots(len(painters), 1, sharex=True, squeeze=False)[:, 0]
        for axes, painter in zip(panels, painters, strict=True):
            painter(axes)
        panels[-1].set_xlabel("layer")
        panels[-1].locator_params(axis="x", integer=True)

    return drawn(paint, gist=_gist(auc, sizes), prefix=prefix, height=HEIGHT)


Known = Sequence[tuple[float, float]]


def _known(figures: Sequence[JSON], values: Sequence[float | None]) -> Known:
    """Give the layers of which a value is known, with it."""
    pairs = [(number(one, "layer"), value) for one, value in zip(figures, values, strict=True)]
    return [(layer, value) for layer, value in pairs if layer is not None and value is not None]


def _separation(axes: Axes, known: Known, steered: set[float], name: str, *, chance: float) -> None:
    x, y = (list(column) for column in zip(*known, strict=True))
    axes.axhline(chance, color=SOFT, linewidth=0.8, dashes=(1.5, 2))
    axes.plot(x, y, "-", color=LINE)
    for at, height in zip(x, y, strict=True):
        filled = at in steered or not steered
        axes.plot([at], [height], "o", color=BLUE, markerfacecolor=BLUE if filled else "none")
    axes.set_ylabel(name)
    if name == "AUC":
        axes.set_ylim(min(0.45, *y) - 0.02, 1.06)


def _sizes(axes: Axes, known: Known, steered: set[float]) -> None:
    x, y = (list(column) for column in zip(*known, strict=True))
    colours = [ORANGE if at in steered or not steered else LINE for at in x]
    axes.bar(x, [part * 100 for part in y], color=colours, width=0.75)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("size, %\nof state")


def _gist(separated: Known, sizes: Known) -> str:
    said = []
    if separated:
        best = max(separated, key=lambda one: one[1])
        said.append(f"separation is best in layer {plain(best[0], 0)}, AUC {plain(best[1])}")
    if sizes:
        most = max(sizes, key=lambda one: one[1])
        said.append(f"most is added in layer {plain(most[0], 0)}, {percent(most[1])} of a state")
    return "Layers: " + "; ".join(said)


def projection_chart(vector: JSON, prefix: str) -> str:
    """Draw the states of the pairs: along the direction, and along what else differs most between them."""
    projection = record(vector, "projection")
    spots = [
        one for one in records(projection, "points") if number(one, "x") is not None and number(one, "y") is not None
    ]
    if not spots:
        return ""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for side, colour, marker in SIDES:
            for held_out in (False, True):
                chosen = [
                    one for one in spots if line(one, "side") == side and bool(number(one, "held_out")) == held_out
                ]
                axes.plot(
                    [number(one, "x") or 0.0 for one in chosen],
                    [number(one, "y") or 0.0 for one in chosen],
                    marker,
                    color=colour,
                    markerfacecolor="none" if held_out else colour,
                    alpha=1.0 if held_out else 0.7,
                    linestyle="none",
                )
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlabel("along the direction: 0 negative side, 1 positive")
        axes.set_ylabel("across it")

    counts = ", ".join(f"{sum(line(one, 'side') == side for one in spots)} {side}" for side, _, _ in SIDES)
    gist = f"States of the pairs in layer {plain(number(projection, 'layer'), 0)}: {counts}"
    return drawn(paint, gist=gist, prefix=prefix, height=HEIGHT)
