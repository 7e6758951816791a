"""Each broken file of activations gets its own plain answer at once, and none is read otherwise than elsewhere."""

import json
import os
import struct
import time
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from ggufsteer.errors import ExitCode, FileFormatError
from ggufsteer.files.activations import Activations, ActivationsWriter
from tests.files.made_activations import SMALL, partial_of, write_all

AGAIN, ANOTHER = "make it again", "give a file that"


def tensor(rows: object, begin: object, end: object, *, width: object = 2, dtype: object = "F32") -> dict[str, object]:
    """Describe one tensor."""
    return {"dtype": dtype, "shape": [rows, width], "data_offsets": [begin, end]}


def raw(members: object, data: bytes = bytes(32), *, length: int | None = None) -> bytes:
    """A file with any header: an object, which becomes JSON, or the bytes of one."""
    text = members if isinstance(members, bytes) else json.dumps(members).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


OURS = {"__metadata__": {"ggufsteer.activations": "1", "recipe": "x"}}
GOOD = OURS | {"a.layer.1": tensor(2, 0, 16), "a.layer.2": tensor(2, 16, 32)}
ACCEPTED: Mapping[str, bytes] = {
    "plain": raw(GOOD),
    "metadata last": raw(dict(sorted(GOOD.items(), reverse=True, key=lambda member: member[0] != "__metadata__"))),
    "spaces and line ends": raw(json.dumps(GOOD, indent=3).encode() + b" \n\t "),
    "an empty set": raw(GOOD | {"b.layer.1": tensor(0, 32, 32), "b.layer.2": tensor(0, 32, 32)}),
    "only an empty set": raw(OURS | {"b.layer.1": tensor(0, 0, 0)}, b""),
}


def _one(description: object) -> bytes:
    """A file whose only tensor is described like this."""
    return raw(OURS | {"a.layer.1": description})


def _spelled(description: bytes) -> bytes:
    """A file whose only tensor is described by this text."""
    return raw(json.dumps(OURS | {"a.layer.1": "@"}).encode().replace(b'"@"', description))


def _text(text: str) -> bytes:
    """A header that begins well and ends with this."""
    return raw((json.dumps(GOOD)[:-1] + text).encode())


BROKEN: Mapping[str, tuple[bytes, str, str]] = {
    "a tensor name of megabytes": (raw({"\x1b" * 9_000_000: 7}), "has no description", AGAIN),
    "empty": (b"", "is empty", AGAIN),
    "a length alone": (struct.pack("<Q", 100), "is not a safetensors file", ANOTHER),
    "half a length": (b"\x10\0\0", "is not a safetensors file", ANOTHER),
    "a GGUF file": (b"GGUF" + bytes(99), "it begins with b'GGUF", ANOTHER),
    "a text file": (b"positive,negative\n" * 9, "it begins with b'positive,'", ANOTHER),
    "a header longer than the file": (raw(GOOD, length=9999), "ends inside its header of 9999 bytes", AGAIN),
    "a header of an exabyte": (raw(GOOD, length=1 << 60), "is not a safetensors file", ANOTHER),
    "a header past all numbers": (raw(GOOD, length=(1 << 64) - 1), "is not a safetensors file", ANOTHER),
    "a header without length": (raw(GOOD, length=0), "its header ends where '{' belongs", AGAIN),
    "a header cut by its length": (raw(GOOD, length=100), "has no description, at character 77 of its header", AGAIN),
    "a header with the data": (raw(GOOD, b"\xff" * 32, length=len(json.dumps(GOOD)) + 32), "is not UTF-8 text", AGAIN),
    "a list": (raw(b"[1, 2]"), "is not a safetensors file", ANOTHER),
    "a nesting bomb": (raw(b"[" * 100_000), "is not a safetensors file", ANOTHER),
    "a nesting bomb as tensor": (raw(b'{"a.layer.1":' + b"[" * 100_000), "has no description", AGAIN),
    "a nesting bomb of objects": (raw(b'{"a":' * 100_000), "has no description", AGAIN),
    "a nesting bomb in a tensor": (_spelled(b'{"shape":' + b"[" * 250 + b"}"), "is no JSON", AGAIN),
    "a closed nesting bomb in a tensor": (
        _spelled(b'{"shape":' + b"[" * 140 + b"]" * 140 + b"}"),
        "is not described by",
        AGAIN,
    ),
    "a nesting bomb in the metadata": (raw(b'{"__metadata__":{"a":' + b"[" * 100_000), "value of the key 'a'", AGAIN),
    "a second object": (_text("}{}"), "holds '{' after the end of its header", AGAIN),
    "a comma too many": (_text(",}"), "one of the tensors is no text", AGAIN),
    "a comma too few": (_text(' "b.layer.1": {}}'), "holds '\"' at character 210 where ',' belongs", AGAIN),
    "no colon": (_text(', "b.layer.1"}'), "where ':' belongs", AGAIN),
    "no end": (_text(""), "its header ends where ',' belongs", AGAIN),
    "an open text": (_text(', "b'), "one of the tensors is broken", AGAIN),
    "a control character in a text": (_text(', "\n": {}}'), "one of the tensors is broken", AGAIN),
    "a lone surrogate": (raw({"__metadata__": {"a": "\ud800"}}), "a character that is none", AGAIN),
    "not UTF-8": (raw(json.dumps(GOOD).encode().replace(b'"x"', b'"\xff"')), "byte 67 of its header is not", AGAIN),
    "a tensor twice": (
        raw(json.dumps(GOOD).replace("layer.2", "layer.1").encode()),
        "names 'a.layer.1' twice",
        AGAIN,
    ),
    "metadata twice": (_text(', "__metadata__": {}}'), "names '__metadata__' twice", AGAIN),
    "a key of metadata twice": (
        raw(b'{"__metadata__": {"a": "b", "a": "c"}}'),
        "names 'a' twice",
        AGAIN,
    ),
    "metadata that is no object": (raw({"__metadata__": "x"}), "holds '\"' at character 17 where '{' belongs", AGAIN),
    "metadata that is no text": (raw({"__metadata__": {"a": 1}}), "the value of the key 'a' is no text", AGAIN),
    "metadata that is nothing": (raw({"__metadata__": {"a": None}}), "the value of the key 'a' is no text", AGAIN),
    "a hundred thousand keys of metadata": (
        raw({"__metadata__": {str(number): "" for number in range(100_000)}}),
        "more than 4097 keys of metadata",
        AGAIN,
    ),
    "a hundred thousand tensors": (
        raw(OURS | {f"a.layer.{number}": tensor(0, 0, 0) for number in range(100_000)}),
        "more than 16385 tensors",
        AGAIN,
    ),
    "no metadata": (raw({"a.layer.1": tensor(4, 0, 32)}), "not one of activations", ANOTHER),
    "the weights of a model": (
        raw({"__metadata__": {"format": "pt"}, "model.embed_tokens.weight": tensor(4, 0, 32)}),
        "it lacks ggufsteer.activations",
        ANOTHER,
    ),
    "a format of the future": (
        raw({"__metadata__": {"ggufsteer.activations": "2"}}),
        "ggufsteer.activations is '2'; version 1 can be read",
        "update ggufsteer",
    ),
    "a format that is a joke": (
        raw({"__metadata__": {"ggufsteer.activations": "\x1b[31m" + "9" * 9999}}),
        "ggufsteer.activations is '" + "9" * 60 + "'",
        "update ggufsteer",
    ),
    "no tensor": (raw(OURS, b""), "its activations have no set", AGAIN),
    "another tensor": (raw(GOOD | {"b": tensor(0, 32, 32)}), "tensor 'b' is not called SET.layer.NUMBER", ANOTHER),
    "a layer in letters": (raw(OURS | {"a.layer.x": tensor(4, 0, 32)}), "'a.layer.x' is not called", ANOTHER),
    "a layer with a zero before": (raw(OURS | {"a.layer.01": tensor(4, 0, 32)}), "'a.layer.01' is not called", ANOTHER),
    "a layer past all models": (raw(OURS | {"a.layer.9999999": tensor(4, 0, 32)}), "layers [9999999]", AGAIN),
    "a set without a name": (raw(OURS | {".layer.1": tensor(4, 0, 32)}), "'.layer.1' is not called", ANOTHER),
    "an escape sequence for a name": (raw(OURS | {"\x1b[2Ja": tensor(4, 0, 32)}), "tensor 'a' is not called", ANOTHER),
    "layers out of order": (
        raw(OURS | {"a.layer.2": tensor(2, 0, 16), "a.layer.1": tensor(2, 16, 32)}),
        "layers [2, 1]",
        AGAIN,
    ),
    "sets that mix": (
        raw(OURS | {"a.layer.1": tensor(1, 0, 8), "b.layer.1": tensor(1, 8, 16), "a.layer.2": tensor(1, 16, 24)}),
        "'a.layer.2' does not stand with the others of its set",
        AGAIN,
    ),
    "sets of different layers": (
        raw(OURS | {"a.layer.1": tensor(2, 0, 16), "b.layer.2": tensor(2, 16, 32)}),
        "'b' is unlike 'a'",
        AGAIN,
    ),
    "a set of fewer layers": (raw(GOOD | {"b.layer.1": tensor(0, 32, 32)}), "'b' is unlike 'a'", AGAIN),
    "counts that differ": (
        raw(OURS | {"a.layer.1": tensor(3, 0, 24), "a.layer.2": tensor(1, 24, 32)}),
        "'a.layer.2' has the shape [1, 2], not [3, 2]",
        AGAIN,
    ),
    "widths that differ": (
        raw(OURS | {"a.layer.1": tensor(2, 0, 16), "b.layer.1": tensor(1, 16, 32, width=4)}),
        "'b.layer.1' has the shape [1, 4], not [1, 2]",
        AGAIN,
    ),
    "no width": (raw(OURS | {"a.layer.1": tensor(2, 0, 0, width=0)}, b""), "are 0 wide", AGAIN),
    "a width past all models": (_one(tensor(0, 0, 0, width=1 << 40)), "are 1099511627776 wide", AGAIN),
    "F16": (_one(tensor(4, 0, 16, dtype="F16")), "has the dtype 'F16', not 'F32'", AGAIN),
    "a dtype that is a list": (_one(tensor(4, 0, 32, dtype=["F32"])), "has the dtype", AGAIN),
    "a description that is a number": (_one(7), "tensor 'a.layer.1' has no description", AGAIN),
    "a description in a description": (_one({"dtype": {}}), "has no description", AGAIN),
    "a description of a megabyte": (_one(tensor(4, 0, 32, dtype="F" * 1_000_000)), "has no description", AGAIN),
    "a description that is no JSON": (_spelled(b"{dtype}"), "is no JSON", AGAIN),
    "a field too few": (_one({"dtype": "F32", "shape": [4, 2]}), "is not described by", AGAIN),
    "a field too many": (_one(tensor(4, 0, 32) | {"strides": [8, 4]}), "is not described by", AGAIN),
    "a field twice": (
        _spelled(b'{"dtype":"F32","shape":[9,9],"shape":[4,2],"data_offsets":[0,32]}'),
        "is not described by",
        AGAIN,
    ),
    "one dimension": (_one({"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}), "shape of tensor", AGAIN),
    "three dimensions": (_one({"dtype": "F32", "shape": [4, 2, 1], "data_offsets": [0, 32]}), "shape of", AGAIN),
    "a shape that is a text": (_one({"dtype": "F32", "shape": "42", "data_offsets": [0, 32]}), "shape of", AGAIN),
    "a dimension that is true": (_one(tensor(4, 0, 32, width=True)), "is [4, True], not two whole numbers", AGAIN),
    "a dimension that is a fraction": (_one(tensor(4.0, 0, 32)), "is [4.0, 2], not two whole numbers", AGAIN),
    "a dimension past all numbers": (_one(tensor(1 << 64, 0, 32)), "not two whole numbers", AGAIN),
    "a dimension of three hundred digits": (_one(tensor(10**200, 0, 32)), "not two whole numbers", AGAIN),
    "a negative dimension": (_one(tensor(-4, 0, 32)), "has no description", AGAIN),
    "a size that overflows": (_one(tensor(1 << 62, 0, 32)), "lies at bytes 0 to 32 of the data, not 0 to", AGAIN),
    "overlapping tensors": (
        raw(OURS | {"a.layer.1": tensor(2, 0, 16), "a.layer.2": tensor(2, 8, 24)}),
        "'a.layer.2' lies at bytes 8 to 24 of the data, not 16 to 32",
        AGAIN,
    ),
    "the same place twice": (
        raw(OURS | {"a.layer.1": tensor(2, 0, 16), "a.layer.2": tensor(2, 0, 16)}),
        "lies at bytes 0 to 16 of the data, not 16 to 32",
        AGAIN,
    ),
    "a hole": (
        raw(OURS | {"a.layer.1": tensor(1, 0, 8), "a.layer.2": tensor(1, 24, 32)}),
        "lies at bytes 24 to 32 of the data, not 8 to 16",
        AGAIN,
    ),
    "tensors in another order": (
        raw(OURS | {"a.layer.1": tensor(2, 16, 32), "a.layer.2": tensor(2, 0, 16)}),
        "lies at bytes 16 to 32 of the data, not 0 to 16",
        AGAIN,
    ),
    "places that run backwards": (_one(tensor(4, 32, 0)), "lies at bytes 32 to 0 of the data", AGAIN),
    "data cut short": (raw(GOOD, bytes(31)), "bytes long, and its header announces", AGAIN),
    "data that goes on": (raw(GOOD, bytes(33)), "bytes long, and its header announces", AGAIN),
    "a count that the file has not": (_one(tensor(1 << 39, 0, 1 << 42)), "its header announces", AGAIN),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_its_reason_and_mend(name: str, tmp_path: Path) -> None:
    """The answer names the file, says what is wrong and how to mend it, briefly, and leads to exit code 2."""
    data, says, mend = BROKEN[name]
    path = tmp_path / "broken"
    path.write_bytes(data)
    with pytest.raises(FileFormatError) as caught:
        Activations.open(path)
    assert caught.value.message.startswith(f"{path}: ")
    assert says in caught.value.message
    assert mend in caught.value.hint
    assert caught.value.exit_code is ExitCode.USAGE
    assert len(caught.value.message) < len(str(path)) + 250
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_costs_neither_time_nor_memory(name: str, tmp_path: Path) -> None:
    """It is refused at once, however much it announces."""
    path = tmp_path / "broken"
    path.write_bytes(BROKEN[name][0])
    began = time.process_time()
    with pytest.raises(FileFormatError):
        Activations.open(path)
    assert time.process_time() - began < 1.0
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError):
            Activations.open(path)
        # Twice the file for its text, and at most a few megabytes for what is in it.
        assert tracemalloc.get_traced_memory()[1] < 20e6 + 4 * path.stat().st_size
    finally:
        tracemalloc.stop()


_ENDLESS = [
    (b"{", b" "),
    (b"{", b'"":{},'),
    (b'{"', b"\x01"),
    (b'{"a":', b"{"),
    (b'{"a":', b"{},"),
    (b'{"__metadata__":{"a":', b'"",'),
    (b'{"__metadata__":{"a":"', b"\\n"),
    (b'{"__metadata__":{"a":"', b"["),
]


@pytest.mark.parametrize(("begin", "filling"), _ENDLESS)
def test_the_largest_header_is_refused_in_a_second(begin: bytes, filling: bytes, tmp_path: Path) -> None:
    """Sixty-four megabytes of what makes a JSON parser build, or a message clean, millions of things."""
    path = tmp_path / "broken"
    size = (64 << 20) - len(begin)
    path.write_bytes(raw(begin + (filling * (size // len(filling) + 1))[:size]))
    began = time.process_time()
    with pytest.raises(FileFormatError):
        Activations.open(path)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_odd_but_sound_file_is_read(name: str, tmp_path: Path) -> None:
    """Strictness stops at what means the same."""
    path = tmp_path / "good"
    path.write_bytes(ACCEPTED[name])
    _agrees_with_the_reference_library(path)


def _agrees_with_the_reference_library(path: Path) -> None:
    found, theirs = Activations.open(path), safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata() == dict(found.layout.metadata) | {"ggufsteer.activations": "1"}
    assert len(theirs) == len(found.layout.counts) * len(found.layout.layers)
    for name in found.layout.counts:
        for index, layer in enumerate(found.layout.layers):
            ours = found.rows(name)[:, index]
            assert np.array_equal(ours.view(np.uint32), theirs[f"{name}.layer.{layer}"].view(np.uint32))


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """Not one byte may be missing."""
    path = tmp_path / "a"
    write_all(path, SMALL)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(FileFormatError, match=str(path)):
            Activations.open(path)


@settings(max_examples=600)
@given(data=st.data())
def test_a_changed_header_is_refused_or_read_as_elsewhere(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever bytes of the header are changed: a plain refusal, or what the reference library reads too."""
    path = tmp_path_factory.getbasetemp() / "changed"
    if not path.exists():
        write_all(path, SMALL)
        path.with_suffix(".good").write_bytes(path.read_bytes())
    content = bytearray(path.with_suffix(".good").read_bytes())
    header_bytes = len(content) - SMALL.data_bytes
    for place in data.draw(st.lists(st.integers(0, header_bytes - 1), min_size=1, max_size=3)):
        content[place] = data.draw(st.sampled_from([*b'"{}[],:\\0129 \n.-eE', 0, 255, content[place] ^ 1]))
    path.write_bytes(content)
    try:
        Activations.open(path)
    except FileFormatError as error:
        refusal = error
    else:
        refusal = None
    if refusal:
        assert refusal.message.startswith(f"{path}: ")
        assert refusal.hint
    else:
        _agrees_with_the_reference_library(path)


@settings(max_examples=300)
@given(content=st.binary(max_size=300), as_header=st.booleans())
def test_noise_is_refused(content: bytes, as_header: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    """With a plain answer, whatever it is."""
    path = tmp_path_factory.getbasetemp() / "noise"
    path.write_bytes(raw(b"{" + content) if as_header else content)
    with pytest.raises(FileFormatError, match="noise: "):
        Activations.open(path)


def test_an_unfinished_file_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    """Under its own name or another, with checkpoints or without: run the same command again."""
    path = tmp_path / "a"
    for steps in (0, 3):
        with ActivationsWriter.open(path, SMALL) as writer:
            if steps:
                writer.checkpoint(steps)
        for found in (partial_of(path), tmp_path / "renamed"):
            found.write_bytes(partial_of(path).read_bytes())
            with pytest.raises(FileFormatError, match="is unfinished") as caught:
                Activations.open(found)
            assert "run the same ggufsteer extract --save-activations again" in caught.value.hint


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_what_is_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    """As everywhere: nothing blocks, nothing is guessed."""
    path = tmp_path / "a"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(FileFormatError, match=r"no such file|a folder|not an ordinary file"):
        Activations.open(path)
