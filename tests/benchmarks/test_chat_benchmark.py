"""The benchmark of the chat: every figure is there, and its output can be read. No speed is judged."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.scripts import run_script


def test_sliders_and_keys_come_with_one_line_for_machines(tmp_path: Path) -> None:
    """Median, 95th percentile and the longest time of each way, for people and as one JSON document."""
    done = run_script("chat.py", tmp_path, "-m", "builtin", "--moves", 8, "--keys", 8)
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    result = json.loads(last)
    assert result["benchmark"] == "chat"
    ways = result["results"]["moves"] | result["results"]["keys"]
    assert {"from here on: move while writing", "from here on: plain token", "an answer is written"} < set(ways)
    for way, figures in ways.items():
        assert 0 < figures["median"] <= figures["95 %"] <= figures["longest"]
        assert any(way in line for line in table)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(("--keys", 9999), "keys"), (("--moves", 0), "'0' is not a number"), (("-m", "x"), "x")],
)
def test_a_wrong_argument_is_named(tmp_path: Path, arguments: tuple[object, ...], complaint: str) -> None:
    """Before a model is loaded."""
    done = run_script("chat.py", tmp_path, *arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert not done.stdout
