"""The comparison with llama-bench: both are called alike, and its output can be read. No speed is judged."""

import json
import sys
from pathlib import Path

import pytest

from tests.benchmarks.scripts import run_script

SHARED = {"-t": "1", "-b": "2048", "-ub": "512", "-r": "1", "-fa": "auto", "-ngl": "0"}
STAND_IN = """
import json, sys
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with open("calls", "a") as calls:
    calls.write(json.dumps(flags) + "\\n")
for n_prompt, n_gen in ((int(flags["-p"]), 0), (0, int(flags["-n"]))):
    print(json.dumps({"n_prompt": n_prompt, "n_gen": n_gen, "avg_ts": 0.001}))
"""


def program(folder: Path, source: str) -> Path:
    """Write a program that stands in for llama-bench."""
    path = folder / "llama-bench"
    path.write_text(f"#!{sys.executable} -S\n{source}")
    path.chmod(0o755)
    return path


def test_both_are_called_alike_by_turns(tmp_path: Path) -> None:
    """A table and one JSON line, with every round's speeds, their ratio, and what steering costs."""
    flags = ("--llama-bench", program(tmp_path, STAND_IN), "-m", "builtin", "-p", 8, "-n", 4, "-r", 1, "--rounds", 2)
    done = run_script("llama_bench.py", tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    result = json.loads(last)
    assert result["benchmark"] == "llama_bench"
    found = result["results"]["models"]["builtin"]
    for test in ("pp8", "tg4"):
        agreement = found["agreement"][test]
        assert agreement["llama_bench"] == [0.001, 0.001]
        assert len(agreement["ours"]) == 2
        assert agreement["ratio"]["median"] > 100
        assert not agreement["agrees"]
        assert {"add", "ablate", "gate"} <= set(found["steering"][test])
    calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    assert len(calls) == 2
    for call in calls:
        assert {name: call[name] for name in SHARED} == SHARED
    assert any("NO" in line for line in table)


@pytest.mark.parametrize(
    ("source", "complaint"), [("raise SystemExit(3)", "failed with code 3"), ("print('none')", "printed no result")]
)
def test_a_program_that_fails_is_named(tmp_path: Path, source: str, complaint: str) -> None:
    """With its last words."""
    flags = ("-m", "builtin", "-p", 8, "-n", 4, "-r", 1, "--rounds", 2)
    done = run_script("llama_bench.py", tmp_path, "--llama-bench", program(tmp_path, source), *flags)
    assert done.returncode == 1
    assert complaint in done.stderr


def test_a_missing_program_is_an_error_of_usage(tmp_path: Path) -> None:
    """Before anything is measured."""
    done = run_script("llama_bench.py", tmp_path, "--llama-bench", tmp_path / "gone")
    assert done.returncode == 2
    assert "gone is no program" in done.stderr
