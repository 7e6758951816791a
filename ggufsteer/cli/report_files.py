"""Where a report goes: which two files, refusals that come before the work, and the writing.

A vector that was just made or changed is measured for it, as `ggufsteer eval` would.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ggufsteer.cli import console
from ggufsteer.cli.vectors import recipe_for_vector
from ggufsteer.errors import SteerError

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model
    from ggufsteer.files.control_vector import ControlVector
    from ggufsteer.files.recipe import Recipe
    from ggufsteer.tasks.calibrate import Calibration
    from ggufsteer.tasks.evaluation_document import Kind

PAGE_SUFFIX = ".html"
DOCUMENT_SUFFIX = ".json"
_DOCUMENT_BEGINNING = '{\n  "format": '
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class ReportFiles:
    """A page, and the document that it is drawn from."""

    page: Path
    document: Path


def report_option(help_text: str) -> Callable[[Function], Function]:
    """Return a decorator that adds `--report` (parameter `report_to`, for `report_files`)."""
    return click.option(
        "--report", "report_to", metavar="FILE.html|FOLDER", type=click.Path(path_type=Path), help=help_text
    )  # fmt: skip


def report_files(
    wanted: Path | None, name: str, *, used: Sequence[str | Path | None], force: bool
) -> ReportFiles | None:
    """Say which files are written, and refuse, before the work, those that cannot or should not be.

    Args:
        wanted: What `--report` was given, if it was: the page, or the folder that it goes to.
        name: Of the recipe; the page is called after it in a folder.
        used: Files that are read, or written besides.
        force: Overwrite files that are no reports.

    Raises:
        SteerError: There can be no such file, it is used otherwise, or it is something else and `force` was not given.
    """
    from ggufsteer.files.atomic import check_target
    from ggufsteer.report.html import BEGINNING

    if wanted is None:
        return None
    if wanted.suffix != PAGE_SUFFIX and not wanted.is_dir():
        raise SteerError(f"--report {wanted}: is no folder, and no page", f"name a folder, or a file in {PAGE_SUFFIX}")
    page = wanted / f"{name.replace(' ', '-')}{PAGE_SUFFIX}" if wanted.is_dir() else wanted
    document = page.with_suffix(DOCUMENT_SUFFIX)
    for path, beginning in ((page, BEGINNING), (document, _DOCUMENT_BEGINNING)):
        check_target(path)
        if any(one is not None and os.path.realpath(path) == os.path.realpath(one) for one in used):
            raise SteerError(f"{path}: this file is used otherwise", "give another name with --report")
        if path.exists() and not force and not _begins(path, beginning):
            raise SteerError(
                f"{path}: exists and is no report; it would be overwritten",
                "give another name with --report, or --force",
            )
    return ReportFiles(page, document)


def _begins(path: Path, beginning: str) -> bool:
    """Say whether a file is empty, or begins like one of ours."""
    expected = beginning.encode()
    with path.open("rb") as file:
        start = file.read(len(expected))
    return not start or start == expected


def write_report(document: dict[str, Any], files: ReportFiles) -> None:
    """Write the page, drawn from what the document reads back as, and the document; each whole or not at all."""
    from ggufsteer.files.atomic import write_text_atomically
    from ggufsteer.report.html import report_html

    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    write_text_atomically(files.document, text)
    write_text_atomically(files.page, report_html(json.loads(text)))
    console.note(f"wrote {files.page} and {files.document.name}")


def report_on_new(
    kind: Kind,
    vector: ControlVector,
    path: Path,
    recipe: Recipe,
    model: Model,
    files: ReportFiles,
    *,
    budget: float,
    calibration: Calibration | None,
    warnings: Sequence[str],
    force: bool,
    quiet: bool,
) -> None:
    """Measure a vector that was just written, say what it does, and write its report.

    Args:
        kind: How it came about.
        vector: It.
        path: Its file.
        recipe: Its concept; of an extraction the vector's own copy is used, since a search may have changed the method.
        model: The open model.
        files: Where the report goes.
        budget: Damage at which effects are compared.
        calibration: How it came to its dose, if that was looked for.
        warnings: What was said of it already; the report says it too.
        force: Whether it may be of another file of the same shape.
        quiet: Whether stdout is for something else.
    """
    from ggufsteer.report.terminal import headlines
    from ggufsteer.tasks.evaluate_result import NamedVector
    from ggufsteer.tasks.examine import examine

    if kind == "extraction":
        recipe = recipe_for_vector(None, vector, path)
    named = NamedVector(recipe.name, vector, str(path))
    with console.progress(quiet=quiet) as report:
        document = examine(
            kind,
            recipe,
            model,
            [named],
            budget=budget,
            seed=recipe.seed,
            calibration=calibration,
            force=force,
            report=report,
        )
    for warning in document["warnings"]:
        console.warn(warning)
    document["warnings"] = [*warnings, *document["warnings"]]
    if not quiet:
        console.line()
        for sentence in headlines(document):
            console.prose(sentence)
    write_report(document, files)
