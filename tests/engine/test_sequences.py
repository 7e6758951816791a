"""Token sequences: what is refused, and that packing loses nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufsteer.engine.sequences import TokenSequence, TokenSequences
from ggufsteer.errors import SteerError
from tests.engine.made_sequences import sequence_sets


@pytest.mark.parametrize(
    ("tokens", "rows", "message"),
    [
        ((), (0,), "without tokens"),
        ((1, 2), (), "no row"),
        ((1, 2), (2,), "not ascending positions among 2 tokens"),
        ((1, 2), (-1,), "not ascending positions"),
        ((1, 2), (1, 0), "not ascending positions"),
        ((1, 2), (1, 1), "not ascending positions"),
    ],
)
def test_what_cannot_be_read_is_refused(tokens: tuple[int, ...], rows: tuple[int, ...], message: str) -> None:
    """Each mistake is told with the mend."""
    with pytest.raises(SteerError, match=message) as raised:
        TokenSequence(tokens, rows)
    assert raised.value.hint


@given(sequence_sets())
def test_packing_loses_nothing(sequences: list[TokenSequence]) -> None:
    """Packed sequences are the same sequences, by number, from the end, in order, and their sizes fit."""
    packed = TokenSequences.pack(iter(sequences))
    assert list(packed) == sequences
    assert len(packed) == len(sequences)
    assert packed[-1] == sequences[-1]
    assert packed.lengths.tolist() == [len(one.tokens) for one in sequences]
    assert packed.row_counts.tolist() == [len(one.rows) for one in sequences]
    for number, one in enumerate(sequences):
        assert (*packed.tokens_of(number),) == one.tokens
        assert (*packed.rows_of(number),) == one.rows


@given(sequence_sets(), st.slices(20))
def test_a_slice_is_packed_too(sequences: list[TokenSequence], those: slice) -> None:
    """Any stretch, also backwards and with steps."""
    part = TokenSequences.pack(sequences)[those]
    assert isinstance(part, TokenSequences)
    assert list(part) == sequences[those]


def test_packing_twice_copies_nothing() -> None:
    """What is packed already is handed through."""
    packed = TokenSequences.pack([TokenSequence((1, 2), (1,))])
    assert TokenSequences.pack(packed) is packed


def test_none_can_be_packed() -> None:
    """No sequences are packed as well, and have the right types."""
    packed = TokenSequences.pack([])
    assert (len(packed), list(packed)) == (0, [])
    assert [array.dtype for array in (packed.tokens, packed.rows, packed.token_bounds, packed.row_bounds)] == (
        [np.int32, np.int32, np.int64, np.int64]
    )
    with pytest.raises(IndexError):
        packed[0]


def test_chosen_sequences_of_several_packs_lie_one_behind_the_other() -> None:
    """The masks say which, the packs' order says where; a part of the result is what lies there."""
    first = [TokenSequence((1, 2, 3), (0, 2)), TokenSequence((4,), (0,)), TokenSequence((5, 6), (1,))]
    second = [TokenSequence((7, 8), (0,)), TokenSequence((9,), (0,))]
    packs = (TokenSequences.pack(first), TokenSequences.pack(second))
    masks = (np.array([True, False, True]), np.array([False, True]))
    together = TokenSequences.selected(list(zip(packs, masks, strict=True)))
    assert list(together) == [first[0], first[2], second[1]]
    assert list(together.part(1, 3)) == [first[2], second[1]]
    assert list(together.part(1, 1)) == []
