"""The built-in prompts: what people ask a chat model on an ordinary day."""

from __future__ import annotations

from importlib.resources import files

from ggufsteer.files.model_identity import ModelIdentity

DEMO_MODEL_NAME = "ggufsteer-demo"
"""`general.name` of the model that ships begins with this; it knows fewer subjects than the world has."""


def is_demo_model(model: ModelIdentity) -> bool:
    """Say whether this is the model that ships, in whatever quantisation."""
    return model.name.startswith(DEMO_MODEL_NAME)


def everyday_prompts(model: ModelIdentity) -> tuple[str, ...]:
    """Return prompts that this model can answer: the built-in hundred, or those on the demo model's few subjects."""
    if is_demo_model(model):
        return _lines("ggufsteer.demo", "prompts.txt")
    return _lines("ggufsteer.tasks", "everyday_prompts.txt")


def _lines(package: str, name: str) -> tuple[str, ...]:
    text = files(package).joinpath(name).read_text(encoding="utf-8")
    return tuple(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))
