"""`ggufsteer scan`: how far a text expresses the concepts of vectors, word by word."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggufsteer.cli import console
from ggufsteer.cli.model_choice import model_for_vector
from ggufsteer.cli.options import WholeNumber, common_options, load_options, model_options, producer_option
from ggufsteer.cli.vectors import read_vectors
from ggufsteer.errors import SteerError

if TYPE_CHECKING:
    from ggufsteer.files.recipe_layers import LayerChoice
    from ggufsteer.tasks.scan_result import Scan

STDIN = "-"


@click.command("scan")
@click.argument("vectors", metavar="FILE|hf:NAME|builtin:NAME…", nargs=-1, required=True)
@click.option("--text", "text_file", metavar="FILE|-", required=True, help="The text, in UTF-8; - reads stdin.")
@click.option(
    "--layers", metavar="LIST", show_default="each vector's best one",
    help='Layers to read: "all" of each vector, a list such as 2,3,4, or a range such as 2-4.',
)  # fmt: skip
@click.option("--chat", is_flag=True, help="Read the text as a user's message, by the model's chat template.")
@click.option("--question", metavar="TEXT", help="Read the text as the answer to this question, by the chat template.")
@click.option("--numbers", is_flag=True, help="Print the number of each token at each layer, too.")
@click.option(
    "--ascii", "plain", is_flag=True, help="Marks below each row instead of colours, and no special characters."
)
@click.option("--all", "everything", is_flag=True, help="Print the whole of a long text, not only what stands out.")
@click.option(
    "--top", metavar="N", type=WholeNumber(1), default=5, show_default=True, help="Passages of each kind to name."
)
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="Write the coloured text as a web page.")
@click.option("--csv", metavar="FILE", type=click.Path(path_type=Path), help="Write every token's numbers as a table.")
@producer_option
@click.option("--force", is_flag=True, help="Use vectors of another model file, and overwrite files of another kind.")
@model_options
@common_options
def scan_command(vectors: tuple[str, ...], text_file: str, as_json: bool, **flags: Any) -> None:
    """Show how far a text expresses the concept of each vector, token by token.

    0 is the mean of a vector's negative side, 1 that of its positive side. The model only reads; nothing is steered.
    Without -m the demo model is used if the vectors were made from it. Of a text that fills more than a screen the
    strongest passages are printed, and --html shows it whole.
    """
    layers = _layers(flags["layers"])
    if flags["chat"] and flags["question"] is not None:
        raise SteerError("--chat and --question exclude each other", "a text is a message or an answer: give one")
    read = read_vectors(vectors, flags["producer"])
    text = _read_text(text_file)
    _check_outputs(flags, [*(str(path) for _, path in read.values()), text_file, flags["model"]])
    options = load_options(flags)
    from ggufsteer.engine.model import Model
    from ggufsteer.tasks.scan import scan

    # Every vector is asked: the demo model is only for its own.
    model_paths = [model_for_vector(flags["model"], vector, path) for vector, path in read.values()]
    model_path = model_paths[0]
    with Model.open(model_path, options) as model:
        for vector, _ in read.values():
            for doubt in vector.check_fits(model.identity, force=flags["force"]):
                console.warn(doubt)
        with console.progress(quiet=as_json) as report:
            found = scan(
                model,
                {name: vector for name, (vector, _) in read.items()},
                text,
                layers=layers,
                chat=flags["chat"],
                question=flags["question"],
                passages=flags["top"],
                report=report,
            )
    _write(found, flags, "the text from stdin" if text_file == STDIN else Path(text_file).name, model_path.name)
    if as_json:
        from ggufsteer.tasks.scan_record import record

        files = {name: str(path) for name, (_, path) in read.items()}
        console.document({"model": str(model_path), "file": text_file, "vector_files": files, **record(found)})
        return
    from ggufsteer.cli.scan_output import show

    for remark in found.remarks:
        console.note(f"note: {remark}")
    show(found, plain=flags["plain"], everything=flags["everything"], numbers=flags["numbers"])


def _layers(choice: str | None) -> LayerChoice | None:
    from ggufsteer.files.recipe_layers import parse_layers

    if choice is None:
        return None
    return "auto" if choice == "all" else parse_layers(choice)


def _read_text(name: str) -> str:
    from ggufsteer.files.inputs import TEXT_LIMIT_BYTES, decode_text, read_text

    if name != STDIN:
        text = read_text(name)
    else:
        data = sys.stdin.buffer.read(TEXT_LIMIT_BYTES + 1)
        if len(data) > TEXT_LIMIT_BYTES:
            raise SteerError(f"stdin: more than {TEXT_LIMIT_BYTES} bytes", "give a part of the text")
        text = decode_text(data, "stdin")
    if not text.strip():
        raise SteerError(
            f"{'stdin' if name == STDIN else name}: the text is empty", "give a text with some words in it"
        )
    return text


def _check_outputs(flags: dict[str, Any], inputs: Sequence[str | None]) -> None:
    """Refuse, before the work, files that cannot or should not be written."""
    from ggufsteer.cli.scan_files import KINDS, check_file

    seen: list[str | None] = list(inputs)
    for kind in KINDS:
        path = flags[kind]
        if path is not None:
            check_file(path, kind, force=flags["force"], protected=seen)
            seen.append(os.fspath(path))


def _write(found: Scan, flags: dict[str, Any], text_name: str, model_name: str) -> None:
    """Write the files that were asked for, each whole or not at all."""
    from ggufsteer.files.atomic import write_text_atomically

    if flags["csv"] is not None:
        from ggufsteer.tasks.scan_record import csv_lines

        write_text_atomically(flags["csv"], "".join(csv_lines(found)))
        console.note(f"wrote {flags['csv']}")
    if flags["html"] is not None:
        from ggufsteer.report.heat_map_html import page

        drawn = page(found, text_name=text_name, model_name=model_name, everything=flags["everything"])
        write_text_atomically(flags["html"], drawn)
        console.note(f"wrote {flags['html']}")
