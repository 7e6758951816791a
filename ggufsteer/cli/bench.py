"""`ggufsteer bench`: how fast models read and write, as they are and steered."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ggufsteer.cli import console
from ggufsteer.cli.model_choice import find_model
from ggufsteer.cli.options import BUILTIN, OnOffAuto, WholeNumber, common_options, producer_option, say_which_model
from ggufsteer.errors import SteerError

if TYPE_CHECKING:
    from ggufsteer.engine.model import LoadOptions
    from ggufsteer.files.bench_results import Key, Row
    from ggufsteer.files.control_vector import ControlVector
    from ggufsteer.tasks.bench import Plan
    from ggufsteer.tasks.progress import ReportProgress

MODES = ("none", "add", "ablate", "gate", "meter", "extract")
"""Written out, because the table of ways would load numpy for a line of help; a test compares them."""
FORMATS = ("md", "csv", "json", "jsonl")
_NAMES_SHOWN = 4
_Value = TypeVar("_Value")
Function = TypeVar("Function", bound=Callable[..., Any])


class _Listed(click.ParamType):  # type: ignore[type-arg]
    """Values of another type, separated by commas as llama-bench takes them."""

    def __init__(self, of: click.ParamType) -> None:  # type: ignore[type-arg]
        self.of = of
        self.name = of.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """Return all values."""
        if isinstance(value, tuple):
            return value
        return tuple(self.of.convert(part, param, ctx) for part in str(value).split(","))

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """Take an environment variable as one value."""
        return [rv]


class _Name(click.ParamType):  # type: ignore[type-arg]
    """A file's name, which may hold spaces also in an environment variable."""

    name = "file"

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """Take an environment variable as one value."""
        return [rv]


def _llama(*flags: str, variable: str, **settings: Any) -> Callable[[Function], Function]:
    """Return an option that can also be set by the environment variable that llama.cpp's programs read."""
    return click.option(*flags, envvar=f"LLAMA_ARG_{variable}", show_envvar=True, **settings)


@click.command("bench")
@_llama(
    "-m",
    "--model",
    "models",
    variable="MODEL",
    metavar=f"FILE|hf:NAME|{BUILTIN}",
    multiple=True,
    type=_Name(),
    help="A GGUF model; can be given several times.",
)
@click.option(
    "--vector",
    "vectors",
    metavar="FILE|builtin:NAME",
    multiple=True,
    help="A vector that steers; can be given several times. Without one, three are made up that steer every layer.",
)
@click.option(
    "--steer",
    "modes",
    metavar="WAYS",
    default=",".join(MODES),
    show_default=True,
    type=_Listed(click.Choice(MODES)),
    help="Ways of steering that are compared with the model as it is.",
)
@click.option(
    "-p",
    "--n-prompt",
    "n_prompts",
    metavar="N[,N]",
    multiple=True,
    default=("512",),
    show_default=True,
    type=_Listed(WholeNumber(0, 1 << 20)),
    help="Tokens of a prompt; 0 measures none.",
)
@click.option(
    "-n",
    "--n-gen",
    "n_gens",
    metavar="N[,N]",
    multiple=True,
    default=("128",),
    show_default=True,
    type=_Listed(WholeNumber(0, 1 << 20)),
    help="Tokens generated one at a time; 0 measures none.",
)
@click.option(
    "-r",
    "--repetitions",
    metavar="N",
    default=5,
    show_default=True,
    type=WholeNumber(1, 10_000),
    help="Times that each way does each test.",
)
@_llama(
    "-t",
    "--threads",
    variable="THREADS",
    metavar="N[,N]",
    multiple=True,
    default=("-1",),
    show_default="the physical cores",
    type=_Listed(WholeNumber(-1, 4096)),
    help="CPU threads.",
)
@_llama(
    "-ngl",
    "--gpu-layers",
    "--n-gpu-layers",
    "gpu_layers",
    variable="N_GPU_LAYERS",
    metavar="N|auto|all[,…]",
    multiple=True,
    default=("auto",),
    show_default=True,
    type=_Listed(WholeNumber(-1, words=("auto", "all"))),
    help="Layers to keep on the GPU; 0,all compares CPU and GPU.",
)
@_llama(
    "-b",
    "--batch-size",
    variable="BATCH",
    metavar="N",
    default=2048,
    show_default=True,
    type=WholeNumber(1),
    help="Most tokens a batch.",
)
@_llama(
    "-ub",
    "--ubatch-size",
    variable="UBATCH",
    metavar="N",
    default=512,
    show_default=True,
    type=WholeNumber(1),
    help="Most tokens computed at once.",
)
@_llama(
    "-fa",
    "--flash-attn",
    variable="FLASH_ATTN",
    metavar="on|off|auto",
    default="auto",
    show_default=True,
    type=OnOffAuto(),
    help="Flash attention.",
)
@click.option(
    "-o",
    "--output",
    "form",
    metavar="|".join(FORMATS),
    type=click.Choice(FORMATS),
    show_default="a table with bars",
    help="How the figures are printed, with llama-bench's names and ours, steer_….",
)
@click.option(
    "--compare",
    metavar="FILE",
    help="Also say how fast this is beside an earlier run, of ours or llama-bench's (-o json or jsonl).",
)
@click.option(
    "--plot",
    metavar="FILE.svg",
    type=click.Path(path_type=Path),
    help="Draw the speeds as a picture, too.",
)
@producer_option
@common_options
def bench_command(form: str | None, as_json: bool, compare: str | None, plot: Path | None, **flags: Any) -> None:
    """Measure how many tokens a second models read and write, as they are and steered.

    Random tokens are computed as llama-bench does it: prompts in batches (pp), and single tokens one after the other
    (tg), without sampling. All ways of steering take turns, so that a machine that slows down slows all of them;
    `steered/not` is the median over those turns with its standard error. Add and meter take all vectors, ablate and
    gate the first; extract reads the states of as many tokens, as the making of a vector does. Without -m the demo
    model is measured.
    """
    if as_json and form not in (None, "json"):
        raise SteerError(f"--json and -o {form} do not go together", "leave one of the two out")
    form = "json" if as_json else form
    from ggufsteer.files.bench_results import read_results
    from ggufsteer.tasks.bench import Plan

    plan = Plan(_flat(flags["n_prompts"]), _flat(flags["n_gens"]), flags["repetitions"], _once(flags["modes"]))
    settings = _settings(flags)
    _check_plot(plot)
    earlier = read_results(compare) if compare is not None else None
    vectors = _vectors(flags["vectors"], flags["producer"])
    names: Sequence[str | None] = flags["models"] or (None,)
    say_which_model(names[0])
    paths = [find_model(name) for name in names]
    if earlier is not None:
        _check_comparable(compare, earlier, _planned(paths, settings, plan))
    rows: list[Row] = []
    with console.progress(quiet=as_json) as report:
        for path, options in itertools.product(paths, settings):
            for measured in _measure(path, options, plan, vectors, report):
                rows += measured if earlier is None else [_compared(row, earlier) for row in measured]
    _print(rows, form, vectors)
    if plot is not None:
        from ggufsteer.files.atomic import write_text_atomically
        from ggufsteer.report.bench_chart import bench_svg

        write_text_atomically(plot, bench_svg(rows))
        if not as_json:
            console.note(f"wrote {plot}")


def _flat(given: Sequence[Sequence[_Value]]) -> tuple[_Value, ...]:
    return _once(value for values in given for value in values)


def _once(values: Any) -> tuple[Any, ...]:
    """Drop what was named before."""
    return tuple(dict.fromkeys(values))


def _settings(flags: dict[str, Any]) -> list[LoadOptions]:
    """Give each way to load a model."""
    from ggufsteer.cli.options import load_options

    shared = {key: flags[key] for key in ("batch_size", "ubatch_size", "flash_attn")} | {"ctx_size": 0}
    return [
        load_options({**shared, "threads": threads, "gpu_layers": layers})
        for layers in _flat(flags["gpu_layers"])
        for threads in _flat(flags["threads"])
    ]


def _check_plot(path: Path | None) -> None:
    """Refuse, before the work, a picture that cannot or should not be written."""
    from ggufsteer.files.atomic import check_target
    from ggufsteer.report.bench_chart import BEGINNING

    if path is None:
        return
    if path.suffix != ".svg":
        raise SteerError(f"--plot {path}: the picture is an SVG", "name a file in .svg")
    check_target(path)
    if path.exists():
        with path.open("rb") as file:
            start = file.read(len(BEGINNING))
        if start and start != BEGINNING.encode():
            raise SteerError(
                f"--plot {path}: exists and is no picture of ours; it would be overwritten", "give another name"
            )


def _vectors(names: Sequence[str], producer: str | None) -> list[ControlVector]:
    from ggufsteer.cli.vectors import read_vectors

    return [vector for vector, _ in read_vectors(names, producer).values()]


def _planned(paths: Sequence[Path], settings: Sequence[LoadOptions], plan: Plan) -> list[Key]:
    """Say what will be measured, before anything is loaded."""
    from ggufsteer.tasks.bench import shown_layers, shown_threads

    keys: list[Key] = []
    for path, options, test in itertools.product(paths, settings, plan.tests):
        shared = (path.name, *test, shown_threads(options), shown_layers(options))
        keys += [(*shared, mode) for mode in plan.modes_of(test)]
    return keys


def _check_comparable(path: str | None, earlier: dict[Key, Row], planned: Sequence[Key]) -> None:
    """Refuse, before the work, an earlier run of which nothing is measured again."""
    from ggufsteer.files.bench_results import described

    if any(key in earlier for key in planned):
        return
    held = "; ".join(described(key) for key in list(earlier)[:_NAMES_SHOWN])
    more = f"; {len(earlier) - _NAMES_SHOWN} more" if len(earlier) > _NAMES_SHOWN else ""
    raise SteerError(
        f"--compare {path}: holds nothing that is measured now, such as {described(planned[0])}",
        f"it holds {held}{more}: give the same -m, -p, -n, -t and -ngl",
    )


def _measure(
    path: Path, options: LoadOptions, plan: Plan, vectors: Sequence[ControlVector], report: ReportProgress
) -> Iterator[Sequence[Row]]:
    """Open a model, measure it, and give its rows, test by test."""
    from ggufsteer.engine.model import Model
    from ggufsteer.tasks.bench import bench

    with Model.open(path, options) as model:
        for vector in vectors:
            # Another file of the same shape is as fast, so that is no reason to refuse a vector here.
            vector.check_fits(model.identity, force=True)
        if note := model.reader_note:
            console.warn(note)
        yield from bench(model, plan, vectors, report=report)


def _compared(row: Row, earlier: dict[Key, Row]) -> Row:
    """Add the ratio to the earlier run; null where that did not measure the same."""
    from ggufsteer.files.bench_results import key_of
    from ggufsteer.tasks.bench_figures import Spread, ratio_error

    before = earlier.get(key_of(row))
    if before is None:
        return {**row, "compare_avg_ts": None, "compare_ratio": None, "compare_ratio_stderr": None}
    now = Spread(row["avg_ts"], row["stddev_ts"])
    then = Spread(before["avg_ts"], before.get("stddev_ts", 0.0))
    return {
        **row,
        "compare_avg_ts": then.mean,
        "compare_ratio": now.mean / then.mean,
        "compare_ratio_stderr": ratio_error(now, len(row["samples_ts"]), then, len(before.get("samples_ts", []))),
    }


def _print(rows: Sequence[Row], form: str | None, vectors: Sequence[ControlVector]) -> None:
    from ggufsteer.files.bench_results import csv_text, json_text, jsonl_text
    from ggufsteer.report.bench_table import markdown, tables

    written = {"md": markdown, "csv": csv_text, "json": json_text, "jsonl": jsonl_text}
    if form is not None:
        for line in written[form](rows).rstrip("\n").split("\n"):
            console.line(line)
        return
    for number, table in enumerate(tables(rows)):
        if number:
            console.line()
        console.table(table.columns, table.rows, title=table.title, left=table.left)
    if any(row["steer_ratio"] is not None for row in rows):
        what = console.counted(len(vectors), "vector") if vectors else "3 made-up vectors that steer every layer"
        console.note(
            f"steered/not: median of paired turns ± its standard error, with {what}; add and meter take all of them, "
            "ablate and gate the first"
        )
