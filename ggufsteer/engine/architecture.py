"""Which model files can be captured and steered, decided from the header alone, before any weight is read.

Everything here was learned by reading or running llama.cpp as of llama-cpp-python 0.3.36: ggufsteer reads a layer's
output from the tensor ``l_out-N`` and steers through llama.cpp's ``build_cvec``, and a few architectures lack one of
the two. The probe in `ggufsteer.engine.steer` is the second line of defence, for architectures newer than this page.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggufsteer.errors import ExitCode, ModelError
from ggufsteer.files.model_identity import architecture_of
from ggufsteer.text import clean

_NO_STATE = "llama.cpp does not name the output of its layers (l_out) for it"
_NO_STEERING = "llama.cpp applies no control vectors to it"
_STREAMS = "its layers carry several parallel streams, which ggufsteer cannot read yet"
_ENCODER = "it is an encoder, which writes no text"
_DRAFT = "it is a draft model, which only runs beside another one"
_AUDIO = "it makes sound, not text"
_DIFFUSION = "it fills in text in any order (a diffusion model), not token after token"
_PARTIAL = "only its feed-forward layers have an output that can be read and steered, and that is not the whole state"

_UNSUPPORTED: Mapping[str, str] = (
    {
        "clip": "it is the image or sound part of a model (an mmproj file)",
        "deepseek4": _NO_STATE,
        "qwen4exp": f"{_NO_STATE}, and {_NO_STEERING}",
        "plamo2": f"{_NO_STATE}, and {_NO_STEERING}",
        "hy_v4": f"{_STREAMS}, and {_NO_STEERING}",
        "glm5-next": _STREAMS,
        "nemotron_h": _PARTIAL,
        "nemotron_h_moe": _PARTIAL,
        "t5": "it reads with an encoder and writes with a decoder; ggufsteer steers decoders only",
        "eagle3": _DRAFT,
        "dflash": _DRAFT,
        "gemma4-assistant": _DRAFT,
        "wavtokenizer-dec": _AUDIO,
        "pockettts": _AUDIO,
        "qwen3tts": _AUDIO,
    }
    | dict.fromkeys(("dream", "llada", "llada-moe", "rnd1"), _DIFFUSION)
    | dict.fromkeys(
        (
            "bert",
            "modern-bert",
            "nomic-bert",
            "nomic-bert-moe",
            "neo-bert",
            "jina-bert-v2",
            "jina-bert-v3",
            "eurobert",
            "t5encoder",
            "gemma-embedding",
            "llama-embed",
        ),
        _ENCODER,
    )
)


@dataclass(frozen=True)
class ModelFacts:
    """What the header of a model file says and the engine needs before the weights are loaded."""

    architecture: str
    n_layer: int
    """Layers that take part in ordinary decoding (layers that only predict further tokens are not counted)."""
    is_mixture_of_experts: bool


def check_header(metadata: Mapping[str, Any], path: Path) -> ModelFacts:
    """Refuse a file that is no model, or a model that cannot be captured and steered.

    Args:
        metadata: The file's GGUF keys and values.
        path: The file, for the message.

    Raises:
        FileFormatError: The file holds something else than a model (exit code 2).
        ModelError: It is a part of one (exit code 2), or of an architecture that ggufsteer does not support (1).
    """
    if _part_number(metadata) > 0:
        raise ModelError(
            f"{path} is part {_part_number(metadata) + 1} of a split model",
            "give the first part (…-00001-of-…); the others are found beside it",
            exit_code=ExitCode.USAGE,
        )
    architecture = architecture_of(path, metadata)
    reason = _UNSUPPORTED.get(architecture)
    if reason is None and metadata.get(f"{architecture}.attention.causal") is False:
        reason = _ENCODER
    if reason is not None:
        raise ModelError(
            f"{path}: models of the architecture {clean(architecture)!r} are not supported: {reason}",
            "use a decoder-only language model, such as Llama, Qwen, Gemma, Mistral or Phi",
        )
    return ModelFacts(
        architecture,
        _steerable_layers(metadata, architecture, path),
        _count(metadata, architecture, "expert_count") > 0,
    )


def _steerable_layers(metadata: Mapping[str, Any], architecture: str, path: Path) -> int:
    """Give the number of ordinary layers; at least 2, since layer 0 is never steered."""
    blocks = _count(metadata, architecture, "block_count") - _count(metadata, architecture, "nextn_predict_layers")
    if blocks < 2:
        raise ModelError(
            f"{path}: the key {clean(architecture)}.block_count says {metadata.get(f'{architecture}.block_count')!r}, "
            "and a model needs at least 2 layers to be steered, since llama.cpp never steers the first",
        )
    return blocks


def _part_number(metadata: Mapping[str, Any]) -> int:
    """Give which part of a split model this is, counted from 0."""
    number = metadata.get("split.no", 0)
    return number if isinstance(number, int) else 0


def _count(metadata: Mapping[str, Any], architecture: str, key: str) -> int:
    """Read a number that may be absent (0)."""
    value = metadata.get(f"{architecture}.{key}", 0)
    return int(value) if isinstance(value, int) else 0
