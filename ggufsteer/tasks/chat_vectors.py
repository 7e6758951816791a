"""Which vectors the model's process should have, which it has, and what a chat calls them.

A vector that was taken from the equaliser stays in the process while earlier messages were written under it. It sends
nothing and draws nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ggufsteer.engine.builtin import BUILTIN, builtin_vectors, resolve_vector
from ggufsteer.engine.messages import Band, Settings
from ggufsteer.errors import SteerError
from ggufsteer.files.gguf import VECTOR_LIMITS, read_header
from ggufsteer.tasks.equaliser import SliderRecord, name_for, split_strength

_SHIPPED = f"{BUILTIN}:"


@dataclass(frozen=True)
class Wanted:
    """A vector that the process should have."""

    path: str
    strength: float | None = None
    """Where its slider begins; None for the recommended strength."""
    record: SliderRecord | None = None
    """How its slider was kept in a file, if it was."""
    shown: bool = True
    """Whether it has a slider; without one it is there for the messages that were written under it."""


class VectorShelf:
    """The vectors of the model's process, by the names that the chat chose."""

    def __init__(self) -> None:
        self.wanted: dict[str, Wanted] = {}
        self._confirmed: set[str] = set()

    @property
    def pending(self) -> set[str]:
        """Names of those that the process has not answered for."""
        return set(self.wanted) - self._confirmed

    def put(self, wanted: Wanted, name: str | None = None) -> str:
        """Want a vector; gives its name, which is made from the file's unless one is given."""
        chosen = name_for(title_of(wanted.path), self.wanted) if name is None else name
        self.wanted[chosen] = wanted
        self._confirmed.discard(chosen)
        return chosen

    def confirm(self, name: str) -> Wanted | None:
        """Note that the process has a vector; gives None for one that is not wanted any more."""
        if name in self.wanted:
            self._confirmed.add(name)
        return self.wanted.get(name)

    def drop(self, name: str) -> None:
        """Want a vector no longer."""
        self.wanted.pop(name, None)
        self._confirmed.discard(name)

    def lose_all(self) -> None:
        """Note that the process is a new one, without any vector."""
        self._confirmed.clear()

    def hide(self, name: str) -> None:
        """Keep a vector without its slider."""
        self.wanted[name] = replace(self.wanted[name], shown=False, record=None)

    @property
    def hidden(self) -> Mapping[str, str]:
        """Names and files of the vectors that have no slider."""
        return {name: wanted.path for name, wanted in self.wanted.items() if not wanted.shown}

    def available(self, settings: Settings) -> Settings:
        """Leave out what names a vector that the process does not have."""
        return tuple(self._without_lost_condition(band) for band in settings if band.vector in self._confirmed)

    def _without_lost_condition(self, band: Band) -> Band:
        lost = band.condition is not None and band.condition not in self._confirmed
        return band.model_copy(update={"condition": None}) if lost else band


def named_vector(text: str) -> tuple[str, float | None]:
    """Find the file that FILE[:STRENGTH] or builtin:NAME[:STRENGTH] means, and the strength if one is given.

    Raises:
        SteerError: No vector of that name ships, or what stands behind the file's name is no strength.
    """
    path, strength = split_strength(text)
    before, colon, after = path.rpartition(":")
    there = before.startswith(_SHIPPED) if path.startswith(_SHIPPED) else is_file(before) and not is_file(path)
    if colon and there:
        raise SteerError(f"{text}: '{after}' is no strength", f"write a number, as in {before}:1, or {before} alone")
    return str(resolve_vector(path)), strength


def is_file(path: str) -> bool:
    """Say whether there is a file; also for names that the system does not take."""
    return os.path.isfile(path)  # noqa: PTH113  # Path.is_file fails for them


def builtin_name(path: str) -> str | None:
    """Give the name, as in builtin:NAME, of a file that ships; None for any other."""
    return next((f"{_SHIPPED}{name}" for name, file in builtin_vectors().items() if str(file) == path), None)


def title_of(path: str) -> str:
    """Give the name that a vector's file tells, or else that of the file; what is wrong with it the process says."""
    try:
        title = read_header(path, VECTOR_LIMITS).metadata.get("ggufsteer.name")
    except SteerError:
        title = None
    return title if isinstance(title, str) and title.strip() else Path(path).stem
