"""Strengths and columns of a slider's track."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufsteer.tui import meter, pages, terminal, track
from ggufsteer.tui.track import ASCII, NARROWEST, UNICODE, Track

WIDTHS = st.integers(NARROWEST, 200)
STRENGTHS = st.floats(-1000, 1000)
MAXIMA = st.none() | st.floats(0.1, 50)


@pytest.mark.parametrize("module", [track, meter, pages, terminal], ids=lambda module: module.__name__)
def test_the_examples_in_the_documentation_hold(module: object) -> None:
    """Each worked example gives what it says."""
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


@given(WIDTHS, MAXIMA, STRENGTHS)
def test_the_drawing_has_the_tracks_width_and_one_knob(width: int, maximum: float | None, strength: float) -> None:
    """Nothing moves beside the track, whatever the strength."""
    for signs in (ASCII, UNICODE):
        drawn = Track(width, maximum=maximum).drawn(strength, signs)
        assert sum(len(text) for text, _ in drawn) == width - (width + 1) % 2
        assert [text for text, part in drawn if part == "knob"] == [signs.knob]


@given(WIDTHS, MAXIMA, STRENGTHS)
def test_a_drawing_is_the_mirror_of_its_opposite(width: int, maximum: float | None, strength: float) -> None:
    """Plus and minus look alike, seen from 0."""
    the_track = Track(width, maximum=maximum)
    drawn = "".join(text for text, _ in the_track.drawn(strength, ASCII))
    assert drawn[::-1] == "".join(text for text, _ in the_track.drawn(-strength, ASCII))


@given(st.integers(41, 200), MAXIMA)
def test_columns_mean_what_stands_there(width: int, maximum: float | None) -> None:
    """A drag to a column puts the knob at most one column beside it, and 0 and the marks are hit exactly."""
    the_track = Track(width, maximum=maximum)
    for column in range(2 * the_track.centre + 1):
        assert abs(the_track.column(the_track.value(column)) - column) <= 1
    assert the_track.value(the_track.centre) == 0.0
    assert the_track.value(the_track.centre + 1) == the_track.value(the_track.centre - 1) == 0.0
    if maximum is not None and the_track.column(maximum) - the_track.centre > 1:
        assert the_track.value(the_track.column(maximum)) == maximum


@given(WIDTHS, STRENGTHS, STRENGTHS)
def test_more_strength_is_never_further_left(width: int, one: float, other: float) -> None:
    """The track is monotonic."""
    the_track = Track(width)
    low, high = sorted((one, other))
    assert the_track.column(low) <= the_track.column(high)


def test_a_small_step_never_jumps_over_zero() -> None:
    """A slider near 0 stops there once."""
    assert track.stepped(0.05, -0.1) == 0.0
    assert track.stepped(-0.05, 0.1) == 0.0
    assert track.stepped(0.0, 0.1) == 0.1


def test_what_is_beyond_the_maximum_is_drawn_otherwise() -> None:
    """The stretch past the mark is another part, so that it can have another colour."""
    parts = [part for _, part in Track(41, maximum=1.0).drawn(1.4, ASCII)]
    assert "beyond" in parts
    assert "beyond" not in [part for _, part in Track(41, maximum=1.0).drawn(0.9, ASCII)]
