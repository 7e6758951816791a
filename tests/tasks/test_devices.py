"""What of a model fits on each device by itself, and on all GPUs together."""

import pytest

from ggufsteer.engine.devices_facts import Device
from ggufsteer.engine.devices_fit import MARGIN, ModelSizes
from ggufsteer.tasks.devices import auto_layers, fits

SIZES = ModelSizes(layers=(100,) * 4, output=70, input=50, compute=30)


def device(kind: str, free: int, name: str = "") -> Device:
    """A device with so many bytes beyond the margin."""
    return Device(name or kind, "", kind, "", MARGIN + free, MARGIN + free)  # type: ignore[arg-type]


@pytest.mark.parametrize(("free", "layers"), [(149, 0), (150, 0), (250, 1), (549, 3), (550, 4)])
def test_the_processor_always_holds_the_embeddings(free: int, layers: int) -> None:
    """Besides the output, the room to compute in and the layers; what it holds is said."""
    (fit,) = fits(SIZES, [device("cpu", 0)], MARGIN + free)
    assert (fit.layers, fit.is_all, fit.gpu_layers) == (layers, layers == 4, None)
    assert fit.bytes_needed == (150 + 100 * layers if free >= 150 else 50)


def test_the_processor_has_what_llama_cpp_says_where_the_system_says_nothing() -> None:
    """As on Windows and macOS."""
    (fit,) = fits(SIZES, [device("cpu", 250)], 0)
    assert fit.layers == 1


def test_devices_that_hold_no_layers_are_left_out() -> None:
    """An accelerator of matrix products has no memory of its own, an idle integrated GPU takes none."""
    found = fits(SIZES, [device("accel", 999), device("gpu", 200), device("igpu", 999), device("cpu", 999)], 0)
    assert [(fit.device, fit.gpu_layers) for fit in found] == [("gpu", 2), ("cpu", None)]


def test_cards_work_together_for_auto() -> None:
    """Two cards hold more than one; without any there is nothing to say."""
    one = [device("gpu", 200, "CUDA0"), device("cpu", 999)]
    assert auto_layers(SIZES, one) == 2
    assert auto_layers(SIZES, [device("gpu", 330, "CUDA0"), device("gpu", 330, "CUDA1")]) == 5
    assert auto_layers(SIZES, one[1:]) is None
