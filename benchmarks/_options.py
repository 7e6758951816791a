"""Command-line arguments that benchmarks share: counts, and models by file or by name."""

import argparse
from pathlib import Path

from _random_models import SHAPES, random_model

from ggufsteer.engine.builtin import resolve_model
from ggufsteer.errors import SteerError

BUILTIN = "builtin"


def positive(text: str) -> int:
    """Read a number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def model_path(name: str, folder: Path) -> Path:
    """Give the file of a model: a random one of that shape, the demo model, or the file itself.

    Raises:
        SteerError: There is none.
    """
    path = random_model(name, folder) if name in SHAPES else resolve_model(name)
    if not path.is_file():
        raise SteerError(f"there is no model {name}", f"give a GGUF file, {BUILTIN}, or one of {', '.join(SHAPES)}")
    return path
