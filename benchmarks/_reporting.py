"""What every benchmark prints: a table for people, then one JSON line for machines."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ggufsteer.version import VERSION


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
        "ggufsteer": VERSION,
        "llama_cpp_python": version("llama-cpp-python"),
        "commit": _commit(),
    }


def _commit() -> str:
    """The commit of the source tree; unknown where there is no tree, or no git."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints one table; the first column is left-aligned, the others right."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=max(100, Console().width)).print(table, markup=False)


def print_json(name: str, results: Mapping[str, object]) -> None:
    """Prints the one line for machines."""
    print(json.dumps({"benchmark": name, "machine": machine(), "results": results}, sort_keys=True))
