"""Models with random weights and the shapes of real ones, to measure speed on without a download.

How fast a model runs depends on its shape and quantisation, not on what its weights mean. What such a model writes is
noise: nothing about quality can be read from it. Text becomes the same tokens as with the demo model, whose vocabulary
is filled up with tokens that no text contains; so a text has more tokens than the real model would give it. The
frequency corrections that Llama 3.2 has for long contexts are left out: they cost nothing that could be measured.

    python benchmarks/_random_models.py [NAME …] [--folder FOLDER] [--quantisation Q4_K_M]
"""

import argparse
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from ggufsteer.engine.builtin import builtin_model_path, quantise
from ggufsteer.errors import SteerError
from ggufsteer.text import nearest

DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / "build" / "random-models"
QUANTISATIONS = ("Q4_K_M", "Q8_0")
SEED = 0
_SPREAD = 0.02
"""Standard deviation of the weights, as usual before training. Behind the last block states have sizes of 1 to 5."""
_SLICE = 1 << 22
"""Numbers drawn at a time."""
_NAMES = gguf.Keys.Tokenizer.LIST
_TYPES = gguf.Keys.Tokenizer.TOKEN_TYPE


@dataclass(frozen=True)
class Shape:
    """What decides how much a model has to compute. The output matrix is always the embedding itself."""

    architecture: str
    n_layer: int
    n_embd: int
    n_head: int
    n_head_kv: int
    n_feed_forward: int
    n_vocab: int
    n_ctx_train: int
    rope_base: float
    rms_epsilon: float = 1e-5
    has_attention_biases: bool = False

    @property
    def n_parameters(self) -> int:
        """Number of weights, norms and biases included."""
        return sum(math.prod(size) for size in self.tensors().values())

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Give the size of each tensor, in the order of the file: (out, in), or (width,) for norms and biases."""
        n_kv = self.n_embd // self.n_head * self.n_head_kv
        block: dict[str, tuple[int, ...]] = {
            "attn_norm.weight": (self.n_embd,),
            "attn_q.weight": (self.n_embd, self.n_embd),
            "attn_k.weight": (n_kv, self.n_embd),
            "attn_v.weight": (n_kv, self.n_embd),
            "attn_output.weight": (self.n_embd, self.n_embd),
            "ffn_norm.weight": (self.n_embd,),
            "ffn_gate.weight": (self.n_feed_forward, self.n_embd),
            "ffn_up.weight": (self.n_feed_forward, self.n_embd),
            "ffn_down.weight": (self.n_embd, self.n_feed_forward),
        }
        if self.has_attention_biases:
            block |= {"attn_q.bias": (self.n_embd,), "attn_k.bias": (n_kv,), "attn_v.bias": (n_kv,)}
        sizes: dict[str, tuple[int, ...]] = {"token_embd.weight": (self.n_vocab, self.n_embd)}
        for layer in range(self.n_layer):
            sizes |= {f"blk.{layer}.{name}": size for name, size in block.items()}
        return sizes | {"output_norm.weight": (self.n_embd,)}


SHAPES: Mapping[str, Shape] = {
    "smollm2-135m": Shape("llama", 30, 576, 9, 3, 1536, 49152, 8192, 1e5),
    "qwen2.5-0.5b": Shape(
        "qwen2", 24, 896, 14, 2, 4864, 151936, 32768, 1e6, rms_epsilon=1e-6, has_attention_biases=True
    ),
    "llama-3.2-1b": Shape("llama", 16, 2048, 32, 8, 8192, 128256, 131072, 5e5),
}


def random_model(name: str, folder: Path = DEFAULT_FOLDER, quantisation: str = "Q4_K_M") -> Path:
    """Give the file of a random model; it is made when it is not there yet.

    Making one needs room for it in 16 bits beside the result: 2 bytes a weight.

    Args:
        name: A key of `SHAPES`.
        folder: Where the file is kept. A file of an older shape is taken as it is: delete it to have it made again.
        quantisation: One of `QUANTISATIONS`.

    Raises:
        SteerError: There is no such model or quantisation.
        EngineError: The file could not be made.
    """
    for kind, value, known in (("random model", name, SHAPES), ("quantisation", quantisation, QUANTISATIONS)):
        if value not in known:
            raise SteerError(f"there is no {kind} {value!r}", f"give {nearest(value, known) or ' or '.join(known)}")
    target = folder / f"random-{name}-{quantisation.lower()}.gguf"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".random-") as unfinished:
            source = Path(unfinished) / "f16.gguf"
            write_f16(source, SHAPES[name], f"random {name}")
            quantise(source, target, quantisation)
    return target


def write_f16(path: Path, shape: Shape, name: str) -> None:
    """Write a model of this shape: matrices in 16 bits, norms (all 1) and biases in 32. The same at each call.

    Args:
        path: The file to write.
        shape: Of the model; its vocabulary must not be smaller than the demo model's.
        name: `general.name`.

    Raises:
        SteerError: The vocabulary is too small.
    """
    writer = gguf.GGUFWriter(path, shape.architecture)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_block_count(shape.n_layer)
    writer.add_context_length(shape.n_ctx_train)
    writer.add_embedding_length(shape.n_embd)
    writer.add_feed_forward_length(shape.n_feed_forward)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_rope_dimension_count(shape.n_embd // shape.n_head)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.rms_epsilon)
    writer.add_vocab_size(shape.n_vocab)
    _add_vocabulary(writer, shape.n_vocab)
    for tensor, size in shape.tensors().items():
        kind = _number_type(size)
        writer.add_tensor_info(tensor, size, kind, math.prod(size) * kind.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    try:
        for weights in _weights(shape):
            writer.write_tensor_data(weights)
    finally:
        writer.close()


def _add_vocabulary(writer: gguf.GGUFWriter, n_vocab: int) -> None:
    """Copy all that the demo model says about its tokens, and add unused ones up to the wanted number."""
    fields = gguf.GGUFReader(builtin_model_path()).fields
    n_real = len(fields[_NAMES].data)
    if n_vocab < n_real:
        raise SteerError(f"a vocabulary of {n_vocab} cannot hold the demo model's {n_real} tokens", "make it larger")
    padding = {
        _NAMES: [f"<|unused_{token}|>" for token in range(n_real, n_vocab)],
        _TYPES: [int(gguf.TokenType.UNUSED)] * (n_vocab - n_real),
    }
    for key, field in fields.items():
        if key.startswith("tokenizer."):
            value = field.contents()
            is_array = field.types[0] == gguf.GGUFValueType.ARRAY
            sub_type = field.types[-1] if is_array else None
            writer.add_key_value(key, value + padding.get(key, []) if is_array else value, field.types[0], sub_type)


def _number_type(size: tuple[int, ...]) -> np.dtype[np.float16] | np.dtype[np.float32]:
    return np.dtype(np.float16) if len(size) > 1 else np.dtype(np.float32)


def _weights(shape: Shape) -> Iterator[NDArray[np.float16] | NDArray[np.float32]]:
    """Draw the tensors one after the other, so that never more than one is held."""
    generator = np.random.default_rng(SEED)
    for tensor, size in shape.tensors().items():
        if tensor.endswith("norm.weight"):
            yield np.ones(size, dtype=np.float32)
            continue
        flat = np.empty(math.prod(size), dtype=_number_type(size))
        for start in range(0, len(flat), _SLICE):
            part = flat[start : start + _SLICE]
            part[:] = generator.standard_normal(len(part), dtype=np.float32) * np.float32(_SPREAD)
        yield flat.reshape(size)


def main() -> None:
    """Make the asked models, all by default, and say where they are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SHAPES)}; all by default")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--quantisation", choices=QUANTISATIONS, default="Q4_K_M")
    options = parser.parse_args()
    for name in options.names or SHAPES:
        try:
            path = random_model(name, options.folder, options.quantisation)
        except SteerError as error:
            parser.error(str(error))
        print(f"{path}  {path.stat().st_size / 1e6:.0f} MB  {SHAPES[name].n_parameters / 1e6:.1f} M parameters")


if __name__ == "__main__":
    main()
