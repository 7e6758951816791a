"""Presets: the setting of all sliders under a name, in the person's folder for settings.

It decides where that folder is and what a preset may be called. What a setting means is the equaliser's business.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from ggufsteer.errors import ExitCode, SteerError
from ggufsteer.files.atomic import write_text_atomically
from ggufsteer.files.inputs import read_text
from ggufsteer.tasks.equaliser import Equaliser, SliderRecord
from ggufsteer.tasks.json_record import Record, from_text, to_text
from ggufsteer.text import clean, nearest

FORMAT: Literal["ggufsteer preset"] = "ggufsteer preset"
LARGEST_FILE = 1 << 20
_SUFFIX = ".json"
_NAME = re.compile(r"[^\W_][\w.-]{0,59}")
# Windows takes these for devices, with any ending.
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", *(f"com{digit}" for digit in range(10)), *(f"lpt{digit}" for digit in range(10))}
)


class Preset(Record):
    """The whole file."""

    format: Literal["ggufsteer preset"]
    version: Literal[1]
    sliders: list[SliderRecord]


def presets_folder(environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Say where presets are kept: by the platform's rules, or below XDG_CONFIG_HOME where that is set."""
    home = Path.home()
    places = {"win32": Path(environment.get("APPDATA") or home), "darwin": home / "Library" / "Application Support"}
    place = places.get(platform, home / ".config")
    named = Path(environment.get("XDG_CONFIG_HOME", ""))
    return (named if named.is_absolute() else place) / "ggufsteer" / "presets"


def preset_names() -> list[str]:
    """Name all presets, in order."""
    try:
        files = sorted(presets_folder().glob(f"*{_SUFFIX}"))
    except OSError as error:
        raise SteerError(f"{presets_folder()}: cannot be read: {error.strerror or error}") from error
    return [file.stem for file in files if _NAME.fullmatch(file.stem)]


def save_preset(name: str, equaliser: Equaliser) -> Path:
    """Keep the sliders under a name; a preset of that name is replaced. Gives the file.

    Raises:
        SteerError: The name cannot be one, or the file cannot be written.
    """
    path = _path(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{path.parent}: cannot be made: {error.strerror or error}"
        raise SteerError(message, "set XDG_CONFIG_HOME to a folder of yours", exit_code=ExitCode.FAILED) from error
    write_text_atomically(path, to_text(Preset(format=FORMAT, version=1, sliders=equaliser.records())))
    return path


def load_preset(name: str) -> list[SliderRecord]:
    """Read the sliders of a preset.

    Raises:
        SteerError: There is no preset of that name, with the nearest known one; or its file is damaged.
    """
    path = _existing(name)
    return from_text(Preset, read_text(path, LARGEST_FILE), str(path), FORMAT).sliders


def delete_preset(name: str) -> None:
    """Delete a preset; raises `SteerError` when there is none of that name."""
    path = _existing(name)
    try:
        path.unlink()
    except OSError as error:
        raise SteerError(f"{path}: cannot be deleted: {error.strerror or error}", exit_code=ExitCode.FAILED) from error


def _existing(name: str) -> Path:
    path = _path(name)
    if not path.is_file():
        names = preset_names()
        known = nearest(name, names)
        listed = f"there are {', '.join(names)}" if names else "there is none: /preset save NAME"
        raise SteerError(f"there is no preset '{name}'", f"did you mean '{known}'?" if known is not None else listed)
    return path


def _path(name: str) -> Path:
    if not _NAME.fullmatch(name) or name.endswith(".") or name.lower().partition(".")[0] in _DEVICES:
        raise SteerError(
            f"'{clean(name)}' cannot be the name of a preset", "take letters, digits, '-', '_' and '.', at most 60"
        )
    return presets_folder() / f"{name}{_SUFFIX}"
