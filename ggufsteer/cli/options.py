"""The options that several commands share, spelled as llama.cpp's programs spell them, environment names included.

One decorator a group: an option means the same wherever it appears. This module knows flags, not what they do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ggufsteer.errors import SteerError

if TYPE_CHECKING:
    from ggufsteer.cli.main import Settings
    from ggufsteer.engine.model import LoadOptions

Function = TypeVar("Function", bound=Callable[..., Any])


class NumberOrWord(click.ParamType):  # type: ignore[type-arg]  # older clicks have no type argument
    """A whole number that is at least `least`, or one of a few words."""

    def __init__(self, words: tuple[str, ...], least: int = 0) -> None:
        self.words = words
        self.least = least
        self.name = "|".join(("n", *words))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Return the number or the word."""
        if value in self.words or isinstance(value, int):
            return str(value) if isinstance(value, str) else int(value)
        try:
            number = int(value)
        except ValueError:
            number = self.least - 1
        if number < self.least:
            self.fail(
                f"{value!r} is neither a whole number from {self.least} on nor one of {', '.join(self.words)}",
                param,
                ctx,
            )
        return number


class NumberList(click.ParamType):  # type: ignore[type-arg]
    """Numbers separated by commas, such as `0,0.5,1`."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Return the numbers; refuses anything that is not finite."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(item) for item in str(value).split(","))
        except ValueError:
            numbers = ()
        if not numbers or any(abs(number) > 1e6 or number != number for number in numbers):
            self.fail(f"{value!r} is not a list of numbers such as 0,0.5,1", param, ctx)
        return numbers


def _set_debug(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:  # noqa: ARG001
    settings: Settings | None = context.find_root().obj
    if wanted and settings is not None:
        settings.debug = True


def common_options(command: Function) -> Function:
    """Add `--json` (parameter `as_json`) and `--debug`."""
    for decorate in (
        click.option(
            "--debug", is_flag=True, expose_value=False, callback=_set_debug, help="Show the traceback of an error."
        ),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document to stdout and nothing else."),
    ):
        command = decorate(command)
    return command


_MODEL_OPTIONS = (
    click.option(
        "-m", "--model", envvar="LLAMA_ARG_MODEL", show_envvar=True, metavar="FILE|builtin", help="The GGUF model."
    ),
    click.option(
        "-ngl",
        "--gpu-layers",
        "--n-gpu-layers",
        envvar="LLAMA_ARG_N_GPU_LAYERS",
        show_envvar=True,
        default="auto",
        show_default=True,
        type=NumberOrWord(("auto", "all")),
        help="Layers to keep on the GPU.",
    ),
    click.option(
        "-c",
        "--ctx-size",
        metavar="N",
        envvar="LLAMA_ARG_CTX_SIZE",
        show_envvar=True,
        default=0,
        type=click.IntRange(min=0),
        help="Size of the context in tokens.  [default: the model's own, at most 8192]",
    ),
    click.option(
        "-t",
        "--threads",
        metavar="N",
        envvar="LLAMA_ARG_THREADS",
        show_envvar=True,
        type=click.IntRange(min=1),
        help="CPU threads.  [default: the physical cores]",
    ),
    click.option(
        "-b",
        "--batch-size",
        metavar="N",
        envvar="LLAMA_ARG_BATCH",
        show_envvar=True,
        default=2048,
        show_default=True,
        type=click.IntRange(min=1),
        help="Most tokens a batch.",
    ),
    click.option(
        "-ub",
        "--ubatch-size",
        metavar="N",
        envvar="LLAMA_ARG_UBATCH",
        show_envvar=True,
        default=512,
        show_default=True,
        type=click.IntRange(min=1),
        help="Most tokens computed at once.",
    ),
    click.option(
        "-fa",
        "--flash-attn",
        envvar="LLAMA_ARG_FLASH_ATTN",
        show_envvar=True,
        default="auto",
        show_default=True,
        type=click.Choice(["on", "off", "auto"]),
        help="Flash attention.",
    ),
)


def model_options(command: Function) -> Function:
    """Add the model and how it is loaded; the command takes them as `model` and `**loading` for `load_options`."""
    for decorate in reversed(_MODEL_OPTIONS):
        command = decorate(command)
    return command


def output_option(help_text: str) -> Callable[[Function], Function]:
    """Return a decorator that adds `-o/--output` (parameter `output`, a path or None)."""
    return click.option("-o", "--output", type=click.Path(path_type=Path), help=help_text)


def seed_option(command: Function) -> Function:
    """Add `-s/--seed` (parameter `seed`, None where it was not given)."""
    return click.option(
        "-s", "--seed", metavar="N", type=click.IntRange(min=0, max=2**31 - 1), help="Seed of every random choice."
    )(command)


def load_options(loading: dict[str, Any]) -> LoadOptions:
    """Turn the parameters of `model_options` into the engine's options; imports the engine, so call it late."""
    from ggufsteer.engine.model import LoadOptions

    if loading["ubatch_size"] > loading["batch_size"]:
        raise SteerError(
            f"--ubatch-size {loading['ubatch_size']} is larger than --batch-size {loading['batch_size']}",
            "a batch is computed in micro-batches: give -ub at most the value of -b",
        )
    return LoadOptions(
        n_gpu_layers=loading["gpu_layers"],
        n_ctx=loading["ctx_size"],
        n_threads=loading["threads"],
        n_batch=loading["batch_size"],
        n_ubatch=loading["ubatch_size"],
        flash_attention=loading["flash_attn"],
    )
