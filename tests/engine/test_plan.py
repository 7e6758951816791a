"""Plans: a pretended memory follows each batch, and must always hold what the batch builds on."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ggufsteer.engine import plan as plan_module
from ggufsteer.engine.plan import Batch, Limits, Plan
from ggufsteer.engine.prefix_tree import PrefixTree
from ggufsteer.engine.sequences import TokenSequence, TokenSequences
from ggufsteer.errors import SteerError
from tests.engine.made_sequences import Prefix, prefixes, sequence_sets


def planned(
    sequences: list[TokenSequence], limits: Limits, *, splits_by_rows: bool = False, cuts_back: bool = True
) -> Plan:
    """The plan of some sequences."""
    packed = TokenSequences.pack(sequences)
    return Plan(PrefixTree.grow(packed, splits_by_rows=splits_by_rows, cuts_back=cuts_back), limits)


@dataclass
class Memory:
    """What llama.cpp's memory would hold, and every beginning that was evaluated."""

    plan: Plan
    path: list[int] = field(default_factory=list)
    round: int = 0
    evaluated: list[Prefix] = field(default_factory=list)
    """Anew: without what a round repeats of the path."""

    def decode(self, batch: Batch) -> None:
        """Follow a batch; nothing may be built on what is not there."""
        if batch.round != self.round:
            assert (batch.round, self.path) == (self.round + 1, [])
            self.round = batch.round
        lanes: dict[int, list[int]] = {}
        n_lanes = 0
        for index, piece in enumerate(batch.pieces):
            tokens = self.plan.tree.tokens_at(piece.place).tolist()
            assert 0 <= piece.start < piece.stop <= len(tokens)
            assert piece.cached <= piece.start
            before = tokens[: piece.start]
            if index == 0:
                assert (piece.lane, piece.cached, self.path) == (0, piece.start, before)
            elif piece.lane < n_lanes:
                assert piece.lane == n_lanes - 1
                assert lanes[piece.lane] == before
            else:
                assert piece.lane == n_lanes
                assert self.path[: piece.cached] == before[: piece.cached]
                assert lanes[batch.pieces[index - 1].lane][: piece.start] == before
            n_lanes = piece.lane + 1
            lanes[piece.lane] = tokens[: piece.stop]
            first_new = max(piece.start, piece.known)
            self.evaluated += [tuple(tokens[: stop + 1]) for stop in range(first_new, piece.stop)]
        assert batch.keep <= batch.pieces[-1].stop
        self.path = lanes[n_lanes - 1][: batch.keep]


@st.composite
def some_limits(draw: st.DrawFn, sequences: list[TokenSequence]) -> Limits:
    """Limits that the longest sequence just fits into, or a little more."""
    longest = max(one.rows[-1] + 1 for one in sequences)
    return Limits(draw(st.integers(1, 20)), longest + draw(st.integers(0, 12)), draw(st.integers(1, 6)))


@pytest.fixture(autouse=True, scope="module")
def _short_rounds() -> Iterator[None]:
    """Rounds of a few tokens, so that small sets have many."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plan_module, "ROUND_TOKENS", 15)
        patched.setattr(plan_module, "_PATH_SHARE", 2)
        yield


@given(st.data(), sequence_sets())
def test_each_beginning_is_evaluated_once_and_the_memory_holds_what_it_builds_on(
    data: st.DataObject, sequences: list[TokenSequence]
) -> None:
    """However small batches, memory and rounds are."""
    plan = planned(sequences, data.draw(some_limits(sequences)))
    memory = Memory(plan)
    for batch in plan.batches():
        memory.decode(batch)
    assert len(memory.evaluated) == len(set(memory.evaluated)) == plan.tree.n_distinct
    assert set(memory.evaluated) == prefixes(sequences)


@given(st.data(), sequence_sets(), st.booleans(), st.booleans())
def test_limits_are_kept(
    data: st.DataObject, sequences: list[TokenSequence], splits_by_rows: bool, cuts_back: bool
) -> None:
    """Batch, memory and lanes; and the totals are those of the batches."""
    limits = data.draw(some_limits(sequences))
    if not cuts_back:
        limits = Limits(limits.batch_tokens, limits.memory_tokens, 1)
    plan = planned(sequences, limits, splits_by_rows=splits_by_rows, cuts_back=cuts_back)
    batches, memory = list(plan.batches()), Memory(plan)
    for batch in batches:
        assert 1 <= batch.n_tokens <= limits.batch_tokens
        assert len(memory.path) + batch.n_tokens == batch.n_cells <= limits.memory_tokens
        assert 1 <= batch.n_lanes <= limits.lanes
        memory.decode(batch)
    assert memory.path == []
    assert plan.totals.n_evaluated == sum(batch.n_tokens for batch in batches)
    assert plan.totals.n_batches == len(batches)
    assert plan.totals.n_rounds == batches[-1].round + 1
    assert plan.totals.n_cells == max(batch.n_cells for batch in batches)
    assert plan.totals.n_lanes == max(batch.n_lanes for batch in batches)
    assert plan.totals.n_sequences == len(sequences)


@given(st.data(), sequence_sets())
def test_a_memory_that_only_goes_forward_is_never_cut_back(data: st.DataObject, sequences: list[TokenSequence]) -> None:
    """After a batch it is emptied, or kept whole."""
    limits = data.draw(some_limits(sequences))
    plan = planned(sequences, Limits(limits.batch_tokens, limits.memory_tokens, 1), cuts_back=False)
    memory = Memory(plan)
    for batch in plan.batches():
        for before, piece in pairwise(batch.pieces):
            assert piece.start == before.stop
        memory.decode(batch)
        assert batch.keep in (0, batch.pieces[-1].stop)
    assert set(memory.evaluated) == prefixes(sequences)


@given(st.data(), sequence_sets(), st.integers(0, 100))
def test_what_a_round_repeats_is_the_path_it_begins_on(
    data: st.DataObject, sequences: list[TokenSequence], share: int
) -> None:
    """Nothing else is evaluated twice, and the path is at most the stated part of the round before."""
    plan = planned(sequences, data.draw(some_limits(sequences)))
    sizes: dict[int, int] = {}
    repeated: dict[int, int] = {}
    for batch in plan.batches():
        sizes[batch.round] = sizes.get(batch.round, 0) + batch.n_tokens
        for piece in batch.pieces:
            again = max(0, min(piece.stop, piece.known) - piece.start)
            repeated[batch.round] = repeated.get(batch.round, 0) + again
    assert repeated.get(0, 0) == 0
    for number in range(1, len(sizes)):
        assert sizes[number - 1] >= max(15, 2 * repeated[number])
    assert plan.totals.n_evaluated == plan.totals.n_distinct + sum(repeated.values())


@given(st.data(), sequence_sets())
def test_the_order_in_which_sequences_are_given_does_not_matter(
    data: st.DataObject, sequences: list[TokenSequence]
) -> None:
    """The same tokens in the same batches, as far as tokens go."""
    limits = data.draw(some_limits(sequences))
    shuffled = data.draw(st.permutations(sequences))

    def tokens_of(plan: Plan) -> list[list[list[int]]]:
        tree = plan.tree
        return [
            [tree.tokens_at(piece.place).tolist()[piece.start : piece.stop] for piece in batch.pieces]
            for batch in plan.batches()
        ]

    assert tokens_of(planned(sequences, limits)) == tokens_of(planned(shuffled, limits))


@given(st.data(), sequence_sets())
def test_truncations_cost_nothing(data: st.DataObject, sequences: list[TokenSequence]) -> None:
    """A beginning of a sequence that is there anyway is one more observation, and no more work."""
    limits = data.draw(some_limits(sequences))
    whole = data.draw(st.sampled_from(sequences))
    length = data.draw(st.integers(1, whole.rows[-1] + 1))
    truncated = TokenSequence(whole.tokens[:length], (length - 1,))
    assert planned([*sequences, truncated], limits).tree.n_distinct == planned(sequences, limits).tree.n_distinct
    assert planned([whole, truncated], limits).totals.n_evaluated == planned([whole], limits).totals.n_evaluated


@given(st.data(), sequence_sets())
def test_batches_are_filled(data: st.DataObject, sequences: list[TokenSequence]) -> None:
    """With lanes enough and memory to spare, no two batches of a round would fit into one."""
    assume(len(prefixes(sequences)) > 4)
    size = data.draw(st.integers(2, 12))
    plan = planned(sequences, Limits(size, 1000, 100))
    batches = list(plan.batches())
    for batch, following in pairwise(batches):
        if following.round == batch.round:
            assert batch.n_tokens >= 0.75 * size


def chats(count: int, generator: np.random.Generator) -> list[TokenSequence]:
    """Long sets as people have them: one of four instructions of 60 tokens, one of 50 questions, an answer."""
    instructions = generator.integers(0, 1000, (4, 60))
    questions = generator.integers(0, 1000, (50, 20))
    made = []
    for _ in range(count):
        answer = generator.integers(0, 1000, generator.integers(1, 120))
        whole = (*instructions[generator.integers(4)], *questions[generator.integers(50)], *answer)
        made.append(TokenSequence(tuple(int(token) for token in whole), (len(whole) - 1,)))
    return made


def test_a_long_walk_evaluates_hardly_more_than_what_is_distinct() -> None:
    """Rounds repeat their paths, at most 1 % of it all, and batches are full."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plan_module, "ROUND_TOKENS", 8192)
        patched.setattr(plan_module, "_PATH_SHARE", 100)
        totals = planned(chats(2000, np.random.default_rng(0)), Limits(256, 1024, 64)).totals
    assert totals.n_rounds > 5
    assert totals.n_distinct < 0.5 * totals.n_total
    assert totals.n_distinct <= totals.n_evaluated <= 1.01 * totals.n_distinct
    assert totals.n_evaluated > 0.9 * 256 * totals.n_batches
    assert totals.n_cells <= 256 + 200


def test_a_sequence_longer_than_the_memory_is_refused() -> None:
    """It is named by its place in what was given, not in the walk; tokens after its last row do not count."""
    sequences = [TokenSequence((9,) * 20, (3,)), TokenSequence((1,) * 20, (19,))]
    with pytest.raises(SteerError, match="text 2 has 20 tokens, and the context holds 19"):
        planned(sequences, Limits(8, 19, 4))
    assert planned(sequences[:1], Limits(8, 4, 4)).totals.n_evaluated == 4


@pytest.mark.parametrize("limits", [Limits(0, 1, 1), Limits(1, 0, 1), Limits(1, 1, 0)])
def test_limits_must_be_positive(limits: Limits) -> None:
    """A batch without room is a mistake of the engine."""
    with pytest.raises(ValueError, match="positive"):
        planned([TokenSequence((1,), (0,))], limits)


def test_a_plan_of_nothing_has_no_batches() -> None:
    """No sequences, no work."""
    plan = planned([], Limits(1, 1, 1))
    assert list(plan.batches()) == []
    assert (plan.totals.n_batches, plan.totals.n_rounds, plan.totals.n_evaluated) == (0, 0, 0)
