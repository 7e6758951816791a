"""Presets: kept under names that every file system takes, and found again."""

import sys
from pathlib import Path

import pytest

from ggufsteer.errors import SteerError
from ggufsteer.tasks import presets
from ggufsteer.tasks.equaliser import Equaliser
from tests.tasks.test_equaliser import slider


@pytest.fixture
def equaliser() -> Equaliser:
    """Two sliders, one of them changed."""
    made = Equaliser()
    made.add(slider("happy"))
    made.add(slider("sad", strength=-0.3))
    return made


def test_a_saved_preset_comes_back(equaliser: Equaliser) -> None:
    """With all that is set; it is listed, replaced and deleted by its name."""
    assert presets.preset_names() == []
    path = presets.save_preset("evening", equaliser)
    assert path.parent == presets.presets_folder()
    assert presets.load_preset("evening") == equaliser.records()
    equaliser.set_strength("happy", 0.1)
    presets.save_preset("evening", equaliser)
    assert presets.load_preset("evening")[0].strength == 0.1
    assert presets.preset_names() == ["evening"]
    presets.delete_preset("evening")
    assert presets.preset_names() == []


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a b", "../x", "nul", "COM1.x", "x" * 61, "a.", "a\n", "a:b"]
)
def test_names_that_lead_elsewhere_are_refused(equaliser: Equaliser, name: str) -> None:
    """No preset leaves its folder, and none has a device's name."""
    for act in (lambda: presets.save_preset(name, equaliser), lambda: presets.delete_preset(name)):
        with pytest.raises(SteerError, match="cannot be the name"):
            act()


def test_an_unknown_preset_gets_the_nearest_known_one(equaliser: Equaliser) -> None:
    """As everywhere."""
    with pytest.raises(SteerError, match="there is none"):
        presets.load_preset("evening")
    presets.save_preset("evening", equaliser)
    with pytest.raises(SteerError, match="did you mean 'evening'"):
        presets.load_preset("evning")


@pytest.mark.parametrize("text", ["", "[]", '{"format": "ggufsteer conversation"}'])
def test_a_damaged_preset_names_its_file(equaliser: Equaliser, text: str) -> None:
    """So that it can be mended or deleted."""
    path = presets.save_preset("evening", equaliser)
    path.write_text(text)
    with pytest.raises(SteerError, match=r"evening\.json"):
        presets.load_preset("evening")


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"XDG_CONFIG_HOME": "/etc/mine"}, Path("/etc/mine")),
        ("linux", {"XDG_CONFIG_HOME": "relative"}, Path("~/.config")),
        ("linux", {}, Path("~/.config")),
        ("darwin", {}, Path("~/Library/Application Support")),
        ("win32", {"APPDATA": "/roaming"}, Path("/roaming")),
    ],
)
def test_the_folder_follows_the_platforms_rules(platform: str, environment: dict[str, str], expected: Path) -> None:
    """XDG_CONFIG_HOME counts where it is set, but only as a whole path."""
    assert presets.presets_folder(environment, platform) == expected.expanduser() / "ggufsteer" / "presets"


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not write-protected so there")
def test_a_folder_that_cannot_be_made_is_an_error_with_a_mend(
    equaliser: Equaliser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "ggufsteer").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(SteerError, match="set XDG_CONFIG_HOME"):
        presets.save_preset("evening", equaliser)
