"""What chat templates of real models need: a fixed date, no open thoughts, a place for the persona."""

from pathlib import Path

import pytest

from ggufsteer.engine.model import LoadOptions, Model
from ggufsteer.tasks.passages import chat_text
from tests.tiny_model import CHATML, write_tiny_model


def render(tmp_path: Path, template: str, system: str = "") -> str:
    """Render one question with a template in the file of a model."""
    path = write_tiny_model(tmp_path / "model.gguf", chat_template=template)
    with Model.open(path, LoadOptions(vocabulary_only=True)) as model:
        return chat_text(model, "Tea?", system)


def test_the_date_in_a_template_is_always_the_same(tmp_path: Path) -> None:
    """The same recipe gives the same vector tomorrow, whatever the template asks the clock."""
    assert render(tmp_path, "{{ strftime_now('%d %b %Y') }}").startswith("26 Jul 2024")


def test_a_template_that_can_think_is_told_not_to(tmp_path: Path) -> None:
    """Qwen's kind of template closes its block of thoughts when thinking is off."""
    template = CHATML.replace(
        "assistant\n{%", "assistant\n{% if enable_thinking is defined and not enable_thinking %}CLOSED{% endif %}{%"
    )
    assert render(tmp_path, template).endswith("CLOSED")


@pytest.mark.parametrize(
    "template",
    [
        CHATML.replace(
            "{% for", "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{% for", 1
        ),
        CHATML.replace("{% for message in messages %}", "{% for message in messages if message.role != 'system' %}"),
        CHATML,
    ],
    ids=["refuses the role", "drops the role", "takes the role"],
)
def test_the_persona_reaches_every_template(tmp_path: Path, template: str) -> None:
    """Templates that refuse or drop a system prompt get it in the question."""
    assert "You are a pirate." in render(tmp_path, template, "You are a pirate.")
