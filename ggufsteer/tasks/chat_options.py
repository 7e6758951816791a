"""What a chat is begun with, and what it needs of the model's process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ggufsteer.engine.messages import Load, Policy, Request, SamplingSettings

POLICIES: Mapping[str, Policy] = {"here": "from here on", "always": "as if always"}
"""The policies by their short names."""


class WorkerLike(Protocol):
    """The model's process, as a chat sees it; its events come to `Chat.handle` by a way of the front end's."""

    def start(self) -> None:
        """Start the process."""

    def send(self, request: Request) -> None:
        """Send a request; after the process has died, nothing happens."""

    def restart(self) -> None:
        """End the process if it is still there, and start a new one."""

    def close(self) -> None:
        """End the process."""

    @property
    def alive(self) -> bool:
        """Whether the process is there."""

    @property
    def silent_seconds(self) -> float:
        """Seconds since the last event."""


@dataclass(frozen=True)
class ChatOptions:
    """What a chat is begun with."""

    load: Load
    vectors: tuple[tuple[str, float | None], ...] = ()
    """Files, and strengths; None for the recommended one."""
    system: str = ""
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    policy: Policy = "from here on"
    force: bool = False
    """Take vectors that were made from another model file of the same shape."""
    producer: str | None = None
    """Who wrote the vectors, for files that do not say."""
