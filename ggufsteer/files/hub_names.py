"""Names of files on the model hub: `hf:user/repository`, `…:QUANT`, `…/folder/file.gguf`, and which of them are safe.

What the hub lists is text from strangers. A path from there becomes a path below our cache, so anything that could
lead out of it is refused here. This module knows no network and no disk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ggufsteer.errors import SteerError

PREFIX = "hf:"
FORMS = 'write "hf:user/repository", "hf:user/repository:Q4_K_M" or "hf:user/repository/file.gguf"'

_PART = re.compile(r"[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?", re.ASCII)
_TAG = re.compile(r"[\w.-]{1,64}", re.ASCII)
_LONGEST_PATH = 1024


@dataclass(frozen=True)
class HubName:
    """What of the hub is meant: a repository, and in it a quantisation, a file, or neither."""

    repository: str
    """User and name, as in "user/repository"."""
    tag: str = ""
    file: str = ""
    """A path inside the repository."""

    def __str__(self) -> str:
        """Give the name as a person writes it."""
        return f"{PREFIX}{self.repository}" + (f"/{self.file}" if self.file else f":{self.tag}" if self.tag else "")


def is_hub_name(text: str | None) -> bool:
    """Say whether a model's or vector's name asks for the hub."""
    return text is not None and text.startswith(PREFIX)


def parse_hub_name(text: str) -> HubName:
    """Take a name apart; the `hf:` in front may be missing.

    >>> parse_hub_name("hf:user/repository:Q8_0")
    HubName(repository='user/repository', tag='Q8_0', file='')

    Raises:
        SteerError: It is no name of a repository, quantisation or GGUF file.
    """
    user, _, rest = text.removeprefix(PREFIX).partition("/")
    name, slash, file = rest.partition("/")
    tag = ""
    if not slash:
        name, colon, tag = name.partition(":")
        if colon and not _TAG.fullmatch(tag):
            raise SteerError(f"{text!r:.200}: {tag!r:.80} is no quantisation", FORMS)
    if not (is_repository_part(user) and is_repository_part(name)):
        raise SteerError(f"{text!r:.200} is no model on the hub", FORMS)
    if slash and not (is_safe_path(file) and file.lower().endswith(".gguf")):
        raise SteerError(f"{text!r:.200}: {file!r:.80} is no GGUF file of a repository", FORMS)
    return HubName(f"{user}/{name}", tag, file)


def is_repository_part(text: str) -> bool:
    """Say whether a text can be a user's or a repository's name; `--` cannot: the cache's folders part at it."""
    return _PART.fullmatch(text) is not None and ".." not in text and "--" not in text


def is_safe_path(path: str) -> bool:
    r"""Say whether a path from the hub stays inside the folder that it is put into.

    >>> [is_safe_path(path) for path in ("a/b.gguf", "../b.gguf", "/b.gguf", "a\\b.gguf", "a//b.gguf")]
    [True, False, False, False, False]
    """
    parts = path.split("/")
    return (
        len(path) <= _LONGEST_PATH
        and path.isprintable()
        and "\\" not in path
        and not re.match(r"[A-Za-z]:", path)
        and all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in parts)
    )
