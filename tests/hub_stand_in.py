"""A stand-in for the model hub on this machine: lists, redirects, ranges, and faults on demand.

It answers as the real one does where the program looks: the list of a repository with hashes and sizes, downloads by
commit that lead to another host, error codes in headers.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "1234567890abcdef1234567890abcdef12345678"


@dataclass
class StandIn:
    """What the hub holds, how it misbehaves, and what it was asked."""

    repositories: dict[str, dict[str, bytes]]
    """By name as "user/repository": the files."""
    commit: str = COMMIT
    refuse: tuple[int, Mapping[str, str]] | None = None
    """Status and headers that everything is answered with."""
    refuse_downloads: tuple[int, Mapping[str, str]] | None = None
    cut: Callable[[int], int] | None = None
    """How many of so many bytes a download gets before the connection is cut."""
    stalls: int = 0
    """How many downloads stay open, without another byte, where they would be cut."""
    sent: Callable[[bytes], bytes] | None = None
    """What is sent instead of a file's bytes."""
    knows_ranges: bool = True
    silent: bool = False
    """Whether there is never an answer."""
    listing: bytes | None = None
    """What is sent instead of the list of a repository."""
    small: set[str] = field(default_factory=set)
    """Paths that are no LFS files: they have git's hash and no redirect."""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Method and path, and headers, of every request."""
    address: str = ""
    other_host: str = ""
    over: threading.Event = field(default_factory=threading.Event)

    def downloads(self) -> list[dict[str, str]]:
        """Give the headers of the requests for a file's bytes."""
        return [headers for what, headers in self.asked if what.startswith("GET /bytes/")]

    def list_of(self, repository: str) -> bytes:
        """Make the answer to the question what a repository holds."""
        siblings = []
        for path, data in self.repositories[repository].items():
            entry: dict[str, object] = {"rfilename": path, "size": len(data), "blobId": _git_hash(data)}
            if path not in self.small:
                entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            siblings.append(entry)
        return json.dumps({"id": repository, "sha": self.commit, "siblings": siblings}).encode()


def _git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@contextmanager
def serving(hub: StandIn) -> Iterator[StandIn]:
    """Answer requests until the end; `hub.address` is what HF_ENDPOINT is to be."""

    class Handler(_Handler):
        stand_in = hub

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        port = server.server_address[1]
        hub.address, hub.other_host = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.over.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    stand_in: StandIn

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        """Tell a file's hash and size, as huggingface_hub asks for them."""
        self._answer()

    def do_GET(self) -> None:
        """Answer a question or a download."""
        self._answer()

    def _answer(self) -> None:
        hub = self.stand_in
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        hub.asked.append((f"{self.command} {path}", dict(self.headers)))
        if hub.silent:
            hub.over.wait()
        elif hub.refuse is not None:
            self._send(*hub.refuse, b"")
        elif listed := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/\w+", path):
            known = listed[1] in hub.repositories
            body = (hub.listing or hub.list_of(listed[1])) if known else b""
            self._send(200 if known else 404, {} if known else {"X-Error-Code": "RepoNotFound"}, body)
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/\w+/(.*)", path):
            self._resolve(found[1], found[2])
        elif found := re.fullmatch(r"/bytes/([^/]+/[^/]+)/(.*)", path):
            self._send_bytes(hub.repositories[found[1]][found[2]])
        else:
            self._send(404, {}, b"")

    def _resolve(self, repository: str, path: str) -> None:
        hub = self.stand_in
        data = hub.repositories[repository].get(path)
        if hub.refuse_downloads is not None or data is None:
            self._send(*(hub.refuse_downloads or (404, {"X-Error-Code": "EntryNotFound"})), b"")
        elif path in hub.small:
            self._send_bytes(data, {"X-Repo-Commit": hub.commit, "ETag": f'"{_git_hash(data)}"'})
        else:
            headers = {
                "X-Repo-Commit": hub.commit,
                "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"',
                "X-Linked-Size": str(len(data)),
                "Location": f"{hub.other_host}/bytes/{repository}/{urllib.parse.quote(path)}",
            }
            self._send(302, headers, b"")

    def _send_bytes(self, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        hub = self.stand_in
        data = hub.sent(data) if hub.sent is not None else data
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if start is None or not hub.knows_ranges:
            self._send(200, headers or {}, data, is_download=True)
        elif int(start[1]) >= len(data):
            self._send(416, {"Content-Range": f"bytes */{len(data)}"}, b"")
        else:
            first = int(start[1])
            place = {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"}
            self._send(206, {**(headers or {}), **place}, data[first:], is_download=True)

    def _send(self, status: int, headers: Mapping[str, str], body: bytes, *, is_download: bool = False) -> None:
        hub = self.stand_in
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            count = hub.cut(len(body)) if is_download and hub.cut is not None else len(body)
            self.wfile.write(body[:count])
            if count < len(body) and hub.stalls:
                hub.stalls -= 1
                hub.over.wait()
