"""Vectors from states that were saved: the same as from the model, which is not there any more."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggufsteer.engine.model import Model
from ggufsteer.errors import FileFormatError, MisfitError, RecipeError, SteerError
from ggufsteer.files.activations import Activations, ActivationsWriter, Layout
from ggufsteer.files.control_vector import Provenance
from ggufsteer.files.recipe import Recipe
from ggufsteer.files.vector import write_vector
from ggufsteer.maths.directions import METHODS
from ggufsteer.tasks import saved_states as module
from ggufsteer.tasks.contrast import answered_pairs, contrast_of
from ggufsteer.tasks.extract import Extraction, extract, extract_from_saved
from ggufsteer.tasks.neutral import neutral_text
from ggufsteer.tasks.observations import Observations
from ggufsteer.tasks.origin import origin_of
from ggufsteer.tasks.recipes import changed
from ggufsteer.tasks.saved_states import ORIGIN_KEY, RECIPE_KEY, states_within_bounds
from ggufsteer.tasks.states import states_in_memory
from tests.tasks.contrasts import OWN_ANSWERS, PLAIN, READ, UNPAIRED
from tests.tasks.contrasts import recipe_of as recipe_without_neutral_text

NEUTRAL = ["The train leaves at nine.", "Iron is a metal.", "The door is shut."]


def recipe_of(contrast: Mapping[str, Any] = PLAIN, **keys: Any) -> Recipe:
    """Make a recipe with a little neutral text of its own: everyday prompts are many."""
    return recipe_without_neutral_text(contrast, **{"eval": {"neutral": NEUTRAL}, **keys})


def directions(extraction: Extraction) -> np.ndarray:
    """Stack the vector's rows, (layers, embd)."""
    return np.stack(list(extraction.vector.directions.values()))


def class_means(extraction: Extraction) -> np.ndarray:
    """Stack where the sides lie, (layers, 2); there are such figures for each layer."""
    means = extraction.vector.provenance.class_means
    return np.array([means[layer] for layer in extraction.vector.layers])


def file_of(extraction: Extraction, folder: Path) -> bytes:
    """Give the bytes of the vector's file."""
    write_vector(folder / "bytes.gguf", extraction.vector)
    return (folder / "bytes.gguf").read_bytes()


FIGURES = ("separation", "state_norms", "class_means")


def papers(provenance: Provenance) -> dict[str, Any]:
    """Give a provenance without the figures that the last digits of states show in."""
    table = {field.name: getattr(provenance, field.name) for field in dataclasses.fields(provenance)}
    return {name: value for name, value in table.items() if name not in FIGURES}


def assert_alike(ours: Extraction, theirs: Extraction) -> None:
    """Vectors that are equal but for the last digits, with equal papers and reports."""
    assert papers(ours.vector.provenance) == papers(theirs.vector.provenance)
    size = np.linalg.norm(directions(theirs), axis=1, keepdims=True)
    norms = np.array([[layer.state_norm] for layer in theirs.layers])
    assert (np.abs(class_means(ours) - class_means(theirs)) <= 1e-3 * norms).all()
    assert (np.abs(directions(ours) - directions(theirs)) <= 1e-4 * size).all()
    for field in ("n_pairs", "n_held_out", "n_tokens", "n_distinct_tokens", "warnings"):
        assert getattr(ours, field) == getattr(theirs, field)
    for mine, other in zip(ours.layers, theirs.layers, strict=True):
        assert mine.auc == other.auc
        assert (mine.layer, mine.size) == (other.layer, pytest.approx(other.size, rel=1e-4))
        assert mine.state_norm == pytest.approx(other.state_norm, rel=1e-4)


@pytest.fixture(scope="module")
def saved(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """States of plain pairs at all layers."""
    path = tmp_path_factory.mktemp("saved") / "states.safetensors"
    extract(recipe_of(layers=(1, 2, 3)), tiny, save_to=path)
    return path


@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("method", ["mean", "lda"])
def test_the_saved_states_give_the_bytes_of_the_run_that_saved_them(
    tiny: Model, tmp_path: Path, read: str, method: str
) -> None:
    """Whatever was read, and although the file also holds states that the method does not use."""
    contrast, position = READ[read]
    recipe = recipe_of(contrast, position=position, method=method, layers=(1, 3))
    made = extract(recipe, tiny, save_to=tmp_path / "states")
    again = extract_from_saved(tmp_path / "states", {})
    assert file_of(again, tmp_path) == file_of(made, tmp_path)
    assert again.layers == made.layers
    assert again.warnings == made.warnings


@pytest.mark.parametrize("read", READ)
def test_saving_changes_nothing_about_the_vector(tiny: Model, tmp_path: Path, read: str) -> None:
    """The mean of saved states is the mean that is summed up without them."""
    contrast, position = READ[read]
    recipe = recipe_of(contrast, position=position)
    assert_alike(extract(recipe, tiny, save_to=tmp_path / "states"), extract(recipe, tiny))


@pytest.mark.parametrize(
    ("method", "neutral"), [("lda", []), ("crosscov", []), *((method, NEUTRAL) for method in METHODS)]
)
def test_another_method_gives_what_the_model_would_have_given(
    tiny: Model, tmp_path: Path, method: str, neutral: list[str]
) -> None:
    """From states that the mean has saved: neutral text is always among them, and used where it would have been."""
    recipe = recipe_of(layers=(1, 2), eval={"neutral": neutral})
    extract(recipe, tiny, save_to=tmp_path / "states")
    found = extract_from_saved(tmp_path / "states", {"method": method})
    assert_alike(found, extract(changed(recipe, {"method": method}), tiny))


@pytest.mark.parametrize("method", METHODS)
def test_saving_changes_nothing_about_any_method(tiny: Model, tmp_path: Path, method: str) -> None:
    """Neither does neutral text that was read for other methods."""
    recipe = recipe_of(method=method, layers=(2,), eval={})
    assert_alike(extract(recipe, tiny, save_to=tmp_path / "states"), extract(recipe, tiny))


@pytest.mark.parametrize(
    "changes",
    [
        {"dose": 3.5},
        {"deltas": False},
        {"layers": "2"},
        {"layers": "1,3"},
        {"layers": "2-3"},
        {"layers": "auto"},
        {"layers": "0.5-0.8"},
        {"layers": "1,3", "deltas": False, "dose": 0.5, "method": "pca"},
    ],
)
def test_flags_do_what_they_do_for_the_model(tiny: Model, saved: Path, changes: Mapping[str, Any]) -> None:
    """Dose, deltas and a part of the layers, alone and together."""
    made = extract(changed(recipe_of(layers=(1, 2, 3)), changes), tiny)
    assert_alike(extract_from_saved(saved, changes), made)


def test_a_seed_is_one_of_them_where_it_chose_no_pairs(tiny: Model, tmp_path: Path) -> None:
    """Without a hold-out it only starts iterations."""
    recipe = recipe_of(holdout=0.0, method="pca")
    extract(recipe, tiny, save_to=tmp_path / "states")
    assert_alike(extract_from_saved(tmp_path / "states", {"seed": 9}), extract(changed(recipe, {"seed": 9}), tiny))


def test_a_seed_that_would_have_held_out_other_pairs_is_refused(saved: Path) -> None:
    """The recipe that the vector carries has to make the vector again; the seed that is there may be given."""
    with pytest.raises(RecipeError, match="seed") as caught:
        extract_from_saved(saved, {"seed": 9})
    assert "model" in caught.value.hint
    assert extract_from_saved(saved, {"seed": 0}).n_held_out > 0


def test_the_recipe_that_it_carries_makes_the_vector_again(tiny: Model, saved: Path) -> None:
    """What was changed afterwards is in it."""
    from ggufsteer.files.recipe import parse_recipe

    found = extract_from_saved(saved, {"method": "logistic", "dose": 2.0, "layers": "1-2"})
    assert_alike(extract(parse_recipe(found.vector.provenance.recipe_text), tiny), found)


@pytest.mark.parametrize("layers", ["0.7-1.0", "1-3"])
def test_layers_that_were_not_saved_are_refused(tiny: Model, tmp_path: Path, layers: str) -> None:
    """The error names the file, the layers in it and the one that is missing."""
    extract(recipe_of(layers=(1, 2)), tiny, save_to=tmp_path / "states")
    with pytest.raises(MisfitError, match=r"states: holds the layers 1, 2, not layer 3"):
        extract_from_saved(tmp_path / "states", {"layers": layers})


def test_a_layer_that_the_model_has_not_is_refused(saved: Path) -> None:
    """It is the model that has no such layer, not the file."""
    with pytest.raises(MisfitError, match="7"):
        extract_from_saved(saved, {"layers": "7"})


def test_methods_that_compare_pairs_refuse_rows_without_pairs(tiny: Model, tmp_path: Path) -> None:
    """As with the model."""
    contrast, position = READ[UNPAIRED[0]]
    extract(recipe_of(contrast, position=position), tiny, save_to=tmp_path / "states")
    with pytest.raises(RecipeError, match="'pca' compares pairs"):
        extract_from_saved(tmp_path / "states", {"method": "pca"})


def test_neutral_text_that_is_too_short_stops_no_method_that_needs_none(tiny: Model, tmp_path: Path) -> None:
    """It is left out of the file; a method that needs it complains as it would without a file."""
    long = [[f"{'so ' * 9}{word} {name}" for word in ("happy", "sad")] for name in "abcdef"]
    recipe = recipe_of({"kind": "pairs", "pairs": long}, position=-20, eval={"neutral": ["Hm."]})
    made = extract(recipe, tiny, save_to=tmp_path / "states")
    assert made.n_pairs == 6
    with pytest.raises(SteerError, match="neutral"):
        extract_from_saved(tmp_path / "states", {"method": "lda"})
    with pytest.raises(SteerError, match="no such token"):
        extract(changed(recipe, {"method": "lda"}), tiny, save_to=tmp_path / "others")


def test_a_file_beside_the_states_is_nobodys_business(tiny: Model, tmp_path: Path) -> None:
    """What a person keeps under a name of ours stays, where no answers are kept there."""
    (tmp_path / "states.answers").write_text("Dear aunt")
    extract(recipe_of(), tiny, save_to=tmp_path / "states")
    assert (tmp_path / "states.answers").read_text() == "Dear aunt"
    with pytest.raises(SteerError, match=r"states\.answers"):
        extract(recipe_of(OWN_ANSWERS, position="response"), tiny, save_to=tmp_path / "states")
    assert (tmp_path / "states.answers").read_text() == "Dear aunt"


def test_nothing_but_the_states_stays(tiny: Model, tmp_path: Path) -> None:
    """Neither the part file nor the answers."""
    extract(recipe_of(OWN_ANSWERS, position="response"), tiny, save_to=tmp_path / "states")
    assert [path.name for path in tmp_path.iterdir()] == ["states"]


def test_the_file_says_where_its_states_come_from(tiny: Model, saved: Path) -> None:
    """Recipe, model, settings and versions are in its metadata, but no place on a disk."""
    metadata = Activations.open(saved).layout.metadata
    assert metadata[RECIPE_KEY] == recipe_of(layers=(1, 2, 3)).text
    origin = json.loads(metadata[ORIGIN_KEY])
    assert origin["model"]["content_hash"] == tiny.identity.content_hash
    assert origin["n_pairs"] == len(PLAIN["pairs"])
    assert str(tiny.path.parent) not in "".join(metadata.values())


def _rewritten(saved: Path, to: Path, change: Callable[[dict[str, str], dict[str, np.ndarray]], None]) -> Path:
    """Copy a file of states with other metadata or states."""
    file = Activations.open(saved)
    metadata = {key: text for key, text in file.layout.metadata.items() if key != "ggufsteer.activations"}
    states = {name: file.rows(name).copy() for name in file.layout.counts}
    change(metadata, states)
    counts = {name: len(rows) for name, rows in states.items()}
    layout = Layout(counts, file.layout.layers, file.layout.n_embd, metadata)
    with ActivationsWriter.open(to, layout) as writer:
        writer.write(np.arange(layout.observations), np.concatenate(list(states.values())))
        writer.finish()
    return to


def _with_origin(**changes: Any) -> Callable[[dict[str, str], Any], None]:
    """Change what a file says about where its states come from."""

    def change(metadata: dict[str, str], _: Any) -> None:
        origin = json.loads(metadata[ORIGIN_KEY])
        for key, value in changes.items():
            table = origin["model"] if key.startswith("model_") else origin
            table[key.removeprefix("model_")] = value
        metadata[ORIGIN_KEY] = json.dumps(origin)

    return change


def _with_metadata(**texts: str | None) -> Callable[[dict[str, str], Any], None]:
    def change(metadata: dict[str, str], _: Any) -> None:
        for name, text in texts.items():
            key = {"recipe": RECIPE_KEY, "origin": ORIGIN_KEY}[name]
            if text is None:
                del metadata[key]
            else:
                metadata[key] = text

    return change


def _without_set(name: str) -> Callable[[Any, dict[str, np.ndarray]], None]:
    return lambda _, states: states.pop(name)


DAMAGES: Mapping[str, Callable[[Any, Any], Any]] = {
    "no recipe": _with_metadata(recipe=None),
    "no origin": _with_metadata(origin=None),
    "empty recipe": _with_metadata(recipe=""),
    "recipe that is a letter": _with_metadata(recipe="Dear aunt,"),
    "recipe of the wrong keys": _with_metadata(recipe='name = "x"\nmoods = 3\n'),
    "origin that is no JSON": _with_metadata(origin="{"),
    "origin that is a list": _with_metadata(origin="[1, 2]"),
    "origin that is a number": _with_metadata(origin="7"),
    "origin nested without end": _with_metadata(origin="[" * 100_000),
    "origin with a long number": _with_metadata(origin='{"n_pairs": ' + "9" * 5000 + "}"),
    "empty origin": _with_metadata(origin="{}"),
    "unknown key": _with_origin(mood="happy"),
    "pairs in words": _with_origin(n_pairs="many"),
    "fewer than no tokens": _with_origin(n_tokens=-1),
    "half a pair": _with_origin(n_held_out=0.5),
    "truth for a number": _with_origin(n_distinct_tokens=True),
    "settings as a list": _with_origin(settings=["n_ctx"]),
    "settings of numbers": _with_origin(settings={"n_ctx": 512}),
    "versions as a text": _with_origin(versions="1.0"),
    "warnings as a number": _with_origin(warnings=3),
    "warnings as a text": _with_origin(warnings="boo"),
    "warnings of numbers": _with_origin(warnings=[3]),
    "hash as a number": _with_origin(tokens_hash=3),
    "model as a text": _with_origin(model="tiny"),
    "model without a name": _with_origin(model_name=None),
    "model of an unknown key": _with_origin(model_mood="happy"),
    "model on a disk": _with_origin(model_path="/etc/passwd"),
    "model of layers without end": _with_origin(model_n_layer=10**400),
    "model of very many layers": _with_origin(model_n_layer=1 << 40),
    "model of too few layers": _with_origin(model_n_layer=3),
    "model of another width": _with_origin(model_n_embd=255),
    "no positive set": _without_set("positive"),
    "no neutral set": _without_set("neutral"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_not_what_was_saved_is_refused(saved: Path, tmp_path: Path, damage: str) -> None:
    """It is named, and so is a mend; whatever stands in it, there is no other exception."""
    path = _rewritten(saved, tmp_path / "damaged", DAMAGES[damage])
    with pytest.raises(FileFormatError, match="damaged") as caught:
        extract_from_saved(path, {})
    assert "--save-activations" in caught.value.hint
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["positive", "held_out_negative", "neutral"])
@pytest.mark.parametrize("method", ["mean", "lda"])
def test_states_that_are_no_numbers_make_no_vector(
    saved: Path, tmp_path: Path, method: str, name: str, value: float
) -> None:
    """They are refused where they would be used, and make no figure where they would not."""

    def spoil(_: Any, states: dict[str, np.ndarray]) -> None:
        states[name][-1, 0, 0] = value

    path = _rewritten(saved, tmp_path / "spoiled", spoil)
    if name == "neutral" and method == "mean":
        assert extract_from_saved(path, {"method": method}).n_pairs == len(PLAIN["pairs"])
        return
    with pytest.raises(SteerError, match="not a finite number"):
        extract_from_saved(path, {"method": method})


@pytest.mark.parametrize("name", ["positive", "negative"])
def test_an_empty_side_makes_no_vector(saved: Path, tmp_path: Path, name: str) -> None:
    """The error says which side is empty."""

    def empty(_: Any, states: dict[str, np.ndarray]) -> None:
        states[name] = states[name][:0]

    with pytest.raises(SteerError, match=f"no {name} states"):
        extract_from_saved(_rewritten(saved, tmp_path / "empty", empty), {})


def test_another_recipe_over_finished_states_replaces_them(tiny: Model, tmp_path: Path) -> None:
    """A finished file is no work to go on with."""
    extract(recipe_of(layers=(1,)), tiny, save_to=tmp_path / "states")
    extract(recipe_of(layers=(2,)), tiny, save_to=tmp_path / "states")
    assert extract_from_saved(tmp_path / "states", {}).vector.layers == (2,)


def test_unfinished_states_of_another_recipe_are_kept_and_named(tiny: Model, tmp_path: Path) -> None:
    """Hours of work are not thrown away because somebody mistook a name."""

    def interrupted(recipe: Recipe) -> None:
        def stop(event: Any) -> None:
            if event.stage == "reading states" and event.done:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            extract(recipe, tiny, save_to=tmp_path / "states", report=stop)

    interrupted(recipe_of(layers=(1,)))
    before = (tmp_path / "states.partial").read_bytes()
    with pytest.raises(SteerError, match=r"states\.partial: holds the work of another extraction"):
        extract(recipe_of(layers=(2,)), tiny, save_to=tmp_path / "states")
    assert (tmp_path / "states.partial").read_bytes() == before
    extract(recipe_of(layers=(1,)), tiny, save_to=tmp_path / "states")
    assert [path.name for path in tmp_path.iterdir()] == ["states"]


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("fits", [False, True])
def test_states_in_memory_and_on_disk_are_the_same_bytes(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: bool, kept: bool
) -> None:
    """A file is written where they are to be kept, or are too many for the memory; nowhere else."""
    recipe, layers = recipe_of(holdout=0.25), (1, 3)
    contrast = contrast_of(recipe, tiny, *answered_pairs(recipe, tiny))
    observations, neutral = Observations.of(contrast), neutral_text(recipe, tiny, always=True)
    origin = origin_of(tiny, contrast, observations, layers)
    expected = states_in_memory(tiny, observations, neutral, layers)
    size = sum(rows.nbytes for rows in expected.values())
    monkeypatch.setattr(module, "MEMORY_BYTES", size if fits else size - 1)
    folder = tmp_path / "folder"
    folder.mkdir()
    keep = tmp_path / "kept" if kept else None
    found = states_within_bounds(keep, folder, recipe, tiny, origin, observations, neutral, layers)
    assert list(found) == list(expected)
    for name, rows in expected.items():
        assert rows.shape[1:] == (len(layers), tiny.n_embd)
        assert np.array_equal(found[name], rows)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == (["kept"] if kept else [])
    assert [path.name for path in folder.iterdir()] == ([] if fits or kept else ["states"])
