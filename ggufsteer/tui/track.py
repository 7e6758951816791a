"""Where a strength stands on a slider's track, and which strength a column of it means; drawn as characters.

It decides the track's range, its marks and where a drag snaps. It knows columns and numbers, no widgets and no colours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

Part = Literal["track", "fill", "beyond", "mark", "centre", "knob"]
"""What a stretch of the drawing is, for whoever gives it a colour."""

NARROWEST = 9
"""Columns: with fewer, the marks fall onto each other."""

_DRAG_STEP = 0.05
_WIDE = 25
"""Columns from which on the neighbours of the centre mean 0 as well."""


def stepped(strength: float, step: float) -> float:
    """Move a strength by a step; 0 is never jumped over.

    >>> stepped(0.25, 0.1), stepped(0.05, -0.1), stepped(0.0, -0.1)
    (0.35, 0.0, -0.1)
    """
    moved = round(strength + step, 4)
    return 0.0 if strength * moved < 0 else moved


@dataclass(frozen=True)
class Signs:
    """The characters that a track is drawn with."""

    track: str
    fill: str
    centre: str
    recommended: str
    maximum: str
    knob: str
    silent: str
    """The knob of a slider that steers nothing at the moment."""


UNICODE = Signs(track="─", fill="━", centre="┼", recommended="┴", maximum="╫", knob="●", silent="○")
ASCII = Signs(track="-", fill="=", centre="|", recommended="+", maximum="#", knob="O", silent="o")


@dataclass(frozen=True)
class Track:
    """A track of `width` columns with 0 in its middle.

    Args:
        width: Columns; an even one gives its last column away, so that there is a middle.
        recommended: The strength that is marked as the recommended one, on both sides.
        maximum: The largest strength that was measured to stay fluent; None draws no mark for it.
        reach: A strength that the range must hold, such as the present one.
    """

    width: int
    recommended: float = 1.0
    maximum: float | None = None
    reach: float = 0.0

    @property
    def span(self) -> float:
        """The strength at the right end; the left end is as far on the other side."""
        return max(2.0, 1.5 * abs(self.recommended), 1.5 * (self.maximum or 0.0), abs(self.reach))

    @property
    def centre(self) -> int:
        """The column of 0."""
        return max(self.width - 1, 0) // 2

    def column(self, strength: float) -> int:
        """Say where a strength stands; one outside of the range stands at the end.

        >>> Track(21).column(1.0), Track(21).column(0.0), Track(21).column(-9.0)
        (15, 10, 0)
        """
        # Halves go outwards on both sides, so that the drawing is symmetrical.
        distance = int(abs(strength) / self.span * self.centre + 0.5)
        rounded = self.centre + (distance if strength > 0 else -distance)
        return min(max(rounded, 0), 2 * self.centre)

    def value(self, column: int) -> float:
        """Say what a column means: 0 and the marks exactly, everything else in steps of 0.05.

        >>> Track(41).value(30), Track(41).value(20), Track(41).value(21), Track(41).value(23)
        (1.0, 0.0, 0.0, 0.3)
        """
        if self.centre == 0 or abs(column - self.centre) <= (1 if self.width >= _WIDE else 0):
            return 0.0
        for mark in self._marks():
            if column == self.column(mark):
                return mark
        strength = (column - self.centre) / self.centre * self.span
        return round(round(max(-self.span, min(strength, self.span)) / _DRAG_STEP) * _DRAG_STEP, 2)

    def drawn(self, strength: float, signs: Signs, *, silent: bool = False) -> list[tuple[str, Part]]:
        """Draw the track with its knob, as runs of characters that are the same part."""
        cells = self._cells(strength, signs, silent=silent)
        return [("".join(sign for sign, _ in run), part) for part, run in groupby(cells, key=lambda cell: cell[1])]

    def _cells(self, strength: float, signs: Signs, *, silent: bool) -> Iterator[tuple[str, Part]]:
        knob = self.column(strength)
        signs_of_marks = {self.column(mark): signs.recommended for mark in (self.recommended, -self.recommended)}
        if self.maximum is not None:
            signs_of_marks |= {self.column(mark): signs.maximum for mark in (self.maximum, -self.maximum)}
        low, high = sorted((self.centre, knob))
        for column in range(2 * self.centre + 1):
            filled = low <= column <= high and not silent
            beyond = self.maximum is not None and abs(column - self.centre) > self.column(self.maximum) - self.centre
            part: Part = ("beyond" if beyond else "fill") if filled else "track"
            if column == knob:
                yield signs.silent if silent else signs.knob, "knob"
            elif column == self.centre:
                yield signs.centre, "centre"
            elif column in signs_of_marks:
                yield signs_of_marks[column], part if filled else "mark"
            else:
                yield signs.fill if filled else signs.track, part

    def _marks(self) -> Iterator[float]:
        for mark in (self.maximum, self.recommended):
            if mark is not None:
                yield mark
                yield -mark
