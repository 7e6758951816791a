"""`--search`: which search the flags ask for, and what is said of its result."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggufsteer.cli import console
from ggufsteer.errors import SteerError

if TYPE_CHECKING:
    from ggufsteer.tasks.method_search_run import Search, SearchRecord

COLUMNS = ("", "candidate", "effect", "fluent", "changed besides", "")
NOTE = (
    "All at the strength where the 95th percentile of what changes on neutral text is the budget, measured on training "
    "pairs. The effect is what + and - are apart, in nats a token; chosen is the one whose effect times its share of "
    "fluent answers is largest. Changed besides is the mean change on neutral text: at the same percentile it says "
    "what happens to all the other tokens. No candidate beats those with a star in both."
)


def check_search(flags: dict[str, Any]) -> None:
    """Refuse a search that contradicts other flags; one that does not asks for a calibration.

    Raises:
        SteerError: The flags leave nothing to search, or nothing to search by.
    """
    if flags["search"] is None:
        return
    against = {
        "--no-calibrate": flags["calibrates"] is False,
        "--dose": flags["dose"] is not None,
        "--from-activations": flags["from_activations"] is not None,
    }
    for flag, is_given in against.items():
        if is_given:
            raise SteerError(
                f"--search and {flag} do not go together: candidates are compared by what they do to the model at the "
                "same damage",
                "leave one of the two out",
            )
    from ggufsteer.tasks.method_search_choices import AXES

    if all(flags[axis] is not None for axis in AXES):
        raise SteerError(
            f"--search has nothing to choose: {', '.join(f'--{axis}' for axis in AXES)} are all given",
            "leave one of them out",
        )
    flags["calibrates"] = True


def search_of(flags: dict[str, Any], target: Path) -> Search | None:
    """Return the search that is asked for; keys of the recipe that a flag gives stay as they are."""
    if flags["search"] is None:
        return None
    from ggufsteer.tasks.method_search_choices import AXES
    from ggufsteer.tasks.method_search_run import Search

    fixed = frozenset(axis for axis in AXES if flags[axis] is not None)
    return Search(flags["search"], fixed, target)


def show_search(record: SearchRecord, layers: tuple[int, ...]) -> None:
    """Print what the last round of a search has seen, and what was chosen."""
    from ggufsteer.tasks.method_search_run import describe

    console.table(
        COLUMNS,
        [
            (
                "*" if entry.candidate in record.on_front else "",
                entry.candidate,
                f"{entry.effect:.2f}",
                "–" if entry.fluent is None else f"{entry.fluent:.0%}",
                f"{entry.mean_damage:.3f}",
                "chosen" if entry.candidate == record.chosen else "",
            )
            for entry in record.finalists
        ],
        title=f"the best of {console.counted(record.n_candidates, 'candidate')}",
        left=(0, 1, 5),
    )
    console.prose(NOTE)
    console.prose(describe(record, layers))


def search_document(record: SearchRecord) -> dict[str, Any]:
    """Give the same for `--json`."""
    return {
        "chosen": record.chosen,
        "parts": list(record.parts),
        "candidates": record.n_candidates,
        "finalists": [
            {**dataclasses.asdict(entry), "score": entry.score, "on_front": entry.candidate in record.on_front}
            for entry in record.finalists
        ],
        "note": NOTE,
    }
