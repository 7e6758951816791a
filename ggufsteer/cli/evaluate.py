"""`ggufsteer eval`: what vectors do to a concept, at what cost, as tables, a web page, and one JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggufsteer.cli import console
from ggufsteer.cli.model_choice import model_for_vector
from ggufsteer.cli.options import (
    BUILTIN,
    checked_budget,
    common_options,
    load_options,
    model_options,
    producer_option,
    seed_option,
)
from ggufsteer.cli.report_files import report_files, report_option, write_report
from ggufsteer.cli.vectors import read_vectors, recipe_for_vector
from ggufsteer.errors import SteerError

if TYPE_CHECKING:
    from ggufsteer.tasks.evaluate_result import NamedVector


@click.command("eval")
@click.argument("vectors", metavar=f"FILE|hf:NAME|{BUILTIN}:NAME…", nargs=-1)
@click.option(
    "--recipe", metavar="FILE|NAME", show_default="the first vector's own",
    help="Whose concept is measured: its held-out items, marks and questions.",
)  # fmt: skip
@report_option("Write a web page with all figures, and the same as JSON beside it.")
@click.option(
    "--control", "controls", metavar="VECTOR", multiple=True,
    help="A vector of another concept, to see what it does to the same items; may be repeated.",
)  # fmt: skip
@click.option(
    "--budget", metavar="NATS", type=float, show_default="that of a calibration",
    help="Damage at which effects are compared: the 95th percentile of the divergence on neutral text.",
)  # fmt: skip
@click.option("--samples/--no-samples", default=True, show_default=True, help="Let the model answer, too.")
@click.option(
    "--task", "tasks", metavar=f"FILE|{BUILTIN}:NAME", multiple=True,
    help="Run these multiple-choice items without and with each vector instead; may be repeated.",
)  # fmt: skip
@producer_option
@click.option("--force", is_flag=True, help="Use vectors of another model file, and overwrite files of another kind.")
@seed_option
@model_options
@common_options
def evaluate_command(vectors: tuple[str, ...], as_json: bool, **flags: Any) -> None:
    """Measure what each VECTOR does to a concept, and what it breaks.

    Effect is how much likelier the answers that show the concept become against those that do not; damage is how far
    the model's words on neutral text move. A vector works where its effect is more than items and chance explain.

    Without -m the demo model is used if the vectors were made from it.
    """
    if flags["tasks"]:
        _run_tasks(vectors, as_json, flags)
        return
    if not vectors:
        raise SteerError("no vector was named", f"name a file, or {BUILTIN}:NAME such as {BUILTIN}:happy")
    budget = checked_budget(flags["budget"])
    read = _read(vectors, flags["producer"])
    others = _read(flags["controls"], flags["producer"])
    recipe = recipe_for_vector(flags["recipe"], read[0].vector, Path(read[0].path))
    used = [*(one.path for one in (*read, *others)), flags["recipe"], flags["model"]]
    files = report_files(flags["report_to"], recipe.name, used=used, force=flags["force"])
    options = load_options(flags)
    # Every vector is asked: the demo model is only for its own.
    paths = [model_for_vector(flags["model"], one.vector, Path(one.path)) for one in (*read, *others)]
    from ggufsteer.engine.model import Model
    from ggufsteer.tasks.examine import examine

    with Model.open(paths[0], options) as model:
        doubts = [d for one in (*read, *others) for d in one.vector.check_fits(model.identity, force=flags["force"])]
        for doubt in doubts:
            console.warn(doubt)
        with console.progress(quiet=as_json) as report:
            document = examine(
                "evaluation",
                recipe,
                model,
                read,
                others=others,
                budget=budget,
                seed=flags["seed"] or 0,
                with_samples=flags["samples"],
                with_evidence=as_json or files is not None,
                force=flags["force"],
                report=report,
            )
    for warning in document["warnings"]:
        console.warn(warning)
    document["warnings"] = [*doubts, *document["warnings"]]
    if as_json:
        console.document(document)
    else:
        _show(document)
    if files is not None:
        write_report(document, files)


def _run_tasks(vectors: Sequence[str], as_json: bool, flags: dict[str, Any]) -> None:
    """Run multiple-choice items, one task after the other."""
    from ggufsteer.cli.choices import run

    taken = [name for name in ("recipe", "report_to", "controls", "budget", "seed") if flags[name] not in (None, ())]
    if taken:
        given = f"--{taken[0].removesuffix('_to').removesuffix('s')}"
        raise SteerError(f"--task and {given} do not go together", "run the two one after the other")
    if as_json and len(flags["tasks"]) > 1:
        raise SteerError("--json prints one document, but several tasks were named", "name one --task at a time")
    for number, task in enumerate(flags["tasks"]):
        if number:
            console.line()
        run(
            flags["model"],
            task,
            vectors,
            options=load_options(flags),
            producer=flags["producer"],
            force=flags["force"],
            as_json=as_json,
        )


def _read(names: Sequence[str], producer: str | None) -> list[NamedVector]:
    from ggufsteer.tasks.evaluate_result import NamedVector

    read = read_vectors(names, producer)
    return [NamedVector(called, vector, str(path)) for called, (vector, path) in read.items()]


def _show(document: dict[str, Any]) -> None:
    from ggufsteer.report.terminal import headlines, tables

    for sentence in headlines(document):
        console.prose(sentence)
    for rows in tables(document):
        console.line()
        console.table(rows.columns, rows.rows, title=rows.title, left=rows.left)
        if rows.below:
            console.note(rows.below)
    items = document["items"]
    console.line()
    console.prose(
        f"measured on {console.counted(items['count'], 'item')} ({items['source']}), "
        f"{console.counted(items['evaluations'], 'evaluation')} of {items['distinct_tokens']:,} distinct tokens; "
        f"{items['tokens_in_all']:,} tokens evaluated in all"
    )
