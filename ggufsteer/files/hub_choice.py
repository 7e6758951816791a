"""Which file of a repository is meant: llama.cpp's rules.

The quantisation that was named; without one Q4_K_M, else Q8_0, else the first GGUF file. A split model is all of its
parts. What lies beside models (projectors, importance matrices, draft models) is never chosen, unless it is named. This
module sees paths only, not what is in the files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ggufsteer.errors import HubError
from ggufsteer.files.hub_names import HubName
from ggufsteer.text import nearest

DEFAULT_TAGS = ("Q4_K_M", "Q8_0")

_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
_SIDECAR = re.compile(r"mmproj|imatrix|(?:^|[-_.])(?:mtp|draft)(?:[-_.]|$)", re.IGNORECASE)
_TAG_OF_STEM = re.compile(r"[-.]([A-Z0-9_]+)$")
_MOST_NAMED = 24


@dataclass(frozen=True)
class Choice:
    """The files of one model."""

    files: tuple[str, ...]
    """Paths in the repository; the first is the one to open."""
    reason: str
    """Why these, for a person."""


def choose(paths: Sequence[str], name: HubName) -> Choice:
    """Choose what a name means among the paths of a repository, in the hub's order.

    A tag that stands alone in a file's name goes before one inside a longer word: F16 is not taken for BF16.

    Raises:
        HubError: Nothing fits, or a part of a split model is missing.
    """
    if name.file:
        if name.file not in paths:
            raise HubError(f"{name}: the repository has no such file", _nearest_file(name.file, paths))
        return Choice(parts_of(name.file, paths, name), "the file that was named")
    models = [path for path in paths if is_model_file(path)]
    if not models:
        raise HubError(f"{name}: the repository has no GGUF model", _without_models(paths))
    for tag in [name.tag] if name.tag else DEFAULT_TAGS:
        found = _first_with(tag, models)
        if found is not None:
            return Choice(parts_of(found, paths, name), f"quantisation {tag}" + ("" if name.tag else ", the default"))
    if name.tag:
        tags = ", ".join(list(dict.fromkeys(tag_of(path) or path for path in models))[:_MOST_NAMED])
        raise HubError(f"{name}: the repository has no quantisation {name.tag!r}", f"there are: {tags}")
    return Choice(parts_of(models[0], paths, name), "the first GGUF file; there is no Q4_K_M and no Q8_0")


def is_model_file(path: str) -> bool:
    """Say whether a path can be a model's: a GGUF file, the first if it is one of several parts, and no sidecar."""
    return path.lower().endswith(".gguf") and is_first_part(path) and not _SIDECAR.search(path.rpartition("/")[2][:-5])


def is_first_part(path: str) -> bool:
    """Say whether a file is a whole model, or the first of its parts."""
    split = _SPLIT.fullmatch(path)
    return split is None or int(split[2]) == 1


def tag_of(path: str) -> str:
    """Read the quantisation from a file's name, as llama.cpp does; "" where it tells none.

    >>> tag_of("folder/Model-7B-Q4_K_M-00001-of-00002.gguf")
    'Q4_K_M'
    """
    split = _SPLIT.fullmatch(path)
    stem = split[1] if split else path[: -len(".gguf")]
    found = _TAG_OF_STEM.search(stem.upper())
    return found[1] if found else ""


def parts_of(path: str, paths: Sequence[str], name: HubName) -> tuple[str, ...]:
    """Name all parts of the model that a file belongs to, in order.

    Raises:
        HubError: One is missing.
    """
    split = _SPLIT.fullmatch(path)
    if split is None:
        return (path,)
    total, there = int(split[3]), set(paths)
    parts = tuple(f"{split[1]}-{number:05d}-of-{total:05d}.gguf" for number in range(1, total + 1))
    missing = [part for part in parts if part not in there]
    if missing or not parts:
        gap = missing[0] if missing else path
        raise HubError(f"{name}: the part {gap!r} of the model is missing", "choose another quantisation")
    return parts


def _first_with(tag: str, models: Sequence[str]) -> str | None:
    for pattern in (rf"(?<![A-Za-z0-9]){re.escape(tag)}[.-]", rf"{re.escape(tag)}[.-]"):
        for path in models:
            if re.search(pattern, path, re.IGNORECASE):
                return path
    return None


def _nearest_file(wanted: str, paths: Sequence[str]) -> str:
    there = [path for path in paths if path.lower().endswith(".gguf")]
    near = nearest(wanted, there)
    listed = f"it has: {', '.join(there[:_MOST_NAMED])}" if there else "it has no GGUF file at all"
    return f"did you mean {near!r}? {listed}" if near else listed


def _without_models(paths: Sequence[str]) -> str:
    there = [path for path in paths if path.lower().endswith(".gguf")]
    if there:
        return f"name one of its files, as in hf:user/repository/file.gguf: {', '.join(there[:_MOST_NAMED])}"
    return "look for a repository with GGUF files; the names of most end in -GGUF"
