"""The hub's cache on this machine, in the layout that huggingface_hub and llama.cpp share.

`models--user--repository/` holds `blobs/` (the bytes, named by their hash), `snapshots/COMMIT/` (links by the files'
own names) and `refs/main` (the commit that was current). What is here is found without asking anybody. This module
knows no network; it trusts nothing that leads out of the cache.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ggufsteer.errors import HubError
from ggufsteer.files.hub_choice import DEFAULT_TAGS, Choice, choose
from ggufsteer.files.hub_names import HubName, is_repository_part, is_safe_path

COMMIT = re.compile(r"[0-9a-f]{40}")
PART_SUFFIX = ".ggufsteer.incomplete"
"""`.incomplete` is what huggingface_hub's own tools take for a broken download and clear away."""

_DEFAULT_RECORD = "ggufsteer-default"
_TRUE = {"1", "ON", "YES", "TRUE"}


def cache_folder() -> Path:
    """Give the cache's place: HF_HUB_CACHE, else `hub` in HF_HOME, else below the person's cache folder."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if given := os.environ.get(variable):
            return _expanded(given)
    if home := os.environ.get("HF_HOME"):
        return _expanded(home) / "hub"
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface" / "hub"


def is_in_cache(path: Path) -> bool:
    """Say whether a file lies in the cache, whose files belong to several programs and are never written to."""
    return path.resolve().is_relative_to(cache_folder().resolve())


def is_offline() -> bool:
    """Say whether the environment forbids the network (HF_HUB_OFFLINE)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE


def _expanded(path: str) -> Path:
    return Path(os.path.expandvars(path)).expanduser()


@dataclass(frozen=True)
class RepositoryCache:
    """The folder of one repository in the cache; nothing of it need be there."""

    repository: str
    root: Path

    @property
    def folder(self) -> Path:
        """Where everything of the repository lies."""
        return self.root / self._name

    @property
    def _name(self) -> str:
        return "models--" + self.repository.replace("/", "--")

    def blob(self, digest: str) -> Path:
        """Give the place of a file's bytes."""
        return self.folder / "blobs" / digest

    def part(self, digest: str, size: int) -> Path:
        """Give the place of a download that is not complete, bound to what it is to become."""
        return self.folder / "blobs" / f"{digest}.{size}{PART_SUFFIX}"

    def lock(self, digest: str) -> Path:
        """Give the lock that keeps two downloads apart; huggingface_hub takes the same."""
        return self.root / ".locks" / self._name / f"{digest}.lock"

    def commit(self) -> str | None:
        """Read which commit was current when somebody last asked."""
        text = _text_of(self.folder / "refs" / "main").strip()
        return text if COMMIT.fullmatch(text) else None

    def commits(self) -> list[str]:
        """Name the commits of which something is here, the one that was current first."""
        current = self.commit()
        others = (path.name for path in _sorted_folder(self.folder / "snapshots"))
        return [
            *([current] if current else []),
            *(name for name in others if COMMIT.fullmatch(name) and name != current),
        ]

    def files(self, commit: str) -> list[str]:
        """Name the files of a commit whose bytes are here, as paths in the repository, in the hub's order."""
        snapshot = self.folder / "snapshots" / commit
        found = []
        for folder, _, names in os.walk(snapshot):
            for name in names:
                path = Path(folder, name)
                relative = path.relative_to(snapshot).as_posix()
                if is_safe_path(relative) and self._is_inside(path):
                    found.append(relative)
        return sorted(found)

    def _is_inside(self, path: Path) -> bool:
        """Say whether a link leads to a file below this repository's folder."""
        return path.is_file() and path.resolve().is_relative_to(self.folder.resolve())

    def path(self, commit: str, file: str) -> Path:
        """Give the path by which a file of a commit is opened."""
        return self.folder / "snapshots" / commit / file

    def link(self, commit: str, file: str, digest: str) -> Path:
        """Give the bytes of a blob the name of a file in a commit."""
        pointer, blob = self.path(commit, file), self.blob(digest)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        if pointer.is_symlink() and pointer.resolve() == blob.resolve():
            return pointer
        target = os.path.relpath(blob, pointer.parent)
        beside = _unique_beside(pointer)
        try:
            beside.symlink_to(target)
            beside.replace(pointer)
        finally:
            beside.unlink(missing_ok=True)
        return pointer

    def set_commit(self, commit: str) -> None:
        """Note the current commit, once its files are there."""
        _put(self.folder / "refs" / "main", commit)

    def note_default(self, commit: str, choice: Choice) -> None:
        """Note which file the bare repository's name stood for, so that the next time nobody has to be asked."""
        _put(self.folder / _DEFAULT_RECORD, f"{commit}\n{choice.files[0]}\n")

    def noted_default(self, commit: str) -> str | None:
        """Read which file the bare repository's name stood for at a commit."""
        noted, _, file = _text_of(self.folder / _DEFAULT_RECORD).strip().partition("\n")
        return file if noted == commit and is_safe_path(file) else None


def find_cached(name: HubName, *, strict: bool = True) -> tuple[Path, ...]:
    """Give the files that a name stands for where all of them are here; () otherwise.

    Args:
        name: What is meant.
        strict: Only what a look at the hub would have chosen too: the repository's own name stands for Q4_K_M, or for
            what it stood for at the last look. Otherwise also other quantisations, and older commits.
    """
    cache = RepositoryCache(name.repository, cache_folder())
    for commit in cache.commits()[: 1 if strict else None]:
        files = cache.files(commit)
        for meant in _meanings(name, cache.noted_default(commit), strict=strict):
            with contextlib.suppress(HubError):  # not among what is here
                return tuple(cache.path(commit, file) for file in choose(files, meant).files)
    return ()


def _meanings(name: HubName, noted: str | None, *, strict: bool) -> Sequence[HubName]:
    if name.tag or name.file:
        return (name,)
    known = HubName(name.repository, file=noted) if noted else HubName(name.repository, tag=DEFAULT_TAGS[0])
    return (known,) if strict else (known, name)


def cached_path(name: HubName) -> Path:
    """Give the file to open for a name from what is on this machine.

    Raises:
        HubError: It is not here.
    """
    found = find_cached(name, strict=False)
    if not found:
        raise HubError(f"{name}: is not on this machine", f"download it first: ggufsteer pull {name}")
    return found[0]


def repositories() -> list[RepositoryCache]:
    """Name the repositories of models of which something is in the cache."""
    root = cache_folder()
    found = []
    for folder in _sorted_folder(root):
        kind, _, rest = folder.name.partition("--")
        user, _, name = rest.partition("--")
        if kind == "models" and is_repository_part(user) and is_repository_part(name):
            found.append(RepositoryCache(f"{user}/{name}", root))
    return found


def _sorted_folder(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(4096).decode("utf-8", errors="replace")
    except OSError:
        return ""


def _unique_beside(path: Path) -> Path:
    """Name a file that no other download writes at this moment."""
    return path.with_name(f".ggufsteer-{secrets.token_hex(8)}.tmp")


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _unique_beside(path)
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
