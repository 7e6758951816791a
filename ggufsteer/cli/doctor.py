"""`ggufsteer doctor`: what is wrong with this installation, and the line that mends it."""

from __future__ import annotations

import dataclasses

import click

from ggufsteer.cli import console
from ggufsteer.cli.options import common_options
from ggufsteer.errors import ExitCode


@click.command("doctor")
@common_options
def doctor_command(as_json: bool) -> None:
    """Say what is wrong with this installation of ggufsteer and llama.cpp, and the command line that mends it.

    Looked for: a llama.cpp without the GPU that the machine has, a driver that is too old for it, a build without the
    processor's vector units or that crashes, a missing native library, two copies of llama.cpp, a version that does not
    fit, and more threads than cores.

    The exit code is 0 when all is well and 1 when something is wrong.
    """
    from ggufsteer.engine.devices_machine import Sources, read_facts
    from ggufsteer.tasks.doctor import diagnose

    findings = diagnose(read_facts(Sources()))
    if as_json:
        console.document({"well": not findings, "findings": [dataclasses.asdict(one) for one in findings]})
    elif not findings:
        console.line("nothing is wrong")
    else:
        for finding in findings:
            console.line(f"wrong: {finding.problem}")
            console.line(f"mend:  {finding.mend}")
    if findings:
        raise SystemExit(ExitCode.FAILED)
