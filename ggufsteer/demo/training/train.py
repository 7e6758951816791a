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
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ggufsteer.demo.training.assess import assess, held_out_loss
from ggufsteer.demo.training.corpus import Conversation, Corpus
from ggufsteer.demo.training.export import write_model
from ggufsteer.demo.training.tokens import ConversationEncoder, train_vocabulary
from ggufsteer.demo.training.transformer import Shape, Transformer

MODEL_FILE = "ggufsteer-demo-q8_0.gguf"
TOKENS_PER_STEP = 4096
PEAK_LEARNING_RATE = 3e-3
SHORT_ROW, LONG_ROW = 256, 1024
LONG_SHARE = 0.12
"""The last steps use long rows of many turns, so that positions up to the whole context are known."""
PROMPT_WEIGHT = 0.1
"""Loss weight of tokens that the model does not write itself."""


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


def train(steps: int, seed: int, shape: Shape, output: Path) -> None:
    """Trains on `steps` batches of `TOKENS_PER_STEP` tokens and writes the model into `output`."""
    torch.manual_seed(seed)
    corpus = Corpus(seed)
    sample = itertools.islice(corpus.conversations(), 30000)
    tokenizer = train_vocabulary((turn.content for item in sample for turn in item.turns), shape.vocabulary)
    output.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(output / "tokenizer.json"))
    encoder = ConversationEncoder(tokenizer)
    rows = Rows(corpus, encoder)
    model = Transformer(shape)
    print(json.dumps({"parameters": sum(p.numel() for p in model.parameters())}), flush=True)
    compiled = torch.compile(model)
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    began, average = time.monotonic(), math.nan
    for step in range(steps):
        long = step >= steps * (1 - LONG_SHARE)
        optimiser.param_groups[0]["lr"] = PEAK_LEARNING_RATE * learning_rate_factor(step, steps)
        loss = weighted_loss(compiled, rows.batch(LONG_ROW if long else SHORT_ROW))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        average = loss.item() if math.isnan(average) else 0.95 * average + 0.05 * loss.item()
        if (step + 1) % 500 == 0:
            torch.save({"model": model.state_dict(), "step": step + 1}, output / "checkpoint.pt")
        if (step + 1) % 50 == 0:
            seconds = time.monotonic() - began
            rate = (step + 1) * TOKENS_PER_STEP / seconds
            print(f"step {step + 1}/{steps}  loss {average:.3f}  {rate:.0f} tokens/s  {seconds:.0f} s", flush=True)
    torch.save({"model": model.state_dict(), "step": steps}, output / "checkpoint.pt")
    report = {"held_out_loss": held_out_loss(model, encoder, seed + 1), **assess(model, encoder, seed + 1)}
    print(json.dumps(report), flush=True)
    facts: dict[str, str | int | float]
    facts = {"steps": steps, "tokens": steps * TOKENS_PER_STEP, "seed": seed, "script": "ggufsteer.demo.training.train"}
    write_model(output / MODEL_FILE, model, tokenizer, {**facts, **report})
    print(f"wrote {output / MODEL_FILE}", flush=True)


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the model file")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train(options.steps, options.seed, Shape(), options.output)


if __name__ == "__main__":
    main()
