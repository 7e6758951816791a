"""What steers a model at one moment: how people say it, and the rows and edits that carry it out.

Rows are added by llama.cpp itself; what it cannot do becomes edits, which our reader does on the same layer's output
afterwards, in the order of the interventions. It knows no llama.cpp, so that a front end may use its words.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ggufsteer.engine.edits import EditKind, Edits
from ggufsteer.engine.messages import OperationName, Scope
from ggufsteer.errors import MisfitError, SteerError
from ggufsteer.files.control_vector import ControlVector, Direction

Float32 = NDArray[np.float32]
Phase = Literal["prompt", "thinking", "answer"]
"""What a token belongs to; "prompt" is everything but the model's answers."""
Dosed = tuple[ControlVector, float]
"""A vector and the strength that it is applied at."""

_LARGEST = float(np.finfo(np.float32).max)
_SMALLER = "give smaller numbers"
_NONE_OPEN: Mapping[int, bool] = MappingProxyType({})


@dataclass(frozen=True)
class Condition:
    """When a gate opens: where its concept is expressed more strongly than the threshold."""

    vector: ControlVector
    threshold: float = 0.5
    """As an expression: 0 is the mean of the vector's negative side, 1 that of its positive side."""
    decided: Literal["prompt", "token"] = "prompt"
    """Once for all tokens, from the prompt, or for each token by itself."""
    layer: int | None = None
    """Where it looks; see `condition_layer` for None."""


@dataclass(frozen=True)
class Intervention:
    """One vector at work.

    "add" adds strength times the direction. "ablate" takes that share of the projection away. "clamp" sets the
    projection to the mean of the negative side plus strength times the direction's length. "gate" adds where its
    condition holds.
    """

    vector: ControlVector
    strength: float = 1.0
    operation: OperationName = "add"
    layers: tuple[int, int] | None = None
    """First and last layer that it acts on, of those that the vector has; None for all of them."""
    scope: Scope = "all"
    thinking: bool = True
    """Whether it acts on the block of thoughts inside an answer too."""
    condition: Condition | None = None
    """Of a gate; None looks at the expression of its own vector."""


@dataclass(frozen=True, eq=False)
class Steering:
    """All that acts on the layers' outputs during a decode. Equal keys mean equal steering."""

    rows: Float32 | None
    """What is added to the outputs of layers 1 to n_layer - 1, (n_layer - 1, n_embd)."""
    edits: Edits | None
    key: bytes
    """Empty where nothing steers."""

    @classmethod
    def of(cls, rows: Float32 | None, edits: Edits | None = None) -> "Steering":
        """Give the steering of these rows and edits, with its key; rows of zeros and edits without steps are none.

        The rows are copied, and cannot be written to.
        """
        if rows is not None:
            # Adding zero makes -0.0 and 0.0 the same: they steer alike.
            rows = np.array(rows, dtype=np.float32, order="C") + np.float32(0)
            rows.setflags(write=False)
            rows = rows if rows.any() else None
        edits = edits if edits is not None and len(edits.steps) > 0 else None
        return NOTHING if rows is None and edits is None else cls(rows, edits, _key(rows, edits))


NOTHING = Steering(None, None, b"")
"""The model as it is."""


def _key(rows: Float32 | None, edits: Edits | None) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    arrays: list[NDArray[Any]] = [] if rows is None else [rows]
    if edits is not None:
        arrays += [edits.steps, edits.numbers, edits.directions]
        digest.update(edits.n_gates.to_bytes(8, "little"))
    for array in arrays:
        digest.update(repr((array.dtype.str, array.shape)).encode() + np.ascontiguousarray(array).tobytes())
    return digest.digest()


def compile_steering(
    interventions: Sequence[Intervention],
    n_layer: int,
    n_embd: int,
    phase: Phase = "answer",
    *,
    open_gates: Mapping[int, bool] = _NONE_OPEN,
) -> Steering:
    """Work out what the interventions do together to the tokens of one phase.

    What is only added is summed up, in whatever order. Edits of one layer are done in the order of the interventions;
    a gate therefore sees a state that those before it have changed.

    Args:
        interventions: All of them; also those that have nothing to do in this phase are checked.
        n_layer: The model's layers.
        n_embd: The width of its states.
        phase: What the tokens belong to.
        open_gates: Number of an intervention to whether it opened, for gates that are decided on the prompt. One that
            is missing is closed.

    Raises:
        SteerError: A number is not finite or too large, a range holds no layer of its vector, a gate looks above all
            layers that it steers, or a condition stands where there is no gate.
        MisfitError: A vector is of another width, or has a layer past the model's end.
    """
    added: list[Dosed] = []
    edits = _EditList()
    for index, intervention in enumerate(interventions):
        _check(intervention, n_layer, n_embd)
        if not _acts(intervention, phase):
            continue
        if _decides_by_token(intervention):
            edits.gate(intervention)
        elif intervention.operation == "ablate":
            edits.ablate(intervention)
        elif intervention.operation == "clamp":
            edits.clamp(intervention)
        elif intervention.operation == "add" or open_gates.get(index, False):
            added.append((intervention.vector.limited_to(steered_layers(intervention)), intervention.strength))
    return Steering.of(combine(added, n_layer, n_embd), edits.finished())


def combine(vectors: Sequence[Dosed], n_layer: int, n_embd: int) -> Float32:
    """Sum vectors up, each times its strength; their order changes nothing, not even the last bit.

    Args:
        vectors: Vectors and strengths; none gives zeros.
        n_layer: The model's layers.
        n_embd: The width of its states.

    Returns:
        float32 (n_layer - 1, n_embd): row k belongs to layer k + 1, since layer 0 is never steered.

    Raises:
        SteerError: A strength, or the sum, is not a finite number.
        MisfitError: A vector is of another width, or has a layer past the model's end.
    """
    for vector, strength in vectors:
        _check_finite("strength", strength)
        _check_shape(vector, n_layer, n_embd)
    rows = np.zeros((n_layer - 1, n_embd), dtype=np.float32)
    for layer in sorted({layer for vector, _ in vectors for layer in vector.layers}):
        with np.errstate(over="ignore", invalid="ignore"):
            parts = [
                vector.directions[layer].astype(np.float64) * strength
                for vector, strength in vectors
                if layer in vector.directions
            ]
            rows[layer - 1] = np.sort(parts, axis=0).sum(axis=0)
    if not np.isfinite(rows).all():
        raise SteerError("the strengths are too large: the sum of the vectors is not finite", _SMALLER)
    return rows


def steered_layers(intervention: Intervention) -> tuple[int, ...]:
    """Give the layers that an intervention changes, ascending; for a gate that decides by token, while it is open.

    Raises:
        SteerError: There are none.
    """
    within = _within(intervention)
    if not _decides_by_token(intervention):
        return within
    vector, decides_at = intervention.vector, condition_layer(intervention)
    after = tuple(layer for layer in within if layer >= decides_at)
    if not after:
        higher = [layer for layer in vector.layers if layer >= decides_at]
        choice = f"let it steer layers {higher[0]} to {higher[-1]}, or " if higher else ""
        raise SteerError(
            f"the gate of {_named(vector)} decides at layer {decides_at}, above all that it steers ({_listed(within)})",
            f"{choice}let it decide at layer {within[-1]} or below",
        )
    return after


def condition_of(intervention: Intervention) -> Condition:
    """Give the condition of a gate: its own vector's expression where none was given."""
    return intervention.condition or Condition(intervention.vector)


def condition_layer(intervention: Intervention) -> int:
    """Say which layer's output a gate looks at.

    Without a choice that is, for a decision on the prompt, the layer at which the condition's vector tells its sides
    apart best. For a decision by token it is the lowest layer that is steered, or the nearest below it that the
    condition's vector has, so that no steered layer comes before the decision.

    Raises:
        SteerError: The condition's vector has no such layer, or the gate steers none.
    """
    condition = condition_of(intervention)
    vector = condition.vector
    if condition.layer is not None:
        if condition.layer not in vector.layers:
            raise SteerError(
                f"the condition {_named(vector)} has no layer {condition.layer} to decide at",
                f"it has {_listed(vector.layers)}",
            )
        return condition.layer
    if condition.decided == "prompt":
        return vector.best_layer
    lowest = _within(intervention)[0]
    return max((layer for layer in vector.layers if layer <= lowest), default=vector.layers[0])


class _EditList:
    """Collects row operations in the order in which they are meant; `finished` puts them in that of the layers."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, int, int, int]] = []
        self._numbers: list[float] = []
        self._directions: dict[bytes, Direction] = {}
        self._n_gates = 0

    def ablate(self, intervention: Intervention) -> None:
        """Take a share of the projection away."""
        vector = intervention.vector
        for layer in _lasting(intervention):
            self._append(EditKind.ABLATE, layer, vector.unit(layer), intervention.strength)

    def clamp(self, intervention: Intervention) -> None:
        """Set the projection, counted from the negative side's mean in lengths of the direction."""
        vector = intervention.vector
        for layer in _lasting(intervention):
            value = vector.reference(layer) + intervention.strength * vector.length(layer)
            self._append(EditKind.CLAMP, layer, vector.unit(layer), value)

    def gate(self, intervention: Intervention) -> None:
        """Add to the rows that express the condition."""
        layers, vector = _lasting(intervention), intervention.vector
        if not layers:
            return
        condition, decides_at = condition_of(intervention), condition_layer(intervention)
        gate, self._n_gates = self._n_gates, self._n_gates + 1
        self._append(EditKind.CHECK, decides_at, condition.vector.unit(decides_at), _raw_threshold(intervention), gate)
        for layer in layers:
            self._append(EditKind.ADD, layer, vector.directions[layer], intervention.strength, gate)

    def finished(self) -> Edits | None:
        """Give all operations, those of a layer in the order in which they came; None where there are none."""
        if not self._steps:
            return None
        steps = np.array(self._steps, dtype=np.int32)
        order = np.argsort(steps[:, 1], kind="stable")
        # Adding zero makes -0.0 and 0.0 the same: they do the same.
        numbers = np.array(self._numbers, dtype=np.float64) + 0.0
        return Edits(steps[order], numbers[order], np.stack(list(self._directions.values())), self._n_gates)

    def _append(self, kind: EditKind, layer: int, direction: Direction, number: float, gate: int = -1) -> None:
        if not abs(number) * max(float(np.abs(direction).max()), 1.0) <= _LARGEST:
            raise SteerError(f"a strength or threshold is too large: layer {layer} would get {number:g}", _SMALLER)
        key = direction.tobytes()
        self._directions.setdefault(key, direction)
        self._steps.append((int(kind), layer, list(self._directions).index(key), gate))
        self._numbers.append(number)


def _check(intervention: Intervention, n_layer: int, n_embd: int) -> None:
    """Refuse what could not be meant, whether or not it is to be done at the moment."""
    _check_finite("strength", intervention.strength)
    _check_shape(intervention.vector, n_layer, n_embd)
    if intervention.operation == "gate":
        condition = condition_of(intervention)
        _check_finite("threshold", condition.threshold)
        _check_shape(condition.vector, n_layer, n_embd)
        decides_at = condition_layer(intervention)
        if not condition.vector.length(decides_at):
            raise SteerError(
                f"the condition {_named(condition.vector)} has a direction without length at layer {decides_at}",
                "let it decide at another layer",
            )
    elif intervention.condition is not None:
        raise SteerError(
            f"{_named(intervention.vector)} has a condition, but its operation is '{intervention.operation}'",
            "use the operation 'gate', or leave the condition out",
        )
    steered_layers(intervention)


def _check_finite(what: str, number: float) -> None:
    if not math.isfinite(number):
        raise SteerError(f"{what} {number} is not a finite number", "give a number such as 1.0")


def _check_shape(vector: ControlVector, n_layer: int, n_embd: int) -> None:
    if vector.n_embd != n_embd:
        raise MisfitError(
            f"a vector is {vector.n_embd} wide and the model {n_embd}", "use the model that it was made for"
        )
    vector.check_depth(n_layer)


def _acts(intervention: Intervention, phase: Phase) -> bool:
    """Tell whether an intervention changes tokens of a phase."""
    if phase == "thinking" and not intervention.thinking:
        return False
    where = "prompt" if phase == "prompt" else "answer"
    # Only a clamp does something at 0: it moves every state to the negative side's mean.
    return intervention.scope in ("all", where) and (intervention.strength != 0.0 or intervention.operation == "clamp")


def _decides_by_token(intervention: Intervention) -> bool:
    return intervention.operation == "gate" and condition_of(intervention).decided == "token"


def _within(intervention: Intervention) -> tuple[int, ...]:
    """Give the vector's layers within the range."""
    vector = intervention.vector
    first, last = intervention.layers or (vector.layers[0], vector.layers[-1])
    within = tuple(layer for layer in vector.layers if first <= layer <= last)
    if not within:
        raise SteerError(f"{_named(vector)} has no layer from {first} to {last}", f"it has {_listed(vector.layers)}")
    return within


def _lasting(intervention: Intervention) -> list[int]:
    """Give the steered layers whose direction has a length: along one without, there is nothing to do."""
    return [layer for layer in steered_layers(intervention) if intervention.vector.length(layer)]


def _raw_threshold(intervention: Intervention) -> float:
    """Give a gate's threshold in the units of the states."""
    condition = condition_of(intervention)
    zero, one = condition.vector.scale(condition_layer(intervention))
    return zero + condition.threshold * (one - zero)


def _named(vector: ControlVector) -> str:
    return f"vector '{vector.provenance.name}'" if vector.provenance.name else "the vector"


def _listed(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))
