"""The benchmark of steering: it compares what it says, and its output can be read. No speed is judged."""

import json
from pathlib import Path

import pytest

from ggufsteer.engine import library
from tests.benchmarks.scripts import run_script

pytestmark = pytest.mark.skipif(not library.library_path().is_file(), reason="the native library is not built")


def test_every_way_comes_with_one_line_for_machines(tmp_path: Path) -> None:
    """The table for people, and the same as one JSON document; each way has a share of the reference."""
    done = run_script("steer.py", tmp_path, "-m", "builtin", "--rounds", 2, "--tokens", 2)
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
    done = run_script("steer.py", tmp_path, *arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert not done.stdout
