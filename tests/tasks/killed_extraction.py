"""`ggufsteer extract` that keeps a journal and kills itself, as `kill -9` would, right before its n-th deed.

    python killed_extraction.py JOURNAL N extract …

Deeds are decodes and whatever goes to a disk; N = 0 lets it live. Rounds and groups of answers are made short, so that
a few seconds of work have many of them. A line of the journal is there only if what it says is done, "decode" excepted.
"""

import itertools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from ggufsteer.cli.main import application
from ggufsteer.engine import plan
from ggufsteer.engine.context import Context
from ggufsteer.files.activations import ActivationsWriter
from ggufsteer.tasks import own_answers
from ggufsteer.tasks.kept_answers import KeptAnswers

plan.ROUND_TOKENS = 64
plan._PATH_SHARE = 2
own_answers.GROUP = 2

journal = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
last = int(sys.argv[2])
deeds = itertools.count(1)
write = os.write


def note(line: str) -> None:
    """Write a line; what was written survives the process."""
    write(journal, f"{line}\n".encode())


def counted(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Count a deed, or be killed before it."""

    def deed(*arguments: Any, **options: Any) -> Any:
        if next(deeds) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        note(name)
        return function(*arguments, **options)

    return deed


Context.decode = counted(Context.decode, "decode")  # type: ignore[method-assign]
for name in ("fsync", "ftruncate", "posix_fallocate", "pwrite", "replace", "unlink"):
    if hasattr(os, name):
        setattr(os, name, counted(getattr(os, name), "disk"))

opened, checkpoint = ActivationsWriter.__enter__, ActivationsWriter.checkpoint
read, kept = KeptAnswers.read, KeptAnswers.write


def noting_open(writer: ActivationsWriter) -> ActivationsWriter:
    """Note which steps need not be taken."""
    note(f"open {writer.steps_done}")
    return opened(writer)


def noting_checkpoint(writer: ActivationsWriter, steps_done: int) -> None:
    """Note which steps need not be taken again."""
    checkpoint(writer, steps_done)
    note(f"checkpoint {steps_done}")


def noting_read(answers: KeptAnswers, n_questions: int) -> Any:
    """Note how many answers need not be given."""
    known = read(answers, n_questions)
    note(f"known {len(known)}")
    return known


def noting_kept(answers: KeptAnswers, given: Any) -> None:
    """Note how many answers need not be given again."""
    kept(answers, given)
    note(f"kept {len(given)}")


ActivationsWriter.__enter__ = noting_open  # type: ignore[method-assign]
ActivationsWriter.checkpoint = noting_checkpoint  # type: ignore[method-assign]
KeptAnswers.read = noting_read  # type: ignore[method-assign]
KeptAnswers.write = noting_kept  # type: ignore[method-assign]
application.main(sys.argv[3:])
