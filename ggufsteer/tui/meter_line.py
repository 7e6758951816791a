"""The meter's line: which concept the answers are coloured by, whether with numbers, and the legend that says so.

It decides with which concept the meter begins and which one is next. What is measured, and its colours, others know.
"""

from __future__ import annotations

from textual.widgets import Static

from ggufsteer.tasks.equaliser import Equaliser
from ggufsteer.tui import meter
from ggufsteer.tui.answer import MeterView


class MeterLine(Static):
    """The legend, hidden while the meter is off."""

    DEFAULT_CSS = """
    MeterLine { height: 1; padding: 0 1; display: none; text-wrap: nowrap; }
    """

    def __init__(self) -> None:
        super().__init__(id="meter", markup=False)
        self.cost: float | None = None
        """The share of the speed that measuring takes, where it is known."""
        self._numbers = False
        self._vector = ""
        self._on = False

    def toggle_numbers(self) -> None:
        """Show numbers, or colours alone."""
        self._numbers = not self._numbers

    def next_concept(self, equaliser: Equaliser) -> None:
        """Colour by the next slider's concept."""
        names = [slider.name for slider in equaliser.sliders]
        if self._vector in names:
            self._vector = names[(names.index(self._vector) + 1) % len(names)]

    def follow(self, equaliser: Equaliser, *, on: bool) -> MeterView:
        """Draw the legend, and say how answers are to be shown.

        When the meter is turned on it begins with the concept that steers most: that one the person looks for.
        """
        names = [slider.name for slider in equaliser.sliders]
        if (on and not self._on) or self._vector not in names:
            self._vector = strongest(equaliser)
        self._on = self.display = on
        place = names.index(self._vector) if names else 0
        self.update(meter.legend(names, place, numbers=self._numbers, cost=self.cost))
        return MeterView(self._vector if on else "", numbers=self._numbers)


def strongest(equaliser: Equaliser) -> str:
    """Name the slider that steers strongest, by its recommended one; the first where none does, "" without any."""
    steering = {band.vector for band in equaliser.settings()}

    def dose(name: str) -> float:
        slider = equaliser.slider(name)
        return abs(slider.strength / (slider.recommended or 1.0)) if name in steering else -1.0

    return max((slider.name for slider in equaliser.sliders), key=dose, default="")
