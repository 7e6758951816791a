"""What is in the archives that would be published; `make dist` builds them and points here."""

import os
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif("GGUFSTEER_DIST" not in os.environ, reason="`make dist` builds the archives first")


def archives(pattern: str) -> Path:
    """Find the one archive of a kind."""
    (found,) = Path(os.environ["GGUFSTEER_DIST"]).glob(pattern)
    return found


def names_in_source_archive() -> set[str]:
    """List the files of the source archive, without its top folder."""
    with tarfile.open(archives("*.tar.gz")) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


def test_the_source_archive_can_build_and_test_the_package() -> None:
    """Everything that the build, the tests and the reader need is in it."""
    wanted = {
        "pyproject.toml",
        "CMakeLists.txt",
        "Makefile",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "native/ggufsteer.h",
        "recipes/happy.toml",
        "ggufsteer/demo/ggufsteer-demo-q8_0.gguf",
        "ggufsteer/demo/MODEL_CARD.md",
        "ggufsteer/demo/vectors/happy.gguf",
        "tests/conftest.py",
    }
    assert wanted <= names_in_source_archive()


def test_nothing_private_or_built_is_in_the_source_archive() -> None:
    """No virtual environment, build folder, cache or output of a run is published by accident."""
    unwanted_folders = {".venv", "build", "dist", "demo-output", "__pycache__", ".git", "_native", ".train"}
    for name in names_in_source_archive():
        assert not unwanted_folders & set(Path(name).parts[:-1]), name
        assert not name.endswith((".so", ".dylib", ".dll", ".pyc", ".pt")), name


def test_the_wheel_holds_the_package_and_nothing_else() -> None:
    """Recipes, model and library are inside the package; nothing is installed beside it."""
    names = zipfile.ZipFile(archives("*.whl")).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"ggufsteer"}
    assert sum(name.startswith("ggufsteer/recipes/") for name in names) >= 14
    assert sum(name.startswith("ggufsteer/_native/") for name in names) == 1
    assert "ggufsteer/demo/ggufsteer-demo-q8_0.gguf" in names
    assert sum(name.startswith("ggufsteer/demo/vectors/") for name in names) == 6
    assert not [name for name in names if "__pycache__" in name]
    assert len(names) == len(set(names))
