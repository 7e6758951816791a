"""`eval --task`: multiple-choice items without and with vectors, as a table or as one JSON document.

It decides which arms are run and how they are shown; how items are scored and compared is below.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggufsteer.cli import console
from ggufsteer.cli.options import (
    BUILTIN,
    WholeNumber,
    common_options,
    load_options,
    model_options,
    producer_option,
    say_which_model,
)
from ggufsteer.errors import SteerError

if TYPE_CHECKING:
    from ggufsteer.engine.model import LoadOptions
    from ggufsteer.files.choices import ChoiceItem
    from ggufsteer.files.control_vector import ControlVector
    from ggufsteer.tasks.choices import Arm, ArmResult, ChoiceResult, Comparison

PLAIN = "the model"
FLIPPED_SHOWN = 3
"""Items of each kind that are shown of an arm; --json has all."""
NAME_SHOWN = 40
TEXT_SHOWN = 100
"""Characters of a name, and of a question or a choice."""


@click.command("choices")
@click.option(
    "--task",
    metavar=f"FILE|{BUILTIN}:NAME",
    required=True,
    help=f"Multiple-choice items: JSONL in our shape, or as exported from HellaSwag, MMLU, TruthfulQA or ARC; "
    f"{BUILTIN}:facts and {BUILTIN}:secure-code ship.",
)
@click.argument("vectors", metavar=f"[FILE[:STRENGTH]|{BUILTIN}:NAME[:STRENGTH]]...", nargs=-1)
@click.option(
    "-sys",
    "--system-prompt",
    "systems",
    metavar="TEXT",
    multiple=True,
    help="A system prompt to run too, without and with each vector; may be repeated.",
)
@click.option(
    "--limit", metavar="N", type=WholeNumber(1), show_default="all", help="Only N of the items, spread evenly."
)
@producer_option
@click.option("--force", is_flag=True, help="Use vectors although they were made from another model file.")
@model_options
@common_options
def choices_command(
    task: str, vectors: tuple[str, ...], systems: tuple[str, ...], as_json: bool, model: str | None, **flags: Any
) -> None:
    """Run multiple-choice items without and with each VECTOR, and say which items flip."""
    run(
        model,
        task,
        vectors,
        systems,
        options=load_options(flags),
        producer=flags["producer"],
        limit=flags["limit"],
        force=flags["force"],
        as_json=as_json,
    )


def run(
    model_name: str | None,
    task: str,
    vectors: Sequence[str],
    systems: Sequence[str] = (),
    *,
    options: LoadOptions | None = None,
    producer: str | None = None,
    limit: int | None = None,
    force: bool = False,
    as_json: bool = False,
) -> None:
    """Run a task and print what came out.

    The first arm is the model as it is. Every vector is an arm compared with it, and so is every system prompt; a
    vector under a system prompt is compared with that prompt alone.

    Args:
        model_name: A path; None or "builtin" for the model that ships.
        task: A file of items, or "builtin:NAME".
        vectors: FILE[:STRENGTH], or "builtin:NAME[:STRENGTH]"; strength 1 where none is given.
        systems: System prompts.
        options: How the model is loaded.
        producer: Who wrote the vectors, where the files do not say.
        limit: How many of the items are run; None for all.
        force: Whether vectors of another model of the same shape are let through.
        as_json: Whether to print one document instead of a table.

    Raises:
        SteerError: Task, vector or model cannot be used.
    """
    from ggufsteer.cli.model_choice import find_model
    from ggufsteer.tasks.choices import run_choices
    from ggufsteer.tasks.choices_builtin import choice_task

    items = choice_task(task)
    if limit is not None and limit < len(items):
        console.note(f"{limit} of {len(items)} items are run, spread evenly")
        items = tuple(items[number * len(items) // limit] for number in range(limit))
    arms = _arms(_doses(vectors, producer), systems)
    say_which_model(model_name)
    from ggufsteer.engine.model import Model

    with Model.open(find_model(model_name), options) as model, console.progress(quiet=as_json) as report:
        result = run_choices(model, items, [arm for arm, _ in arms], force=force, report=report)
        label = model.identity.label
        content_hash = model.identity.content_hash
    for warning in dict.fromkeys(warning for one in result.arms for warning in one.warnings):
        console.warn(warning)
    if as_json:
        document = _document(result, task, {"path": str(model.path), "content_hash": content_hash})
        document["arms"] = [_arm_document(one, dose) for one, (_, dose) in zip(result.arms, arms, strict=True)]
        console.document(document)
        return
    _show(result, f"{task}: {console.counted(len(items), 'item')}, {label}")


@dataclass(frozen=True)
class _Dose:
    """A vector as it was named, and how strongly it acts."""

    path: str
    vector: ControlVector
    strength: float

    @property
    def name(self) -> str:
        return f"{self.vector.provenance.name or Path(self.path).stem} {self.strength:+g}"


def _doses(vectors: Sequence[str], producer: str | None) -> list[_Dose]:
    """Read what was named; what cannot be read is refused here, before the model loads."""
    from ggufsteer.cli.model_choice import find_vector_with_strength
    from ggufsteer.files.vector import read_vector

    doses = []
    for text in vectors:
        path, strength = find_vector_with_strength(text)
        vector = read_vector(path, producer=producer)
        for remark in vector.notes:
            console.warn(f"{text}: {remark}")
        doses.append(_Dose(path, vector, 1.0 if strength is None else strength))
    return doses


def _arms(doses: Sequence[_Dose], systems: Sequence[str]) -> list[tuple[Arm, _Dose | None]]:
    """Name every way to run the items."""
    from ggufsteer.tasks.choices import Arm

    if any(not system.strip() for system in systems):
        raise SteerError("a system prompt is empty", 'write one, such as -sys "You are a helpful assistant."')
    names: Counter[str] = Counter()

    def own(name: str) -> str:
        # Two files may hold vectors of one name.
        names[name] += 1
        return name if names[name] == 1 else f"{name} ({names[name]})"

    arms: list[tuple[Arm, _Dose | None]] = [(Arm(own(PLAIN)), None)]
    arms += [(Arm(own(dose.name), ((dose.vector, dose.strength),)), dose) for dose in doses]
    distinct = tuple(dict.fromkeys(systems))
    for number, system in enumerate(distinct, 1):
        prompt = own("prompt" if len(distinct) == 1 else f"prompt {number}")
        arms.append((Arm(prompt, (), system), None))
        for dose in doses:
            name = own(f"{dose.name}, {prompt}")
            arms.append((Arm(name, ((dose.vector, dose.strength),), system, prompt), dose))
    return arms


def _show(result: ChoiceResult, title: str) -> None:
    columns = ["arm", "right", "accuracy (95 %)", "points (95 %)", "p"]
    used = len(columns) if len(result.arms) > 1 else 3
    console.table(columns[:used], [_row(one)[:used] for one in result.arms], title=title)
    prompts = [one.arm for one in result.arms if one.arm.system and not one.arm.interventions]
    for arm in prompts:
        console.prose(f"{arm.name}: “{_short(arm.system)}”")
    if any(one.arm.against for one in result.arms):
        console.prose("A vector under a prompt is compared with the prompt alone, everything else with the model.")
    for one in result.arms:
        if one.comparison is not None:
            _show_flips(result.items, one, one.comparison)


def _row(one: ArmResult) -> list[str]:
    low, high = one.interval
    cells = [_short(one.arm.name, NAME_SHOWN), f"{one.n_right}/{len(one.right)}"]
    cells.append(f"{one.accuracy:.1%} ({100 * low:.0f} to {100 * high:.0f})")
    change = one.comparison
    if change is None:
        return [*cells, "", ""]
    low, high = change.interval
    points = f"{100 * change.difference:+.1f} ({100 * low:+.0f} to {100 * high:+.0f})"
    return [*cells, points, f"{change.p_value:.3f}" if change.p_value >= 0.001 else "< 0.001"]


def _show_flips(items: Sequence[ChoiceItem], one: ArmResult, change: Comparison) -> None:
    for numbers, what in ((change.lost, "wrong now"), (change.gained, "right now")):
        if not numbers:
            continue
        shown = "" if len(numbers) <= FLIPPED_SHOWN else f", {FLIPPED_SHOWN} of {len(numbers)}"
        console.line()
        console.line(f"{_short(one.arm.name, NAME_SHOWN)}, {what}{shown}:")
        for number in numbers[:FLIPPED_SHOWN]:
            item = items[number]
            console.prose(f"{_short(item.prompt)} {_short(item.choices[one.picked[number]])}", indent="  ")


def _short(text: str, width: int = TEXT_SHOWN) -> str:
    whole = " ".join(text.split())
    return whole if len(whole) <= width else f"{whole[: width - 1]}…"


def _document(result: ChoiceResult, task: str, model: Mapping[str, str]) -> dict[str, Any]:
    import hashlib

    from ggufsteer.version import VERSION

    return {
        "task": task,
        "task_hash": hashlib.sha256(repr(result.items).encode()).hexdigest(),
        "model": model,
        "version": VERSION,
        "n_items": len(result.items),
        "score": "mean log-probability a token",
        "items": [
            {"prompt": item.prompt, "choices": item.choices, "right": item.right, "subject": item.subject}
            for item in result.items
        ],
    }


def _arm_document(one: ArmResult, dose: _Dose | None) -> dict[str, Any]:
    change = one.comparison
    return {
        "name": one.arm.name,
        "vector": dose and dose.path,
        "strength": dose.strength if dose else 0.0,
        "system": one.arm.system,
        "right": one.n_right,
        "accuracy": one.accuracy,
        "interval": one.interval,
        "accuracy_by_sum": one.accuracy_by_sum,
        "picked": one.picked,
        "mean_log_probabilities": [scores.tolist() for scores in one.means],
        "compared": change
        and {
            "against": change.against,
            "difference": change.difference,
            "interval": change.interval,
            "p_value": change.p_value,
            "gained": change.gained,
            "lost": change.lost,
        },
    }
