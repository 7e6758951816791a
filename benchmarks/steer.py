"""What does steering cost while a model writes? Tokens per second, beside the same model without any callback.

All ways take turns at every token, so that drift of the machine cancels out; medians and the quartiles of their ratios
are printed. Without arguments: the shapes of a 135M and a 0.5B model, with random weights.

    python benchmarks/steer.py [-t 1] [--rounds 15] [--tokens 16] [-m MODEL …]
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _decoding import CONTEXT, PREFIX, Decode, Way, open_race, rate, ratios, unit
from _options import BUILTIN, model_path, positive
from _random_models import DEFAULT_FOLDER, SHAPES
from _reporting import print_json, print_table

from ggufsteer.engine.context import Context
from ggufsteer.engine.edits import EditKind, Edits
from ggufsteer.engine.interventions import Steering
from ggufsteer.engine.library import library_path
from ggufsteer.engine.model import LoadOptions, Model
from ggufsteer.engine.reading import Operation, Reading, Targets
from ggufsteer.errors import SteerError

DEFAULT_MODELS = ("smollm2-135m", "qwen2.5-0.5b")
REFERENCE = "no callback"
TARGETS = {"idle": 0.995, "add, all layers": 0.98, "one layer": 0.96, "all layers": 0.93, "meter": 0.95}
"""The least share of the reference's speed that we are content with, by the end of a way's name."""
METER_LAYERS, METER_DIRECTIONS = 3, 6
_ALWAYS = -1e30
Result = dict[str, Any]


def ways_of(model: Model) -> list[Way]:
    """List everything that is compared."""
    middle = model.n_layer // 2
    every = list(range(1, model.n_layer))
    rows = np.stack([unit(model.n_embd, layer) for layer in every])
    kinds = {"ablate": EditKind.ABLATE, "clamp": EditKind.CLAMP, "gate": EditKind.ADD}
    spans = {"one layer": [middle], "all layers": every}
    edited = {
        f"{name}, {span}": Steering.of(None, edits(model.n_embd, kind, layers))
        for name, kind in kinds.items()
        for span, layers in spans.items()
    }
    twin = [f"ablate, {span}" for span in spans]
    return [
        Way(REFERENCE, reader=None),
        Way(f"{REFERENCE}, again", reader=None),
        Way("idle"),
        Way("add, all layers", Steering.of(rows)),
        *(Way(name, steering) for name, steering in edited.items()),
        Way("meter", watch=lambda context, decode: metered(model, context, decode)),
        Way("Python twin: idle", reader="python"),
        *(Way(f"Python twin: {name}", edited[name], reader="python") for name in twin),
        Way(
            "Python twin: meter",
            reader="python",
            watch=lambda context, decode: metered(model, context, decode),
        ),
    ]


def edits(n_embd: int, kind: EditKind, layers: Sequence[int]) -> Edits:
    """Do one thing at each layer, along a direction of its own; a gate looks at the first, and is open."""
    steps = [(kind, layer, index, 0) for index, layer in enumerate(layers)]
    if kind is EditKind.ADD:
        steps.insert(0, (EditKind.CHECK, layers[0], 0, 0))
    numbers = [_ALWAYS if step[0] is EditKind.CHECK else 1.0 for step in steps]
    directions = np.stack([unit(n_embd, layer) for layer in layers])
    return Edits(np.array(steps, dtype=np.int32), np.array(numbers), directions, n_gates=1)


def metered(model: Model, context: Context, decode: Decode) -> Decode:
    """Read the state of each token at a few layers, and project it on several directions."""
    layers = np.linspace(1, model.n_layer - 2, METER_LAYERS).astype(np.int32)
    targets = Targets.make(len(layers), model.n_embd, states=1)
    reading = Reading(
        layers=layers,
        rows=np.zeros(1, dtype=np.int32),
        steps=np.array([(Operation.ROW, 0, 0), (Operation.STORE, 0, 0)], dtype=np.int32),
        targets=targets,
        n_tokens=1,
        rows_are_outputs=True,
        stop_early=False,
    )
    directions = np.stack([unit(model.n_embd, seed) for seed in range(METER_DIRECTIONS)])

    def decode_and_look(token: int, position: int) -> None:
        context.read(reading, lambda: decode(token, position))
        targets.states[0] @ directions.T

    return decode_and_look


def target_of(name: str) -> float | None:
    """Give the least share that a way should reach."""
    if name in TARGETS:
        return TARGETS[name]
    return None if ":" in name else next((least for end, least in TARGETS.items() if name.endswith(f", {end}")), None)


def measure(name: str, model: Model, options: argparse.Namespace) -> Result:
    """Compare all ways on one model."""
    with open_race(model, ways_of(model), options.threads) as race:
        seconds = race.run(options.rounds, options.tokens)
    shares = ratios(seconds, REFERENCE)
    rows = []
    for way, each in seconds.items():
        low, middle, high = shares[way]
        least = target_of(way)
        rows.append(
            [
                way,
                f"{rate(each):.1f}",
                f"{middle:.3f}",
                f"{low:.3f}–{high:.3f}",
                "" if least is None else f"{least:.3f}{'' if middle >= least else ' missed'}",
            ]
        )
    print_table(
        f"{name}: writing with {options.threads} threads, {options.rounds} × {options.tokens} tokens each",
        ("", "tokens/s", f"of {REFERENCE}", "quartiles", "at least"),
        rows,
    )
    return {
        "tokens_per_second": {way: rate(each) for way, each in seconds.items()},
        "ratio": {way: shares[way][1] for way in seconds},
        "quartiles": {way: [shares[way][0], shares[way][2]] for way in seconds},
    }


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-t", "--threads", type=positive, default=2, metavar="N", help="CPU threads (2)")
    parser.add_argument("--rounds", type=positive, default=15, metavar="N", help="rounds (15)")
    parser.add_argument("--tokens", type=positive, default=16, metavar="N", help="tokens of each way in a round (16)")
    known = f"{BUILTIN}, {', '.join(SHAPES)}"
    parser.add_argument("-m", "--model", action="append", metavar="MODEL", help=f"GGUF files, or of {known}")
    parser.add_argument("--models", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="where random models are")
    options = parser.parse_args(arguments)
    if options.tokens > CONTEXT - PREFIX:
        parser.error(f"--tokens {options.tokens} is more than {CONTEXT - PREFIX}, which is all that there is room for")
    if not library_path().is_file():
        parser.error(f"the native library {library_path()} is not there: run `make native`")
    try:
        options.model = {name: model_path(name, options.models) for name in options.model or DEFAULT_MODELS}
    except SteerError as error:
        parser.error(str(error))
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _parsed(arguments)
    loading = LoadOptions(n_ctx=CONTEXT, n_batch=CONTEXT, n_threads=options.threads, n_gpu_layers=0)
    results: Result = {}
    for name, path in options.model.items():
        with Model.open(path, loading) as model:
            results[name] = measure(name, model, options)
    settings = {"threads": options.threads, "rounds": options.rounds, "tokens": options.tokens}
    print_json("steer", {"settings": settings, "models": results})


if __name__ == "__main__":
    try:
        main()
    except SteerError as error:
        sys.exit(f"error: {error}")
