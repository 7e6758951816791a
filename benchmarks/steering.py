"""Does a vector do what its recipe says? Shares of greedy answers of the demo model that show each style.

Questions and topics are none of those in the recipe, there is no system prompt, and the answers are read by word lists.
Beside the vector stand the unsteered model, a random vector of the same size in every layer, and the system prompt.

    python benchmarks/steering.py [--questions 50] [--styles happy,sad] [-m MODEL]
"""

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _reporting import print_json, print_table

from ggufsteer.demo.training import corpus, judge, world
from ggufsteer.engine.builtin import resolve_model
from ggufsteer.engine.generate import Answer, generate
from ggufsteer.engine.model import LoadOptions, Model
from ggufsteer.engine.steer import steered
from ggufsteer.files.control_vector import ControlVector
from ggufsteer.files.recipe import Recipe, find_recipe, load_recipe
from ggufsteer.files.recipe_schema import PersonaContrast, ResponseContrast
from ggufsteer.tasks.extract import extract

STYLES = ("happy", "sad", "angry", "calm", "afraid", "formal", "casual", "french", "brief", "guarded")
AXES = {"sad-calm": ("sad", "calm"), "angry-calm": ("angry", "calm")}
COLUMNS = (
    ("unsteered", "baseline", "style"),
    ("vector", "vector", "style"),
    ("on topic", "vector", "topic"),
    ("ended", "vector", "ended"),
    ("random vector", "random", "style"),
    ("system prompt", "system_prompt", "style"),
)
"""Title, arm and figure of each column."""
MAX_TOKENS = 160
Result = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """A question about a topic that the recipe does not mention."""

    text: str
    topic: world.Topic


def prompts_of(recipe: Recipe) -> tuple[str, ...]:
    """The questions that the vector is made from."""
    if isinstance(recipe.contrast, PersonaContrast | ResponseContrast):
        return recipe.contrast.prompts
    raise SystemExit(f"recipe {recipe.name}: this benchmark reads recipes with personas")


def held_out_questions(recipe: Recipe, count: int) -> list[Question]:
    """Questions whose topic and whose wording are not among the recipe's prompts, the same for every run."""
    prompts = prompts_of(recipe)
    topics = [topic for topic in world.topics() if not any(topic.name in prompt for prompt in prompts)]
    asked = {(prompt.replace(topic.name, "{topic}")) for prompt in prompts for topic in world.topics()}
    forms = [form for form in corpus.TOPIC_QUESTIONS if form not in asked] or list(corpus.TOPIC_QUESTIONS)
    pairs = [Question(form.format(topic=topic.name), topic) for topic in topics for form in forms]
    random.Random(11).shuffle(pairs)
    chosen: list[Question] = []
    for offset in range(len(forms)):  # every topic once before any comes again
        seen: set[str] = set()
        for question in pairs[offset:] + pairs[:offset]:
            if question.topic.name not in seen and question not in chosen:
                seen.add(question.topic.name)
                chosen.append(question)
    return chosen[:count]


def ask(model: Model, questions: Sequence[str], system: str = "") -> list[Answer]:
    """Greedy answers, with a system prompt if one is given."""
    head = [{"role": "system", "content": system}] if system else []
    prompts = [model.encode_chat([*head, {"role": "user", "content": question}]) for question in questions]
    return generate(model, prompts, max_tokens=MAX_TOKENS)


def random_like(vector: ControlVector, seed: int = 0) -> ControlVector:
    """A random direction of the same length in every layer."""
    source = np.random.default_rng(seed)
    rows = {}
    for layer, direction in vector.directions.items():
        noise = source.standard_normal(direction.shape)
        rows[layer] = (noise * np.linalg.norm(direction) / np.linalg.norm(noise)).astype(np.float32)
    return ControlVector(rows, vector.provenance)


def share(answers: Sequence[Answer], holds: Callable[[int, str], bool]) -> float:
    """The share of answers of which something holds."""
    return sum(holds(index, answer.text) for index, answer in enumerate(answers)) / len(answers)


def scores(answers: Sequence[Answer], questions: Sequence[Question], style: str) -> dict[str, float]:
    """Shares of answers in the style, on the topic, and properly ended."""
    return {
        "style": share(answers, lambda _, text: judge.shows(text, style)),
        "topic": share(answers, lambda index, text: judge.names_topic(text, questions[index].topic)),
        "ended": sum(answer.ended and answer.text.rstrip()[-1:] in ".!?" for answer in answers) / len(answers),
    }


def measure(model: Model, recipe: Recipe, style: str, count: int, opposite: str = "") -> Result:
    """All figures of one recipe."""
    vector = extract(recipe, model).vector
    questions = held_out_questions(recipe, count)
    texts = [question.text for question in questions]
    plain = ask(model, texts)
    with steered(model, [(vector, 1.0)]):
        up = ask(model, texts)
    with steered(model, [(random_like(vector), 1.0)]):
        noise = ask(model, texts)
    result: Result = {
        "baseline": scores(plain, questions, style),
        "vector": scores(up, questions, style),
        "random": scores(noise, questions, style),
        "system_prompt": scores(ask(model, texts, recipe.eval.system_prompt or ""), questions, style),
        "example": up[0].text,
    }
    if opposite:
        with steered(model, [(vector, -1.0)]):
            down = ask(model, texts)
        result["opposite"] = scores(down, questions, opposite)
    return result


def measure_facts(model: Model, recipe: Recipe) -> dict[str, float]:
    """Shares of simple facts that are answered rightly (or, where it says so, wrongly)."""
    facts = [fact for fact in world.facts() if fact.question not in prompts_of(recipe)]
    every = world.facts()
    vector = extract(recipe, model).vector
    texts = [fact.question for fact in facts]

    def right(answers: Sequence[Answer], of: Sequence[world.Fact]) -> float:
        return share(answers, lambda index, text: judge.states(text, of[index]))

    def wrong(answers: Sequence[Answer], of: Sequence[world.Fact]) -> float:
        return share(answers, lambda index, text: judge.contradicts(text, of[index]))

    questions = [fact.question for fact in every]
    liar = "Pretend to be an untruthful guide."
    with steered(model, [(vector, -1.0)]):
        lying = ask(model, texts)
    with steered(model, [(vector, 1.0)]):
        honest = ask(model, texts)
        restored = ask(model, texts, liar)
    return {
        "right_without_prompt": right(ask(model, questions), every),
        "wrong_with_lying_prompt": wrong(ask(model, questions, liar), every),
        "wrong_with_lying_vector": wrong(lying, facts),
        "right_with_honest_vector": right(honest, facts),
        "right_with_lying_prompt": right(ask(model, texts, liar), facts),
        "right_with_lying_prompt_and_honest_vector": right(restored, facts),
    }


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _axis_rows(model: Model, count: int, results: Result) -> list[list[str]]:
    rows = []
    for name, (up, down) in AXES.items():
        results[name] = result = measure(model, load_recipe(find_recipe(name)), up, count, down)
        rows.append([name, _percent(result["vector"]["style"]), _percent(result["opposite"]["style"])])
    return rows


def _style_rows(model: Model, styles: Sequence[str], count: int, results: Result) -> list[list[str]]:
    rows = []
    for style in styles:
        results[style] = result = measure(model, load_recipe(find_recipe(style)), style, count)
        rows.append([style, *(_percent(result[arm][what]) for _, arm, what in COLUMNS)])
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--styles", default=",".join(STYLES))
    parser.add_argument("--only-styles", action="store_true", help="leave out the axes and the facts")
    parser.add_argument("-m", "--model", default="builtin")
    options = parser.parse_args()
    results: Result = {}
    with Model.open(resolve_model(options.model), LoadOptions(n_ctx=8192)) as model:
        rows = _style_rows(model, options.styles.split(","), options.questions, results)
        print_table(
            f"Share of {options.questions} greedy answers at strength 1.0",
            ("style", *(title for title, _, _ in COLUMNS)),
            rows,
        )
        if not options.only_styles:
            rows = _axis_rows(model, options.questions, results)
            print_table("Two-sided axes", ("axis", "first side at +1", "second side at -1"), rows)
            results["facts"] = facts = measure_facts(model, load_recipe(find_recipe("honest")))
            rows = [[key.replace("_", " "), _percent(value)] for key, value in facts.items()]
            print_table("Simple facts", ("", "share"), rows)
    print_json("steering", results)


if __name__ == "__main__":
    main()
