"""GGUF files byte by byte, so that a test can break exactly one thing in them."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

UINT8, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = 0, 4, 5, 6, 7, 8, 9, 10, 11, 12
F32, F16 = 0, 1


def text(value: str | bytes) -> bytes:
    """A GGUF string: its length in 64 bits, then its bytes."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def key(name: str | bytes, value_type: int, payload: bytes) -> bytes:
    """One metadata entry."""
    return text(name) + struct.pack("<I", value_type) + payload


def text_key(name: str, value: str | bytes) -> bytes:
    """One metadata entry that holds a string."""
    return key(name, STRING, text(value))


def uint32_key(name: str, value: int) -> bytes:
    """One metadata entry that holds a UINT32."""
    return key(name, UINT32, struct.pack("<I", value))


def int32_key(name: str, value: int) -> bytes:
    """One metadata entry that holds an INT32."""
    return key(name, INT32, struct.pack("<i", value))


def float64_key(name: str, value: float) -> bytes:
    """One metadata entry that holds a FLOAT64."""
    return key(name, FLOAT64, struct.pack("<d", value))


def array_key(name: str, element_type: int, count: int, payload: bytes = b"") -> bytes:
    """One metadata entry that announces `count` elements and brings `payload`."""
    return key(name, ARRAY, struct.pack("<IQ", element_type, count) + payload)


def tensor(name: str | bytes, shape: Sequence[int], offset: int = 0, tensor_type: int = F32) -> bytes:
    """The description of one tensor."""
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, tensor_type, offset)


def floats(*values: float) -> bytes:
    """Tensor data, padded to 32 bytes."""
    data = struct.pack(f"<{len(values)}f", *values)
    return data + b"\0" * (-len(data) % 32)


ARCHITECTURE = text_key("general.architecture", "controlvector")
HINT = text_key("controlvector.model_hint", "llama")


@dataclass(frozen=True)
class Raw:
    """A vector file in pieces; the default is a good one with layers 1 and 2, four values each."""

    keys: tuple[bytes, ...] = (ARCHITECTURE, HINT, uint32_key("controlvector.layer_count", 2))
    tensors: tuple[bytes, ...] = (tensor("direction.1", [4], 0), tensor("direction.2", [4], 32))
    data: bytes = floats(1, 0, 0, 0) + floats(0, 1, 0, 0)
    magic: bytes = b"GGUF"
    version: int = 3
    n_keys: int | None = None
    n_tensors: int | None = None
    alignment: int = 32

    def with_keys(self, *more: bytes) -> "Raw":
        """The same file with more metadata."""
        return replace(self, keys=self.keys + more)

    def made(self) -> bytes:
        """The whole file."""
        n_keys = len(self.keys) if self.n_keys is None else self.n_keys
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        header = self.magic + struct.pack("<IQQ", self.version, n_tensors, n_keys)
        header += b"".join(self.keys) + b"".join(self.tensors)
        return header + b"\0" * (-len(header) % self.alignment) + self.data


def one(name: str | bytes, *values: float, shape: Sequence[int] | None = None, tensor_type: int = F32) -> Raw:
    """A file with a single tensor."""
    return Raw(
        keys=(ARCHITECTURE, HINT, uint32_key("controlvector.layer_count", 1)),
        tensors=(tensor(name, [len(values)] if shape is None else shape, 0, tensor_type),),
        data=floats(*values),
    )
