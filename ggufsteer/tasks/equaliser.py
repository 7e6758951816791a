"""The equaliser: one slider a vector, with everything that can be set about how it steers.

It checks each value against what its vector can do and says what steers at the moment. It knows no model and no screen,
and sends nothing: whoever moves a slider tells the chat.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict

from ggufsteer.engine.messages import Band, OperationName, Scope, Settings, VectorAdded
from ggufsteer.errors import SteerError
from ggufsteer.text import clean, nearest

LIMIT = 1000.0
"""No strength is larger: files with directions of length 1 may need strengths of many tens."""
USUAL_MAXIMUM = 2.0
"""Where a vector's largest fluent strength was not measured."""
LONGEST_NAME = 40

Decided = Literal["prompt", "token"]
OPERATIONS: tuple[OperationName, ...] = get_args(OperationName)
SCOPES: tuple[Scope, ...] = get_args(Scope)
DECIDED: tuple[Decided, ...] = get_args(Decided)
_Choice = TypeVar("_Choice", bound=str)
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")


@dataclass(eq=False)
class Slider:
    """One vector, and how it steers; changed through its `Equaliser`."""

    name: str
    """Short, without spaces, and the only one of its kind; commands and the model's process know it by this."""
    path: str
    file_hash: str
    recommended: float = 1.0
    maximum: float | None = None
    """The largest strength that still stays fluent, where it was measured."""
    all_layers: tuple[int, ...] = ()
    best_layer: int = 0
    title: str = ""
    """What its file calls it."""
    description: str = ""
    warnings: tuple[str, ...] = ()
    strength: float = 0.0
    operation: OperationName = "add"
    layers: tuple[int, int] | None = None
    scope: Scope = "all"
    thinking: bool = True
    condition: str | None = None
    threshold: float = 0.5
    decided: Decided = "prompt"
    muted: bool = False
    solo: bool = False

    @classmethod
    def of(cls, added: VectorAdded, strength: float | None = None) -> Slider:
        """Make the slider of a vector that was added; at its recommended strength unless another is given."""
        return cls(
            name=added.vector,
            path=added.path,
            file_hash=added.file_hash,
            recommended=added.recommended,
            maximum=added.maximum,
            all_layers=tuple(sorted(added.layers)),
            best_layer=added.best_layer,
            title=clean(added.name),
            description=clean(added.description),
            warnings=tuple(map(clean, added.warnings)),
            strength=_within_limit(added.recommended if strength is None else strength),
        )

    @property
    def limit(self) -> float:
        """The strength beyond which the vector is not known to stay fluent."""
        return USUAL_MAXIMUM if self.maximum is None else self.maximum

    @property
    def span(self) -> float:
        """The strength at a drawn slider's ends: room beyond the marks, and for what is set now."""
        return max(1.25 * self.limit, 1.25 * abs(self.recommended), abs(self.strength))

    @property
    def steered_layers(self) -> tuple[int, ...]:
        """The layers that it acts on."""
        if self.layers is None:
            return self.all_layers
        first, last = self.layers
        return tuple(layer for layer in self.all_layers if first <= layer <= last)

    def band(self, names: Collection[str]) -> Band:
        """Give what the model's process has to know; a condition that is none of `names` is left out."""
        gate = self.operation == "gate"
        return Band(
            vector=self.name,
            strength=self.strength,
            operation=self.operation,
            layers=self.layers,
            scope=self.scope,
            thinking=self.thinking,
            condition=self.condition if gate and self.condition in names else None,
            threshold=self.threshold if gate else 0.5,
            decided=self.decided if gate else "prompt",
        )


class SliderRecord(BaseModel):
    """A slider as files keep it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    vector: str
    file_hash: str
    path: str
    strength: float
    operation: OperationName = "add"
    layers: tuple[int, int] | None = None
    scope: Scope = "all"
    thinking: bool = True
    condition: str | None = None
    threshold: float = 0.5
    decided: Decided = "prompt"
    muted: bool = False
    solo: bool = False


class Equaliser:
    """The sliders, in the order in which they came."""

    def __init__(self) -> None:
        self._sliders: list[Slider] = []

    @property
    def sliders(self) -> Sequence[Slider]:
        """All of them, in order."""
        return tuple(self._sliders)

    def slider(self, name: str) -> Slider:
        """Find a slider by its name; raises `SteerError` with the nearest known one."""
        found = next((slider for slider in self._sliders if slider.name == name), None)
        if found is None:
            names = [slider.name for slider in self._sliders]
            known = nearest(name, names)
            listed = f"there are {', '.join(names)}" if names else "there is none: /add FILE"
            raise SteerError(
                f"there is no vector '{clean(name)}'", f"did you mean '{known}'?" if known is not None else listed
            )
        return found

    def add(self, slider: Slider) -> None:
        """Put a slider at the end; raises `SteerError` when its name is taken."""
        if any(other.name == slider.name for other in self._sliders):
            raise SteerError(f"there is a vector '{slider.name}' already", "give it another name")
        self._sliders.append(slider)

    def remove(self, name: str) -> list[str]:
        """Take a slider away; gates that it decided look at their own vector from then on. Gives their names."""
        self._sliders.remove(self.slider(name))
        return list(self.drop_lost_conditions())

    def drop_lost_conditions(self) -> dict[str, str]:
        """Have gates whose condition is not there decide by their own vector; gives each with what it lacked.

        To be called when all vectors of a file are in: until then the condition of one may be still to come.
        """
        names = {slider.name for slider in self._sliders}
        lost = {}
        for slider in self._sliders:
            if slider.condition is not None and slider.condition not in names:
                if slider.operation == "gate":
                    lost[slider.name] = slider.condition
                slider.condition = None
        return lost

    def settings(self) -> Settings:
        """Say what steers: every slider that is not muted, not at 0, and not silenced by another's solo.

        A clamp steers at 0 too: it holds every state at the negative side's mean. No band names a vector that is not
        there.
        """
        any_solo = any(slider.solo for slider in self._sliders)
        names = {slider.name for slider in self._sliders}
        return tuple(
            slider.band(names)
            for slider in self._sliders
            if not slider.muted
            and (slider.strength != 0 or slider.operation == "clamp")
            and (slider.solo or not any_solo)
        )

    def audible(self, slider: Slider) -> bool:
        """Say whether a slider steers now."""
        return any(band.vector == slider.name for band in self.settings())

    def beyond(self, slider: Slider) -> bool:
        """Say whether its strength is larger than is known to stay fluent."""
        return abs(slider.strength) > slider.limit

    # -- setting ------------------------------------------------------------------------------------------------------

    def set_strength(self, name: str, strength: float) -> float:
        """Set a strength, at most `LIMIT` either way; gives what was set. Raises `SteerError` for what is no number."""
        slider = self.slider(name)
        slider.strength = _within_limit(strength)
        return slider.strength

    def mute(self, name: str, muted: bool | None = None) -> bool:
        """Mute a slider or not; without a value, the other way round. Gives how it is now."""
        slider = self.slider(name)
        slider.muted = not slider.muted if muted is None else muted
        return slider.muted

    def solo(self, name: str, solo: bool | None = None) -> bool:
        """Let only this slider, and others with solo, steer or not; without a value, the other way round."""
        slider = self.slider(name)
        slider.solo = not slider.solo if solo is None else solo
        return slider.solo

    def reset(self, name: str) -> None:
        """Set a slider to 0, and everything else of it to what a new one has."""
        slider = self.slider(name)
        slider.strength = 0.0
        _reset_all_but_strength(slider)

    def reset_all(self) -> None:
        """Set every slider to 0, and everything else of it to what a new one has: the model as it is."""
        for slider in self._sliders:
            self.reset(slider.name)

    def set_operation(self, name: str, operation: str) -> None:
        """Choose what is done with the vector; raises `SteerError` when there is no such operation."""
        slider = self.slider(name)
        slider.operation = _chosen("operation", operation, OPERATIONS)

    def set_layers(self, name: str, layers: tuple[int, int] | None) -> None:
        """Choose first and last layer, or None for all; raises `SteerError` when the vector has none of them."""
        slider = self.slider(name)
        if layers is not None:
            first, last = layers
            if not any(first <= layer <= last for layer in slider.all_layers):
                raise SteerError(
                    f"{name}: there is no layer of it from {first} to {last}",
                    f"it has {slider.all_layers[0]} to {slider.all_layers[-1]}" if slider.all_layers else "",
                )
        slider.layers = layers

    def set_scope(self, name: str, scope: str | None = None, *, thinking: bool | None = None) -> None:
        """Choose which tokens are steered, and whether the block of thoughts is; None leaves one of them as it is."""
        slider = self.slider(name)
        if scope is not None:
            slider.scope = _chosen("scope", scope, SCOPES)
        if thinking is not None:
            slider.thinking = thinking

    def set_gate(
        self,
        name: str,
        *,
        condition: str | None = None,
        threshold: float | None = None,
        decided: str | None = None,
    ) -> None:
        """Choose what opens a gate; None leaves a value as it is, and its own name as the condition is itself.

        Raises:
            SteerError: The condition is no vector here, the threshold is no number, or there is no such choice.
        """
        slider = self.slider(name)
        chosen = slider.decided if decided is None else _chosen("decision on", decided, DECIDED)
        if threshold is not None and not math.isfinite(threshold):
            raise SteerError(f"{name}: {threshold} is no threshold", "0 is the negative side's mean, 1 the positive's")
        if condition is not None:
            slider.condition = None if condition == name else self.slider(condition).name
        slider.threshold = slider.threshold if threshold is None else threshold
        slider.decided = chosen

    # -- keeping ------------------------------------------------------------------------------------------------------

    def to_json(self) -> list[dict[str, object]]:
        """Give every slider as plain JSON values."""
        return [record.model_dump(mode="json") for record in self.records()]

    def records(self) -> list[SliderRecord]:
        """Give every slider as files keep it."""
        kept = {item.name for item in dataclasses.fields(Slider)} & set(SliderRecord.model_fields) - {"path"}
        return [
            SliderRecord(
                vector=slider.name,
                # A file may be read from another folder.
                path=str(Path(slider.path).absolute()),
                **{key: getattr(slider, key) for key in kept},
            )
            for slider in self._sliders
        ]

    def restore(self, record: SliderRecord, name: str | None = None) -> None:
        """Set one slider as it was kept; raises `SteerError` for values that its vector cannot have.

        Its condition may come later: see `drop_lost_conditions`.
        """
        name = record.vector if name is None else name
        slider = self.slider(name)
        self.set_layers(name, record.layers)
        self.set_strength(name, record.strength)
        slider.operation, slider.scope, slider.thinking = record.operation, record.scope, record.thinking
        slider.threshold, slider.decided = record.threshold, record.decided
        slider.muted, slider.solo = record.muted, record.solo
        slider.condition = record.condition

    def apply_preset(self, records: Iterable[SliderRecord]) -> list[str]:
        """Set all sliders as a preset has them; those that it does not name go to 0.

        A slider belongs to a record by its file's content, else by its name. Returns what a person has to be told:
        vectors of the preset that are not loaded, are other files now, or cannot be set so.
        """
        records = list(records)
        self.reset_all()
        remarks = []
        names = {record.vector: self._loaded(record) for record in records}
        for record in records:
            name = names[record.vector]
            if name is None:
                remarks.append(f"{clean(record.vector)} is not loaded: /add {clean(record.path)}")
                continue
            if self.slider(name).file_hash != record.file_hash:
                remarks.append(f"{name} is another file than the preset was made with")
            condition = names.get(record.condition) if record.condition is not None else None
            if record.condition is not None and condition is None:
                remarks.append(f"{name}: its condition {clean(record.condition)} is not loaded; it decides by itself")
            try:
                self.restore(record.model_copy(update={"condition": condition}), name)
            except SteerError as problem:
                remarks.append(problem.message)
        return remarks

    def _loaded(self, record: SliderRecord) -> str | None:
        same = [slider.name for slider in self._sliders if slider.file_hash == record.file_hash]
        if record.vector in same or not same:
            same = [slider.name for slider in self._sliders if slider.name == record.vector]
        return same[0] if same else None


def name_for(wanted: str, taken: Collection[str]) -> str:
    """Make a name that commands can hold, and that no other vector has.

    >>> name_for("so happy!", []), name_for("happy", ["happy"])
    ('so-happy', 'happy-2')
    """
    name = _NOT_IN_NAMES.sub("-", clean(wanted)).strip("-.")[:LONGEST_NAME] or "vector"
    number, chosen = 1, name
    while chosen in taken:
        number += 1
        chosen = f"{name}-{number}"
    return chosen


def split_strength(text: str) -> tuple[str, float | None]:
    """Divide FILE:STRENGTH at its last colon, if a number follows there.

    >>> split_strength("happy.gguf:0.8"), split_strength("C:/happy.gguf")
    (('happy.gguf', 0.8), ('C:/happy.gguf', None))
    """
    path, colon, number = text.rpartition(":")
    try:
        strength = float(number)
    except ValueError:
        return text, None
    return (path, strength) if colon and path and math.isfinite(strength) else (text, None)


def _within_limit(strength: float) -> float:
    if not math.isfinite(strength):
        raise SteerError(f"{strength} is no strength", "give a number: 1 is the recommended strength, 0 is off")
    return max(-LIMIT, min(LIMIT, float(strength)))


def _reset_all_but_strength(slider: Slider) -> None:
    slider.operation, slider.layers, slider.scope, slider.thinking = "add", None, "all", True
    slider.condition, slider.threshold, slider.decided = None, 0.5, "prompt"
    slider.muted = slider.solo = False


def _chosen(what: str, value: str, choices: Sequence[_Choice]) -> _Choice:
    for choice in choices:
        if choice == value:
            return choice
    known = nearest(value, choices)
    mend = f"did you mean '{known}'?" if known else f"give one of {', '.join(choices)}"
    raise SteerError(f"there is no {what} '{clean(value)}'", mend)
