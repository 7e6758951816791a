"""`ggufsteer devices`: what llama.cpp can compute on here, and how much of a model fits there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggufsteer.cli import console
from ggufsteer.cli.options import BUILTIN, OnOffAuto, WholeNumber, common_options
from ggufsteer.cli.rpc import rpc_option
from ggufsteer.errors import EngineError

if TYPE_CHECKING:
    from ggufsteer.engine.devices_facts import Build, Machine
    from ggufsteer.engine.devices_fit import ModelSizes
    from ggufsteer.tasks.devices import Fit


@click.command("devices")
@click.option(
    "-m", "--model", metavar=f"FILE|{BUILTIN}", envvar="LLAMA_ARG_MODEL", show_envvar=True,
    help="Say how many layers of this model fit on each device.",
)  # fmt: skip
@click.option(
    "-c", "--ctx-size", "n_ctx", metavar="N", default=0, type=WholeNumber(0, 1 << 24), envvar="LLAMA_ARG_CTX_SIZE",
    show_envvar=True, show_default="8192", help="Size of the context in tokens, which needs memory too.",
)  # fmt: skip
@click.option(
    "-ub", "--ubatch-size", "n_ubatch", metavar="N", default=512, show_default=True, type=WholeNumber(1, 1 << 20),
    envvar="LLAMA_ARG_UBATCH", show_envvar=True, help="Most tokens computed at once.",
)  # fmt: skip
@click.option(
    "-fa", "--flash-attn", metavar="on|off|auto", default="auto", show_default=True, type=OnOffAuto(),
    envvar="LLAMA_ARG_FLASH_ATTN", show_envvar=True, help="Flash attention; off needs more memory.",
)  # fmt: skip
@rpc_option
@common_options
def devices_command(model: str | None, n_ctx: int, n_ubatch: int, flash_attn: str, as_json: bool) -> None:
    """Show what llama.cpp can compute on here: devices, their memory, the CPU's features, threads, the build.

    With a model: how many of its layers fit on each device, by the sizes of its tensors, the context's memory and room
    to compute in; a margin of 1 GiB stays free on each. Nothing is loaded. `ggufsteer doctor` says what is wrong.
    """
    from ggufsteer.engine.devices_machine import Sources, read_facts

    facts = read_facts(Sources())
    build, machine = facts.build, facts.machine
    if build is None:
        raise EngineError(
            f"llama-cpp-python cannot be imported: {facts.import_problem}", "`ggufsteer doctor` says what mends it"
        )
    sizes, path, n_ctx = _sizes(model, n_ctx, n_ubatch, flash_attn) if model is not None else (None, None, n_ctx)
    content = _as_json(build, machine)
    if sizes is None:
        found: tuple[Fit, ...] = ()
        auto = None
    else:
        from ggufsteer.engine.devices_fit import MARGIN
        from ggufsteer.tasks.devices import auto_layers, fits

        found, auto = fits(sizes, build.devices, machine.memory_available), auto_layers(sizes, build.devices)
        content["model"] = {
            "path": str(path),
            "n_ctx": n_ctx,
            "n_layer": len(sizes.layers),
            "bytes": sum(sizes.layers) + sizes.output,
            "compute_bytes": sizes.compute,
            "margin_bytes": MARGIN,
            "gpu_layers_auto": auto,
            "fits": [dataclasses.asdict(one) for one in found],
        }
    if as_json:
        console.document(content)
        return
    _show(build, machine)
    if sizes is not None:
        _show_fits(f"{path} with a context of {n_ctx:,} tokens", sizes, found, auto)


def _sizes(model: str, n_ctx: int, n_ubatch: int, flash_attn: str) -> tuple[ModelSizes, Path, int]:
    from ggufsteer.engine.builtin import resolve_model
    from ggufsteer.engine.devices_fit import model_sizes
    from ggufsteer.engine.model import DEFAULT_CONTEXT, Model

    path = Path(resolve_model(model))
    n_ctx = Model.rounded_context(n_ctx or DEFAULT_CONTEXT)
    return model_sizes(path, n_ctx=n_ctx, n_ubatch=n_ubatch, flash_attention=flash_attn != "off"), path, n_ctx


def _as_json(build: Build, machine: Machine) -> dict[str, Any]:
    return {
        "llama_cpp_python": build.package,
        "llama_cpp": build.version,
        "llama_cpp_commit": build.commit,
        "system_info": build.system_info,
        "backends": build.backends,
        "rpc": build.supports_rpc,
        "threads": build.cores,
        "cpu_limit": machine.cpu_limit,
        "memory_available": machine.memory_available or None,
        "devices": [dataclasses.asdict(device) for device in build.devices],
    }


def _show(build: Build, machine: Machine) -> None:
    console.line(f"llama.cpp {build.version} ({build.commit}), llama-cpp-python {build.package}")
    console.line(f"backends: {', '.join(build.backends)}; RPC: {'yes' if build.supports_rpc else 'not in this build'}")
    limit = f"; this container may use {machine.cpu_limit:g}" if machine.cpu_limit is not None else ""
    console.line(f"threads: {build.cores}, one a physical core{limit}")
    if machine.memory_available:
        console.line(f"memory available: {size(machine.memory_available)}")
    console.line(f"features: {build.system_info}")
    console.line()
    console.table(
        ["device", "kind", "backend", "free", "memory", "name"],
        [
            [one.name, one.kind, one.backend, size(one.memory_free), size(one.memory_total), one.description]
            for one in build.devices
        ],
        left=(0, 1, 2, 5),
    )
    if not build.gpus:
        console.note("no GPU that llama.cpp can use; `ggufsteer doctor` says whether there should be one")


def _show_fits(title: str, sizes: ModelSizes, found: tuple[Fit, ...], auto: int | None) -> None:
    n_layer = len(sizes.layers)
    console.line()
    console.table(
        ["device", "layers that fit", "they take", "-ngl"],
        [
            [
                one.device,
                f"all {n_layer}" if one.is_all else f"{one.layers} of {n_layer}",
                size(one.bytes_needed),
                "" if one.gpu_layers is None else str(one.gpu_layers),
            ]
            for one in found
        ],
        title=title,
    )
    if auto is not None:
        console.note(f"-ngl auto puts {auto} of {sizes.parts} on the GPU, the output counted as one")
    console.note("1 GiB stays free on each device; what the computation needs is an estimate")


def size(count: int) -> str:
    """Return a number of bytes as people read it.

    >>> size(3 << 29), size(5 << 20)
    ('1.5 GiB', '5.0 MiB')
    """
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.1f} MiB"
