"""Which model or vector a command takes: what was named, brought from the hub where it has to be, or the demo model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggufsteer.cli import console
from ggufsteer.errors import SteerError

if TYPE_CHECKING:
    from ggufsteer.cli.main import Settings
    from ggufsteer.files.control_vector import ControlVector
    from ggufsteer.tasks.hub import Fetched


def find_model(name: str | None) -> Path:
    """Return the file that a model's name stands for, and download it if it is the hub's and not here.

    Args:
        name: A path, "builtin", a name of the hub's ("hf:…"), or None for the demo model.

    Raises:
        SteerError: The name is none, or the hub does not give the file.
    """
    from ggufsteer.engine.builtin import resolve_model

    return _from_hub(name) or resolve_model(name)


def find_vector(name: str) -> Path:
    """Return the file that a vector's name stands for, and download it if it is the hub's and not here; as above."""
    from ggufsteer.engine.builtin import resolve_vector

    return _from_hub(name) or resolve_vector(name)


def find_vector_with_strength(text: str) -> tuple[str, float | None]:
    """Return the file that NAME[:STRENGTH] means, and the strength if one is given; downloads as above."""
    from ggufsteer.files.hub_names import is_hub_name
    from ggufsteer.tasks.chat_vectors import named_vector
    from ggufsteer.tasks.equaliser import split_strength

    if is_hub_name(text):
        find_vector(split_strength(text)[0])
    return named_vector(text)


def _from_hub(name: str | None) -> Path | None:
    from ggufsteer.files.hub_names import is_hub_name

    if name is None or not is_hub_name(name):
        return None
    fetched = fetch_shown(name)
    if fetched.n_bytes:
        console.note(f"{name}: {fetched.paths[0].name} ({fetched.reason})")
    if fetched.note:
        console.warn(fetched.note)
    return fetched.paths[0]


def fetch_shown(name: str, *, newest: bool = False, quiet: bool = False) -> Fetched:
    """Have a file of the hub's on this machine, with a bar on stderr while it comes.

    Args:
        name: With or without the `hf:` in front.
        newest: Ask the hub even when it is here.
        quiet: Show no progress.

    Raises:
        SteerError: The name is none, or the hub does not give the file.
    """
    from ggufsteer.files.hub_cache import is_offline
    from ggufsteer.files.hub_names import parse_hub_name
    from ggufsteer.tasks.hub import fetch

    settings: Settings | None = click.get_current_context().find_root().obj
    offline = is_offline() or (settings is not None and settings.offline)
    try:
        with console.progress(quiet=quiet) as report:
            return fetch(parse_hub_name(name), offline=offline, newest=newest, report=report)
    except KeyboardInterrupt:
        console.note(f"what has come of {name} is kept: the same command goes on from there")
        raise


def model_for_vector(name: str | None, vector: ControlVector, path: Path) -> Path:
    """Return the model that was named, or the demo model where the vector belongs to it.

    Args:
        name: What `-m` was given, if it was.
        vector: The vector.
        path: Its file, for the message.

    Raises:
        SteerError: No model was named, and the vector is of another one than the demo model.
    """
    if name is not None:
        return find_model(name)
    made_from = vector.provenance.model
    if made_from is None:
        raise SteerError(f"{path}: the vector does not say which model it belongs to", "name the model's file with -m")
    from ggufsteer.engine.builtin import resolve_model
    from ggufsteer.files.model_identity import from_header

    builtin = resolve_model("builtin")
    if from_header(builtin).content_hash != made_from.content_hash:
        raise SteerError(f"{path}: the vector was made from {made_from.label}", "name that model's file with -m")
    return builtin
