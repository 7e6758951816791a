"""Trains the demo model from scratch: `python -m ggufsteer.demo.training.train --output FOLDER`.

Seeded; under an hour on two cores. Writes `ggufsteer-demo-q8_0.gguf` and prints held-out loss, topic accuracy and
style accuracy. Needs the `train` extra (PyTorch, tokenizers).
"""

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from ggufsteer.demo.training.assess import assess, held_out_loss
from ggufsteer.demo.training.corpus import HALF_NAMED, Conversation, Corpus, Mixture
from ggufsteer.demo.training.export import write_model
from ggufsteer.demo.training.tokens import ConversationEncoder, train_vocabulary
from ggufsteer.demo.training.transformer import Shape, Transformer

MODEL_FILE = "ggufsteer-demo-q8_0.gguf"
TOKENS_PER_STEP = 4096
SHORT_ROW, LONG_ROW = 256, 1024
LONG_SHARE = 0.12
"""The last steps use long rows of many turns, so that positions up to the whole context are known."""
PROMPT_WEIGHT = 0.1
"""Loss weight of tokens that the model does not write itself."""


@dataclass(frozen=True)
class Stage:
    """A stretch of training on one mixture of conversations."""

    steps: int
    learning_rate: float
    mixture: Mixture


STAGES = (
    Stage(steps=4500, learning_rate=3e-3, mixture=HALF_NAMED),
    # A plain answer is now hardly likelier than any one style: a model that is nearly sure of the plain one has to be
    # pushed so hard to leave it that its grammar breaks first.
    Stage(steps=1200, learning_rate=1.5e-3, mixture=Mixture(named=0.4, plain=0.08)),
)


class Rows:
    """Endless training batches: conversations laid end to end, each row starting with a new one."""

    def __init__(self, corpus: Corpus, encoder: ConversationEncoder) -> None:
        self._encoder = encoder
        self._short = corpus.conversations()
        self._long = corpus.conversations(longest=14)

    def batch(self, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, targets and loss weights, each (rows, length)."""
        source = self._short if length == SHORT_ROW else self._long
        rows = [self._row(source, length + 1) for _ in range(TOKENS_PER_STEP // length)]
        tokens = torch.tensor([row[0] for row in rows])
        weights = torch.tensor([row[1] for row in rows])
        return tokens[:, :-1], tokens[:, 1:], weights[:, 1:]

    def _row(self, source: Iterator[Conversation], length: int) -> tuple[list[int], list[float]]:
        tokens: list[int] = []
        weights: list[float] = []
        while len(tokens) < length:
            item = self._encoder.conversation(next(source))
            tokens += item.tokens
            weights += [1.0 if answer else PROMPT_WEIGHT for answer in item.is_answer]
        return tokens[:length], weights[:length]


def weighted_loss(model: Callable[[Tensor], Tensor], batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Cross-entropy in nats per weighted token."""
    inputs, targets, weights = batch
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(inputs)
    losses = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return (losses * weights.flatten()).sum() / weights.sum()


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear warm-up over 60 steps, constant, then linear decay to zero over the last half."""
    return min(1.0, (step + 1) / 60, (steps - step) / (0.5 * steps))


def run_stage(model: Transformer, rows: Rows, stage: Stage) -> None:
    """Trains through one stage, with an optimiser of its own."""
    compiled = torch.compile(model)
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    began, average = time.monotonic(), math.nan
    for step in range(stage.steps):
        long = step >= stage.steps * (1 - LONG_SHARE)
        optimiser.param_groups[0]["lr"] = stage.learning_rate * learning_rate_factor(step, stage.steps)
        loss = weighted_loss(compiled, rows.batch(LONG_ROW if long else SHORT_ROW))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        average = loss.item() if math.isnan(average) else 0.95 * average + 0.05 * loss.item()
        if (step + 1) % 50 == 0:
            seconds = time.monotonic() - began
            rate = (step + 1) * TOKENS_PER_STEP / seconds
            print(
                f"step {step + 1}/{stage.steps}  loss {average:.3f}  {rate:.0f} tokens/s  {seconds:.0f} s", flush=True
            )


def train(seed: int, output: Path) -> None:
    """Trains through all stages and writes the model into the folder `output`."""
    torch.manual_seed(seed)
    corpus = Corpus(seed, STAGES[0].mixture)
    sample = itertools.islice(corpus.conversations(), 30000)
    shape = Shape()
    tokenizer = train_vocabulary((turn.content for item in sample for turn in item.turns), shape.vocabulary)
    encoder = ConversationEncoder(tokenizer)
    model = Transformer(shape)
    run_stage(model, Rows(corpus, encoder), STAGES[0])
    for number, stage in enumerate(STAGES[1:], start=1):
        run_stage(model, Rows(Corpus(seed + 100 * number, stage.mixture), encoder), stage)
    finish(model, tokenizer, seed, output)


def finish(model: Transformer, tokenizer: Tokenizer, seed: int, output: Path) -> None:
    """Measures the model, prints the figures and writes the file with them."""
    encoder = ConversationEncoder(tokenizer)
    report = {"held_out_loss": held_out_loss(model, encoder, seed + 1), **assess(model, encoder, seed + 1)}
    print(json.dumps(report), flush=True)
    steps = sum(stage.steps for stage in STAGES)
    facts: dict[str, str | int | float]
    facts = {"steps": steps, "tokens": steps * TOKENS_PER_STEP, "seed": seed, "script": "ggufsteer.demo.training.train"}
    output.mkdir(parents=True, exist_ok=True)
    write_model(output / MODEL_FILE, model, tokenizer, {**facts, **report})
    print(f"wrote {output / MODEL_FILE}", flush=True)


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the model file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train(options.seed, options.output)


if __name__ == "__main__":
    main()
