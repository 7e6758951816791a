"""RPC servers: how they are named, and that each is tried before llama.cpp would abort."""

import socket

import pytest

from ggufsteer.engine.devices_rpc import MOST_SERVERS, parse_servers, probe
from ggufsteer.errors import EngineError, ExitCode, SteerError


def test_servers_are_separated_by_commas() -> None:
    """As llama.cpp's programs take them; spaces and empty places do not matter."""
    assert parse_servers("localhost:50052, 10.0.0.7:1,") == ("localhost:50052", "10.0.0.7:1")
    assert parse_servers("[::1]:50052") == ("[::1]:50052",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("localhost", "localhost: not of the form"), (":50052", ":50052: not of the form"), ("a:b", "a:b"),
        ("a:0", "a:0"), ("a:65536", "a:65536"), ("a:1,a:1", "a:1 is there twice"), (",", "names 0 servers"),
        (",".join(f"a:{port}" for port in range(1, MOST_SERVERS + 2)), "names 17 servers"),
    ],
)  # fmt: skip
def test_a_list_that_cannot_be_meant_is_refused(text: str, says: str) -> None:
    """The message names the one that is wrong."""
    with pytest.raises(SteerError, match=says) as caught:
        parse_servers(text)
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.hint


def test_a_server_that_listens_is_there_and_one_that_is_gone_is_not() -> None:
    """The port is tried; the message names it and how a server is started."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = f"127.0.0.1:{listening.getsockname()[1]}"
        probe(server)
    with pytest.raises(EngineError, match=f"--rpc {server}: no answer: Connection refused") as caught:
        probe(server)
    assert "ggml-rpc-server" in caught.value.hint
