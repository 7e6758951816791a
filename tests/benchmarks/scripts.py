"""The benchmarks as a person runs them: as scripts, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks import _reporting


def run_script(name: str, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script beside the package that is under test, on one thread, in an empty folder."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    script = Path(_reporting.__file__).with_name(name)
    command = [sys.executable, str(script), "-t", "1", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)
