"""`-ngl auto`: as many layers on the GPU as there is memory for, whatever the estimate said."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufsteer.engine import model as model_module
from ggufsteer.engine.devices_facts import Device
from ggufsteer.engine.devices_fit import MARGIN, model_sizes
from ggufsteer.engine.devices_offload import OutOfMemory, fewer, is_about_memory, load_what_fits
from ggufsteer.engine.model import LoadOptions, Model
from ggufsteer.errors import EngineError, ModelError, SteerError
from tests.tiny_model import write_tiny_model

TOTAL = 33


class Loader:
    """Loads when at most `room` layers are wanted, and remembers what was tried."""

    def __init__(self, room: int, error: SteerError) -> None:
        self.room = room
        self.error = error
        self.tried: list[int] = []
        self.notes: list[str] = []

    def __call__(self, parts: int) -> str:
        """Load with so many layers on the GPU."""
        self.tried.append(parts)
        if parts > self.room:
            raise self.error
        return f"model with {parts}"

    def run(self, first: int) -> str:
        """Load, beginning with `first`."""
        return load_what_fits(self, first, TOTAL, self.notes.append)


NO_MODEL = OutOfMemory("m.gguf: llama.cpp cannot load this model: unable to allocate CUDA0 buffer")
NO_CONTEXT = EngineError("llama.cpp could not make a context of 8192 tokens: failed to allocate buffer for kv cache")


def test_what_fits_at_once_is_not_spoken_of() -> None:
    """Everything on the GPU: one try, no note."""
    loader = Loader(TOTAL, NO_MODEL)
    assert loader.run(TOTAL) == "model with 33"
    assert (loader.tried, loader.notes) == ([33], [])


def test_a_part_is_told() -> None:
    """Where the estimate leaves layers to the CPU, a note says how many are on the GPU."""
    loader = Loader(TOTAL, NO_MODEL)
    assert loader.run(20) == "model with 20"
    assert len(loader.notes) == 1
    assert loader.notes[0].startswith("20 of 33 layers fit into the GPU's memory")


@pytest.mark.parametrize("error", [NO_MODEL, NO_CONTEXT], ids=["model", "context"])
def test_a_failed_allocation_is_tried_again_with_fewer(error: SteerError) -> None:
    """Whether the weights or the context found no room; the note names the number that works."""
    loader = Loader(20, error)
    assert loader.run(TOTAL) == "model with 20"
    assert loader.tried == [33, 28, 24, 20]
    assert len(loader.notes) == 1
    assert "33 of 33 layers did not fit" in loader.notes[0]
    assert "-ngl 20" in loader.notes[0]


@given(st.integers(0, TOTAL), st.integers(0, TOTAL))
def test_it_always_ends_near_what_fits(room: int, first: int) -> None:
    """Never more than fits, at least five sixths of it, and in few tries."""
    loader = Loader(room, NO_MODEL)
    loader.run(first)
    best = min(room, first)
    assert best * 5 // 6 - 1 <= loader.tried[-1] <= best
    assert len(loader.tried) <= 18


def test_without_memory_for_the_cpu_either_the_error_stays() -> None:
    """No layer on the GPU is the last try; its error is the one that is told."""
    loader = Loader(-1, NO_MODEL)
    with pytest.raises(OutOfMemory):
        loader.run(4)
    assert loader.tried == [4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    "error",
    [ModelError("m.gguf: llama.cpp cannot load this model: unknown architecture"), EngineError("the library is gone")],
)
def test_another_failure_is_not_tried_again(error: SteerError) -> None:
    """Fewer layers mend nothing but want of memory."""
    loader = Loader(-1, error)
    with pytest.raises(type(error)):
        loader.run(TOTAL)
    assert loader.tried == [TOTAL]


@pytest.mark.parametrize(
    "complaint",
    [
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 1 MiB on device 0: cudaMalloc failed: out of memory",
        "unable to allocate CUDA0 buffer",
        "error: failed to allocate buffer, size = 12.00 MiB",
        "Device memory allocation of size 1048576 failed.",
    ],
)
def test_every_backend_words_it_otherwise(complaint: str) -> None:
    """CUDA, llama.cpp itself, Metal and Vulkan."""
    assert is_about_memory(complaint)


@given(st.integers(1, 1000))
def test_fewer_is_less_and_never_less_than_none(parts: int) -> None:
    """Each try is smaller, so that it ends."""
    assert 0 <= fewer(parts) < parts


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of four layers."""
    return write_tiny_model(tmp_path_factory.mktemp("offload") / "small.gguf")


def put_card(monkeypatch: pytest.MonkeyPatch, file: Path, layers: int) -> None:
    """Let llama.cpp report a card with memory for the output and so many layers of the file."""
    sizes = model_sizes(file, n_ctx=256, n_ubatch=512)
    room = MARGIN + sizes.compute + sizes.output + sum(sizes.layers[-layers:])
    card = Device("CUDA0", "A card", "gpu", "CUDA", room, room)
    monkeypatch.setattr(model_module, "read_devices", lambda: (card,))


def test_a_model_is_opened_with_what_fits(monkeypatch: pytest.MonkeyPatch, small_file: Path) -> None:
    """The number is worked out from the card's memory and stands in the model's options; a note tells it."""
    put_card(monkeypatch, small_file, 2)
    notes: list[str] = []
    with Model.open(small_file, LoadOptions(n_ctx=256, n_threads=1, say=notes.append)) as opened:
        assert opened.options.n_gpu_layers == 3
        assert not opened.has_context
    assert len(notes) == 1
    assert notes[0].startswith("3 of 5 layers fit")


def test_where_all_fits_the_options_stay_as_they_are(monkeypatch: pytest.MonkeyPatch, small_file: Path) -> None:
    """The settings that results name do not depend on how the number of layers was found."""
    put_card(monkeypatch, small_file, 4)
    with Model.open(small_file, LoadOptions(n_ctx=256, n_threads=1, say=pytest.fail)) as opened:
        assert opened.options.n_gpu_layers == "auto"


def test_a_context_without_room_takes_layers_off_the_card(monkeypatch: pytest.MonkeyPatch, small_file: Path) -> None:
    """The weights found room, the context did not: fewer layers are tried, and then it runs."""
    put_card(monkeypatch, small_file, 4)
    make = Model.new_context

    def scarce(self: Model, *arguments: Any, **more: Any) -> Any:
        if self.options.n_gpu_layers == "auto" or int(self.options.n_gpu_layers) > 2:
            raise NO_CONTEXT
        return make(self, *arguments, **more)

    monkeypatch.setattr(Model, "new_context", scarce)
    notes: list[str] = []
    with Model.open(small_file, LoadOptions(n_ctx=256, n_threads=1, say=notes.append)) as opened:
        assert opened.options.n_gpu_layers == 2
        assert opened.context.n_ctx == 256
    assert len(notes) == 1
    assert "-ngl 2" in notes[0]


@pytest.mark.parametrize("options", [{"n_gpu_layers": 1}, {"n_gpu_layers": "all"}, {"vocabulary_only": True}])
def test_a_number_is_taken_at_its_word(
    monkeypatch: pytest.MonkeyPatch, small_file: Path, options: dict[str, Any]
) -> None:
    """Only auto asks what fits."""

    def asked() -> tuple[Device, ...]:
        raise AssertionError

    monkeypatch.setattr(model_module, "read_devices", asked)
    with Model.open(small_file, LoadOptions(n_threads=1, **options)) as opened:
        assert opened.options.n_gpu_layers == options.get("n_gpu_layers", "auto")
