"""What a file of activations says about itself: its layout, as the header of a safetensors file and back.

Decides the names, order and places of the tensors: one a set and layer, set by set and layer by layer without holes, so
that a set is one block of (layers, observations, n_embd). Reading takes nothing on trust: a header is walked through
member by member, within limits, because a JSON parser builds whatever it is told to before anybody can object. It does
not know what the numbers are good for, nor how they come onto the disk.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from json import JSONDecodeError, JSONDecoder
from operator import index
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from ggufsteer.errors import FileFormatError, SteerError
from ggufsteer.text import clean

__all__ = ["VALUE_BYTES", "Layout", "header_of", "read_header"]

VALUE_BYTES = 4
_FORMAT_KEY = "ggufsteer.activations"
_FORMAT_VERSION = "1"
_METADATA = "__metadata__"
_HEADER_LIMIT_BYTES = 64 << 20
_LENGTH = struct.Struct("<Q")
_ALIGNMENT = 8
_LOOKED_AT_CHARACTERS = 500
_MOST_TENSORS = 1 << 14
_MOST_METADATA_KEYS = 4096
_LARGEST_DIMENSION = 1 << 20
_LARGEST_COUNT = 1 << 40
_LARGEST_OFFSET = 1 << 63
_SET_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_TENSOR_NAME = re.compile(rf"({_SET_NAME.pattern})\.layer\.(0|[1-9][0-9]{{0,6}})")
_MAKE_AGAIN = "copy it again, or let ggufsteer extract --save-activations make it again"
_GIVE_ANOTHER = "give a file that ggufsteer extract --save-activations has written"


@dataclass(frozen=True)
class Layout:
    """Which hidden states a file holds, in which order, and what they were measured on.

    Raises `SteerError` for what no file can hold: no set, no layer, layers out of order, sizes past all sense.
    """

    counts: Mapping[str, int]
    """Observations of each set, in the order of the file; a set may have none."""
    layers: tuple[int, ...]
    """Numbers of the blocks, counted from 0, strictly ascending."""
    n_embd: int
    """Width of a hidden state."""
    metadata: Mapping[str, str]
    """Whatever tells this extraction from another: recipe, hash of the model, versions."""

    def __post_init__(self) -> None:
        # Copies: what was checked must not change behind the file's back.
        object.__setattr__(self, "counts", MappingProxyType({name: index(n) for name, n in self.counts.items()}))
        object.__setattr__(self, "layers", tuple(index(layer) for layer in self.layers))
        object.__setattr__(self, "n_embd", index(self.n_embd))
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))
        problem = _problem_of(self)
        if problem:
            raise SteerError(f"activations {problem}", "give every extraction at least one set, layer and column")

    @property
    def observations(self) -> int:
        """How many observations all sets have together."""
        return sum(self.counts.values())

    @property
    def data_bytes(self) -> int:
        """Bytes that the values take."""
        return self.observations * len(self.layers) * self.n_embd * VALUE_BYTES

    def bytes_before(self, name: str) -> int:
        """Bytes between the beginning of the data and that of a set."""
        names = list(self.counts)
        before = sum(self.counts[earlier] for earlier in names[: names.index(name)])
        return before * len(self.layers) * self.n_embd * VALUE_BYTES


def _problem_of(layout: Layout) -> str | None:
    """Say what is wrong with a layout, in words; None when nothing is."""
    ascending = all(first < second for first, second in zip(layout.layers, layout.layers[1:], strict=False))
    if not layout.counts or not layout.layers:
        return "have no set of observations" if not layout.counts else "have no layer"
    if not ascending or layout.layers[0] < 0 or layout.layers[-1] > _LARGEST_DIMENSION:
        return f"have the layers {_shortened(str(list(layout.layers)))}, which are not ascending numbers from 0"
    if not 0 < layout.n_embd <= _LARGEST_DIMENSION:
        return f"are {layout.n_embd} wide, not 1 to {_LARGEST_DIMENSION}"
    if len(layout.counts) * len(layout.layers) > _MOST_TENSORS:
        return f"have {len(layout.counts)} sets of {len(layout.layers)} layers, more than {_MOST_TENSORS} together"
    return _problem_of_counts(layout.counts) or _problem_of_metadata(layout.metadata)


def _problem_of_counts(counts: Mapping[str, int]) -> str | None:
    for name, count in counts.items():
        if not _SET_NAME.fullmatch(name):
            return f"have a set called {_shortened(name)!r}, which is no plain word"
        if not 0 <= count <= _LARGEST_COUNT:
            return f"have {count} observations in the set '{name}'"
    return None


def _problem_of_metadata(metadata: Mapping[str, str]) -> str | None:
    if len(metadata) > _MOST_METADATA_KEYS:
        return f"have {len(metadata)} keys of metadata, more than {_MOST_METADATA_KEYS}"
    if _FORMAT_KEY in metadata:
        return f"may not bring the key {_FORMAT_KEY} themselves"
    for key in metadata:
        if not key or key != _encodable(key):
            return f"have the key {_shortened(key)!r} of metadata, which is no text"
    return None


def _encodable(text: str) -> str:
    # A file name that is not UTF-8 reaches us with lone surrogates, which no header may hold.
    return text.encode("utf-8", errors="replace").decode("utf-8")


def _shortened(text: str) -> str:
    # Cut before cleaning: a name may be as long as the header.
    return f"{clean(text[:_LOOKED_AT_CHARACTERS]):.60}"


def header_of(layout: Layout) -> bytes:
    """Everything that stands before the data, its length first: the same bytes for the same layout.

    Raises `SteerError` when the metadata is longer than any reader takes.
    """
    metadata = {_FORMAT_KEY: _FORMAT_VERSION} | {key: _encodable(text) for key, text in layout.metadata.items()}
    members: dict[str, object] = {_METADATA: dict(sorted(metadata.items()))}
    position = 0
    for name, count in layout.counts.items():
        for layer in layout.layers:
            end = position + count * layout.n_embd * VALUE_BYTES
            shape, place = [count, layout.n_embd], [position, end]
            members[f"{name}.layer.{layer}"] = {"dtype": "F32", "shape": shape, "data_offsets": place}
            position = end
    text = json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > _HEADER_LIMIT_BYTES:
        raise SteerError(
            f"the metadata of the activations takes {len(text)} bytes, more than the {_HEADER_LIMIT_BYTES} of a header",
            "use a shorter recipe",
        )
    return _LENGTH.pack(len(text)) + text


def read_header(path: Path | str, file: BinaryIO, size: int) -> tuple[Layout, int]:
    """Read and check the header of an open file of `size` bytes; gives its layout and where its data begins.

    Whether the data is all there is the caller's to check. Raises `FileFormatError` for anything but a header that
    `header_of` could mean.
    """
    if size == 0:
        raise FileFormatError(f"{path}: is empty", _MAKE_AGAIN)
    first = file.read(_LENGTH.size + 1)
    length = int.from_bytes(first[: _LENGTH.size], "little")
    if len(first) <= _LENGTH.size or first[_LENGTH.size :] != b"{" or length > _HEADER_LIMIT_BYTES:
        raise FileFormatError(
            f"{path}: is not a safetensors file of activations: it begins with {first!r}", _GIVE_ANOTHER
        )
    if length > size - _LENGTH.size:
        raise FileFormatError(f"{path}: ends inside its header of {length} bytes (at byte {size})", _MAKE_AGAIN)
    file.seek(_LENGTH.size)
    data = file.read(length)
    if len(data) != length:
        raise FileFormatError(f"{path}: was cut while its header was read", _MAKE_AGAIN)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileFormatError(
            f"{path}: byte {_LENGTH.size + error.start} of its header is not UTF-8 text", _MAKE_AGAIN
        ) from error
    return _Reading(path, text).layout(), _LENGTH.size + length


@dataclass(frozen=True)
class _Tensor:
    """One member of the header, as it stands there."""

    name: str
    shape: tuple[int, ...]
    place: tuple[int, ...]


class _Reading:
    """A walk through the text of a header that never builds more than it has checked."""

    _SPACE = re.compile(r"[ \t\r\n]*")
    _DESCRIPTION = re.compile(r"\{[^{}-]{0,300}\}")
    _TEXTS = JSONDecoder()

    def __init__(self, path: Path | str, text: str) -> None:
        self.path = path
        self.text = text
        self.position = 0

    def refuse(self, problem: str, mend: str = _MAKE_AGAIN) -> FileFormatError:
        return FileFormatError(f"{self.path}: {problem}", mend)

    def layout(self) -> Layout:
        metadata, tensors = self.members()
        version = metadata.pop(_FORMAT_KEY, None)
        if version is None:
            raise self.refuse(
                f"is a safetensors file, but not one of activations: it lacks {_FORMAT_KEY}", _GIVE_ANOTHER
            )
        if version != _FORMAT_VERSION:
            raise self.refuse(
                f"{_FORMAT_KEY} is '{_shortened(version)}'; version {_FORMAT_VERSION} can be read",
                "update ggufsteer, or make the file again",
            )
        counts, layers, n_embd = self.shape_of(tensors)
        try:
            return Layout(counts, layers, n_embd, metadata)
        except SteerError as error:
            raise self.refuse(f"its {error.message}") from error

    def members(self) -> tuple[dict[str, str], list[_Tensor]]:
        """Read the whole object: metadata and tensors, in the order of the text."""
        metadata: dict[str, str] = {}
        tensors: list[_Tensor] = []
        for name in self.keys("tensors", _MOST_TENSORS + 1):
            if name == _METADATA:
                for key in self.keys("keys of metadata", _MOST_METADATA_KEYS + 1):
                    metadata[key] = self.string(f"the value of the key '{_shortened(key)}'")
            else:
                tensors.append(self.tensor(name))
        rest = self.symbol()
        if rest:
            raise self.refuse(f"holds {rest!r} after the end of its header")
        return metadata, tensors

    def symbol(self) -> str:
        """The next character that is no space; empty at the end."""
        space = self._SPACE.match(self.text, self.position)
        self.position = space.end() if space else self.position
        return self.text[self.position : self.position + 1]

    def take(self, symbol: str) -> None:
        found = self.symbol()
        if found != symbol:
            what = f"holds {found!r} at character {self.position}" if found else "ends"
            raise self.refuse(f"its header {what} where '{symbol}' belongs")
        self.position += 1

    def keys(self, what: str, limit: int) -> Iterator[str]:
        """The keys of an object, one by one; whoever takes one reads its value before the next."""
        seen: set[str] = set()
        self.take("{")
        while self.symbol() != "}":
            if seen:
                self.take(",")
            key = self.string(f"the name of one of the {what}")
            if key in seen:
                raise self.refuse(f"its header names '{_shortened(key)}' twice")
            seen.add(key)
            if len(seen) > limit:
                raise self.refuse(f"its header holds more than {limit} {what}")
            self.take(":")
            yield key
        self.take("}")

    def string(self, what: str) -> str:
        if self.symbol() != '"':
            raise self.refuse(f"{what} is no text, at character {self.position} of its header")
        try:
            value, self.position = self._TEXTS.raw_decode(self.text, self.position)
        except JSONDecodeError as error:
            raise self.refuse(f"{what} is broken, at character {error.pos} of its header") from error
        if not isinstance(value, str) or value != _encodable(value):
            raise self.refuse(f"{what} holds a character that is none, before character {self.position} of its header")
        return value

    def tensor(self, name: str) -> _Tensor:
        shown = _shortened(name)
        self.symbol()
        found = self._DESCRIPTION.match(self.text, self.position)
        if found is None:
            raise self.refuse(f"tensor '{shown}' has no description, at character {self.position} of its header")
        self.position = found.end()
        try:
            pairs: list[tuple[str, object]] = json.loads(found[0], object_pairs_hook=list)
        except (ValueError, RecursionError) as error:
            raise self.refuse(f"the description of tensor '{shown}' is no JSON") from error
        fields = dict(pairs)
        if sorted(key for key, _ in pairs) != ["data_offsets", "dtype", "shape"]:
            raise self.refuse(f"tensor '{shown}' is not described by dtype, shape and data_offsets")
        if fields["dtype"] != "F32":
            raise self.refuse(f"tensor '{shown}' has the dtype {_shortened(str(fields['dtype']))!r}, not 'F32'")
        return _Tensor(name, self.pair(shown, fields, "shape"), self.pair(shown, fields, "data_offsets"))

    def pair(self, name: str, fields: Mapping[str, object], key: str) -> tuple[int, int]:
        value = fields[key]
        if (
            isinstance(value, list)
            and [type(number) for number in value] == [int, int]
            and max(value) < _LARGEST_OFFSET
        ):
            return value[0], value[1]
        raise self.refuse(f"{key} of tensor '{name}' is {_shortened(str(value))}, not two whole numbers")

    def shape_of(self, tensors: list[_Tensor]) -> tuple[dict[str, int], tuple[int, ...], int]:
        """Counts, layers and width, where all tensors agree on them and follow each other without holes."""
        counts: dict[str, int] = {}
        layers: dict[str, list[int]] = {}
        position, n_embd = 0, tensors[0].shape[1] if tensors else 0
        for tensor in tensors:
            match = _TENSOR_NAME.fullmatch(tensor.name)
            if match is None:
                raise self.refuse(f"tensor '{_shortened(tensor.name)}' is not called SET.layer.NUMBER", _GIVE_ANOTHER)
            name, (count, width) = match[1], tensor.shape
            expected = (counts.setdefault(name, count), n_embd)
            if tensor.shape != expected:
                raise self.refuse(f"tensor '{tensor.name}' has the shape {[count, width]}, not {list(expected)}")
            if next(reversed(counts)) != name:
                raise self.refuse(f"tensor '{tensor.name}' does not stand with the others of its set")
            end = position + count * width * VALUE_BYTES
            if tensor.place != (position, end):
                raise self.refuse(
                    f"tensor '{tensor.name}' lies at bytes {tensor.place[0]} to {tensor.place[1]} of the data, "
                    f"not {position} to {end}"
                )
            layers.setdefault(name, []).append(int(match[2]))
            position = end
        of_first = next(iter(layers.values()), [])
        for name, found in layers.items():
            if found != of_first:
                raise self.refuse(f"its sets have different layers: '{name}' is unlike '{next(iter(layers))}'")
        return counts, tuple(of_first), n_embd
