"""The built-in prompts: what people ask a chat model on an ordinary day."""

from __future__ import annotations

from importlib.resources import files

DEMO_MODEL_NAME = "ggufsteer demo"
"""`general.name` of the model that ships, in every quantisation; it knows fewer subjects than the world has."""


def everyday_prompts(model_name: str) -> tuple[str, ...]:
    """Return prompts that a model can answer: the built-in hundred, or those on the demo model's few subjects.

    Args:
        model_name: `general.name` of the model's file.
    """
    if model_name == DEMO_MODEL_NAME:
        return _lines("ggufsteer.demo", "prompts.txt")
    return _lines("ggufsteer.tasks", "everyday_prompts.txt")


def _lines(package: str, name: str) -> tuple[str, ...]:
    text = files(package).joinpath(name).read_text(encoding="utf-8")
    return tuple(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))
