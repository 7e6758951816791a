"""Do `ggufsteer bench` and llama.cpp's own llama-bench say the same? And what does each way of steering cost?

Both programs measure the unsteered model with the same settings, round by round, each first in every other round; the
ratio of a round is theirs to ours of the same minute. Without arguments: the demo model and the shapes of a 135M and
a 0.5B model, with random weights. llama-bench is looked for on the search path.

    python benchmarks/llama_bench.py [--llama-bench PROGRAM] [-t 1] [--rounds 7] [-p 512] [-n 64] [-m MODEL …]
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import _peers
from _options import BUILTIN, model_path, positive
from _processes import run
from _random_models import DEFAULT_FOLDER, SHAPES
from _reporting import print_json, print_table

from ggufsteer.errors import SteerError
from ggufsteer.tasks.bench_figures import Ratio, paired_ratio

DEFAULT_MODELS = (BUILTIN, "smollm2-135m", "qwen2.5-0.5b")
AGREEMENT = 0.05
"""How far the two may be apart."""
OURS, THEIRS = "ggufsteer bench", _peers.BENCH
Result = dict[str, Any]
Speeds = Mapping[str, float]
"""Tokens a second, by test."""


def measured(command: Sequence[str | Path]) -> list[Result]:
    """Run a program that prints one JSON object a line.

    Raises:
        SteerError: It fails, or prints none.
    """
    output = run(command).output
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    if not rows:
        raise SteerError(f"{command[0]} printed no result: {output[-500:]}", "run it by hand to see why")
    return rows


def test_of(row: Result) -> str:
    """Name a test as llama-bench does."""
    return f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}"


def commands(path: Path, options: argparse.Namespace, steer: str = "none") -> dict[str, list[str | Path]]:
    """Give the two command lines, alike in everything that matters."""
    shared = ["-m", path, "-p", options.prompt, "-n", options.generate, "-t", options.threads, "-r", options.repeat]
    shared += ["-ngl", options.gpu_layers, "-b", 2048, "-ub", 512, "-fa", "auto", "-o", "jsonl"]
    words = [str(word) for word in shared]
    return {
        THEIRS: [options.llama_bench, *words],
        OURS: [sys.executable, "-m", "ggufsteer", "bench", *words, "--steer", steer],
    }


def compare(name: str, path: Path, options: argparse.Namespace) -> Result:
    """Let both programs measure a model by turns."""
    programs = commands(path, options)
    rounds: dict[str, list[Speeds]] = {program: [] for program in programs}
    for number in range(options.rounds):
        order = list(programs) if number % 2 else list(programs)[::-1]
        for program in order:
            rounds[program].append({test_of(row): row["avg_ts"] for row in measured(programs[program])})
    result: Result = {}
    rows = []
    for test in rounds[THEIRS][0]:
        ours, theirs = ([each[test] for each in rounds[program]] for program in (OURS, THEIRS))
        # A ratio of times is the inverse of that of speeds.
        ratio = paired_ratio([1 / speed for speed in ours], [1 / speed for speed in theirs])
        agrees = abs(ratio.median - 1) <= AGREEMENT
        result[test] = {"ours": ours, "llama_bench": theirs, "ratio": vars(ratio), "agrees": agrees}
        verdict = "yes" if agrees else "NO"
        rows.append([test, f"{median(theirs):.1f}", f"{median(ours):.1f}", _noisy(ratio), verdict])
    print_table(
        f"{name}: both programs by turns, {options.rounds} rounds of {options.repeat}, -t {options.threads}",
        ("test", f"{THEIRS}, tokens/s", f"{OURS}, tokens/s", "ours/theirs", f"within {AGREEMENT:.0%}"),
        rows,
    )
    return result


def steering(name: str, path: Path, options: argparse.Namespace) -> Result:
    """Measure what each way of steering costs."""
    rows = measured(commands(path, options, "none,add,ablate,gate,meter")[OURS])
    steered = [row for row in rows if row["steer_mode"] != "none"]
    print_table(
        f"{name}: steered/unsteered by turns, with three made-up vectors that steer every layer",
        ("test", "way", "tokens/s", "steered/not"),
        [
            [
                test_of(row),
                row["steer_mode"],
                f"{row['avg_ts']:.1f}",
                _noisy(Ratio(row["steer_ratio"], None, None, row["steer_ratio_stderr"], row["steer_pairs"])),
            ]
            for row in steered
        ],
    )
    return {
        test: {
            row["steer_mode"]: [row["steer_ratio"], row["steer_ratio_stderr"]]
            for row in steered
            if test_of(row) == test
        }
        for test in dict.fromkeys(map(test_of, steered))
    }


def _noisy(ratio: Ratio) -> str:
    return f"{ratio.median:.3f}" + ("" if ratio.error is None else f" ± {ratio.error:.3f}")


def arguments() -> argparse.Namespace:
    """Read the command line, and find the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--llama-bench", type=Path, help="the program, where it is not on the search path")
    parser.add_argument(
        "-m", "--model", action="append", metavar="MODEL", help=f"a file, {BUILTIN} or {', '.join(SHAPES)}"
    )
    parser.add_argument("-t", "--threads", type=positive, default=1)
    parser.add_argument("-ngl", "--gpu-layers", default="0", help="layers on the GPU, for both programs")
    parser.add_argument("-p", "--prompt", type=positive, default=512)
    parser.add_argument("-n", "--generate", type=positive, default=64)
    parser.add_argument("-r", "--repeat", type=positive, default=3, help="repetitions within a round")
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="where random models are kept")
    options = parser.parse_args()
    try:
        options.llama_bench = _peers.find_program(options.llama_bench, _peers.BENCH)
        options.paths = {name: model_path(name, options.folder) for name in options.model or DEFAULT_MODELS}
    except SteerError as error:
        parser.error(str(error))
    if options.llama_bench is None:
        parser.error(f"{_peers.BENCH} is not on the search path (name it with --llama-bench)")
    return options


def main() -> None:
    """Measure and print."""
    options = arguments()
    results: Result = {}
    try:
        for name, path in options.paths.items():
            results[name] = {"agreement": compare(name, path, options), "steering": steering(name, path, options)}
    except SteerError as error:
        raise SystemExit(f"error: {error}") from error
    settings = {"threads": options.threads, "rounds": options.rounds, "repetitions": options.repeat}
    print_json("llama_bench", {"models": results, "settings": settings})


if __name__ == "__main__":
    main()
