"""The command `ggufsteer list`: the models and vectors from the hub that are on this machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ggufsteer.cli import console
from ggufsteer.cli.options import common_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ggufsteer.files.hub_contents import Cached, Unfinished


@click.command("list")
@common_options
def list_command(as_json: bool) -> None:
    """List the models and vectors from the hub that are on this machine.

    They lie in the cache that Hugging Face's and llama.cpp's programs share; what those downloaded is listed too. The
    names are what -m and --vector take. Nothing is asked of the hub.
    """
    from ggufsteer.files.hub_cache import cache_folder
    from ggufsteer.files.hub_contents import cached_files, unfinished_downloads

    files, unfinished = cached_files(), unfinished_downloads()
    if as_json:
        console.document(
            {
                "cache": str(cache_folder()),
                "files": [{**asdict(file), "path": str(file.path)} for file in files],
                "unfinished": [asdict(download) for download in unfinished],
            }
        )
        return
    _show(files, unfinished)
    if not files:
        console.note(f"{cache_folder()} holds no GGUF file; `ggufsteer pull USER/REPOSITORY` downloads one")


def _show(files: Sequence[Cached], unfinished: Sequence[Unfinished]) -> None:
    if files:
        rows = [
            [file.name, file.kind or "?", file.architecture, file.quantisation, f"{file.n_bytes / 1e6:,.2f}"]
            for file in files
        ]
        console.table(["name", "kind", "architecture", "quantisation", "MB"], rows, left=(0, 1, 2, 3))
    for file in files:
        if file.problem:
            console.warn(f"{file.name}: {file.problem}")
    for download in unfinished:
        done, wanted = download.n_bytes / 1e6, download.n_bytes_wanted / 1e6
        stopped = f"a download stopped at {done:,.1f} of {wanted:,.1f} MB"
        console.note(f"hf:{download.repository}: {stopped}; the same `ggufsteer pull` goes on from there")
