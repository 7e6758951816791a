"""The direction of dependence, seen twice: in the import statements, and in what a fresh interpreter really loads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ggufsteer

PACKAGE = Path(ggufsteer.__file__).parent
SETTINGS = Path(__file__).parents[2] / "pyproject.toml"
MODEL_LIBRARIES = {"llama_cpp", "gguf", "torch", "tokenizers"}
SCREEN_LIBRARIES = {"click", "rich", "textual"}
# What must not be in memory after all modules of a floor were imported.
UNWANTED = {
    "maths": {"llama_cpp", "gguf", "torch", "sklearn", "scipy", "pydantic", "huggingface_hub", *SCREEN_LIBRARIES},
    "files": {"llama_cpp", "torch", "sklearn", "scipy", *SCREEN_LIBRARIES},
    "engine": {"torch", "tokenizers", "sklearn", *SCREEN_LIBRARIES},
    "tasks": {"torch", "tokenizers", *SCREEN_LIBRARIES},
    "tui": {"llama_cpp", "torch", "tokenizers", "sklearn", "click"},
    "cli": {"torch", "tokenizers"},
}
_IMPORT_ALL = """
import importlib, json, sys
for name in sys.argv[1:]:
    for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] == "ggufsteer"]:
        del sys.modules[loaded]
    importlib.import_module(name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def modules_of(floor: str) -> list[str]:
    """Name all modules of a floor."""
    paths = sorted((PACKAGE / floor).rglob("*.py"))
    dotted = (".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in paths)
    return [name.removesuffix(".__init__") for name in dotted]


def loaded_after(code: str, *arguments: str) -> set[str]:
    """Run code in a fresh interpreter and give the top-level names of what it has loaded."""
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment,
    )
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_imports_only_point_down() -> None:
    """A floor imports only from those below it, the engine alone imports llama_cpp, and every module has a floor."""
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--config", SETTINGS, "--no-cache"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("floor", sorted(UNWANTED))
def test_a_floor_loads_nothing_that_is_not_its_business(floor: str) -> None:
    """Every module of a floor can be imported first, and none drags in a library of the floors above."""
    assert not loaded_after(_IMPORT_ALL, *modules_of(floor)) & UNWANTED[floor]


def test_help_loads_no_model_library() -> None:
    """A person who asks for help does not wait for llama.cpp or numpy."""
    code = """
import contextlib, io, json, sys
from ggufsteer.cli.main import main
sys.argv = ["ggufsteer", "--help"]
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    loaded = loaded_after(code)
    assert not loaded & {*MODEL_LIBRARIES, "numpy", "sklearn", "pydantic", "huggingface_hub"}
