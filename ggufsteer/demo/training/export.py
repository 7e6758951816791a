"""Writes the trained network and its vocabulary as one GGUF file that any llama.cpp program loads."""

import json
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ggufsteer.demo.training.tokens import BEGIN, CHAT_TEMPLATE, END, SPECIAL
from ggufsteer.demo.training.transformer import Shape, Transformer

_BLOCK_NAMES = {
    "attention_norm": "attn_norm",
    "feed_forward_norm": "ffn_norm",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "output": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
_NAMES = {"embedding.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}


def write_model(path: Path, model: Transformer, tokenizer: Tokenizer, facts: Mapping[str, str | int | float]) -> None:
    """Writes `model` as Q8_0 (norms F32) to `path`.

    `facts` say how the model was made; each becomes a metadata key under `ggufsteer.training.`.
    """
    writer = gguf.GGUFWriter(path, "llama")
    _write_description(writer, facts)
    _write_shape(writer, model.shape)
    _write_vocabulary(writer, tokenizer)
    for name, parameter in model.state_dict().items():
        _write_weight(writer, _gguf_name(name), parameter.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_description(writer: gguf.GGUFWriter, facts: Mapping[str, str | int | float]) -> None:
    writer.add_name("ggufsteer demo")
    writer.add_author("ggufsteer contributors")
    writer.add_license("mit")
    writer.add_description("A tiny chat model, trained from scratch on generated text, to try control vectors on.")
    writer.add_languages(["en", "fr"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    for key, value in facts.items():
        name = f"ggufsteer.training.{key}"
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, int):
            writer.add_uint64(name, value)
        else:
            writer.add_float32(name, value)


def _write_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_vocab_size(shape.vocabulary)


def _write_vocabulary(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    layout = json.loads(tokenizer.to_str())["model"]
    by_id = sorted(layout["vocab"], key=layout["vocab"].get)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(by_id)
    writer.add_token_types([control if token in SPECIAL else normal for token in by_id])
    writer.add_token_merges([" ".join(pair) for pair in layout["merges"]])
    writer.add_bos_token_id(layout["vocab"][BEGIN])
    writer.add_eos_token_id(layout["vocab"][END])
    writer.add_pad_token_id(layout["vocab"][END])
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def _gguf_name(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    _, index, part, _ = name.split(".")
    return f"blk.{index}.{_BLOCK_NAMES[part]}.weight"


def _write_weight(writer: gguf.GGUFWriter, name: str, weight: NDArray[np.float32]) -> None:
    if weight.ndim == 1:
        writer.add_tensor(name, weight)
    else:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quantize(weight, kind), raw_dtype=kind)
