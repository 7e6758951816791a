"""Which of llama.cpp's RPC servers take part: their names read, their ports tried.

llama.cpp aborts where a server is not there, so each is tried before; the connection itself is made in
`ggufsteer.engine.devices`. It imports no llama.cpp.
"""

import socket

from ggufsteer.errors import EngineError, SteerError

VARIABLE = "GGUFSTEER_RPC_SERVERS"
"""The environment variable that names the servers to a process that may end in llama.cpp's abort."""

MOST_SERVERS = 16
"""What llama.cpp takes at most."""

START = "start it there with `ggml-rpc-server -H HOST -p PORT`, of the same version as llama.cpp here"
_PATIENCE = 5.0


def parse_servers(text: str) -> tuple[str, ...]:
    """Give the servers of a list such as `localhost:50052,192.168.1.7:50052`.

    Raises:
        SteerError: One is not HOST:PORT, is there twice, or they are too many.
    """
    servers = tuple(filter(None, (one.strip() for one in text.split(","))))
    for server in servers:
        host, _, port = server.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise SteerError(f"--rpc {server}: not of the form HOST:PORT", "such as localhost:50052")
        if servers.count(server) > 1:
            raise SteerError(f"--rpc {server} is there twice", "name each server once")
    if not 0 < len(servers) <= MOST_SERVERS:
        raise SteerError(f"--rpc names {len(servers)} servers", f"name 1 to {MOST_SERVERS}, separated by commas")
    return servers


def probe(server: str, patience: float = _PATIENCE) -> None:
    """Make sure that something listens there.

    Raises:
        EngineError: Nothing does.
    """
    host, _, port = server.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=patience).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise EngineError(f"--rpc {server}: no answer: {reason}", START) from error
