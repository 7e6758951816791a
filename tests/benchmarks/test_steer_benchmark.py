"""The benchmark of steering: it compares what it says, and its output can be read. No speed is judged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import _reporting
from ggufsteer.engine import library

SCRIPT = Path(_reporting.__file__).with_name("steer.py")
pytestmark = pytest.mark.skipif(not library.library_path().is_file(), reason="the native library is not built")


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the script beside the package that is under test, in an empty folder."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(SCRIPT), "-t", "1", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)


def test_every_way_comes_with_one_line_for_machines(tmp_path: Path) -> None:
    """The table for people, and the same as one JSON document; each way has a share of the reference."""
    done = run(tmp_path, "-m", "builtin", "--rounds", 2, "--tokens", 2)
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    result = json.loads(last)
    assert result["benchmark"] == "steer"
    shares = result["results"]["models"]["builtin"]["ratio"]
    assert shares["no callback"] == 1.0
    assert {"idle", "add, all layers", "ablate, one layer", "clamp, all layers", "gate, one layer", "meter"} < set(
        shares
    )
    for way in shares:
        assert any(way in line for line in table)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(("--tokens", 9999), "--tokens 9999 is more than"), (("--rounds", 0), "'0' is not a number"), (("-m", "x"), "x")],
)
def test_a_wrong_argument_is_named(tmp_path: Path, arguments: tuple[object, ...], complaint: str) -> None:
    """Before a model is loaded."""
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert not done.stdout
