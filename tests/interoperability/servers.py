"""llama.cpp's own server, started and stopped for a test."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def llama_server(programs: Path, arguments: Sequence[str | Path]) -> Iterator[str]:
    """A running llama-server on one thread, with room for one conversation; yields its address."""
    command = [programs / "llama-server", *arguments, "--port", "0", "-t", "1", "-np", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        seen = []
        for line in process.stderr:
            seen.append(line)
            if "listening on http" in line:
                yield "http" + line.rsplit("http", 1)[1].split()[0]
                break
        else:
            pytest.fail("llama-server did not start:\n" + "".join(seen[-20:]))
    finally:
        process.terminate()
        process.communicate(timeout=30)
