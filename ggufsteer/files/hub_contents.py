"""What GGUF files the hub's cache holds: of which repository, what they are, how large, and what is not complete.

Only the headers are read, within bounds; a file that cannot be read is listed with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ggufsteer.errors import HubError, SteerError
from ggufsteer.files.gguf import MetadataValue, read_header
from ggufsteer.files.hub_cache import PART_SUFFIX, RepositoryCache, repositories
from ggufsteer.files.hub_choice import is_first_part, parts_of, tag_of
from ggufsteer.files.hub_names import HubName

MODEL, VECTOR, ADAPTER, SIDECAR = "model", "vector", "adapter", "sidecar"

_PART_NAME = re.compile(r"[0-9a-f]{40,64}\.(\d{1,15})" + re.escape(PART_SUFFIX))


@dataclass(frozen=True)
class Cached:
    """One model or vector in the cache, all its parts together."""

    name: str
    """What `-m` takes for it, as in "hf:user/repository/file.gguf"."""
    kind: str
    """"model", "vector", "adapter" or "sidecar"; "" where the file cannot be read."""
    architecture: str
    quantisation: str
    """As the file says, or else its name."""
    n_bytes: int
    path: Path
    problem: str = ""
    """Why it cannot be used, if so."""


@dataclass(frozen=True)
class Unfinished:
    """A download that was interrupted."""

    repository: str
    n_bytes: int
    n_bytes_wanted: int


def cached_files() -> list[Cached]:
    """List the models and vectors; what is here of two commits is listed once, as its name finds it."""
    found = []
    for cache in repositories():
        seen: set[str] = set()
        for commit in cache.commits():
            files = cache.files(commit)
            for file in files:
                if file.lower().endswith(".gguf") and is_first_part(file) and file not in seen:
                    seen.add(file)
                    found.append(_described(cache, commit, file, files))
    return found


def unfinished_downloads() -> list[Unfinished]:
    """List the downloads of ours that were interrupted; the same command goes on with them."""
    found = []
    for cache in repositories():
        for path in sorted((cache.folder / "blobs").glob(f"*{PART_SUFFIX}")):
            match = _PART_NAME.fullmatch(path.name)
            if match:
                found.append(Unfinished(cache.repository, path.stat().st_size, int(match[1])))
    return found


def _described(cache: RepositoryCache, commit: str, file: str, files: Sequence[str]) -> Cached:
    name, path = HubName(cache.repository, file=file), cache.path(commit, file)
    size, kind, architecture, quantisation, problem = path.stat().st_size, "", "", "", ""
    try:
        size = sum(cache.path(commit, part).stat().st_size for part in parts_of(file, files, name))
        metadata = read_header(path).metadata
        kind, architecture = _kind_of(metadata), _text(metadata, "general.architecture")
        quantisation = "" if kind == VECTOR else _quantisation(metadata) or tag_of(file)
        if kind == VECTOR:
            architecture = _text(metadata, "controlvector.model_hint")
    except HubError:
        problem = "a part is missing"
    except SteerError as error:
        problem = error.message.removeprefix(f"{path}: ")
    return Cached(str(name), kind, architecture, quantisation, size, path, problem)


def _kind_of(metadata: Mapping[str, MetadataValue]) -> str:
    architecture, kind = _text(metadata, "general.architecture"), _text(metadata, "general.type")
    if architecture == "controlvector":
        return VECTOR
    if kind == "adapter":
        return ADAPTER
    return SIDECAR if kind in ("mmproj", "imatrix") or architecture in ("clip", "imatrix") else MODEL


def _quantisation(metadata: Mapping[str, MetadataValue]) -> str:
    """Name the file type as files are named after it; "" where it is missing or newer than the gguf package."""
    from gguf import LlamaFileType

    number = metadata.get("general.file_type")
    known = {int(kind): kind.name for kind in LlamaFileType if kind is not LlamaFileType.GUESSED}
    name: str = known.get(number, "") if isinstance(number, int) else ""
    return name.removeprefix("MOSTLY_").removeprefix("ALL_")


def _text(metadata: Mapping[str, MetadataValue], key: str) -> str:
    value = metadata.get(key)
    return value if isinstance(value, str) else ""
