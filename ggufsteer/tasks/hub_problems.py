"""What the hub's refusals mean for the person who asked, and how each is mended."""

from __future__ import annotations

from ggufsteer.errors import HubError
from ggufsteer.files.hub_names import HubName
from ggufsteer.tasks.hub_http import RefusedError, endpoint, token

_TOKENS = "make a token on the hub (Settings, Access Tokens) and put it into HF_TOKEN, or run `hf auth login`"


def refused(name: HubName, problem: RefusedError) -> HubError:
    """Word an answer that is an error."""
    page = f"{endpoint()}/{name.repository}"
    if problem.code == "GatedRepo" or problem.status == 403:
        return _gated(name, page)
    if problem.status == 401:
        return _unauthorised(name)
    if problem.status == 429:
        return _too_many(name, problem)
    if problem.status in (404, 410):
        where = f"the file is gone from {page}" if problem.code == "EntryNotFound" else f"there is no {page}"
        return HubError(f"{name}: {where}", "check the spelling, upper and lower case included")
    if problem.status >= 500:
        return HubError(
            f"{name}: the hub is in trouble (HTTP {problem.status})",
            "run the same command again later; what has come is kept",
        )
    return HubError(f"{name}: the hub refuses (HTTP {problem.status})", f"look at {page} in a browser")


def _gated(name: HubName, page: str) -> HubError:
    steps = f"ask for access at {page}" + ("" if token() else f"; then {_TOKENS}")
    return HubError(f"{name}: the repository is gated: its owner decides who may have the files", steps)


def _unauthorised(name: HubName) -> HubError:
    if token():
        return HubError(
            f"{name}: the hub does not accept the token, or it gives no access to this repository",
            "check the spelling, and HF_TOKEN or `hf auth whoami`",
        )
    # The hub hides private repositories: it gives the same answer for those and for names that nobody has.
    return HubError(
        f"{name}: there is no such repository, or it is private or gated", f"check the spelling; else {_TOKENS}"
    )


def _too_many(name: HubName, problem: RefusedError) -> HubError:
    wait = f"in {problem.retry_after} seconds" if problem.retry_after else "in some minutes"
    more = "" if token() else "; with a token (HF_TOKEN) the hub allows more"
    return HubError(f"{name}: the hub had too many requests from here", f"run the same command again {wait}{more}")


def unreachable(name: HubName, reason: object) -> HubError:
    """Word an answer that did not come."""
    return HubError(
        f"{name}: {endpoint()} cannot be reached: {reason}",
        "check the network (and HF_ENDPOINT, if it is set), then run the same command again: it goes on from there",
    )


def offline(name: HubName) -> HubError:
    """Word that the network was forbidden and the file is not here."""
    return HubError(
        f"{name}: is not on this machine, and the network is off (--offline or HF_HUB_OFFLINE)",
        f"download it once with the network on: ggufsteer pull {name}",
    )
