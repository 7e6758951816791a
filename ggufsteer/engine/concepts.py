"""The vectors that a model's process holds by name: how they steer, and how strongly a state expresses each of them."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ggufsteer.engine.interventions import Condition, Intervention, Phase, Steering, compile_steering, condition_layer
from ggufsteer.engine.messages import Band, Settings
from ggufsteer.errors import SteerError
from ggufsteer.files.control_vector import ControlVector

Float32 = NDArray[np.float32]


Place = tuple[int, str]
"""Where a gate looks that is decided on the prompt: a layer, and the vector whose expression is read there."""


class Concepts:
    """Vectors by the names that the front end gave them."""

    def __init__(self, shape: tuple[int, int]) -> None:
        """Take the model's (n_layer, n_embd)."""
        self._shape = shape
        self._vectors: dict[str, ControlVector] = {}
        self._shown: set[str] = set()
        # Each holds a row for every layer of the model: megabytes with a large one.
        self._compiled = lru_cache(maxsize=32)(self._compile)

    def add(self, name: str, vector: ControlVector) -> None:
        """Take a vector in; a name stands for one vector for good, since the history may speak of it.

        Raises:
            SteerError: The name is taken by another vector.
        """
        known = self._vectors.get(name)
        if known is not None and not _equal(known, vector):
            raise SteerError(f"the name {name!r} stands for another vector", "choose another name")
        self._vectors[name] = known or vector
        self._shown.add(name)

    def remove(self, name: str) -> None:
        """Measure a vector no longer; messages that were read under it still can be read again."""
        self._shown.discard(name)

    def unknown(self, settings: Settings) -> set[str]:
        """Name the vectors of these settings that are not here."""
        named = {band.vector for band in settings} | {band.condition for band in settings if band.condition}
        return named - self._vectors.keys()

    def known_part(self, settings: Settings) -> Settings:
        """Leave out the bands whose vectors are not here."""
        return tuple(band for band in settings if not self.unknown((band,)))

    def steering(self, settings: Settings, phase: Phase, expressed: Mapping[Place, float]) -> Steering:
        """Give what these settings make of a phase; gates of the prompt open by what was expressed there.

        Raises:
            SteerError: A vector is not here, or a band asks for what cannot be.
        """
        opened = frozenset(number for number, band in enumerate(settings) if self.opens(band, expressed))
        return self._compiled(settings, phase, opened)

    def _compile(self, settings: Settings, phase: Phase, opened: frozenset[int]) -> Steering:
        gates = dict.fromkeys(opened, True)
        return compile_steering(list(map(self.intervention, settings)), *self._shape, phase, open_gates=gates)

    def intervention(self, band: Band) -> Intervention:
        """Give what a band does.

        Raises:
            SteerError: A vector is not here.
        """
        if unknown := self.unknown((band,)):
            raise SteerError(f"there is no vector called {min(unknown)!r}", "add it first")
        condition = None
        if band.operation == "gate":
            looks_at = self._vectors[band.condition or band.vector]
            condition = Condition(looks_at, band.threshold, band.decided)
        return Intervention(
            self._vectors[band.vector],
            band.strength,
            band.operation,
            layers=band.layers,
            scope=band.scope,
            thinking=band.thinking,
            condition=condition,
        )

    def place(self, band: Band) -> Place | None:
        """Say where a gate looks that is decided on the prompt; None for everything else."""
        if band.operation != "gate" or band.decided != "prompt":
            return None
        return condition_layer(self.intervention(band)), band.condition or band.vector

    def places(self, settings: Settings) -> list[Place]:
        """List all places that these settings' gates look at on the prompt."""
        return sorted({place for band in settings if (place := self.place(band)) is not None})

    def opens(self, band: Band, expressed: Mapping[Place, float]) -> bool:
        """Tell whether a gate of the prompt is open; one that was not there when the prompt was read is closed."""
        place = self.place(band)
        return place is not None and expressed.get(place, -math.inf) > band.threshold

    def meter_layers(self) -> list[int]:
        """The layers at which expressions are read, ascending."""
        return sorted({self._vectors[name].best_layer for name in self._shown})

    def expressions(self, states: Float32, layers: Sequence[int]) -> dict[str, NDArray[np.float64]]:
        """Say how strongly states express each vector: 0 like its negative side's mean, 1 like its positive side's.

        Args:
            states: # (rows, layers, n_embd)
            layers: The layers of `states`.

        Returns:
            (rows,) for each name.
        """
        return {
            name: self.expression(name, states[:, layers.index(self._vectors[name].best_layer)])
            for name in sorted(self._shown)
        }

    def expression(self, name: str, states: Float32, layer: int | None = None) -> NDArray[np.float64]:
        """Say how strongly the states of one layer express a vector. # (rows, n_embd) -> (rows,)"""
        vector = self._vectors[name]
        layer = vector.best_layer if layer is None else layer
        zero, one = vector.scale(layer)
        projection = states.astype(np.float64) @ vector.unit(layer).astype(np.float64)
        return np.asarray((projection - zero) / (one - zero))


def _equal(one: ControlVector, other: ControlVector) -> bool:
    return one.layers == other.layers and all(
        np.array_equal(one.directions[layer], other.directions[layer]) for layer in one.layers
    )
