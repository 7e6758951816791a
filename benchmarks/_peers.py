"""llama.cpp beside us: how fast it reads prompts by itself, and its own maker of control vectors.

It knows how the programs are called. Nothing here goes through our engine.
"""

import json
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import llama_cpp
from _processes import Cost, run

from ggufsteer.engine import backend
from ggufsteer.errors import SteerError

GENERATOR = "llama-cvector-generator"
BENCH = "llama-bench"
PROMPT_TOKENS = 512
GENERATOR_CONTEXT = 512
"""Tokens. By default it reserves memory for as many as the model was trained on, which are gigabytes on some."""


def find_program(given: Path | None, name: str, beside: Path | None = None) -> Path | None:
    """Give a program's path: as given, or beside another one, or on the search path; None where there is none.

    Raises:
        SteerError: A path was given, and there is no program.
    """
    if given is not None:
        if not (given.is_file() and os.access(given, os.X_OK)):
            raise SteerError(f"{given} is no program", f"give the path of {name}")
        return given.resolve()
    neighbour = beside.parent / name if beside else None
    if neighbour is not None and neighbour.is_file():
        return neighbour
    found = shutil.which(name)
    return Path(found) if found else None


def bench_rate(program: Path, model: Path, n_threads: int) -> float:
    """Give llama-bench's tokens per second for a prompt of 512 tokens, with its defaults and its warm-up."""
    arguments = ["-p", str(PROMPT_TOKENS), "-n", "0", "-t", str(n_threads), "-r", "1", "-ngl", "0", "-o", "jsonl"]
    output = run([program, "-m", model, *arguments]).output
    results = [line for line in output.splitlines() if line.startswith("{")]
    if not results:
        raise SteerError(f"{program} printed no result: {output[-500:]}", "run it by hand to see why")
    return float(json.loads(results[-1])["avg_ts"])


def generate_vector(
    program: Path, model: Path, prompts: tuple[Path, Path], method: str, output: Path, n_threads: int
) -> Cost:
    """Run cvector-generator on two files of prompts."""
    files: list[str | Path] = ["--positive-file", prompts[0], "--negative-file", prompts[1], "-o", output]
    settings = ["--method", method, "-t", str(n_threads), "-ngl", "0", "-c", str(GENERATOR_CONTEXT)]
    return run([program, "-m", model, *files, *settings])


class PromptReader:
    """Evaluates prompts through llama.cpp's interface, with its defaults, as llama-bench does."""

    def __init__(self, model: object, context: object, n_vocab: int) -> None:
        """Take over an open model and context; `open_prompt_reader` makes them."""
        self._model = model
        self._context = context
        generator = random.Random(0)
        self._tokens = (llama_cpp.llama_token * PROMPT_TOKENS)(*generator.choices(range(n_vocab), k=PROMPT_TOKENS))

    def rate(self) -> float:
        """Give the tokens per second of one prompt of 512 tokens in an empty memory."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
        begin = perf_counter()
        if llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(self._tokens, PROMPT_TOKENS)) != 0:
            raise SteerError("llama.cpp could not evaluate a prompt of 512 tokens", "free some memory")
        llama_cpp.llama_synchronize(self._context)
        return PROMPT_TOKENS / (perf_counter() - begin)


@contextmanager
def open_prompt_reader(path: Path, n_threads: int) -> Iterator[PromptReader]:
    """Open a model beside ours, and evaluate one prompt to warm up.

    Raises:
        SteerError: llama.cpp cannot load it.
    """
    backend.prepare()
    loading = llama_cpp.llama_model_default_params()
    loading.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), loading)
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = PROMPT_TOKENS
    settings.n_threads = settings.n_threads_batch = n_threads
    context = llama_cpp.llama_init_from_model(model, settings) if model else None
    try:
        if not context:
            raise SteerError(
                f"{path}: llama.cpp cannot load this model: {backend.last_complaint()}", "free some memory"
            )
        n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        reader = PromptReader(model, context, n_vocab)
        reader.rate()
        yield reader
    finally:
        if context:
            llama_cpp.llama_free(context)
        if model:
            llama_cpp.llama_model_free(model)
