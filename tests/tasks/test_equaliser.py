"""The equaliser: what steers at a moment, and that nothing can be set that a vector cannot do."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufsteer.engine.messages import Band, VectorAdded
from ggufsteer.errors import SteerError
from ggufsteer.tasks.equaliser import LIMIT, Equaliser, Slider, name_for, split_strength


def slider(name: str, *, maximum: float | None = 1.5, file_hash: str = "", strength: float | None = None) -> Slider:
    """Make the slider of a vector with layers 2 to 5."""
    added = VectorAdded(
        vector=name,
        path=f"/{name}.gguf",
        file_hash=file_hash or name,
        name=f"\x1b[2J{name}",
        description="",
        layers=(5, 2, 3, 4),
        best_layer=4,
        recommended=1.0,
        maximum=maximum,
    )
    return Slider.of(added, strength)


@pytest.fixture
def equaliser() -> Equaliser:
    """Three sliders at the recommended strength."""
    made = Equaliser()
    for name in ("happy", "sad", "brief"):
        made.add(slider(name))
    return made


def names(equaliser: Equaliser) -> list[str]:
    """Name what steers."""
    return [band.vector for band in equaliser.settings()]


def test_muted_silenced_and_zero_sliders_do_not_steer(equaliser: Equaliser) -> None:
    """Of several solos all steer, but none that is muted."""
    assert names(equaliser) == ["happy", "sad", "brief"]
    equaliser.set_strength("sad", 0)
    assert names(equaliser) == ["happy", "brief"]
    assert equaliser.mute("happy")
    assert names(equaliser) == ["brief"]
    assert equaliser.solo("happy")
    assert names(equaliser) == []
    assert not equaliser.mute("happy")
    assert names(equaliser) == ["happy"]
    assert equaliser.solo("brief")
    assert names(equaliser) == ["happy", "brief"]


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_strength_is_a_number_within_the_limit(strength: float) -> None:
    """Whatever is typed: it is set within the limit, or refused and nothing changes."""
    equaliser = Equaliser()
    equaliser.add(slider("happy"))
    if math.isfinite(strength):
        assert equaliser.set_strength("happy", strength) == max(-LIMIT, min(LIMIT, strength))
    else:
        with pytest.raises(SteerError):
            equaliser.set_strength("happy", strength)
        assert equaliser.slider("happy").strength == 1.0


@pytest.mark.parametrize(
    ("strength", "maximum", "beyond"), [(1.5, 1.5, 0), (-1.6, 1.5, 1), (2, None, 0), (2.1, None, 1)]
)
def test_beyond_is_above_the_measured_maximum(strength: float, maximum: float | None, beyond: int) -> None:
    """Either way of the sign; 2 where nothing was measured. A drawn slider reaches what is set."""
    equaliser, one = Equaliser(), slider("happy", maximum=maximum, strength=strength)
    equaliser.add(one)
    assert equaliser.beyond(one) == bool(beyond)
    assert one.span >= max(abs(strength), one.limit)


def test_text_of_a_vectors_file_is_cleaned(equaliser: Equaliser) -> None:
    """A name in a file may hold escape sequences."""
    assert equaliser.slider("happy").title == "happy"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda eq: eq.set_strength("hapy", 1), "did you mean 'happy'"),
        (lambda eq: eq.set_operation("happy", "ablat"), "did you mean 'ablate'"),
        (lambda eq: eq.set_layers("happy", (6, 9)), "it has 2 to 5"),
        (lambda eq: eq.set_layers("happy", (4, 3)), "no layer of it from 4 to 3"),
        (lambda eq: eq.set_scope("happy", "anwser"), "did you mean 'answer'"),
        (lambda eq: eq.set_gate("happy", condition="nobody"), "no vector 'nobody'"),
        (lambda eq: eq.set_gate("happy", threshold=math.nan), "no threshold"),
        (lambda eq: eq.set_gate("happy", decided="word"), "no decision on 'word'"),
        (lambda eq: eq.add(slider("happy")), "'happy' already"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_changes_nothing(equaliser: Equaliser, change: object, words: str) -> None:
    """Each refusal names the value and the mend."""
    before = equaliser.to_json()
    with pytest.raises(SteerError, match=words):
        change(equaliser)
    assert equaliser.to_json() == before


def test_a_band_says_all_that_is_set(equaliser: Equaliser) -> None:
    """What only gates have is sent for gates only."""
    equaliser.set_gate("happy", condition="sad", threshold=0.7, decided="token")
    equaliser.set_layers("happy", (3, 9))
    equaliser.set_scope("happy", "answer", thinking=False)
    plain = Band(vector="happy", layers=(3, 9), scope="answer", thinking=False)
    assert equaliser.settings()[0] == plain
    equaliser.set_operation("happy", "gate")
    gate = {"operation": "gate", "condition": "sad", "threshold": 0.7, "decided": "token"}
    assert equaliser.settings()[0] == plain.model_copy(update=gate)


def test_a_gate_whose_condition_goes_decides_by_itself(equaliser: Equaliser) -> None:
    """No band names a vector that is not there."""
    equaliser.set_gate("happy", condition="sad")
    equaliser.set_operation("happy", "gate")
    assert equaliser.remove("sad") == ["happy"]
    assert equaliser.slider("happy").condition is None


@pytest.mark.parametrize("backwards", [False, True])
def test_a_preset_has_its_conditions_in_any_order(equaliser: Equaliser, backwards: bool) -> None:
    """A gate may stand before its condition, and behind it."""
    equaliser.set_gate("sad", condition="brief")
    equaliser.set_operation("sad", "gate")
    before = equaliser.settings()
    records = equaliser.records()
    equaliser.reset_all()
    assert equaliser.apply_preset(records[::-1] if backwards else records) == []
    assert equaliser.settings() == before


def test_reset_is_as_new_and_reset_all_is_the_model_as_it_is(equaliser: Equaliser) -> None:
    """Strength 0, and nothing left of what was chosen besides."""
    equaliser.set_strength("happy", 0.0)
    new = equaliser.to_json()
    equaliser.set_strength("happy", 0.3)
    equaliser.set_operation("happy", "clamp")
    equaliser.mute("happy")
    equaliser.reset("happy")
    assert equaliser.to_json() == new
    equaliser.reset_all()
    assert equaliser.settings() == ()


def test_a_clamp_steers_at_zero_too(equaliser: Equaliser) -> None:
    """There it holds the state at the negative side's mean, which is not the model as it is; muted it does nothing."""
    equaliser.set_strength("happy", 0.0)
    assert not equaliser.audible(equaliser.slider("happy"))
    equaliser.set_operation("happy", "clamp")
    assert equaliser.audible(equaliser.slider("happy"))
    equaliser.mute("happy")
    assert not equaliser.audible(equaliser.slider("happy"))


def test_a_kept_setting_comes_back(equaliser: Equaliser) -> None:
    """Records of all sliders, applied to new ones, give the same."""
    equaliser.set_strength("happy", -0.4)
    equaliser.set_gate("sad", condition="happy", threshold=0.1)
    equaliser.set_operation("sad", "gate")
    equaliser.set_layers("brief", (2, 2))
    equaliser.solo("sad")
    other = Equaliser()
    for name in ("happy", "sad", "brief"):
        other.add(slider(name))
    assert other.apply_preset(equaliser.records()) == []
    assert other.to_json() == equaliser.to_json()


def test_a_preset_tells_what_is_not_loaded_or_another_file(equaliser: Equaliser) -> None:
    """Vectors that the preset does not name go to 0; one under another name is found by its content."""
    equaliser.set_gate("happy", condition="sad")
    records = equaliser.records()
    other = Equaliser()
    for one in (slider("glad", file_hash="happy"), slider("brief", file_hash="new"), slider("more")):
        other.add(one)
    remarks = other.apply_preset(records)
    assert names(other) == ["glad", "brief"]
    assert [remark.split(":")[0] for remark in remarks] == [
        "glad",
        "sad is not loaded",
        "brief is another file than the preset was made with",
    ]


@given(st.lists(st.text(max_size=50), max_size=5))
def test_names_are_unique_and_one_word(wanted: list[str]) -> None:
    """Whatever a file calls itself, a command can name it."""
    taken: list[str] = []
    for text in wanted:
        taken.append(name_for(text, taken))
    assert len(set(taken)) == len(taken)
    assert all(name and len(name.split()) == 1 and "/" not in name and ":" not in name for name in taken)


@pytest.mark.parametrize(
    ("text", "path", "strength"),
    [
        ("a.gguf", "a.gguf", None),
        ("a.gguf:0.8", "a.gguf", 0.8),
        ("a.gguf:-2", "a.gguf", -2.0),
        ("C:\\a.gguf", "C:\\a.gguf", None),
        ("C:\\a.gguf:1", "C:\\a.gguf", 1.0),
        ("builtin:happy", "builtin:happy", None),
        ("a.gguf:nan", "a.gguf:nan", None),
        (":1", ":1", None),
    ],
)
def test_only_a_number_behind_the_last_colon_is_a_strength(text: str, path: str, strength: float | None) -> None:
    """A drive's letter is none."""
    assert split_strength(text) == (path, strength)
