"""What the terminal can show: whether more than ASCII may be drawn. It looks at the environment alone."""

import os
from collections.abc import Mapping

from ggufsteer.tui import track


def ascii_only(environment: Mapping[str, str] | None = None) -> bool:
    """Say whether a terminal was declared that knows no Unicode.

    An environment that says nothing (a bare ssh) is taken for one that does: such terminals have become rare.

    >>> ascii_only({"LC_ALL": "C"}), ascii_only({"LANG": "de_DE.UTF-8"}), ascii_only({})
    (True, False, False)
    """
    variables = os.environ if environment is None else environment
    if variables.get("TERM", "") in ("dumb", "vt100", "vt102", "vt220"):
        return True
    # The order in which the C library looks.
    locale = next((variables[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if variables.get(name)), "")
    return bool(locale) and "utf" not in locale.lower()


def signs() -> track.Signs:
    """Return the characters for tracks on this terminal."""
    return track.ASCII if ascii_only() else track.UNICODE


def is_light(environment: Mapping[str, str] | None = None) -> bool:
    """Say whether the terminal told that its background is light; most tell nothing.

    >>> is_light({"COLORFGBG": "0;15"}), is_light({"COLORFGBG": "15;0"}), is_light({})
    (True, False, False)
    """
    variables = os.environ if environment is None else environment
    return variables.get("COLORFGBG", "").rpartition(";")[2] in ("7", "15")
