"""Steps, done by a few lines of numpy on states that were made up: what comes out must be what was asked for."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufsteer.engine import plan as plan_module
from ggufsteer.engine.plan import Batch, Limits, Plan
from ggufsteer.engine.prefix_tree import PrefixTree
from ggufsteer.engine.reading import Operation
from ggufsteer.engine.reading_steps import BatchReading, StepMaker, Wanted
from ggufsteer.engine.sequences import TokenSequence, TokenSequences
from tests.engine.made_sequences import Prefix, sequence_sets

DIRECTION = np.array([[3.0, -2.0]], dtype=np.float32)


@pytest.fixture(autouse=True, scope="module")
def _short_rounds() -> Iterator[None]:
    """Rounds of a few tokens, so that small sets have many."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plan_module, "ROUND_TOKENS", 15)
        patched.setattr(plan_module, "_PATH_SHARE", 2)
        yield


def state_after(prefix: Prefix) -> np.ndarray:
    """Any state, always the same for the same tokens; whole numbers, so that sums are exact in every order. # (2,)"""
    return np.random.default_rng(list(prefix)).integers(-9, 10, 2).astype(np.float32)


@dataclass
class Reader:
    """Does steps as `native/ggufsteer.h` explains them, for one layer."""

    plan: Plan
    steps: StepMaker
    wanted: Wanted
    stored: dict[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.accumulators: dict[int, np.ndarray] = {}
        self.sums = np.zeros((self.wanted.n_sums, 2))
        self.lengths = np.full(self.wanted.n_lengths, np.nan)
        self.scores = np.full(self.wanted.n_scores, np.nan)

    def run(self, rounds_done: int = 0) -> "Reader":
        """Read all batches from some round on."""
        for batch in self.plan.batches():
            if batch.round >= rounds_done:
                self.read(batch)
        return self

    def read(self, batch: Batch) -> None:
        """Do the steps of one batch."""
        reading = self.steps.read(batch)
        rows = self._states_of(batch)[reading.rows]
        assert (np.diff(reading.rows) > 0).all()
        states: dict[int, np.ndarray] = {}
        state, last_row = None, 0
        for operation, first, second in reading.steps.tolist():
            if operation == Operation.ROW:
                assert first >= last_row
                state, last_row = rows[first], first
            elif operation == Operation.MEAN:
                state = (self.accumulators[first] / second).astype(np.float32)
            elif operation == Operation.STORE:
                assert first not in states
                states[first] = state
            else:
                self._consume(operation, first, second, state)
        self._hand_out(reading, states)

    def _states_of(self, batch: Batch) -> np.ndarray:
        tree = self.plan.tree
        states = []
        for piece in batch.pieces:
            tokens = tuple(tree.tokens_at(piece.place).tolist())
            states += [state_after(tokens[: row + 1]) for row in range(piece.start, piece.stop)]
        return np.array(states)

    def _consume(self, operation: int, first: int, second: int, state: np.ndarray | None) -> None:
        if operation == Operation.CLEAR:
            self.accumulators[first] = np.zeros(2)
        elif operation == Operation.COPY:
            self.accumulators[second] = self.accumulators[first]
        elif operation == Operation.ADD:
            self.accumulators[first] = self.accumulators[first] + state
        elif operation == Operation.SUM:
            self.sums[first] += second * state.astype(np.float64)
        elif operation == Operation.LENGTH:
            assert np.isnan(self.lengths[first])
            self.lengths[first] = np.linalg.norm(state.astype(np.float64))
        else:
            assert np.isnan(self.scores[first])
            self.scores[first] = state.astype(np.float64) @ DIRECTION[0].astype(np.float64)

    def _hand_out(self, reading: BatchReading, states: dict[int, np.ndarray]) -> None:
        assert sorted(states) == list(range(reading.n_states))
        for number, observation in zip(reading.states.tolist(), reading.observations.tolist(), strict=True):
            assert observation not in self.stored
            self.stored[observation] = states[number]


def direct(sequences: list[TokenSequence], *, pool: bool) -> np.ndarray:
    """The observations, each computed by itself. # (observations, 2)"""
    observations = []
    for one in sequences:
        states = np.array([state_after(one.tokens[: row + 1]) for row in one.rows])
        if pool:
            observations.append((states.sum(axis=0, dtype=np.float64) / len(states)).astype(np.float32))
        else:
            observations += list(states)
    return np.array(observations)


def reader_of(
    sequences: list[TokenSequence], wanted: Wanted, *, pool: bool, limits: Limits | None = None, cuts_back: bool = True
) -> Reader:
    """What reads some sequences as `observe` would."""
    packed = TokenSequences.pack(sequences)
    several = bool((packed.row_counts > 1).any())
    tree = PrefixTree.grow(packed, splits_by_rows=pool and several, cuts_back=cuts_back)
    steps = StepMaker(tree, wanted, pool=pool)
    return Reader(Plan(tree, limits or Limits(8, 200, 4)), steps, wanted)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[TokenSequence], Limits, bool, bool]:
    """Sequences, limits, whether a memory can be cut back, and what an observation is."""
    sequences = draw(sequence_sets())
    longest = max(one.rows[-1] + 1 for one in sequences)
    cuts_back = draw(st.booleans())
    limits = Limits(
        draw(st.integers(1, 12)), longest + draw(st.integers(0, 9)), draw(st.integers(1, 4)) if cuts_back else 1
    )
    return sequences, limits, cuts_back, draw(st.booleans())


@given(cases())
def test_every_observation_is_stored_once(case: tuple[list[TokenSequence], Limits, bool, bool]) -> None:
    """Means over all branches, truncations and duplicates, and rows by themselves, are exactly the direct ones."""
    sequences, limits, cuts_back, pool = case
    reader = reader_of(sequences, Wanted(stored=True), pool=pool, limits=limits, cuts_back=cuts_back).run()
    expected = direct(sequences, pool=pool)
    assert sorted(reader.stored) == list(range(len(expected)))
    for observation, state in reader.stored.items():
        assert np.array_equal(state, expected[observation])


@given(cases(), st.data())
def test_only_what_is_marked_is_stored(
    case: tuple[list[TokenSequence], Limits, bool, bool], data: st.DataObject
) -> None:
    """Of the observations that are the same state, those that are wanted."""
    sequences, limits, cuts_back, pool = case
    expected = direct(sequences, pool=pool)
    marked = np.array(data.draw(st.lists(st.booleans(), min_size=len(expected), max_size=len(expected))))
    reader = reader_of(sequences, Wanted(stored=marked), pool=pool, limits=limits, cuts_back=cuts_back).run()
    assert sorted(reader.stored) == np.flatnonzero(marked).tolist()
    for observation, state in reader.stored.items():
        assert np.array_equal(state, expected[observation])


@given(cases(), st.data())
def test_sums_lengths_and_scores_are_those_of_the_observations(
    case: tuple[list[TokenSequence], Limits, bool, bool], data: st.DataObject
) -> None:
    """Each observation goes where it is told to, once, and -1 leaves it out."""
    sequences, limits, cuts_back, pool = case
    expected = direct(sequences, pool=pool).astype(np.float64)
    count = len(expected)
    sums = np.array(data.draw(st.lists(st.integers(-1, 2), min_size=count, max_size=count)), dtype=np.int32)
    places = np.array(data.draw(st.permutations(range(count))), dtype=np.int32)
    left_out = data.draw(st.integers(0, count - 1))
    lengths = np.where(np.arange(count) == left_out, -1, places).astype(np.int32)
    wanted = Wanted(
        sums=sums, n_sums=3, lengths=lengths, n_lengths=count, scores=places, n_scores=count, directions=DIRECTION
    )
    reader = reader_of(sequences, wanted, pool=pool, limits=limits, cuts_back=cuts_back).run()
    for number in range(3):
        assert np.allclose(reader.sums[number], expected[sums == number].sum(axis=0), rtol=1e-12)
    assert np.allclose(reader.scores[places], expected @ DIRECTION[0].astype(np.float64), rtol=1e-12)
    assert np.isnan(reader.lengths[places[left_out]])
    others = np.arange(count) != left_out
    assert np.allclose(reader.lengths[places[others]], np.linalg.norm(expected[others], axis=1), rtol=1e-12)
    assert not reader.stored


@given(cases(), st.data())
def test_a_walk_can_be_resumed_at_every_round(
    case: tuple[list[TokenSequence], Limits, bool, bool], data: st.DataObject
) -> None:
    """A maker of steps that has not seen the earlier rounds gives the same states as one that has."""
    sequences, limits, cuts_back, pool = case
    wanted = Wanted(stored=True)

    def fresh() -> Reader:
        return reader_of(sequences, wanted, pool=pool, limits=limits, cuts_back=cuts_back)

    whole = fresh().run()
    rounds_done = data.draw(st.integers(0, whole.plan.totals.n_rounds))
    before = fresh()
    for batch in before.plan.batches():
        if batch.round < rounds_done:
            before.read(batch)
    after = fresh().run(rounds_done)
    assert not before.stored.keys() & after.stored.keys()
    joined = before.stored | after.stored
    assert joined.keys() == whole.stored.keys()
    for observation, state in joined.items():
        assert np.array_equal(state, whole.stored[observation])


@given(cases())
def test_no_more_sums_are_open_than_was_said(case: tuple[list[TokenSequence], Limits, bool, bool]) -> None:
    """`n_accumulators` is what the steps really use: never less, and no more than one beyond the forks of a path."""
    sequences, limits, cuts_back, pool = case
    reader = reader_of(sequences, Wanted(stored=True), pool=pool, limits=limits, cuts_back=cuts_back).run()
    assert max(reader.accumulators, default=-1) < reader.steps.n_accumulators()
    longest = max(one.rows[-1] + 1 for one in sequences)
    assert reader.steps.n_accumulators() <= min(longest, len(sequences)) + 1


@pytest.mark.parametrize("count", [2, 50, 1000])
def test_memory_of_means_does_not_grow_with_the_number_of_sequences(count: int) -> None:
    """All that share one beginning need one sum put aside, and one that goes on."""
    sequences = [TokenSequence((7, 8, 9, number), (1, 3)) for number in range(count)]
    assert reader_of(sequences, Wanted(), pool=True).steps.n_accumulators() == 2


def test_memory_of_means_grows_with_the_forks_above_a_place() -> None:
    """One sum for each branch that is still to come."""
    sequences = [TokenSequence((*range(depth), 99, 99), (0, depth + 1)) for depth in range(1, 6)]
    assert reader_of(sequences, Wanted(), pool=True).steps.n_accumulators() == 5


def test_single_rows_need_no_sums() -> None:
    """The mean over one row is the row, and takes no accumulator."""
    sequences = [TokenSequence((1, 2, 3), (2,)), TokenSequence((1, 2, 4), (1,))]
    for pool in (True, False):
        reader = reader_of(sequences, Wanted(stored=True), pool=pool).run()
        assert (reader.steps.n_accumulators(), reader.accumulators) == (0, {})


def test_a_row_that_many_share_is_fetched_and_stored_once() -> None:
    """A hundred observations of the same beginning are one row and one state."""
    sequences = [TokenSequence((1, 2, 3, number), (2,)) for number in range(100)]
    reader = reader_of(sequences, Wanted(stored=True), pool=False)
    (batch,) = reader.plan.batches()
    reading = reader.steps.read(batch)
    assert (len(reading.rows), reading.n_states, len(reading.observations)) == (1, 1, 100)


def test_equal_observations_are_added_at_once() -> None:
    """A duplicate is a weight, not a further addition."""
    sequences = [TokenSequence((1, 2), (1,))] * 9
    wanted = Wanted(sums=np.array([0, 0, 0, 0, 0, 1, 1, -1, -1], dtype=np.int32), n_sums=2)
    reader = reader_of(sequences, wanted, pool=True)
    (batch,) = reader.plan.batches()
    steps = reader.steps.read(batch).steps.tolist()
    assert steps == [[Operation.ROW, 0, 0], [Operation.SUM, 0, 5], [Operation.SUM, 1, 2]]


def test_nothing_wanted_is_nothing_done() -> None:
    """Without a wish for states no row would have to be fetched; what is fetched goes nowhere."""
    reader = reader_of([TokenSequence((1, 2), (0, 1))], Wanted(), pool=False).run()
    assert not reader.stored


def test_means_need_a_tree_that_knows_the_rows() -> None:
    """Otherwise two sequences would share a sum that is not the same for both."""
    packed = TokenSequences.pack([TokenSequence((1, 2), (0, 1))])
    with pytest.raises(ValueError, match="by their rows"):
        StepMaker(PrefixTree.grow(packed), Wanted(), pool=True)
