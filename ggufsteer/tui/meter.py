"""How strongly each piece of an answer expresses a concept: as colours, as numbers, and as marks that need no colours.

It decides the scale: blue for the negative side of the concept (0 and below), white between the two, orange for the
positive side (1 and above). Bold and underlined say the same without a colour. It knows pieces and numbers, no models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from textual.content import Content

Piece = tuple[str, Mapping[str, float]]
"""A text, and each vector's expression in it: 0 like the mean of the negative side, 1 like that of the positive one."""

_BETWEEN = 0.5
_REACH = 0.75
"""Distance from the middle at which a colour is full."""
_BLUE = (86, 156, 214)
_WHITE = (238, 238, 238)
_ORANGE = (240, 150, 60)


def colour(expression: float) -> str:
    """Give the background of an expression; blue, white and orange are told apart by colour-blind people too.

    >>> colour(0.5), colour(-9.0), colour(9.0)
    ('#eeeeee', '#569cd6', '#f0963c')
    """
    share = max(-1.0, min((expression - _BETWEEN) / _REACH, 1.0))
    end = _ORANGE if share > 0 else _BLUE
    mixed = (round(white + abs(share) * (full - white)) for white, full in zip(_WHITE, end, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def style(expression: float) -> str:
    """Give the style of a piece: bold from 1 on, underlined from 0 down, and the colour."""
    attribute = "bold " if expression >= 1.0 else "underline " if expression <= 0.0 else ""
    return f"{attribute}#101010 on {colour(expression)}"


def drawn(pieces: Iterable[Piece], vector: str, *, numbers: bool) -> Content:
    """Draw an answer with one concept's colours; with `numbers` each measured word is followed by its number."""
    parts: list[Content] = []
    for text, expressions in pieces:
        expression = expressions.get(vector)
        if expression is None:
            parts.append(Content(text))
            continue
        # The line feed stays out of the colour, which would otherwise fill the rest of the row.
        body = text.rstrip("\n")
        ending = text[len(body) :]
        word = body.rstrip()
        if numbers and word:
            # Before the blanks behind the word: a line may end at these.
            body = f"{word}·{_short(expression)}{body[len(word) :]}"
            ending = ending or ("" if body[-1].isspace() else " ")
        parts.append(Content.assemble((body, style(expression)), ending))
    return Content("").join(parts)


def runs(pieces: Sequence[Piece], longest: int = 150) -> list[tuple[int, int]]:
    """Divide pieces at line ends, so that each run can be drawn by itself: (first, the one after the last).

    >>> runs([("a", {}), ("b\\n", {}), ("c", {})], longest=1)
    [(0, 2), (2, 3)]
    """
    divided, begin = [], 0
    for place, (text, _) in enumerate(pieces, 1):
        if place - begin >= longest and text.endswith("\n"):
            divided.append((begin, place))
            begin = place
    return [*divided, (begin, len(pieces))] if begin < len(pieces) else divided


def _short(expression: float) -> str:
    """Write a number in few columns."""
    return f"{expression:.1f}".replace("-0.0", "0.0")


def mean(pieces: Iterable[Piece], vector: str) -> float | None:
    """Average over the measured pieces; None where there are none."""
    found = [expressions[vector] for _, expressions in pieces if vector in expressions]
    return sum(found) / len(found) if found else None


def legend(vectors: Sequence[str], chosen: int, *, numbers: bool, cost: float | None) -> Content:
    """Draw the line that explains the colours, for a screen of 80 columns."""
    if not vectors:
        return Content.styled("meter: no vector is loaded", "$text-muted")
    place = f" {chosen + 1}/{len(vectors)}" if len(vectors) > 1 else ""
    known = "" if cost is None else f"  costs {max(cost, 0.0):.0%} speed"
    return Content.assemble(
        ("meter ", "$text-muted"),
        (f"{vectors[chosen]}{place} ", "bold"),
        (" 0 ", style(0.0)),
        (" 0.5 ", style(0.5)),
        (" 1 ", style(1.0)),
        (f" F3 next  F4 {'colours' if numbers else 'numbers'}{known}", "$text-muted"),
    )
