"""What ships with ggufsteer: a model, other quantisations made from it, its vectors, and what their names stand for.

Names are resolved without loading llama.cpp; only making a quantised copy needs it.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ggufsteer.errors import EngineError, ModelError, SteerError
from ggufsteer.files.hub_cache import cached_path
from ggufsteer.files.hub_names import is_hub_name, parse_hub_name
from ggufsteer.text import nearest

BUILTIN = "builtin"
"""The name that stands for the model that ships."""

_DEMO = Path(__file__).resolve().parent.parent / "demo"
_DEMO_MODEL = _DEMO / "ggufsteer-demo-q8_0.gguf"
_VECTORS = _DEMO / "vectors"
_FILE_TYPES: Mapping[str, int] = {"Q8_0": 7, "Q4_K_M": 15}


def builtin_model_path(quantisation: str = "Q8_0", folder: Path | None = None) -> Path:
    """Give the file of the model that ships; other quantisations than Q8_0 are made when they are not there yet.

    Args:
        quantisation: "Q8_0" or "Q4_K_M".
        folder: Where a made file is kept; needed for all but Q8_0.

    Raises:
        SteerError: There is no such quantisation.
        ModelError: The package was installed without its model.
        EngineError: The file could not be made.
    """
    if quantisation not in _FILE_TYPES:
        suggestion = nearest(quantisation, _FILE_TYPES) or "Q8_0"
        raise SteerError(f"the built-in model has no quantisation {quantisation!r}", f"give {suggestion}")
    if not _DEMO_MODEL.is_file():
        raise ModelError(
            f"the built-in model {_DEMO_MODEL} is missing", "install ggufsteer again, or give a model with -m"
        )
    if quantisation == "Q8_0":
        return _DEMO_MODEL
    if folder is None:
        raise SteerError(f"the built-in model in {quantisation} has to be made first", "name a folder for it")
    target = folder / f"ggufsteer-demo-{quantisation.lower()}.gguf"
    if not target.is_file():
        quantise(_DEMO_MODEL, target, quantisation)
    return target


def quantise(source: Path, target: Path, quantisation: str, *, n_threads: int = 0) -> None:
    """Make a quantised copy of a model with llama.cpp's own quantiser.

    The copy appears under its name only when it is complete.

    Args:
        source: A GGUF model; a quantised one loses a little more.
        target: The file to make; an existing one is replaced.
        quantisation: "Q8_0" or "Q4_K_M".
        n_threads: 0 takes all.

    Raises:
        EngineError: llama.cpp failed, or the file cannot be written.
    """
    import llama_cpp

    from ggufsteer.engine import backend

    backend.prepare()
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = _FILE_TYPES[quantisation]
    parameters.allow_requantize = True
    parameters.nthread = n_threads
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".quantise-") as folder:
            unfinished = Path(folder) / target.name
            backend.forget_complaints()
            code = llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(unfinished), parameters)
            if code != 0:
                raise EngineError(
                    f"{source}: llama.cpp could not make a {quantisation} copy: {backend.last_complaint()}"
                )
            unfinished.replace(target)
    except OSError as error:
        raise EngineError(f"{target}: cannot be written: {error.strerror or error}", "name another folder") from error


def resolve_model(name: str | None) -> Path:
    """Find the file that a model's name stands for; nothing is downloaded.

    Args:
        name: A path; "builtin" or None for the model that ships; "hf:user/repository" for one in the hub's cache.

    Raises:
        SteerError: The name is none of the hub's.
        HubError: The model is not on this machine.
        ModelError: The model that ships is missing.
    """
    if name is None or name == BUILTIN:
        return builtin_model_path()
    if is_hub_name(name):
        return cached_path(parse_hub_name(name))
    return Path(name)


def builtin_vectors() -> dict[str, Path]:
    """Give the files of the vectors that ship, by name; they belong to the model that ships."""
    return {path.stem: path for path in sorted(_VECTORS.glob("*.gguf"))}


def resolve_vector(name: str) -> Path:
    """Find the file that a vector's name stands for.

    Args:
        name: A path, "builtin:NAME" for a vector that ships, or "hf:user/repository/file.gguf" for one in the hub's
            cache; nothing is downloaded.

    Raises:
        SteerError: No vector of that name ships, or the name is none of the hub's.
        HubError: The vector is not on this machine.
    """
    if is_hub_name(name):
        return cached_path(parse_hub_name(name))
    kind, separator, wanted = name.partition(":")
    if kind != BUILTIN or not separator:
        return Path(name)
    shipped = builtin_vectors()
    if wanted in shipped:
        return shipped[wanted]
    near = nearest(wanted, shipped)
    meant = f"did you mean '{BUILTIN}:{near}'? " if near else ""
    there = f"these ship: {', '.join(shipped)}" if shipped else "none ships: install ggufsteer again"
    raise SteerError(f"no vector {name!r} ships with ggufsteer", f"{meant}{there}")
