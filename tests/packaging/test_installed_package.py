"""What a person gets from `pip install`: everything the program needs, and the right thing under test."""

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ggufsteer
from ggufsteer.version import VERSION

PACKAGE = Path(ggufsteer.__file__).parent
installed_only = pytest.mark.skipif(
    "GGUFSTEER_TEST_INSTALLED" not in os.environ,
    reason="runs against the source folder; `make test` runs against the installed package",
)


@installed_only
def test_the_package_under_test_is_the_installed_one() -> None:
    """`make test` tests what users get, not the source folder that happens to lie beside the tests."""
    assert PACKAGE.parent.name in ("site-packages", "dist-packages")
    assert Path(sys.prefix) in PACKAGE.parents
    assert not (Path(__file__).parents[2] / "ggufsteer").exists()


@installed_only
def test_recipes_are_in_the_package() -> None:
    """The recipes come along, each of them readable as TOML with a name."""
    recipes = sorted((PACKAGE / "recipes").glob("*.toml"))
    assert len(recipes) >= 14
    for recipe in recipes:
        assert tomllib.loads(recipe.read_text(encoding="utf-8"))["name"]


@installed_only
def test_the_demo_model_and_its_card_are_in_the_package() -> None:
    """The chat model that ships is there, small enough for a package, with a page that says what it is."""
    models = list((PACKAGE / "demo").glob("*.gguf"))
    assert [model.name for model in models] == ["ggufsteer-demo-q8_0.gguf"]
    assert 1_000_000 < models[0].stat().st_size <= 9_000_000
    assert (PACKAGE / "demo" / "MODEL_CARD.md").is_file()
    assert len(list((PACKAGE / "demo" / "vectors").glob("*.gguf"))) == 6


@installed_only
def test_the_native_library_is_in_the_package() -> None:
    """`pip install` has compiled the native library to where the engine looks for it."""
    names = [path.name for path in (PACKAGE / "_native").iterdir() if not path.name.startswith("__")]
    assert names in (["libggufsteer.so"], ["libggufsteer.dylib"], ["ggufsteer.dll"])


@installed_only
def test_types_and_licence_come_along() -> None:
    """Type checkers see the annotations, and the licence travels with the code."""
    assert (PACKAGE / "py.typed").is_file()
    files = importlib.metadata.files("ggufsteer") or []
    assert any(file.name == "LICENSE" for file in files)


@installed_only
def test_no_tests_are_installed() -> None:
    """Nothing lands beside the package but its own metadata."""
    files = importlib.metadata.files("ggufsteer") or []
    tops = {file.parts[0] for file in files if file.parts[0] != ".."}
    assert tops == {"ggufsteer", f"ggufsteer-{VERSION}.dist-info"}


@installed_only
def test_one_wheel_serves_every_python() -> None:
    """The wheel is made for a platform, not for a version of Python."""
    text = importlib.metadata.distribution("ggufsteer").read_text("WHEEL") or ""
    tags = [line.removeprefix("Tag: ") for line in text.splitlines() if line.startswith("Tag: ")]
    assert tags
    assert all(tag.startswith("py3-none-") and not tag.endswith("-any") for tag in tags)


@installed_only
def test_the_metadata_name_version_command_and_extras() -> None:
    """pip knows the version that the program writes into files, and the command and extras of the README."""
    metadata = importlib.metadata.metadata("ggufsteer")
    assert metadata["Version"] == VERSION
    assert {"test", "train"} <= set(metadata.get_all("Provides-Extra") or [])
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="ggufsteer")
    assert command.value == "ggufsteer.cli.main:main"


@installed_only
def test_only_the_extra_brings_pytorch() -> None:
    """A plain install stays small: PyTorch comes only to those who train the demo model again."""
    requirements = importlib.metadata.requires("ggufsteer") or []
    for requirement in requirements:
        if requirement.startswith(("torch", "tokenizers")):
            assert "extra" in requirement


@installed_only
def test_the_command_runs_from_anywhere(tmp_path: Path) -> None:
    """The installed command answers in an empty folder."""
    command = Path(sys.executable).with_name("ggufsteer")
    result = subprocess.run([command, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert "extract" in result.stdout


def test_the_module_runs_as_the_command_does() -> None:
    """`python -m ggufsteer` is the same program."""
    root = PACKAGE.parent
    result = subprocess.run(
        [sys.executable, "-m", "ggufsteer", "--help"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "extract" in result.stdout


def test_the_root_exports_a_handful_of_names_lazily() -> None:
    """What other programs may import is small, and asking for it loads nothing that was not asked for."""
    assert len(ggufsteer.__all__) <= 15
    for name in ggufsteer.__all__:
        assert getattr(ggufsteer, name) is not None
    assert sorted(dir(ggufsteer)) == sorted(ggufsteer.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ggufsteer.nothing
    probe = "import sys, ggufsteer; print(*[name for name in sys.modules if name.startswith(('ggufsteer.', 'numpy'))])"
    result = subprocess.run(
        [sys.executable, "-c", probe], cwd=PACKAGE.parent, capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.split() == ["ggufsteer.version"]
