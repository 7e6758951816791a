"""A whole search on a model: what comes out, that it can be interrupted, and what it may not look at."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggufsteer.engine.model import Model
from ggufsteer.errors import SteerError
from ggufsteer.files.recipe import Recipe, make_recipe, parse_recipe
from ggufsteer.files.search_ledger import Judged
from ggufsteer.files.vector import write_vector
from ggufsteer.tasks import calibrate as calibrating
from ggufsteer.tasks import components, saved_states
from ggufsteer.tasks import method_search_judge as judging
from ggufsteer.tasks import method_search_run as module
from ggufsteer.tasks.calibrate import TOLERANCE
from ggufsteer.tasks.extract import Extraction, extract
from ggufsteer.tasks.fluent import FluencyMeasurement
from ggufsteer.tasks.layer_search import MIXES
from ggufsteer.tasks.method_search import Round
from ggufsteer.tasks.method_search_run import MIXTURE, USUAL, Search
from ggufsteer.tasks.progress import Progress

BUDGET = 0.3
OWN = "mean at response, layers 1-2"
THINGS = ("tea", "bread", "sugar", "music", "snow", "the sea", "gold")
CONTRAST = {
    "kind": "pairs",
    "chat": True,
    "pairs": [
        {"prompt": f"What of {thing}?", "positive": f"We do esteem {thing}.", "negative": f"Yeah, {thing}, cool."}
        for thing in THINGS
    ],
}
NEUTRAL = ["The train leaves at nine.", "Iron is a metal.", "The door is shut."]
ITEM = {"prompt": "Who are you?", "positive": "I am a clerk.", "negative": "Me? Nobody."}


@pytest.fixture(autouse=True, scope="module")
def _few_texts() -> Iterator[None]:
    """Enough for the laws, which hold on any texts."""

    def few_answers(model: Model, **settings: Any) -> FluencyMeasurement:
        return FluencyMeasurement(model, n_answers=2, max_tokens=4, **settings)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(calibrating, "DOSE_TEXTS", 3)
        patched.setattr("ggufsteer.tasks.neutral_texts.ANSWER_TOKENS", 8)
        patched.setattr(calibrating, "FIRST_TEXTS", 2)
        patched.setattr(calibrating, "SEARCH_TEXTS", (2, 2))
        patched.setattr(calibrating, "WEIGHING_ITEMS", 2)
        patched.setattr(components, "OTHER_METHODS", ("lda",))
        patched.setattr(components, "N_SPREAD", 1)
        patched.setattr("ggufsteer.tasks.layer_search.MIXES", MIXES[:1])
        patched.setattr(calibrating, "FluencyMeasurement", few_answers)
        patched.setattr(judging, "FluencyMeasurement", few_answers)
        patched.setattr(judging, "FEWEST_TEXTS", 2)
        patched.setattr(module, "SEARCH_ITEMS", 2)
        patched.setattr(module, "MOST_ITEMS", 3)
        yield


def recipe(**keys: Any) -> Recipe:
    """A recipe of pairs of answers, with a little neutral text of its own: everyday prompts are many."""
    return make_recipe({"name": "formal", "contrast": CONTRAST, "eval": {"neutral": NEUTRAL}, **keys})


def searched(model: Model, n_candidates: int = 4, **settings: Any) -> Extraction:
    """Search, and keep nothing unless told to."""
    made = settings.pop("recipe", None) or recipe()
    extra = {key: settings.pop(key) for key in ("report", "save_to") if key in settings}
    return extract(made, model, budget=BUDGET, search=Search(n_candidates, **settings), **extra)


def written(extraction: Extraction, folder: Path) -> bytes:
    """The bytes of its vector."""
    write_vector(folder / "written.gguf", extraction.vector)
    return (folder / "written.gguf").read_bytes()


def favour(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the judge find one candidate better than all others."""
    real = judging.ModelJudge.__call__

    def favouring(self: judging.ModelJudge, candidate: str, each: Round, before: float) -> Judged:
        seen = real(self, candidate, each, before)
        effect = 9.0 if candidate == name else 1.0
        return Judged(seen.round, candidate, seen.strength, effect, seen.damage, seen.mean_damage, 1.0)

    monkeypatch.setattr(judging.ModelJudge, "__call__", favouring)


@pytest.fixture(scope="module")
def run(tiny: Model, _few_texts: None) -> Extraction:
    """One search."""
    return searched(tiny)


def test_the_winner_is_judged_no_worse_than_the_usual_calibration(run: Extraction) -> None:
    """Both are among the last ones, as is the recipe's own choice without a mixture."""
    assert run.search is not None
    seen = {entry.candidate: entry for entry in run.search.finalists}
    assert {USUAL, MIXTURE, OWN} < set(seen)
    assert seen[run.search.chosen].score == max(entry.score for entry in run.search.finalists)
    assert run.search.n_candidates == len(seen) == 5
    assert run.search.chosen in run.search.on_front


def test_all_are_compared_at_the_damage_of_the_budget(run: Extraction) -> None:
    """And heard."""
    assert run.search is not None
    for entry in run.search.finalists:
        assert entry.damage == pytest.approx(BUDGET, rel=0.1)
        assert entry.fluent is not None


def test_strength_one_does_the_damage_of_the_budget(run: Extraction) -> None:
    """Whoever has won was calibrated."""
    assert run.calibration is not None
    assert run.calibration.p95 == pytest.approx(BUDGET, rel=TOLERANCE)
    assert run.vector.provenance.damage_budget == BUDGET


@pytest.mark.parametrize("chosen", [USUAL, MIXTURE, "recipe", "other"])
def test_the_papers_say_what_was_chosen(
    tiny: Model, run: Extraction, monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    """The vector's recipe is the one that makes the same rows again without a search, where there is such a one."""
    assert run.search is not None
    singles = [entry.candidate for entry in run.search.finalists if entry.candidate not in (USUAL, MIXTURE)]
    other = next(name for name in singles if not name.startswith("mean at response"))
    name = {"recipe": OWN, "other": other}.get(chosen, chosen)
    favour(monkeypatch, name)
    found = searched(tiny)
    provenance = found.vector.provenance
    assert found.search is not None
    assert found.search.chosen == name
    assert (provenance.method == "mixture") is (chosen == MIXTURE)
    assert bool(found.search.parts) is (chosen == MIXTURE)
    inside = parse_recipe(provenance.recipe_text)
    assert inside.content_hash == provenance.recipe_hash
    if chosen in (USUAL, MIXTURE):
        assert inside.written_out() == recipe().written_out()
        return
    assert name.startswith(f"{provenance.method} at {provenance.position}, ")
    assert (inside.method, str(inside.position)) == (provenance.method, provenance.position)
    again = extract(inside, tiny).vector
    assert again.layers == found.vector.layers
    assert all(np.array_equal(again.directions[layer], found.vector.directions[layer]) for layer in again.layers)


def test_where_the_usual_calibration_wins_its_vector_comes_out(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search costs time, and nothing else."""
    favour(monkeypatch, USUAL)
    monkeypatch.setattr("ggufsteer.tasks.extract.SEARCH_ITEMS", 2)
    found, usual = searched(tiny).vector, extract(recipe(), tiny, budget=BUDGET).vector
    assert found.layers == usual.layers
    for layer in usual.layers:
        assert found.directions[layer] == pytest.approx(usual.directions[layer], rel=1e-4, abs=1e-6)


def test_interrupted_anywhere_it_gives_the_bytes_of_a_quiet_run(tiny: Model, run: Extraction, tmp_path: Path) -> None:
    """After each judgement in turn; none is made twice, and the ledger lies beside the vector until that is there."""
    search = Search(4, output=tmp_path / "v.gguf")
    n_kept = []
    for _ in range(20):
        judged = []

        def stop(event: Progress, judged: list[int] = judged) -> None:
            if event.stage.startswith("searching"):
                judged.append(event.done)
                if len(n_kept) + 1 == event.done < event.total:
                    raise KeyboardInterrupt

        try:
            found = extract(recipe(), tiny, budget=BUDGET, search=search, report=stop)
        except KeyboardInterrupt:
            assert search.ledger is not None
            n_kept.append(search.ledger.read_text().count('"candidate"'))
            assert not (tmp_path / "v.gguf").exists()
        else:
            break
    assert n_kept == [1, 2, 3, 4]
    assert written(found, tmp_path) == written(run, tmp_path)
    assert found.search == run.search
    search.forget()
    assert [path.name for path in tmp_path.iterdir()] == ["written.gguf"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_candidates": 5}, "number of candidates was 4, and is now 5"),
        ({"recipe": recipe(seed=1)}, "the recipe has changed"),
        ({"fixed": frozenset({"method"})}, "the choice of what stays as it is has changed"),
    ],
)
def test_a_ledger_of_another_search_is_refused_before_any_work(
    tiny: Model, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    """What was judged then says nothing of this."""

    def stop(event: Progress) -> None:
        if event.stage.startswith("searching") and event.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searched(tiny, output=tmp_path / "v.gguf", report=stop)
    events: list[Progress] = []
    with pytest.raises(SteerError, match=said):
        searched(tiny, **{"output": tmp_path / "v.gguf", "report": events.append, **change})
    assert {event.stage for event in events} == {"identifying the model file"}


def test_the_items_that_judge_a_vector_have_no_part_in_it(tiny: Model, run: Extraction) -> None:
    """Other [eval] items, the same numbers."""
    other = searched(tiny, recipe=recipe(eval={"items": [ITEM], "neutral": NEUTRAL})).vector
    assert all(np.array_equal(other.directions[layer], run.vector.directions[layer]) for layer in run.vector.layers)


def test_states_on_disk_give_what_states_in_memory_give(
    tiny: Model, run: Extraction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they are too many; nothing of them is left afterwards but what is to be kept."""
    monkeypatch.setattr(saved_states, "MEMORY_BYTES", 0)
    found = searched(tiny, output=tmp_path / "v.gguf", save_to=tmp_path / "kept")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "v.gguf.search.json"]
    assert written(found, tmp_path) == written(run, tmp_path)


def test_a_key_that_a_person_has_chosen_stays(tiny: Model) -> None:
    """Here all but the method."""
    found = searched(tiny, 4, recipe=recipe(layers=[2]), fixed=frozenset({"position", "layers", "deltas"}))
    assert found.search is not None
    others = {entry.candidate for entry in found.search.finalists} - {USUAL, MIXTURE}
    assert len({name.split(" at ")[0] for name in others}) == len(others) == 3
    assert {name.split(" at ")[1] for name in others} == {"response, layer 2"}
    assert found.vector.layers == (2,)


@pytest.mark.parametrize("n_candidates", [-1, 0, 1])
def test_fewer_than_two_candidates_are_refused(n_candidates: int) -> None:
    """There is nothing to choose."""
    with pytest.raises(SteerError, match="chooses nothing"):
        Search(n_candidates)
