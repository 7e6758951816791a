"""How good are vectors? The effect on held-out items at equal damage, for every way to make one from the same pairs.

A strength alone compares nothing: whatever breaks the model enough wins. So each vector is judged at the strength where
the 95th percentile of KL(unsteered ‖ steered) on neutral text reaches the same figure; see `_quality_judge`.

    python benchmarks/quality.py [--generator llama-cvector-generator] [--stories stories260K.gguf] [--quick]
"""

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import _peers
from _options import BUILTIN, model_path, positive
from _quality_arms import OURS, SEARCHED, Row, rows_of_table
from _quality_case import Case
from _quality_judge import Judge, Verdict
from _quality_stories import CONCEPTS, story_recipe
from _random_models import DEFAULT_FOLDER
from _reporting import print_json, print_table

from ggufsteer.engine.model import LoadOptions, Model
from ggufsteer.errors import SteerError
from ggufsteer.files.recipe import Recipe, load_recipe
from ggufsteer.tasks.items import evaluation_items
from ggufsteer.tasks.neutral_texts import Part, neutral_texts

DEMO_CONCEPTS = ("happy", "sad", "formal", "french", "honest", "brief", "guarded", "angry")
NEUTRAL_TEXTS = 16
FLOOR = 0.01
"""Nats a token: an effect below counts as this much in a geometric mean."""
Result = dict[str, Any]


def judge_concept(case: Case, judge: Judge, rows: Mapping[str, Row], budgets: Sequence[float]) -> Result:
    """Give each row's effects, one a damage; None where it cannot be made, or never does so much damage."""
    result: Result = {}
    for name, row in rows.items():
        begin = perf_counter()
        try:
            made = [judge.verdicts(maker(case), case.state_norms, budgets) for maker in row.makers]
        except SteerError as error:
            print(f"{case.recipe.name}: {name} is left out: {error}", file=sys.stderr)
            continue
        result[name] = {
            "effects": [_effect(row, [verdicts[place] for verdicts in made]) for place in range(len(budgets))],
            "strengths": [verdict and verdict.strength for verdict in made[0]],
            "seconds": perf_counter() - begin,
        }
        shown = " ".join(map(_figure, result[name]["effects"]))
        print(f"{case.path.name}: {case.recipe.name}: {name}: {shown}", file=sys.stderr, flush=True)
    return result


def _effect(row: Row, verdicts: Sequence[Verdict | None]) -> float | None:
    found = [abs(verdict.effect) if row.either_sign else verdict.effect for verdict in verdicts if verdict]
    return median(found) if found else None


def measure_model(
    path: Path, recipes: Sequence[Recipe], options: argparse.Namespace, rows: Mapping[str, Row]
) -> Result:
    """Judge all rows on all concepts of one model."""
    concepts: Result = {}
    prompts: Result = {}
    with Model.open(path, LoadOptions(n_threads=options.threads, n_gpu_layers=0)) as model:
        neutral = neutral_texts(model, options.texts, part=Part.JUDGING)
        for recipe in recipes:
            judge = Judge(model, evaluation_items(recipe, model).items[: options.items], neutral)
            if recipe.eval.system_prompt and model.has_chat_template:
                effect, damage = judge.prompted(recipe.eval.system_prompt)
                prompts[recipe.name] = {"effect": effect, "damage": damage}
            with tempfile.TemporaryDirectory() as folder:
                case = Case(path, model, recipe, Path(folder), options.generator)
                concepts[recipe.name] = judge_concept(case, judge, rows, options.kl)
    return {"concepts": concepts, "prompts": prompts}


def summary(concepts: Result, names: Sequence[str], place: int) -> dict[str, float]:
    """Give the geometric mean over the concepts of each row's effects at one damage."""
    means = {}
    for name in names:
        found = [concept[name]["effects"][place] for concept in concepts.values() if name in concept]
        if len(found) == len(concepts):
            means[name] = math.exp(sum(math.log(max(effect or 0.0, FLOOR)) for effect in found) / len(found))
    return means


def print_model(name: str, result: Result, rows: Mapping[str, Row], budgets: Sequence[float]) -> None:
    """Print a table a damage, and what a system prompt does."""
    concepts, prompts = result["concepts"], result["prompts"]
    first = next(iter(rows))
    for place, budget in enumerate(budgets):
        means = summary(concepts, list(rows), place)
        table = []
        for row in rows:
            effects = [
                _figure(concept[row]["effects"][place]) if row in concept else "" for concept in concepts.values()
            ]
            mean = means.get(row)
            ratio = f"{means[first] / mean:.2f}" if mean and first in means else ""
            table.append([row, *effects, _figure(mean), ratio])
        columns = ("", *concepts, "geo. mean", f"{first} / this")
        print_table(
            f"{name}: effect, nats a token, at a damage of {budget:g} nats (below {FLOOR}: {FLOOR})", columns, table
        )
    if prompts:
        print_table(
            f"{name}: the system prompt, without any vector",
            ("", *prompts),
            [[what, *(_figure(prompt[what]) for prompt in prompts.values())] for what in ("effect", "damage")],
        )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-t", "--threads", type=positive, default=2, metavar="N", help="CPU threads (2)")
    parser.add_argument("--kl", type=_budgets, default=_budgets("0.5,3"), metavar="A,B", help="damages in nats (0.5,3)")
    parser.add_argument("--concepts", metavar="A,B", help="which recipes and stories' concepts")
    parser.add_argument(
        "--stories", type=Path, metavar="PATH", help="a model of children's stories (stories260K, GGUF)"
    )
    parser.add_argument("--generator", type=Path, metavar="PATH", help=_peers.GENERATOR)
    parser.add_argument("--rows", action="append", metavar="TEXT", help="only rows whose name holds such a text")
    parser.add_argument("--search", action="store_true", help="with the row of a search: some minutes a concept")
    parser.add_argument("--texts", type=positive, default=NEUTRAL_TEXTS, metavar="N", help="neutral texts (16)")
    parser.add_argument(
        "--quick", action="store_true", help="few concepts and texts, no calibration: to see that it runs"
    )
    options = parser.parse_args(arguments)
    options.items = 4 if options.quick else None
    options.texts = 2 if options.quick else options.texts
    options.kl = options.kl[:1] if options.quick else options.kl
    try:
        folder = os.environ.get("GGUFSTEER_STOCK_LLAMA")
        beside = Path(folder) / _peers.GENERATOR if folder else None
        options.generator = _peers.find_program(options.generator, _peers.GENERATOR, beside=beside)
        options.models = _models(options)
    except SteerError as error:
        parser.error(str(error))
    return options


def _models(options: argparse.Namespace) -> dict[str, tuple[Path, list[Recipe]]]:
    """Give each model's file and recipes, by the name of the model."""
    wanted = options.concepts.split(",") if options.concepts else None
    if unknown := [name for name in wanted or () if name not in (*DEMO_CONCEPTS, *CONCEPTS)]:
        known = ", ".join(dict.fromkeys((*DEMO_CONCEPTS, *CONCEPTS)))
        raise SteerError(f"there is no concept {unknown[0]!r}", f"give some of {known}")
    chosen: dict[str, tuple[Path, tuple[str, ...], Callable[[str], Recipe]]] = {
        BUILTIN: (model_path(BUILTIN, DEFAULT_FOLDER), DEMO_CONCEPTS, load_recipe)
    }
    if options.stories:
        chosen["stories"] = (model_path(str(options.stories), DEFAULT_FOLDER), CONCEPTS, story_recipe)
    most = 1 if options.quick else None
    return {
        name: (path, [read(concept) for concept in [each for each in known if not wanted or each in wanted][:most]])
        for name, (path, known, read) in chosen.items()
    }


def _budgets(text: str) -> list[float]:
    try:
        budgets = [float(part) for part in text.split(",")]
    except ValueError:
        budgets = []
    if not budgets or not all(0 < budget < math.inf for budget in budgets):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of positive numbers")
    return sorted(budgets)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _parsed(arguments)
    every = rows_of_table(generator=options.generator is not None)
    wanted = options.rows or [""]
    rows = {name: row for name, row in every.items() if any(text in name for text in wanted)}
    if options.quick:
        rows.pop(OURS, None)
    if options.quick or not options.search:
        rows.pop(SEARCHED, None)
    if not rows:
        raise SteerError(f"no row has {wanted[0]!r} in its name", f"rows: {'; '.join(every)}")
    if options.generator is None:
        print(f"{_peers.GENERATOR} is not there: its rows are left out", file=sys.stderr)
    results: Result = {}
    for name, (path, recipes) in options.models.items():
        results[name] = measure_model(path, recipes, options, rows)
        print_model(name, results[name], rows, options.kl)
    print_json("quality", {"settings": {"threads": options.threads, "kl": options.kl}, "models": results})


if __name__ == "__main__":
    try:
        main()
    except SteerError as error:
        sys.exit(f"error: {error}")
