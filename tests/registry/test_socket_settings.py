"""Each of the sixteen variables of the sockets does something (D-38): the specific one, else the generic one."""

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from golden import Agents, send
from sockets import Calls, decoded, described, kind_of, open_socket
from test_weaknesses import Serve, agents, calling

__all__ = ["agents"]

PATHS = {"PUBLIC_WS": "/public/ws", "AGENT_WS": "/agents/ws", "DASHBOARD_WS": "/dashboard/ws"}
BY_INTERVAL = {"PUBLIC_WS": "stats_update", "AGENT_WS": "array", "DASHBOARD_WS": "monitoring"}


def entered(link: ClientConnection, calls: Calls, name: str) -> None:
    """Past the authentication."""
    if name != "PUBLIC_WS":
        calls.admin()
        link.send(json.dumps({"type": "auth", "token": calls.tokens["<admin-token>"]}))


def wait(link: ClientConnection, wanted: Callable[[Any], bool], count: int, seconds: float) -> float:
    """How long until that many frames of the kind came."""
    started = time.monotonic()
    while count:
        left = started + seconds - time.monotonic()
        count -= wanted(decoded(link.recv(timeout=max(0.0, left))))
    return time.monotonic() - started


@pytest.mark.parametrize("variable", ["specific", "generic"])
@pytest.mark.parametrize("name", PATHS)
def test_interval(serve: Serve, agents: Agents, name: str, variable: str) -> None:
    """Rules: REG-311, REG-336, REG-342, REG-504"""
    setting = f"{name}_INTERVAL" if variable == "specific" else "WEBSOCKET_INTERVAL"
    with calling(serve, agents, {setting: "1"}) as calls, open_socket(calls.server, PATHS[name]) as link:
        entered(link, calls, name)
        # Far sooner than any default would have it.
        assert 1 < wait(link, lambda frame: kind_of(frame) == BY_INTERVAL[name], 3, 5) < 4.5


def test_a_specific_one_comes_before_a_generic_one(serve: Serve, agents: Agents) -> None:
    """Rules: REG-504"""
    settings = {"WEBSOCKET_INTERVAL": "600", "PUBLIC_WS_INTERVAL": "1"}
    with calling(serve, agents, settings) as calls, open_socket(calls.server, "/public/ws") as link:
        wait(link, lambda frame: kind_of(frame) == "stats_update", 2, 4)


@pytest.mark.parametrize("variable", ["specific", "generic"])
@pytest.mark.parametrize("name", ["PUBLIC_WS", "AGENT_WS"])
def test_ping_interval(serve: Serve, agents: Agents, name: str, variable: str) -> None:
    """Rules: REG-312, REG-335, REG-504"""
    setting = f"{name}_PING_INTERVAL" if variable == "specific" else "WEBSOCKET_PING_INTERVAL"
    with calling(serve, agents, {setting: "1"}) as calls, open_socket(calls.server, PATHS[name]) as link:
        entered(link, calls, name)
        assert 1 < wait(link, lambda frame: frame == "ping", 2, 5) < 4.5


def test_ping_interval_of_the_dashboard(serve: Serve, agents: Agents) -> None:
    """Rules: REG-188, REG-504

    The dashboard's ping comes after a minute at the soonest (its machine is tested with a clock of its own), so what is
    seen here is what the page is told.
    """
    for setting in ("DASHBOARD_WS_PING_INTERVAL", "WEBSOCKET_PING_INTERVAL"):
        with calling(serve, agents, {setting: "7"}) as calls:
            told = send(calls.server, "GET", "/dashboard/config", calls.admin(), None).json
            assert told["ws_ping_interval_ms"] == 7000, setting


@pytest.mark.parametrize("variable", ["specific", "generic"])
@pytest.mark.parametrize("name", PATHS)
def test_most_connections(serve: Serve, agents: Agents, name: str, variable: str) -> None:
    """Rules: REG-300, REG-504"""
    setting = f"{name}_MAX_CONNECTIONS" if variable == "specific" else "WEBSOCKET_MAX_CONNECTIONS"
    with calling(serve, agents, {setting: "1"}) as calls, open_socket(calls.server, PATHS[name]) as first:
        entered(first, calls, name)
        first.recv(timeout=5)
        if name == "AGENT_WS":
            wait(first, lambda frame: kind_of(frame) == "array", 1, 5)
        with pytest.raises(InvalidStatus) as refused, open_socket(calls.server, PATHS[name]):
            pass
        assert refused.value.response.status_code == 403


@pytest.mark.parametrize("variable", ["specific", "generic"])
@pytest.mark.parametrize("name", ["AGENT_WS", "DASHBOARD_WS"])
def test_time_to_authenticate(serve: Serve, agents: Agents, name: str, variable: str) -> None:
    """Rules: REG-331, REG-340, REG-504"""
    setting = f"{name}_TIMEOUT" if variable == "specific" else "WEBSOCKET_TIMEOUT"
    with calling(serve, agents, {setting: "1"}) as calls, open_socket(calls.server, PATHS[name]) as link:
        started = time.monotonic()
        with pytest.raises(ConnectionClosed) as closed:
            wait(link, lambda _: False, 1, 5)
        assert 0.5 < time.monotonic() - started < 3
        assert closed.value.rcvd is not None
        expected = (1008, "Authentication timeout") if name == "AGENT_WS" else (4000, "Internal server error")
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == expected


@pytest.mark.parametrize("setting", ["PUBLIC_WS_TIMEOUT", "WEBSOCKET_TIMEOUT"])
def test_time_for_who_does_not_read(serve: Serve, agents: Agents, setting: str) -> None:
    """Rules: REG-504"""
    request = (
        b"GET /public/ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n"
    )
    with calling(serve, agents, {setting: "1", "PUBLIC_WS_MAX_CONNECTIONS": "1"}) as calls, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", calls.server.port))
        deaf.sendall(request)
        assert deaf.recv(20).startswith(b"HTTP/1.1 101")
        # More than what its buffers take.
        ballast = {f"key-{at}": "x" * 1000 for at in range(40)}
        for at in range(70):
            value = described(f"agent-{at}", "testing", "http://agent.example") | {"metadata": ballast}
            calls.post("/agents/register", value, calls.admin())
        # Frames of megabytes until none of them can be put down anywhere any more; then its place is free again.
        deadline = time.monotonic() + 15
        while True:
            send(calls.server, "DELETE", "/agents/agent-1", calls.admin(), None)
            calls.register("agent-1")
            try:
                with open_socket(calls.server, "/public/ws") as link:
                    assert kind_of(decoded(link.recv(timeout=5))) == "welcome"
                return
            except InvalidStatus:
                assert time.monotonic() < deadline, "who does not read is still there"
