"""Asking the hub: one request at a time, with limits of time, and redirects that never carry the token away.

huggingface_hub's own client retries an unreachable hub for twenty seconds and begins a download anew in every run, so
requests are made here; the person's token is found by huggingface_hub. This module does not know what is asked for.
"""

from __future__ import annotations

import functools
import http.client
import os
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from typing import IO, Any

from ggufsteer.errors import SteerError
from ggufsteer.version import VERSION

SECONDS = 10.0
"""How long to wait for a connection, and for the next piece of an answer."""
MOST_REDIRECTS = 5

Response = http.client.HTTPResponse


class RefusedError(Exception):
    """The hub answered with an error."""

    def __init__(self, status: int, headers: Message) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        # Nothing of it is shown, so it may hold anything.
        self.code = headers.get("X-Error-Code") or ""
        """The hub's word for it, such as "GatedRepo"."""
        self.retry_after = _seconds_to_wait(headers)


class UnreachableError(Exception):
    """No answer came, or it broke off: no network, no such host, a limit of time, a cut connection."""


def _seconds_to_wait(headers: Message) -> str:
    """Read how long to wait: Retry-After, or what the hub puts into its own `RateLimit: "api";r=0;t=55`."""
    found = re.search(r"\bt=(\d{1,6})\b", headers.get("RateLimit") or "")
    given = headers.get("Retry-After") or (found[1] if found else "")
    return given if re.fullmatch(r"[0-9]{1,6}", given) else ""


def endpoint() -> str:
    """Give the hub's address: HF_ENDPOINT, else the public one.

    Raises:
        SteerError: HF_ENDPOINT is no address.
    """
    given = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if urllib.parse.urlsplit(given).scheme not in ("http", "https"):
        raise SteerError(f"HF_ENDPOINT is {given!r:.100}, not an address", "write it as https://huggingface.co")
    return given.rstrip("/")


def token() -> str:
    """Give the person's token for the hub, from HF_TOKEN or from `hf auth login`; "" where there is none.

    Raises:
        SteerError: It holds what no token can.
    """
    from huggingface_hub import get_token

    found = get_token() or ""
    if not re.fullmatch(r"[!-~]*", found):
        raise SteerError(
            "the token for the hub (HF_TOKEN) holds spaces or unprintable characters", "copy it again from the hub"
        )
    return found


def seconds() -> float:
    """Give the limit of time of one wait: HF_HUB_DOWNLOAD_TIMEOUT, else ten seconds."""
    given = os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT", "")
    return float(given) if re.fullmatch(r"\d{1,4}", given) and int(given) else SECONDS


@contextmanager
def opened(address: str, headers: Mapping[str, str] | None = None, *, limit: float | None = None) -> Iterator[Response]:
    """Ask for an address and follow where it leads; yields the answer, whose body the caller reads.

    Args:
        address: Where to ask.
        headers: What else to say.
        limit: Seconds to wait at most each time, where that is less than usual.

    Raises:
        RefusedError: The answer is an error.
        UnreachableError: There is none.
    """
    secret = token()
    home, here = _origin(address), address
    for _ in range(MOST_REDIRECTS + 1):
        own = {"User-Agent": f"ggufsteer/{VERSION}", "Accept-Encoding": "identity", **(headers or {})}
        if secret and _origin(here) == home:
            own["Authorization"] = f"Bearer {secret}"
        with _asked(here, own, min(limit or seconds(), seconds())) as response:
            if response.status not in (301, 302, 303, 307, 308):
                yield response
                return
            here = _next(here, response.headers.get("Location") or "")
    raise UnreachableError("the answer leads in a circle")


def read(response: Response, count: int) -> bytes:
    """Read what has come, at most so many bytes; b"" at the end.

    Raises:
        UnreachableError: The connection broke, or nothing came for too long.
    """
    try:
        return response.read1(count)
    except (OSError, http.client.HTTPException) as problem:
        raise UnreachableError(_words(problem)) from problem


def read_all(response: Response, limit: int) -> bytes:
    """Read a whole answer, at most so many bytes; raises as `read` does."""
    try:
        return response.read(limit)
    except (OSError, http.client.HTTPException) as problem:
        raise UnreachableError(_words(problem)) from problem


@contextmanager
def _asked(address: str, headers: Mapping[str, str], limit: float) -> Iterator[Response]:
    try:
        response = _opener().open(urllib.request.Request(address, headers=dict(headers)), timeout=limit)
    except urllib.error.HTTPError as problem:
        with problem:
            if problem.code in (301, 302, 303, 307, 308) and isinstance(problem.fp, http.client.HTTPResponse):
                yield problem.fp
                return
            raise RefusedError(problem.code, problem.headers) from problem
    except (OSError, http.client.HTTPException, ValueError) as problem:
        raise UnreachableError(_words(problem)) from problem
    with response:
        yield response


class _StayingHere(urllib.request.HTTPRedirectHandler):
    """Follows nothing: where to go with which headers is decided above."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """Leave the answer as it is."""
        del req, fp, code, msg, headers, newurl


@functools.cache
def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_StayingHere(), urllib.request.HTTPSHandler(context=_certificates()))


def _certificates() -> ssl.SSLContext:
    """Trust what the system trusts; some Pythons know no such place, so the certificates of certifi come on top."""
    context = ssl.create_default_context()
    try:
        import certifi
    except ImportError:
        return context
    context.load_verify_locations(certifi.where())
    return context


def _origin(address: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(address)
    return parts.scheme, parts.netloc.lower()


def _next(address: str, location: str) -> str:
    there = urllib.parse.urljoin(address, location)
    scheme = urllib.parse.urlsplit(there).scheme
    if not location or scheme not in ("http", "https") or (address.startswith("https:") and scheme != "https"):
        raise UnreachableError("the answer leads to no safe address")
    return there


def _words(problem: Any) -> str:
    reason = getattr(problem, "reason", problem)
    if isinstance(reason, TimeoutError):
        return "nothing came for too long"
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
