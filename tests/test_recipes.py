"""The recipes that ship: sound, careful, and harmless."""

import re
import tomllib
from pathlib import Path

import pytest

from ggufsteer.files.recipe import PersonaContrast, ResponseContrast, builtin_recipe_names, load_recipe

NAMES = builtin_recipe_names()
EXPECTED = {
    "happy", "sad-calm", "angry-calm", "fear-courage", "formal", "casual", "french", "concise", "honest", "confident",
    "creative", "diligent", "agreeable", "guarded", "secure-code",
}  # fmt: skip
ON_THE_DEMO_MODEL = {
    "happy", "sad", "angry", "calm", "afraid", "formal", "casual", "french", "brief", "honest", "guarded",
}  # fmt: skip


def test_the_promised_recipes_are_there() -> None:
    """At least fourteen, among them every one that the README names."""
    assert len(NAMES) >= 14
    assert set(NAMES) >= EXPECTED | ON_THE_DEMO_MODEL


def test_the_recipes_for_the_demo_model_say_so() -> None:
    """A newcomer can tell which he can try at once."""
    shown = {name for name in NAMES if load_recipe(name).shows_on_demo}
    assert shown >= ON_THE_DEMO_MODEL
    assert not shown & {"confident", "creative", "diligent", "agreeable", "secure-code", "fear-courage", "concise"}


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_recipe_says_what_it_is_for(name: str) -> None:
    """Its name is its file's, its first lines are a comment that explains it, and its description is one sentence."""
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.text.startswith("# ")
    assert recipe.description.endswith(".")
    assert len(recipe.description) <= 120


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_recipe_has_enough_and_varied_prompts(name: str) -> None:
    """Twenty prompts at least, and in the recipes for real models no opening that a quarter of them share."""
    recipe = load_recipe(name)
    assert isinstance(recipe.contrast, PersonaContrast | ResponseContrast)
    assert len(recipe.contrast.prompts) >= 20
    if not recipe.shows_on_demo and name != "secure-code":
        openings = [prompt.split()[:2] for prompt in recipe.contrast.prompts]
        assert max(openings.count(opening) for opening in openings) <= len(openings) / 4


@pytest.mark.parametrize("name", [name for name in NAMES if not load_recipe(name).shows_on_demo])
def test_a_recipe_for_real_models_uses_several_wordings_and_brings_an_evaluation(name: str) -> None:
    """No single persona or template carries the direction, and there is something to measure it on."""
    recipe = load_recipe(name)
    contrast = recipe.contrast
    assert isinstance(contrast, ResponseContrast)
    assert len(contrast.positive) == len(contrast.negative) >= 3
    assert len(contrast.templates) >= 2
    assert contrast.combine == "zip"
    assert len(recipe.eval.questions) >= 5
    assert len(recipe.eval.items) >= 5
    assert recipe.eval.system_prompt


@pytest.mark.parametrize("name", NAMES)
def test_an_evaluation_asks_about_other_things_than_the_training(name: str) -> None:
    """No topic of the questions is the subject of a prompt."""
    recipe = load_recipe(name)
    prompts = " ".join(getattr(recipe.contrast, "prompts", ())).lower()
    for topic in recipe.eval.topics:
        assert not re.search(rf"\b{re.escape(topic)}\b", prompts), topic


@pytest.mark.parametrize("name", NAMES)
def test_no_shipped_recipe_asks_for_harm(name: str) -> None:
    """Words that a harmless recipe has no use for do not occur."""
    words = set(re.findall(r"[a-z]+", load_recipe(name).text.lower()))
    assert not words & {
        "bomb", "weapon", "weapons", "kill", "murder", "suicide", "poison", "malware", "ransomware", "exploit",
        "heroin", "explosive", "hack", "steal", "torture", "racist", "nazi",
    }  # fmt: skip


def test_shipped_recipes_are_plain_toml_of_readable_width() -> None:
    """They are read by people: no line longer than 120, but for the items that hold whole answers."""
    folder = Path(__file__).parents[1] / "recipes"
    if not folder.is_dir():
        pytest.skip("the source tree is not here")
    for path in folder.glob("*.toml"):
        text = path.read_text(encoding="utf-8")
        tomllib.loads(text)
        long = [line for line in text.split("\n") if len(line) > 120 and not line.startswith("    { prompt = ")]
        assert not long, f"{path.name}: {long}"
