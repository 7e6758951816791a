"""Runs a program and says what it cost: wall time, and the peak of its memory. It knows no model and no table.

Linux counts into the peak of a program the memory that the process which started it had at that moment. So whoever
holds a model must not start what is measured: a small Python in between does.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ggufsteer.errors import SteerError

_LAUNCHER = """
import json, os, sys, time
report, *command = sys.argv[1:]
begin = time.perf_counter()
pid = os.posix_spawn(command[0], command, os.environ)
_, status, usage = os.wait4(pid, 0)
seconds = time.perf_counter() - begin
with open(report, "w") as file:
    json.dump([os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss], file)
"""
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
_COMPLAINT = 2000
"""Bytes of a failed program's output that are shown."""


@dataclass(frozen=True)
class Cost:
    """What one run of a program took."""

    seconds: float
    peak_mb: float
    """Resident memory at its peak, in 1e6 bytes; a model's file counts where it is mapped."""
    output: str


def run(command: Sequence[str | Path]) -> Cost:
    """Run a program to its end, with nothing on its input.

    Raises:
        SteerError: It cannot be started, or fails; its last words are in the message.
    """
    words = [str(word) for word in command]
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "output").open("w+b") as output:
        report = Path(folder) / "report"
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(report), *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
        output.seek(0)
        said = output.read().decode(errors="replace")
        code, seconds, peak = json.loads(report.read_text()) if report.is_file() else (-1, 0.0, 0)
    if code != 0:
        raise SteerError(
            f"{words[0]} failed with code {code}: …{said[-_COMPLAINT:].strip()}", "run it by hand to see why"
        )
    return Cost(seconds, peak * _MAXRSS_UNIT / 1e6, said)
