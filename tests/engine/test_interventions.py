"""From what people ask for to rows and edits: laws first, and each operation against its definition."""

import dataclasses
import itertools
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufsteer.engine.edits import EditKind
from ggufsteer.engine.interventions import (
    NOTHING,
    Condition,
    Intervention,
    Phase,
    Steering,
    combine,
    compile_steering,
    condition_layer,
    steered_layers,
)
from ggufsteer.engine.messages import OperationName, Scope
from ggufsteer.errors import MisfitError, SteerError
from ggufsteer.files.control_vector import ControlVector, Provenance
from ggufsteer.maths import operations
from tests.files.made_vectors import vectors

N_LAYER, N_EMBD = 8, 5
PHASES: tuple[Phase, ...] = get_args(Phase)
SCOPES: tuple[Scope, ...] = get_args(Scope)
OPERATIONS: tuple[OperationName, ...] = get_args(OperationName)
MEANS = {2: (-1.0, 3.0), 4: (10.0, 12.0), 6: (0.5, 0.25)}
HAPPY = ControlVector(
    {2: np.array([3.0, 4, 0, 0, 0]), 4: np.array([0, 0, 2.0, 0, 0]), 6: np.array([0, 0, 0, 0, 5.0])},
    Provenance(name="happy", class_means=MEANS, separation={2: 0.7, 4: 0.9, 6: 0.8}),
)
ASKED = ControlVector(
    {3: np.array([0, 0, 0, 6.0, 0]), 5: np.ones(5)}, Provenance(name="asked", class_means={3: (-2.0, 1.0)})
)
EVERYWHERE = ControlVector({layer: np.eye(5)[layer % 5] for layer in range(1, 8)})
STRENGTHS = st.integers(-24, 24).map(lambda eighths: eighths / 8)
STATES = np.random.default_rng(1).normal(size=(64, N_LAYER, N_EMBD)).astype(np.float32) * 4


def compiled(*interventions: Intervention, phase: Phase = "answer", **options: Any) -> Steering:
    """Compile for a model of eight layers, and check what must always hold of the result."""
    steering = compile_steering(interventions, N_LAYER, N_EMBD, phase, **options)
    assert steering.edits is None or steering.edits.is_sound()
    assert (steering.key == b"") == (steering.rows is None and steering.edits is None)
    return steering


def rows_of(steering: Steering) -> np.ndarray:
    """Give what llama.cpp adds; zeros for nothing."""
    return np.zeros((N_LAYER - 1, N_EMBD), np.float32) if steering.rows is None else steering.rows


def done(steering: Steering, states: np.ndarray = STATES) -> np.ndarray:
    """Carry a steering out on the outputs of each layer by itself, as the definitions say: (rows, layers, embd)."""
    changed = states.copy()
    changed[:, 1:] += rows_of(steering)
    if steering.edits is None:
        return changed
    edits = steering.edits
    is_open: dict[int, np.ndarray] = {}
    for (kind, layer, place, gate), number in zip(edits.steps.tolist(), edits.numbers.tolist(), strict=True):
        at, direction = changed[:, layer], edits.directions[place]
        if kind == EditKind.ABLATE:
            changed[:, layer] = operations.ablate(at, direction, number)
        elif kind == EditKind.CLAMP:
            changed[:, layer] = operations.clamp(at, direction, number)
        elif kind == EditKind.CHECK:
            is_open[gate] = operations.gate(at, direction, number)
        else:
            changed[:, layer] = np.where(is_open[gate][:, None], operations.add(at, direction, number), at)
    return changed


def expression(states: np.ndarray, vector: ControlVector, layer: int) -> np.ndarray:
    """Give how strongly states express a concept."""
    zero, one = vector.scale(layer)
    return np.asarray((states[:, layer] @ vector.unit(layer).astype(np.float64) - zero) / (one - zero))


@given(st.lists(vectors(), max_size=3), st.sampled_from(PHASES))
def test_strength_zero_everywhere_is_no_steering(drawn: list[ControlVector], phase: Phase) -> None:
    """Added, ablated or behind an open gate: nothing at strength 0 is nothing, and has the key of nothing."""
    off = [Intervention(vector, 0.0, operation) for vector in drawn for operation in ("add", "ablate")]  # type: ignore[arg-type]
    for decided in ("prompt", "token"):
        condition = Condition(EVERYWHERE, decided=decided)  # type: ignore[arg-type]
        off += [Intervention(vector, 0.0, "gate", condition=condition) for vector in drawn]
    steering = compiled(*off, phase=phase, open_gates=dict.fromkeys(range(len(off)), True))
    assert (steering.rows, steering.edits, steering.key) == (None, None, b"")


@given(st.lists(st.tuples(vectors(), STRENGTHS), max_size=5), st.randoms())
def test_the_order_of_additions_does_not_matter(drawn: list[tuple[ControlVector, float]], random: Any) -> None:
    """Not even in the last bit: the key is the same, so what is in memory stays good."""
    shuffled = random.sample(drawn, len(drawn))
    assert (
        compiled(*(Intervention(*one) for one in drawn)).key == compiled(*(Intervention(*one) for one in shuffled)).key
    )


def test_rounding_does_not_depend_on_the_order_either() -> None:
    """Numbers that double precision loses in one order and keeps in the other, half way between two floats."""
    parts = [Intervention(ControlVector({1: np.full(5, size)})) for size in (1.0, 2.0**-24, 2.0**-53, 2.0**-53)]
    assert len({compiled(*order).key for order in itertools.permutations(parts)}) == 1


@given(vectors(), vectors(), STRENGTHS, STRENGTHS)
def test_two_additions_are_one_of_the_sum(first: ControlVector, second: ControlVector, a: float, b: float) -> None:
    """Within the rounding of the vectors' own arithmetic."""
    apart = rows_of(compiled(Intervention(first, a), Intervention(second, b)))
    together = rows_of(compiled(Intervention(first * a + second * b)))
    size = np.abs(a * first.as_rows(N_LAYER)) + np.abs(b * second.as_rows(N_LAYER))
    assert np.all(np.abs(apart - together) <= 3e-7 * size + 1e-30)


@given(vectors(), STRENGTHS)
def test_an_addition_and_its_opposite_are_no_steering(vector: ControlVector, strength: float) -> None:
    """s and -s of one vector cancel, bit for bit."""
    assert compiled(Intervention(vector, strength), Intervention(vector, -strength)).key == b""


@given(vectors(), STRENGTHS)
def test_only_additions_leave_everything_to_llama_cpp(vector: ControlVector, strength: float) -> None:
    """Rows as the vector gives them, times the strength; no edits."""
    steering = compiled(Intervention(vector, strength))
    assert steering.edits is None
    assert np.array_equal(rows_of(steering), vector.as_rows(N_LAYER) * np.float64(strength).astype(np.float32))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("phase", PHASES)
def test_scopes_are_an_algebra(operation: OperationName, phase: Phase) -> None:
    """What acts on prompts and what acts on answers are together what acts on all, and nothing acts twice."""
    condition = Condition(HAPPY, decided="token") if operation == "gate" else None
    whole = Intervention(HAPPY, 1.5, operation, condition=condition)
    parts = [dataclasses.replace(whole, scope=scope) for scope in ("prompt", "answer")]
    assert compiled(*parts, phase=phase).key == compiled(whole, phase=phase).key != b""
    acting = [part.scope for part in parts if compiled(part, phase=phase).key]
    assert acting == ["prompt" if phase == "prompt" else "answer"]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("phase", PHASES)
def test_thoughts_can_be_left_alone(scope: Scope, phase: Phase) -> None:
    """Without `thinking` nothing acts on thoughts, and everything else is as it was."""
    with_thoughts = Intervention(HAPPY, scope=scope)
    without = dataclasses.replace(with_thoughts, thinking=False)
    expected = b"" if phase == "thinking" else compiled(with_thoughts, phase=phase).key
    assert compiled(without, phase=phase).key == expected


@given(vectors(), st.integers(1, 7), st.integers(1, 7), STRENGTHS.filter(bool))
def test_a_range_of_layers_limits_every_operation(vector: ControlVector, one: int, other: int, strength: float) -> None:
    """Outside of the range no state changes; inside it changes as without a range."""
    first, last = sorted((one, other))
    if not any(first <= layer <= last for layer in vector.layers):
        return
    for operation in ("add", "ablate", "clamp"):
        limited = done(compiled(Intervention(vector, strength, operation, (first, last))))  # type: ignore[arg-type]
        whole = done(compiled(Intervention(vector, strength, operation)))  # type: ignore[arg-type]
        inside = (np.arange(N_LAYER) >= first) & (np.arange(N_LAYER) <= last)
        assert np.array_equal(limited[:, ~inside], STATES[:, ~inside])
        assert np.array_equal(limited[:, inside], whole[:, inside])


@given(vectors(), STRENGTHS)
def test_an_ablation_takes_its_share_of_the_projection(vector: ControlVector, share: float) -> None:
    """At 1 nothing of the projection is left, whatever the direction's length; the rest of the state stays."""
    after = done(compiled(Intervention(vector, share, "ablate")))
    for layer in vector.layers:
        unit = vector.unit(layer).astype(np.float64)
        before = STATES[:, layer].astype(np.float64)
        expected = before - share * np.outer(before @ unit, unit)
        assert np.allclose(after[:, layer], expected, atol=1e-4)


@pytest.mark.parametrize("strength", [-1.0, 0.0, 0.5, 2.0])
def test_a_clamp_counts_from_the_negative_side_in_lengths_of_the_direction(strength: float) -> None:
    """At 0 every state lies where the negative side does in mean, at 1 one direction's length further."""
    after = done(compiled(Intervention(HAPPY, strength, "clamp")))
    for layer, (negative, _) in MEANS.items():
        projections = after[:, layer] @ HAPPY.unit(layer)
        assert projections == pytest.approx(np.full(64, negative + strength * HAPPY.length(layer)), abs=1e-4)
    unknown = done(compiled(Intervention(ASKED, strength, "clamp")))
    assert unknown[:, 5] @ ASKED.unit(5) == pytest.approx(np.full(64, 5**0.5 * strength), abs=1e-4)


def test_a_clamp_of_a_state_at_the_negative_mean_is_an_addition() -> None:
    """The same strength means the same for both operations: that is why the length is counted from that mean."""
    states = STATES.copy()
    for layer, (negative, _) in MEANS.items():
        states[:, layer] = operations.clamp(states[:, layer], HAPPY.unit(layer), negative)
    clamped = done(compiled(Intervention(HAPPY, 1.5, "clamp")), states)
    added = done(compiled(Intervention(HAPPY, 1.5)), states)
    assert np.allclose(clamped, added, atol=1e-4)


@pytest.mark.parametrize("threshold", [-0.5, 0.0, 0.5, 1.0])
def test_a_gate_by_token_adds_where_the_condition_is_expressed(threshold: float) -> None:
    """Each row decides by itself, at the condition's layer; from there on it is steered as by an addition."""
    condition = Condition(ASKED, threshold, "token")
    gated = done(compiled(Intervention(HAPPY, 2.0, "gate", (4, 7), condition=condition)))
    added = done(compiled(Intervention(HAPPY, 2.0, "add", (4, 7))))
    is_open = expression(STATES, ASKED, 3) > threshold
    assert 0 < is_open.sum() < len(STATES)
    assert np.allclose(gated[is_open], added[is_open], atol=1e-5)
    assert np.array_equal(gated[~is_open], STATES[~is_open])


def test_a_gate_without_a_condition_looks_at_its_own_vector() -> None:
    """The prompt decides, at the layer where the vector separates best; half way between its sides it opens."""
    own = Intervention(HAPPY, 1.0, "gate")
    assert condition_layer(own) == 4
    assert compiled(own, open_gates={0: True}).key == compiled(Intervention(HAPPY)).key
    spelled = dataclasses.replace(own, condition=Condition(HAPPY, 0.5, "prompt"))
    assert compiled(spelled, open_gates={0: True}).key == compiled(own, open_gates={0: True}).key


@given(st.lists(st.tuples(vectors(), STRENGTHS, st.booleans()), max_size=4))
def test_gates_decided_on_the_prompt_are_additions_or_nothing(drawn: list[tuple[ControlVector, float, bool]]) -> None:
    """Open ones are summed up with the rest; a closed one, and one that nothing is known of, does not exist."""
    gates = [Intervention(vector, strength, "gate", condition=Condition(ASKED)) for vector, strength, _ in drawn]
    decisions = {number: is_open for number, (_, _, is_open) in enumerate(drawn)}
    expected = [Intervention(vector, strength) for vector, strength, is_open in drawn if is_open]
    assert compiled(*gates, open_gates=decisions).key == compiled(*expected).key
    assert compiled(*gates, open_gates={number: True for number, is_open in decisions.items() if is_open}).key == (
        compiled(*gates, open_gates=decisions).key
    )
    assert compiled(*gates) is NOTHING


@pytest.mark.parametrize(
    ("layers", "condition", "expected"),
    [
        (None, Condition(HAPPY), 4),
        ((6, 7), Condition(HAPPY), 4),
        (None, Condition(HAPPY, layer=6), 6),
        (None, Condition(ASKED), 5),
        (None, Condition(HAPPY, decided="token"), 2),
        ((4, 7), Condition(HAPPY, decided="token"), 4),
        ((4, 7), Condition(ASKED, decided="token"), 3),
        ((6, 7), Condition(ASKED, decided="token"), 5),
        (None, Condition(ASKED, decided="token"), 3),
        (None, Condition(ASKED, decided="token", layer=5), 5),
    ],
)
def test_where_a_gate_looks(layers: tuple[int, int] | None, condition: Condition, expected: int) -> None:
    """As told; else where the condition separates best, or just before the steering begins."""
    assert condition_layer(Intervention(HAPPY, 1.0, "gate", layers, condition=condition)) == expected


def test_layers_before_the_decision_are_left_out() -> None:
    """A gate by token that looks at layer 5 cannot steer layers 2 and 4 any more."""
    late = Intervention(HAPPY, 1.0, "gate", condition=Condition(ASKED, -100.0, "token", 5))
    assert steered_layers(late) == (6,)
    changed = np.abs(done(compiled(late)) - STATES).max(axis=(0, 2)) > 0
    assert np.flatnonzero(changed).tolist() == [6]


def test_a_gate_that_decides_above_all_its_layers_says_which_it_could_steer() -> None:
    """The hint names a range that works."""
    late = Intervention(HAPPY, 1.0, "gate", (1, 4), condition=Condition(ASKED, decided="token", layer=5))
    with pytest.raises(SteerError, match=r"gate of vector 'happy' decides at layer 5, above all .*2, 4") as caught:
        compiled(late)
    assert caught.value.hint == "let it steer layers 6 to 6, or let it decide at layer 4 or below"
    assert compiled(dataclasses.replace(late, layers=(6, 6))).edits is not None
    never = Intervention(ASKED, 1.0, "gate", condition=Condition(HAPPY, decided="token", layer=6))
    with pytest.raises(SteerError) as caught:
        compiled(never)
    assert caught.value.hint == "let it decide at layer 5 or below"


def test_edits_of_a_layer_are_done_in_the_order_of_the_interventions() -> None:
    """Ablating before clamping is not clamping before ablating, and a gate sees what was done before it."""
    ablate, clamp = Intervention(HAPPY, 1.0, "ablate"), Intervention(HAPPY, 1.0, "clamp")
    last_clamped, last_ablated = done(compiled(ablate, clamp)), done(compiled(clamp, ablate))
    for layer in HAPPY.layers:
        unit = HAPPY.unit(layer)
        assert last_clamped[:, layer] @ unit == pytest.approx(
            np.full(64, MEANS[layer][0] + HAPPY.length(layer)), abs=1e-4
        )
        assert np.abs(last_ablated[:, layer] @ unit).max() < 1e-4
    gate = Intervention(HAPPY, 1.0, "gate", (2, 2), condition=Condition(HAPPY, 0.5, "token"))
    opened = done(compiled(clamp, gate)) - done(compiled(clamp))
    assert np.allclose(opened[:, 2], HAPPY.directions[2], atol=1e-4)
    assert np.array_equal(
        done(compiled(Intervention(HAPPY, 0.0, "clamp"), gate))[:, 2],
        done(compiled(Intervention(HAPPY, 0.0, "clamp")))[:, 2],
    )


def test_several_gates_do_not_open_each_other() -> None:
    """Each has a number of its own; two conditions at one layer with opposite thresholds steer different rows."""
    always, never = Condition(ASKED, -100.0, "token"), Condition(ASKED, 100.0, "token")
    first = Intervention(HAPPY, 1.0, "gate", (4, 4), condition=always)
    second = Intervention(HAPPY, 1.0, "gate", (6, 6), condition=never)
    both = done(compiled(second, first))
    assert np.allclose(both[:, 4] - STATES[:, 4], HAPPY.directions[4], atol=1e-5)
    assert np.array_equal(both[:, 6], STATES[:, 6])


@given(st.sampled_from(OPERATIONS), st.sampled_from(OPERATIONS), STRENGTHS, STRENGTHS)
def test_equal_keys_mean_equal_steering(one: OperationName, other: OperationName, a: float, b: float) -> None:
    """Whatever changes a state changes the key, and what does not, does not."""
    steerings = [
        compiled(Intervention(HAPPY, strength, operation, condition=by_token(operation)))
        for operation, strength in ((one, a), (other, b))
    ]
    same = one == other and a == b
    nothing = all(strength == 0 and operation != "clamp" for operation, strength in ((one, a), (other, b)))
    assert (steerings[0].key == steerings[1].key) == (same or nothing)


def by_token(operation: OperationName) -> Condition | None:
    """Give a gate the condition that makes edits of it."""
    return Condition(HAPPY, decided="token") if operation == "gate" else None


@pytest.mark.parametrize("changes", [{"threshold": 0.6}, {"layer": 4}, {"vector": ASKED}])
def test_a_condition_is_part_of_the_key(changes: dict[str, Any]) -> None:
    """Another threshold, layer or vector is another steering."""
    condition = Condition(HAPPY, decided="token")
    gate = Intervention(HAPPY, 1.0, "gate", (6, 7), condition=condition)
    other = dataclasses.replace(gate, condition=dataclasses.replace(condition, **changes))
    assert compiled(gate).key != compiled(other).key


def test_directions_without_length_are_left_out() -> None:
    """There is nothing to project on, and dividing by nothing would spoil every state."""
    empty = HAPPY * 0.0
    for operation in ("add", "ablate", "clamp"):
        assert compiled(Intervention(empty, 1.0, operation)) is NOTHING  # type: ignore[arg-type]
    assert compiled(Intervention(empty, 1.0, "gate", condition=Condition(HAPPY, decided="token"))) is NOTHING
    with pytest.raises(SteerError, match="without length at layer 2"):
        compiled(Intervention(HAPPY, 1.0, "gate", condition=Condition(empty, decided="token")))


WIDE = ControlVector({1: np.ones(6)})
DEEP = ControlVector({8: np.ones(5)})


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    ("intervention", "error", "says"),
    [
        (Intervention(WIDE), MisfitError, "6 wide"),
        (Intervention(DEEP), MisfitError, "layer 8, but the model's last one is 7"),
        (Intervention(HAPPY, 1.0, "gate", condition=Condition(WIDE)), MisfitError, "6 wide"),
        (Intervention(HAPPY, 1.0, "gate", condition=Condition(DEEP)), MisfitError, "layer 8"),
        (Intervention(HAPPY, layers=(7, 9)), SteerError, "'happy' has no layer from 7 to 9"),
        (Intervention(HAPPY, layers=(4, 2)), SteerError, "no layer from 4 to 2"),
        (Intervention(HAPPY, float("nan")), SteerError, "strength nan is not a finite number"),
        (Intervention(HAPPY, float("inf"), "ablate"), SteerError, "strength inf is not a finite number"),
        (
            Intervention(HAPPY, 1.0, "gate", condition=Condition(HAPPY, float("nan"))),
            SteerError,
            "threshold nan is not a finite number",
        ),
        (Intervention(HAPPY, condition=Condition(ASKED)), SteerError, "has a condition, but its operation is 'add'"),
        (
            Intervention(HAPPY, 1.0, "gate", condition=Condition(ASKED, layer=4)),
            SteerError,
            "condition vector 'asked' has no layer 4",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(
    intervention: Intervention, error: type[SteerError], says: str, phase: Phase
) -> None:
    """In every phase, whether or not it would do something there: a mistake shows at once, with its mend."""
    with pytest.raises(error, match=says) as caught:
        compiled(dataclasses.replace(intervention, scope="prompt"), phase=phase)
    assert caught.value.hint


@pytest.mark.parametrize("operation", OPERATIONS)
def test_strengths_that_no_state_can_hold_are_refused(operation: OperationName) -> None:
    """What overflows in single precision would make every answer garbage."""
    with pytest.raises(SteerError, match="too large"):
        compiled(Intervention(HAPPY, 1e39, operation, condition=by_token(operation)))
    with pytest.raises(SteerError, match="too large"):
        compiled(Intervention(HAPPY, 1.0, "gate", condition=Condition(HAPPY, 1e300, "token")))


def test_llama_cpp_gets_rows_of_layers_from_one_on() -> None:
    """Row k belongs to layer k + 1; no vectors give zeros of the right shape."""
    assert combine([], N_LAYER, N_EMBD).shape == (N_LAYER - 1, N_EMBD)
    assert np.array_equal(combine([(HAPPY, 2.0)], N_LAYER, N_EMBD)[3], 2 * HAPPY.directions[4])
