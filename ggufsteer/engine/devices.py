"""What this build of llama.cpp reports: its devices with their memory, its features, its version.

It reads; what is good or bad about it is judged elsewhere. Nothing is loaded or put on a device.
"""

import ctypes
from collections.abc import Mapping

import llama_cpp

from ggufsteer.engine import backend
from ggufsteer.engine.devices_facts import Build, Device, DeviceKind
from ggufsteer.text import clean

_KINDS: Mapping[int, DeviceKind] = {0: "cpu", 1: "gpu", 2: "igpu", 3: "accel"}
_POINTER, _SIZE, _TEXT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p


def read_devices() -> tuple[Device, ...]:
    """Give every device that the backends of this build report, in llama.cpp's order."""
    backend.prepare()
    count = backend.ggml_function("ggml_backend_dev_count", _SIZE)
    get = backend.ggml_function("ggml_backend_dev_get", _POINTER, _SIZE)
    return tuple(_device(get(index)) for index in range(count()))


def read_build() -> Build:
    """Give what is known about the llama.cpp in use."""
    backend.prepare()
    backend.forget_complaints()
    devices = read_devices()
    return Build(
        package=llama_cpp.__version__,
        version=_said("llama_version"),
        commit=_said("ggml_commit"),
        system_info=_decoded(llama_cpp.llama_print_system_info()).strip(" |"),
        backends=_backends(),
        devices=devices,
        complaint=backend.last_complaint(default=""),
        cores=backend.physical_cores(),
        supports_rpc=bool(llama_cpp.llama_supports_rpc()),
    )


def _device(pointer: int) -> Device:
    def text(name: str) -> str:
        return _decoded(backend.ggml_function(f"ggml_backend_dev_{name}", _TEXT, _POINTER)(pointer))

    free, total = _SIZE(0), _SIZE(0)
    memory = backend.ggml_function("ggml_backend_dev_memory", None, _POINTER, _POINTER, _POINTER)
    memory(pointer, ctypes.addressof(free), ctypes.addressof(total))
    kind = backend.ggml_function("ggml_backend_dev_type", ctypes.c_int, _POINTER)(pointer)
    registry = backend.ggml_function("ggml_backend_dev_backend_reg", _POINTER, _POINTER)(pointer)
    return Device(
        text("name"), text("description"), _KINDS.get(kind, "other"), _registry_name(registry), free.value, total.value
    )


def _backends() -> tuple[str, ...]:
    count = backend.ggml_function("ggml_backend_reg_count", _SIZE)
    get = backend.ggml_function("ggml_backend_reg_get", _POINTER, _SIZE)
    return tuple(_registry_name(get(index)) for index in range(count()))


def _registry_name(pointer: int) -> str:
    return _decoded(backend.ggml_function("ggml_backend_reg_name", _TEXT, _POINTER)(pointer))


def _said(name: str) -> str:
    return _decoded(backend.ggml_function(name, _TEXT)())


def _decoded(text: bytes | None) -> str:
    return clean((text or b"").decode("utf-8", errors="replace")).strip()
