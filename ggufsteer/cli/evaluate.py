"""`ggufsteer eval`: what vectors do to a concept, at what cost, as tables, a web page, and one JSON document."""

from __future__ import annotations

import json
import os
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
from ggufsteer.cli.vectors import read_vectors, recipe_for_vector
from ggufsteer.errors import SteerError

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model
    from ggufsteer.files.recipe import Recipe
    from ggufsteer.tasks.evaluate_result import NamedVector
    from ggufsteer.tasks.lens import Lens
    from ggufsteer.tasks.progress import ReportProgress

PAGE_SUFFIX = ".html"
DOCUMENT_SUFFIX = ".json"
_DOCUMENT_BEGINNING = '{\n  "format": '
LENS_TOKENS = 8


@click.command("eval")
@click.argument("vectors", metavar=f"FILE|{BUILTIN}:NAME…", nargs=-1)
@click.option(
    "--recipe", metavar="FILE|NAME", show_default="the first vector's own",
    help="Whose concept is measured: its held-out items, marks and questions.",
)  # fmt: skip
@click.option(
    "--report", "report_to", metavar="FILE.html|FOLDER", type=click.Path(path_type=Path),
    help="Write a web page with all figures, and the same as JSON beside it.",
)  # fmt: skip
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
    page, document_file = _outputs(
        flags, recipe, [*(one.path for one in (*read, *others)), flags["recipe"], flags["model"]]
    )
    options = load_options(flags)
    # Every vector is asked: the demo model is only for its own.
    paths = [model_for_vector(flags["model"], one.vector, Path(one.path)) for one in (*read, *others)]
    from ggufsteer.engine.model import Model
    from ggufsteer.tasks.evaluate import evaluate
    from ggufsteer.tasks.evaluation_document import evaluation_document

    with Model.open(paths[0], options) as model:
        doubts = [d for one in (*read, *others) for d in one.vector.check_fits(model.identity, force=flags["force"])]
        for doubt in doubts:
            console.warn(doubt)
        with console.progress(quiet=as_json) as report:
            found = evaluate(
                recipe,
                model,
                read,
                others=others,
                budget=budget,
                seed=flags["seed"] or 0,
                with_samples=flags["samples"],
                report=report,
            )
            lenses = _lenses(model, read, report, force=flags["force"])
        document = evaluation_document(found, model, lenses)
    document["warnings"] = [*doubts, *document["warnings"]]
    for warning in found.warnings:
        console.warn(warning)
    if as_json:
        console.document(document)
    else:
        _show(document)
    if page is not None and document_file is not None:
        _write(document, page, document_file)


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


def _outputs(flags: dict[str, Any], recipe: Recipe, inputs: Sequence[str | None]) -> tuple[Path | None, Path | None]:
    """Say which files are written, and refuse, before the work, those that cannot or should not be."""
    from ggufsteer.files.atomic import check_target
    from ggufsteer.report.html import BEGINNING

    wanted: Path | None = flags["report_to"]
    if wanted is None:
        return None, None
    if wanted.suffix != PAGE_SUFFIX and not wanted.is_dir():
        raise SteerError(f"--report {wanted}: is no folder, and no page", f"name a folder, or a file in {PAGE_SUFFIX}")
    page = wanted / f"{recipe.name.replace(' ', '-')}{PAGE_SUFFIX}" if wanted.is_dir() else wanted
    document = page.with_suffix(DOCUMENT_SUFFIX)
    for path, beginning in ((page, BEGINNING), (document, _DOCUMENT_BEGINNING)):
        check_target(path)
        if any(name is not None and os.path.realpath(path) == os.path.realpath(name) for name in inputs):
            raise SteerError(f"{path}: this file is also an input", "give another name with --report")
        if path.exists() and not flags["force"] and not _begins(path, beginning):
            raise SteerError(
                f"{path}: exists and is no report; it would be overwritten",
                "give another name with --report, or --force",
            )
    return page, document


def _begins(path: Path, beginning: str) -> bool:
    """Say whether a file is empty, or begins like one of ours."""
    expected = beginning.encode()
    with path.open("rb") as file:
        start = file.read(len(expected))
    return not start or start == expected


def _lenses(model: Model, read: Sequence[NamedVector], report: ReportProgress, *, force: bool) -> dict[int, Lens]:
    """Read what the vectors say in the model's own words, where its output matrix can be read."""
    from ggufsteer.tasks.lens import lens

    found = {}
    for place, one in enumerate(read):
        try:
            found[place] = lens(model, one.vector, k=LENS_TOKENS, force=force, report=report)
        except SteerError as problem:
            console.warn(f"{one.name}: its words cannot be read: {problem.message}")
    return found


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


def _write(document: dict[str, Any], page: Path, document_file: Path) -> None:
    """Write the page, drawn from what the document reads back as, and the document; each whole or not at all."""
    from ggufsteer.files.atomic import write_text_atomically
    from ggufsteer.report.html import report_html

    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    write_text_atomically(document_file, text)
    write_text_atomically(page, report_html(json.loads(text)))
    console.note(f"wrote {page} and {document_file.name}")
