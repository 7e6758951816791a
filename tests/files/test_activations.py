"""Activations on disk: what is written is read, here and by the reference library, whatever interrupts the writing."""

import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ggufsteer.errors import SteerError
from ggufsteer.files.activations import Activations, ActivationsWriter, Layout
from ggufsteer.files.activations_header import header_of
from tests.files.made_activations import SMALL, names_in, partial_of, sets_of, states_of, write_all

ROOT = Path(__file__).parents[2]
_LAYOUTS = st.builds(
    Layout,
    st.dictionaries(st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,8}", fullmatch=True), st.integers(0, 6), min_size=1),
    st.sets(st.integers(0, 200), min_size=1, max_size=5).map(lambda layers: tuple(sorted(layers))),
    st.integers(1, 9),
    st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8"))),
)


@given(layout=_LAYOUTS, data=st.data())
def test_what_was_written_in_any_order_reads_back(
    layout: Layout, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Layout and states come back, in whatever order and pieces the observations came, here and elsewhere."""
    path = tmp_path_factory.mktemp("round") / "a.safetensors"
    states = states_of(layout)
    order = np.array(data.draw(st.permutations(range(layout.observations))), dtype=np.int64)
    cuts = data.draw(st.lists(st.integers(0, layout.observations), max_size=4).map(sorted))
    with ActivationsWriter.open(path, layout) as writer:
        for piece in np.split(order, cuts):
            writer.write(piece, states[piece])
        writer.finish()
    found = Activations.open(path)
    assert found.layout == layout
    assert list(found.layout.counts) == list(layout.counts)
    theirs = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata() == dict(layout.metadata) | {"ggufsteer.activations": "1"}
    assert set(theirs) == {f"{name}.layer.{layer}" for name in layout.counts for layer in layout.layers}
    for name, expected in sets_of(layout).items():
        assert np.array_equal(found.rows(name), expected)
        for index, layer in enumerate(layout.layers):
            assert np.array_equal(theirs[f"{name}.layer.{layer}"], expected[:, index])
    assert names_in(path.parent) == [path.name]


def test_equal_extractions_give_equal_bytes(tmp_path: Path) -> None:
    """Neither the order of the metadata nor the order of writing shows; the data begins at a multiple of eight."""
    turned = replace(SMALL, metadata=dict(reversed(SMALL.metadata.items())))
    write_all(tmp_path / "a", SMALL)
    with ActivationsWriter.open(tmp_path / "b", turned) as writer:
        for number in reversed(range(SMALL.observations)):
            writer.write(np.array([number]), states_of(SMALL)[number : number + 1])
        writer.finish()
    data = (tmp_path / "a").read_bytes()
    assert data == (tmp_path / "b").read_bytes()
    assert len(header_of(SMALL)) % 8 == 0
    assert data.startswith(header_of(SMALL))


def test_a_file_of_the_reference_library_is_read(tmp_path: Path) -> None:
    """Another program may make the file, as long as the tensors stand in our order."""
    path = tmp_path / "a.safetensors"
    tensors = {f"positive.layer.{layer}": np.full((2, 4), layer, np.float32) for layer in (3, 5)}
    safetensors.numpy.save_file(tensors, path, {"ggufsteer.activations": "1", "recipe": "é"})
    found = Activations.open(path)
    assert found.layout == Layout({"positive": 2}, (3, 5), 4, {"recipe": "é"})
    assert found.rows("positive")[1, :, 0].tolist() == [3.0, 5.0]


def test_values_that_are_no_numbers_stay_as_they_are(tmp_path: Path) -> None:
    """NaN with its payload, infinities, negative zero and denormals keep every bit: judging them is others' work."""
    bits = np.array([0x7FC00123, 0xFF800000, 0x7F800000, 0x80000000, 0x00000001, 0x7F800001], np.uint32)
    layout = Layout({"only": 1}, (0,), bits.size, {})
    with ActivationsWriter.open(tmp_path / "a", layout) as writer:
        writer.write(np.array([0]), bits.view(np.float32).reshape(1, 1, -1))
        writer.finish()
    assert np.array_equal(Activations.open(tmp_path / "a").rows("only")[0, 0].view(np.uint32), bits)


def test_of_an_observation_given_twice_the_last_one_counts(tmp_path: Path) -> None:
    """A step that is repeated after an interruption writes over what it had written."""
    layout = Layout({"only": 2}, (0,), 1, {})
    with ActivationsWriter.open(tmp_path / "a", layout) as writer:
        writer.write(np.tile([1, 0], 100), np.arange(200, dtype=np.float32).reshape(200, 1, 1))
        writer.finish()
    assert Activations.open(tmp_path / "a").rows("only").ravel().tolist() == [199.0, 198.0]


def test_a_file_name_that_is_no_utf8_text_can_be_noted(tmp_path: Path) -> None:
    """Such a name reaches Python with lone surrogates, which the reference library refuses; they become '?'."""
    layout = replace(SMALL, metadata={"file": "model-\udcff.gguf"})
    for _ in range(2):  # the second time over the part file of the first
        ActivationsWriter.open(tmp_path / "a", layout).__exit__()
    write_all(tmp_path / "a", layout)
    assert Activations.open(tmp_path / "a").layout.metadata == {"file": "model-?.gguf"}
    safetensors.numpy.load_file(tmp_path / "a")


def test_reading_takes_no_memory_of_the_files_size(tmp_path: Path) -> None:
    """Eight gigabytes are opened at once, a view is no copy, and only what is looked at is read."""
    layout = Layout({"positive": 1 << 14, "negative": 1 << 14}, tuple(range(16)), 4096, {})
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.write(header_of(layout))
        file.truncate(len(header_of(layout)) + layout.data_bytes)
        file.seek(-4, os.SEEK_END)
        file.write(np.float32(7).tobytes())
    tracemalloc.start()
    try:
        rows = Activations.open(path).rows("negative")
        assert (rows.shape, rows[-1, -1, -1], rows[5, 5].sum()) == ((1 << 14, 16, 4096), 7.0, 0.0)
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()
    assert not rows.flags.writeable
    assert not rows.flags.owndata


def test_views_outlive_the_reader_and_the_replaced_file(tmp_path: Path) -> None:
    """Writing a new file of the same name leaves the numbers in use as they were."""
    write_all(tmp_path / "a", SMALL)
    rows = Activations.open(tmp_path / "a").rows("neutral")
    write_all(tmp_path / "a", replace(SMALL, n_embd=9))
    assert np.array_equal(rows, sets_of(SMALL)["neutral"])


def test_a_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The answer lists those that are."""
    write_all(tmp_path / "a", SMALL)
    with pytest.raises(SteerError, match=r"no set 'negatve'.*it has positive, negative, neutral"):
        Activations.open(tmp_path / "a").rows("negatve")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"counts": {}}, "no set"),
        ({"counts": {"a.b": 1}}, "'a.b', which is no plain word"),
        ({"counts": {"a": -1}}, "-1 observations"),
        ({"layers": ()}, "no layer"),
        ({"layers": (2, 1)}, r"layers \[2, 1\]"),
        ({"layers": (1, 1)}, r"layers \[1, 1\]"),
        ({"layers": (-1, 1)}, r"layers \[-1, 1\]"),
        ({"n_embd": 0}, "0 wide"),
        ({"layers": tuple(range(10_000)), "counts": {"a": 1, "b": 1}}, "2 sets of 10000 layers"),
        ({"metadata": {"ggufsteer.activations": "1"}}, "the key ggufsteer.activations"),
        ({"metadata": {"": "1"}}, "the key ''"),
        ({"metadata": {"\ud800": "1"}}, "which is no text"),
        ({"metadata": {str(number): "" for number in range(5000)}}, "5000 keys"),
    ],
)
def test_a_layout_that_no_file_can_hold_is_refused(change: dict[str, object], says: str) -> None:
    """Before any work, with the part that is wrong."""
    with pytest.raises(SteerError, match=says):
        replace(SMALL, **change)


def test_metadata_that_no_reader_takes_is_refused(tmp_path: Path) -> None:
    """A header past the limit of reading is not written either."""
    layout = replace(SMALL, metadata={"recipe": "x" * (65 << 20)})
    with pytest.raises(SteerError, match="metadata of the activations takes"):
        ActivationsWriter.open(tmp_path / "a", layout)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("observations", "rows"),
    [
        (np.array([9]), np.zeros((1, 2, 3), np.float32)),
        (np.array([-1]), np.zeros((1, 2, 3), np.float32)),
        (np.array([0.0]), np.zeros((1, 2, 3), np.float32)),
        (np.array([0, 1]), np.zeros((1, 2, 3), np.float32)),
        (np.array([[0]]), np.zeros((1, 2, 3), np.float32)),
        (np.array([0]), np.zeros((1, 3, 2), np.float32)),
        (np.array([0]), np.zeros((1, 2, 3))),
    ],
)
def test_rows_that_do_not_fit_are_not_written(
    observations: NDArray[np.int64], rows: NDArray[np.float32], tmp_path: Path
) -> None:
    """A mistake of the caller's touches no byte."""
    with ActivationsWriter.open(tmp_path / "a", SMALL) as writer:
        before = partial_of(tmp_path / "a").read_bytes()
        with pytest.raises(ValueError, match=r"observations|float32"):
            writer.write(observations, rows)
        assert partial_of(tmp_path / "a").read_bytes() == before
