"""Packing sequences into batches: pure arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufsteer.engine.packing import Piece, Round, pack


@given(
    lengths=st.lists(st.integers(1, 50), max_size=30),
    batch_tokens=st.integers(1, 40),
    max_sequences=st.integers(1, 8),
)
def test_each_token_is_in_exactly_one_batch_in_order(lengths: list[int], batch_tokens: int, max_sequences: int) -> None:
    """Whatever the lengths and limits: nothing is lost, doubled or out of order, and no limit is broken."""
    rounds = pack(lengths, batch_tokens=batch_tokens, max_sequences=max_sequences)
    seen: dict[int, int] = {}
    for round_ in rounds:
        ids: dict[int, int] = {}
        for batch in round_.batches:
            assert sum(piece.stop - piece.start for piece in batch) <= batch_tokens
            assert len(batch) <= max_sequences
            assert len({piece.sequence_id for piece in batch}) == len(batch)
            for piece in batch:
                assert piece.start == seen.get(piece.sequence, 0)
                assert 0 <= piece.sequence_id < max_sequences
                assert ids.setdefault(piece.sequence_id, piece.sequence) == piece.sequence
                seen[piece.sequence] = piece.stop
        assert set(ids.values()) == set(round_.sequences)
    assert seen == dict(enumerate(lengths))
    assert [sequence for round_ in rounds for sequence in round_.sequences] == list(range(len(lengths)))


def test_short_ones_share_a_batch_and_a_long_one_is_cut() -> None:
    """The example of the documentation."""
    assert pack([3, 2, 9], batch_tokens=6, max_sequences=4) == (
        Round((0, 1), ((Piece(0, 0, 3, 0), Piece(1, 0, 2, 1)),)),
        Round((2,), ((Piece(2, 0, 6, 0),), (Piece(2, 6, 9, 0),))),
    )


@pytest.mark.parametrize("arguments", [([0], 5, 5), ([1], 0, 5), ([1], 5, 0)])
def test_sizes_that_cannot_be_are_refused(arguments: tuple[list[int], int, int]) -> None:
    """Nothing below one makes sense."""
    lengths, batch_tokens, max_sequences = arguments
    with pytest.raises(ValueError, match="positive"):
        pack(lengths, batch_tokens=batch_tokens, max_sequences=max_sequences)
