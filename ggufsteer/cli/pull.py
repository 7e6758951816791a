"""The command `ggufsteer pull`: a model or a vector from the hub, in its newest version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ggufsteer.cli import console
from ggufsteer.cli.options import common_options

if TYPE_CHECKING:
    from ggufsteer.files.hub_names import HubName


@click.command("pull")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Only say which files would be downloaded, and how large they are.")
@common_options
def pull_command(names: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Download models or vectors from the hub, and print where they are.

    NAME is USER/REPOSITORY[:QUANT] or USER/REPOSITORY/FILE.gguf, with or without hf: in front. Without a quantisation
    Q4_K_M is taken, else Q8_0, else the first GGUF file. The files go to the cache that Hugging Face's and llama.cpp's
    programs use, and are verified. A download that was interrupted goes on where it stopped.
    """
    from ggufsteer.files.hub_names import parse_hub_name

    # All names are checked before the first byte comes.
    wanted = [parse_hub_name(name) for name in names]
    pulled = [_planned(name, quiet=as_json) if dry_run else _pulled(name, quiet=as_json) for name in wanted]
    if as_json:
        console.document({"pulled" if not dry_run else "planned": pulled})


def _pulled(name: HubName, *, quiet: bool) -> dict[str, object]:
    from ggufsteer.cli.model_choice import fetch_shown

    fetched = fetch_shown(str(name), newest=True, quiet=quiet)
    if not quiet:
        how = f"{fetched.n_bytes / 1e6:,.2f} MB came" if fetched.n_bytes else "it was here already"
        console.note(f"{name}: {fetched.reason}; {how}")
        for path in fetched.paths:
            console.line(str(path))
    return {
        "name": str(name),
        "files": [str(path) for path in fetched.paths],
        "reason": fetched.reason,
        "downloaded_bytes": fetched.n_bytes,
    }


def _planned(name: HubName, *, quiet: bool) -> dict[str, object]:
    from ggufsteer.files.hub_cache import is_offline
    from ggufsteer.tasks.hub import look
    from ggufsteer.tasks.hub_problems import offline

    if is_offline():
        raise offline(name)
    plan = look(name)
    if not quiet:
        console.note(f"{name}: {plan.choice.reason}")
        console.table(["file", "MB"], [[file.path, f"{file.size / 1e6:,.2f}"] for file in plan.files])
    return {
        "name": str(name),
        "files": [{"path": file.path, "bytes": file.size, "hash": file.digest} for file in plan.files],
        "reason": plan.choice.reason,
        "commit": plan.listing.commit,
    }
