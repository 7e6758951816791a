"""How many layers of a model fit on each device, and on all GPUs together as `-ngl auto` would put them.

It joins what llama.cpp says about its devices with what the header of a model file says; nothing is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ggufsteer.engine.devices_facts import Device, offload_targets
from ggufsteer.engine.devices_fit import ModelSizes


@dataclass(frozen=True)
class Fit:
    """What of a model fits on one device by itself."""

    device: str
    gpu_layers: int | None
    """The value of -ngl, where the output counts as one; None on the CPU, which takes what -ngl leaves."""
    layers: int
    """Layers proper, without the output."""
    is_all: bool
    bytes_needed: int
    """What these parts take there; of the whole model where `is_all`."""


def fits(sizes: ModelSizes, devices: Sequence[Device], memory_available: int) -> tuple[Fit, ...]:
    """Give what fits on each device that holds layers.

    Args:
        sizes: Of the model and its context.
        devices: All that llama.cpp reports.
        memory_available: Bytes that the system could give to the CPU; 0 takes what llama.cpp says.
    """
    targets = offload_targets(devices)
    return tuple(
        _fit(sizes, device, memory_available) for device in devices if device.kind == "cpu" or device in targets
    )


def auto_layers(sizes: ModelSizes, devices: Sequence[Device]) -> int | None:
    """Give the value of -ngl that `auto` tries first; None where there is no GPU."""
    free = [device.memory_free for device in offload_targets(devices)]
    return sizes.fitting(free) if free else None


def _fit(sizes: ModelSizes, device: Device, memory_available: int) -> Fit:
    free, always = device.memory_free, 0
    if device.kind == "cpu":
        free, always = memory_available or free, sizes.input
    parts = sizes.fitting([max(0, free - always)])
    (taken,) = sizes.on_devices(parts, [1])
    gpu_layers = None if device.kind == "cpu" else parts
    return Fit(device.name, gpu_layers, max(0, parts - 1), parts == sizes.parts, taken + always)
