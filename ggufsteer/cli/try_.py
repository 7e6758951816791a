"""`ggufsteer try`: the same question without and with a vector, side by side."""

from __future__ import annotations

from typing import Any

import click

from ggufsteer.cli import console
from ggufsteer.cli.model_choice import model_for_vector
from ggufsteer.cli.options import (
    NumberList,
    WholeNumber,
    common_options,
    load_options,
    model_options,
    producer_option,
    seed_option,
)
from ggufsteer.errors import SteerError


@click.command("try")
@click.argument("vector", metavar="FILE|hf:NAME|builtin:NAME")
@click.argument("question")
@click.option(
    "--strengths",
    metavar="LIST",
    type=NumberList(),
    default="0,0.5,1",
    show_default=True,
    help="Strengths to compare: 0 is the model as it is, 1 the recommended dose, negative ones go the other way.",
)
@click.option(
    "-sys", "--system-prompt", "system", metavar="TEXT", default="", show_default="none", help="A system prompt."
)
@click.option(
    "-n", "--predict", "--n-predict", "max_tokens", metavar="N", envvar="LLAMA_ARG_N_PREDICT", show_envvar=True,
    default=128, show_default=True, type=WholeNumber(1), help="Most tokens an answer.",
)  # fmt: skip
@click.option(
    "--temp", "--temperature", "temperature", metavar="N", type=float, default=0.0, show_default=True,
    help="0 takes the likeliest token each time, 1 draws as the model would.",
)  # fmt: skip
@producer_option
@click.option("--force", is_flag=True, help="Use the vector although it was made from another model file.")
@seed_option
@model_options
@common_options
def try_command(vector: str, question: str, strengths: tuple[float, ...], as_json: bool, **flags: Any) -> None:
    """Answer QUESTION with a control vector at several strengths, side by side.

    Without -m the demo model is used if the vector was made from it.
    """
    from ggufsteer.cli.model_choice import find_vector
    from ggufsteer.files.vector import read_vector

    if not question.strip():
        raise SteerError("the question is empty", 'ask something, such as "What do you think of tea?"')
    path = find_vector(vector)
    read = read_vector(path, producer=flags["producer"])
    for remark in read.notes:
        console.warn(f"{vector}: {remark}")
    options = load_options(flags)
    from ggufsteer.engine.model import Model
    from ggufsteer.tasks.answer import answers

    with Model.open(model_for_vector(flags["model"], read, path), options) as model:
        for doubt in read.check_fits(model.identity, force=flags["force"]):
            console.warn(doubt)
        with console.progress(quiet=as_json) as report:
            given = answers(
                model,
                read,
                question,
                strengths,
                system=flags["system"],
                max_tokens=flags["max_tokens"],
                temperature=flags["temperature"],
                seed=flags["seed"] or 0,
                force=flags["force"],
                report=report,
            )
    if as_json:
        texts = [{"strength": one.strength, "text": one.text, "ended": one.ended} for one in given]
        console.document({"question": question, "vector": str(path), "model": str(model.path), "answers": texts})
        return
    console.side_by_side(
        [_heading(one.strength) for one in given],
        [one.text.strip() + ("" if one.ended else " […]") for one in given],
    )


def _heading(strength: float) -> str:
    return "without" if strength == 0 else f"strength {strength:g}"
