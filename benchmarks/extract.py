"""How fast is an extraction? Beside llama.cpp's own prompt processing, and beside its own maker of control vectors.

Everything that is compared is measured in turns, and medians are printed. Without arguments: the demo model and the
shape of a 135M model. The peer's programs are looked for on the search path.

    python benchmarks/extract.py [--peer llama-cvector-generator] [--full] [-m MODEL …] [--tables plan,rate]
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import _peers
import _workloads
from _bench import Bench, extract_here, extract_whole, in_turns
from _options import BUILTIN, model_path, positive
from _processes import Cost
from _random_models import DEFAULT_FOLDER, SHAPES
from _reporting import print_json, print_table

from ggufsteer.engine.model import LoadOptions, Model
from ggufsteer.errors import SteerError

DEFAULT_MODELS = (BUILTIN, "smollm2-135m")
MANY_PAIRS, FEW_PAIRS = 20_000, 200
QUICK_PCA = 512
"""Up to this width the generator's PCA takes seconds; on wider models it takes minutes, and is measured once."""
Result = dict[str, Any]


def measure_plan(bench: Bench) -> Result:
    """Count tokens and batches of each workload."""
    print_table(
        f"{bench.name}: what is planned",
        ("workload", "texts", "tokens", "distinct", "evaluated", "batches"),
        [
            [name, *map(_count, (each.n_sequences, each.n_total, each.n_distinct, each.n_evaluated, each.n_batches))]
            for name, each in bench.totals.items()
        ],
    )
    return {name: vars(each) for name, each in bench.totals.items()}


def measure_rate(bench: Bench) -> Result:
    """Distinct tokens per second where nothing is shared, beside llama.cpp's prompt processing."""
    workload, options = "nothing shared", bench.options
    distinct = bench.totals[workload].n_distinct
    bench.warm_up()
    with _peers.open_prompt_reader(bench.path, options.threads) as reader:
        arms = {"ggufsteer": lambda: distinct / bench.seconds(workload), "llama_decode": reader.rate}
        if options.llama_bench:
            arms[_peers.BENCH] = lambda: _peers.bench_rate(options.llama_bench, bench.path, options.threads)
        rates = in_turns(options.repeat, arms)
    ours = median(rates["ggufsteer"])
    print_table(
        f"{bench.name}: {_count(distinct)} distinct tokens, all layers, last read",
        ("", "tokens/s", "least", "most", "ggufsteer / this"),
        [
            [name, *(f"{value:.0f}" for value in (median(each), min(each), max(each))), f"{ours / median(each):.2f}"]
            for name, each in rates.items()
        ],
    )
    return {"tokens_per_second": rates, "ratio": {name: ours / median(each) for name, each in rates.items()}}


def measure_growth(bench: Bench) -> Result:
    """How time grows with pairs, with truncation and with layers."""
    half = range(bench.model.n_layer // 2 + 1)
    arms: dict[str, tuple[str, Sequence[int]]] = {
        name: (name, bench.all_layers) for name in bench.workloads if name != "nothing shared"
    }
    arms["shared ×16, layers 0 to the middle"] = ("shared ×16", half)
    base = {"all truncations": "whole suffixes", "shared ×16, layers 0 to the middle": "shared ×16"}
    bench.warm_up()
    seconds = in_turns(
        bench.options.repeat,
        {name: (lambda arm=arm: bench.seconds(*arm)) for name, arm in arms.items()},  # type: ignore[misc]
    )
    rows, results = [], {}
    for name, (workload, _) in arms.items():
        compared = base.get(name, name if name == "whole suffixes" else "shared ×1")
        totals, taken = bench.totals[workload], median(seconds[name])
        ratio = taken / median(seconds[compared])
        rows.append(
            [name, *map(_count, (totals.n_sequences, totals.n_distinct)), f"{taken:.3f}", f"{ratio:.2f} × {compared}"]
        )
        results[name] = {"seconds": seconds[name], "ratio": ratio, "compared_with": compared}
    print_table(f"{bench.name}: how time grows", ("workload", "texts", "distinct", "seconds", "compared"), rows)
    return results


def measure_shared(bench: Bench) -> Result:
    """Whole runs of both programs on the same files, of which most is shared."""
    return _against_peer(bench, "shared", _workloads.shared_pairs(bench.model.tokenize, bench.options.pairs))


def measure_unshared(bench: Bench) -> Result:
    """The same on files of which next to nothing is shared; only where the peer is there to compare with."""
    if not bench.options.peer:
        return {}
    return _against_peer(bench, "unshared", _workloads.unshared_pairs(bench.model.tokenize, bench.options.pairs))


def _against_peer(bench: Bench, name: str, pairs: _workloads.Pairs) -> Result:
    options, peer = bench.options, bench.options.peer
    folder = bench.folder / name
    folder.mkdir()
    prompts = _workloads.write_prompts(pairs, folder)
    arms = {
        "ggufsteer mean": lambda: extract_whole(bench.path, prompts, bench.all_layers, options.threads),
        "ggufsteer mean, every token": lambda: extract_whole(
            bench.path, prompts, bench.all_layers, options.threads, "--position", "all"
        ),
    }
    once = {
        "ggufsteer pca": lambda: extract_whole(bench.path, prompts, bench.all_layers, options.threads, method="pca")
    }
    if peer:
        (folder / "start").mkdir()
        one = _workloads.write_prompts([("Yes", "No")], folder / "start")
        output = folder / "peer.gguf"

        def generate(prompts: tuple[Path, Path], method: str) -> Cost:
            return _peers.generate_vector(peer, bench.path, prompts, method, output, options.threads)

        arms["generator mean"] = lambda: generate(prompts, "mean")
        arms["generator mean, one pair of one word"] = lambda: generate(one, "mean")
        once["generator pca"] = lambda: generate(prompts, "pca")
    arms["ggufsteer mean, model open"] = lambda: extract_here(bench, prompts)
    arms["ggufsteer mean, model open"]()
    costs = in_turns(options.repeat, arms)
    costs |= in_turns(options.repeat if bench.model.n_embd <= QUICK_PCA else 1, once)
    ratios = _peer_ratios(costs) if peer else {}
    print_table(
        f"{bench.name}: {len(pairs)} pairs, {name}, generator with -c 512",
        ("", "seconds", "peak MB"),
        [[arm, f"{median(cost.seconds for cost in each):.2f}", _peak(each)] for arm, each in costs.items()],
    )
    if ratios:
        print_table(
            f"{bench.name}: {name}: generator / ggufsteer",
            ("", "ratio"),
            [[what, f"{ratio:.2f}"] for what, ratio in ratios.items()],
        )
    return {
        "seconds": {arm: [cost.seconds for cost in each] for arm, each in costs.items()},
        "peak_mb": {arm: [cost.peak_mb for cost in each] for arm, each in costs.items() if each[0].peak_mb},
        "ratios": ratios,
    }


def _peer_ratios(costs: Mapping[str, Sequence[Cost]]) -> dict[str, float]:
    """Compare; the generator's time without loading is that of its whole run less that of a run on one word."""
    seconds = {arm: median(cost.seconds for cost in each) for arm, each in costs.items()}
    peaks = {arm: median(cost.peak_mb for cost in each) for arm, each in costs.items()}
    reading = seconds["generator mean"] - seconds["generator mean, one pair of one word"]
    return {
        "mean, seconds": seconds["generator mean"] / seconds["ggufsteer mean"],
        "mean, seconds, ggufsteer reading every token": seconds["generator mean"]
        / seconds["ggufsteer mean, every token"],
        "mean, seconds without loading": reading / seconds["ggufsteer mean, model open"],
        "mean, peak memory": peaks["generator mean"] / peaks["ggufsteer mean"],
        "mean, peak memory, ggufsteer reading every token": peaks["generator mean"]
        / peaks["ggufsteer mean, every token"],
        "pca, seconds": seconds["generator pca"] / seconds["ggufsteer pca"],
        "pca, peak memory": peaks["generator pca"] / peaks["ggufsteer pca"],
    }


def measure_memory(bench: Bench) -> Result:
    """The peak of many pairs beside that of few, on the demo model only."""
    if bench.name != BUILTIN:
        return {}
    costs = {}
    for count in (FEW_PAIRS, MANY_PAIRS):
        folder = bench.folder / f"memory-{count}"
        folder.mkdir()
        prompts = _workloads.write_prompts(_workloads.short_pairs(bench.model.tokenize, count), folder)
        costs[count] = extract_whole(bench.path, prompts, bench.all_layers, bench.options.threads)
    few = costs[FEW_PAIRS].peak_mb
    print_table(
        f"{bench.name}: memory, method mean, last token of short texts",
        ("pairs", "seconds", "peak MB", f"more than {FEW_PAIRS}"),
        [
            [_count(count), f"{cost.seconds:.2f}", f"{cost.peak_mb:.1f}", f"{cost.peak_mb - few:.1f}"]
            for count, cost in costs.items()
        ],
    )
    return {str(count): {"seconds": cost.seconds, "peak_mb": cost.peak_mb} for count, cost in costs.items()}


TABLES: Mapping[str, Callable[[Bench], Result]] = {
    "plan": measure_plan,
    "rate": measure_rate,
    "growth": measure_growth,
    "shared": measure_shared,
    "unshared": measure_unshared,
    "memory": measure_memory,
}


def _count(value: int) -> str:
    return f"{value:,}"


def _peak(costs: Iterable[Cost]) -> str:
    peak = median(cost.peak_mb for cost in costs)
    return f"{peak:.0f}" if peak else ""


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=positive, default=5, metavar="N", help="rounds of each comparison (5)")
    parser.add_argument("-t", "--threads", type=positive, default=2, metavar="N", help="CPU threads (2)")
    parser.add_argument("--pairs", type=positive, default=100, metavar="N", help="pairs in each workload (100)")
    known = f"{BUILTIN}, {', '.join(SHAPES)}"
    parser.add_argument("-m", "--model", action="append", metavar="MODEL", help=f"GGUF files, or of {known}")
    parser.add_argument("--models", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="where random models are")
    parser.add_argument("--full", action="store_true", help="all random models too")
    parser.add_argument("--peer", type=Path, metavar="PATH", help=_peers.GENERATOR)
    parser.add_argument("--llama-bench", type=Path, metavar="PATH", help="llama-bench, if it is not beside the peer")
    parser.add_argument("--suffixes", type=Path, metavar="FILE", help="a JSON list of texts to truncate")
    parser.add_argument("--tables", default=",".join(TABLES), metavar="A,B", help=f"which of {', '.join(TABLES)}")
    options = parser.parse_args(arguments)
    try:
        options.peer = _peers.find_program(options.peer, _peers.GENERATOR)
        options.llama_bench = _peers.find_program(options.llama_bench, _peers.BENCH, beside=options.peer)
        options.suffixes = _workloads.read_suffixes(options.suffixes) if options.suffixes else None
        names = options.model or (BUILTIN, *SHAPES) if options.full else options.model or DEFAULT_MODELS
        options.model = {name: model_path(name, options.models) for name in names}
    except SteerError as error:
        parser.error(str(error))
    options.tables = options.tables.split(",")
    if unknown := [name for name in options.tables if name not in TABLES]:
        parser.error(f"there is no table {unknown[0]!r} (give some of {', '.join(TABLES)})")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _parsed(arguments)
    results: Result = {}
    loading = LoadOptions(n_threads=options.threads, n_gpu_layers=0)
    for name, path in options.model.items():
        with tempfile.TemporaryDirectory() as folder, Model.open(path, loading) as model:
            bench = Bench(name, path, model, Path(folder), options)
            results[name] = {table: TABLES[table](bench) for table in options.tables}
    settings = {"threads": options.threads, "repeat": options.repeat, "pairs": options.pairs}
    print_json("extract", {"settings": settings, "models": results})


if __name__ == "__main__":
    try:
        main()
    except SteerError as error:
        sys.exit(f"error: {error}")
