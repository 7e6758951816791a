"""How many layers of a model fit into the memory of a device, worked out from the file's header.

Weights are known exactly, layer by layer; the memory of a context and the room to compute in are estimated from above,
and a margin is left free besides. It counts as llama.cpp's `-ngl` does: the output is put on the device first and
counts as one, then the layers from the last one downwards. It asks no device and loads nothing.
"""

import itertools
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggufsteer.files.gguf import GGUFHeader, read_header
from ggufsteer.files.model_identity import architecture_of

MARGIN = 1 << 30
"""Bytes of each device that stay free: for the screen, other programs, and what the estimate does not see."""

_BYTES_OF_A_STATE = 2  # the memory of a context is F16
_BLOCK = re.compile(r"blk\.(\d+)\.")
_FIRST_PART = re.compile(r"(.*)-00001-of-(\d{5})\.gguf", re.IGNORECASE)


@dataclass(frozen=True)
class ModelSizes:
    """Bytes that a model takes with a context of a given size."""

    layers: tuple[int, ...]
    """Of each layer: its weights and its part of the context's memory."""
    output: int
    """Of the output's weights."""
    input: int
    """Of the embeddings, which always stay on the CPU."""
    compute: int
    """Of the room to compute in, once for each device."""

    @property
    def parts(self) -> int:
        """What `-ngl` counts: the layers and the output."""
        return len(self.layers) + 1

    def on_devices(self, parts: int, shares: Sequence[float]) -> list[int]:
        """Give the bytes that each device has to hold when `parts` are put on them.

        Args:
            parts: The value of -ngl, 0 to `self.parts`.
            shares: How much of them each device takes, such as its free memory; llama.cpp splits in proportion.
        """
        taken = [0] * len(shares)
        if not parts:
            return taken
        ends = list(itertools.accumulate(share / sum(shares) for share in shares))
        for number, size in enumerate((*self.layers, self.output)[self.parts - parts :]):
            taken[min(bisect_right(ends, number / parts), len(shares) - 1)] += size
        return [size + self.compute if size else 0 for size in taken]

    def fitting(self, free: Sequence[int], margin: int = MARGIN) -> int:
        """Give the largest value of -ngl with which every device keeps its margin.

        Args:
            free: Bytes that are free on each device; the parts are split over all of them.
            margin: Bytes of each device that stay free.
        """
        if not any(free):
            return 0
        for parts in range(self.parts, 0, -1):
            taken = self.on_devices(parts, free)
            if all(not size or size + margin <= room for size, room in zip(taken, free, strict=True)):
                return parts
        return 0


def model_sizes(path: Path, *, n_ctx: int, n_ubatch: int, flash_attention: bool = True) -> ModelSizes:
    """Work the sizes out from the header of a model file, all parts of a split one included.

    Args:
        path: A GGUF file; of a split model, its first part.
        n_ctx: Tokens that the context holds.
        n_ubatch: Tokens computed at once.
        flash_attention: Whether attention is computed without its full matrix.

    Raises:
        FileFormatError: A file is missing or broken, or no model.
    """
    headers = [read_header(part) for part in _parts(path)]
    metadata = headers[0].metadata
    keys = _Keys(metadata, architecture_of(path, metadata))
    weights = _weights(headers)
    return ModelSizes(
        layers=tuple(size + keys.memory_of(layer) * n_ctx for layer, size in enumerate(weights.layers)),
        output=weights.output,
        input=weights.input,
        compute=keys.compute(n_ctx, n_ubatch, weights.n_vocab, flash_attention),
    )


def _parts(path: Path) -> list[Path]:
    named = _FIRST_PART.fullmatch(path.name)
    if named is None:
        return [path]
    total = int(named[2])
    return [path.with_name(f"{named[1]}-{number:05d}-of-{total:05d}.gguf") for number in range(1, total + 1)]


@dataclass(frozen=True)
class _Weights:
    layers: tuple[int, ...]
    output: int
    input: int
    n_vocab: int


def _weights(headers: Sequence[GGUFHeader]) -> _Weights:
    layers: dict[int, int] = {}
    input_bytes = output = n_vocab = 0
    has_matrix = False
    for info in itertools.chain.from_iterable(header.tensors.values() for header in headers):
        block = _BLOCK.match(info.name)
        if block:
            layers[int(block[1])] = layers.get(int(block[1]), 0) + info.n_bytes
        elif info.name == "token_embd.weight":
            input_bytes += info.n_bytes
            n_vocab = info.shape[-1]
        else:
            output += info.n_bytes
            has_matrix = has_matrix or info.name == "output.weight"
    # A model without an output matrix of its own uses the embeddings, of which the device then gets a copy.
    output += 0 if has_matrix else input_bytes
    n_layer = max(layers, default=-1) + 1
    return _Weights(tuple(layers.get(layer, 0) for layer in range(n_layer)), output, input_bytes, n_vocab)


@dataclass(frozen=True)
class _Keys:
    """The keys of a model's header that say how wide it is."""

    metadata: Mapping[str, Any]
    architecture: str

    def number(self, key: str, layer: int | None = None) -> int:
        """Read a number, or of one a layer that layer's or the largest; 0 where it is not there."""
        value = self.metadata.get(f"{self.architecture}.{key}", 0)
        if isinstance(value, tuple):
            numbers = [int(one) for one in value if isinstance(one, int)]
            return numbers[layer] if layer is not None and layer < len(numbers) else max(numbers, default=0)
        return value if isinstance(value, int) else 0

    def memory_of(self, layer: int) -> int:
        """Give the bytes of keys and values that one layer keeps for one token.

        Windows and recurrent layers keep less.
        """
        heads = max(1, self.number("attention.head_count"))
        width = self.number("embedding_length") // heads
        wide = (self.number("attention.key_length") or width) + (self.number("attention.value_length") or width)
        per_layer = f"{self.architecture}.attention.head_count_kv" in self.metadata
        kept = self.number("attention.head_count_kv", layer) if per_layer else heads
        return kept * wide * _BYTES_OF_A_STATE

    def compute(self, n_ctx: int, n_ubatch: int, n_vocab: int, flash_attention: bool) -> int:
        """Estimate the bytes of the largest graph: the logits, a few states, and attention's matrix."""
        experts = max(1, self.number("expert_used_count"))
        inner = max(self.number("feed_forward_length"), experts * self.number("expert_feed_forward_length"))
        attention = 0 if flash_attention else self.number("attention.head_count") * n_ctx
        return 4 * n_ubatch * (n_vocab + 8 * self.number("embedding_length") + 3 * inner + attention)
