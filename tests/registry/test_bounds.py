"""Input that is too large, too deep, too slow or too odd."""

import json
import socket
import time
from typing import Any

import pytest

from golden import Agents, send
from servers import Server
from sockets import Calls, described
from test_weaknesses import Serve, agents, calling, calls, get

__all__ = ["agents", "calls"]

JSON = {"Content-Type": "application/json"}
POST = b"POST /public/search HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"


def raw(server: Server, request: bytes, patience: float = 10) -> bytes:
    """What the server answers to these bytes, until it closes or falls silent."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=patience) as link:
        answer = b""
        try:
            link.sendall(request)
            while chunk := link.recv(65536):
                answer += chunk
                if b"\r\n\r\n" in answer and b"connection: close" not in answer.lower():
                    break
        except OSError:
            pass
        return answer


def test_bodies_are_bounded_even_in_chunks(server: Server) -> None:
    """Rules: REG-115"""
    head = POST + b"transfer-encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    before = server.memory()
    answer = raw(server, head + chunk * 24 + b"0\r\n\r\n")
    assert b" 413 " in answer.split(b"\r\n")[0], answer[:200]
    # Also without an end.
    answer = raw(server, head + chunk * 200)
    assert not answer or b" 413 " in answer.split(b"\r\n")[0], answer[:200]
    assert server.memory() - before < 64 << 20


def test_declared_bodies_are_refused_before_they_come(server: Server) -> None:
    """Rules: REG-115"""
    head = POST + b"content-length: 99999999999\r\n\r\n"
    started = time.monotonic()
    answer = raw(server, head, patience=20)
    assert b" 413 " in answer.split(b"\r\n")[0], answer[:200]
    # It listens a moment longer, so that whoever sends on gets the answer.
    assert time.monotonic() - started < 8


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"query":' * 50_000, '{"query": ' + "[" * 5000 + "]" * 5000 + "}"])
def test_deep_json_is_refused(server: Server, deep: str) -> None:
    """Rules: REG-100, REG-184"""
    answer = send(server, "POST", "/public/search", JSON, deep.encode())
    assert answer.status in (400, 422), answer.status
    assert len(answer.text) < 10_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"3",
        b'"x"',
        b'{"query": null}',
        b'{"query": 3}',
        b'{"query": ["a"]}',
        b'{"query": "\xff\xfe"}',
        b'{"query": "golden", "top_k": 1e400}',
        b'{"query": "golden", "top_k": 1.5}',
        b'{"query": "golden", "min_similarity": NaN}',
        b'{"query": "golden", "weighted": "perhaps"}',
        b'{"query": "\\ud800 alone"}',
        b"\x00\x01\x02",
    ],
)
def test_odd_bodies_are_refused_clearly(server: Server, body: bytes) -> None:
    """Rules: REG-075, REG-100, REG-104"""
    answer = send(server, "POST", "/public/search", JSON, body)
    assert answer.status in (400, 422), f"{answer.status} {answer.text}"
    problem = answer.json
    assert problem["type"].startswith("https://arcp.0x001.tech/docs/problems/")
    assert problem["detail"]


def test_headers_and_queries_are_bounded(server: Server) -> None:
    """Rules: REG-113, REG-115"""
    assert send(server, "GET", "/health", {"X-Big": "y" * 9000}, None).status == 413
    many = {f"X-{at}": "v" for at in range(90)}
    assert send(server, "GET", "/health", many, None).status in (200, 413, 431)
    query = "&".join(f"a{at}=1" for at in range(51))
    assert send(server, "GET", f"/public/discover?{query}", {}, None).status == 400
    # Beyond what a server reads of a request line.
    answer = raw(server, b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nhost: h\r\n\r\n")
    assert not answer or answer.split(b" ")[1] in (b"400", b"413", b"414", b"431"), answer[:100]
    assert send(server, "GET", "/health", {}, None).status == 200


@pytest.mark.parametrize(
    "text",
    [
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/9.9\r\nhost: h\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /health HTTP/1.1\r\nhost: h\r\nbad header\r\n\r\n",
        b"POST /public/search HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n",
        b"POST /public/search HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /public/agent/%00%ff%2e%2e%2f HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET //public//discover HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET /public/../agents HTTP/1.1\r\nhost: h\r\n\r\n",
    ],
)
def test_odd_requests_harm_nobody(server: Server, text: bytes) -> None:
    """Rules: REG-102"""
    answer = raw(server, text, patience=2)
    assert b" 500 " not in answer.split(b"\r\n")[0]
    assert send(server, "GET", "/health", {}, None).status == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("endpoint", "http://" + "a." * 1000),
        ("endpoint", "http://" + "a" * 2048),
        ("version", "1.0.0-" + "a" * 100_000),
        ("version", "1." * 50_000),
        ("capabilities", ["a b " * 20_000]),
        ("public_key", "=" * 900_000),
        ("context_brief", " " * 900_000),
        (
            "requirements",
            {"required_fields": [{"name": "a", "label": "a", "type": "text", "validation": "(a+)+$" * 80}]},
        ),
        ("requirements", {"network_ports": ["1-" * 10_000]}),
        ("metadata", {"k" * 100 + str(at): "v" for at in range(51)}),
    ],
)
def test_checks_take_no_time(calls: Calls, field: str, value: Any) -> None:
    """Rules: REG-070, REG-071, REG-072, REG-101"""
    body = json.dumps(described("an-agent", "testing", "http://agent.example") | {field: value}).encode()
    headers = calls.admin() | JSON
    started = time.monotonic()
    answer = send(calls.server, "POST", "/agents/register", headers, body)
    assert time.monotonic() - started < 1
    assert answer.status in (200, 422), answer.status
    assert len(answer.text) < 20_000


def test_slow_requests_are_given_up(server: Server) -> None:
    """Rules: REG-115"""
    # A thousand connections that say nothing keep nobody out.
    links = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(300)]
    try:
        for link in links:
            link.sendall(b"POST /public/search HTTP/1.1\r\nhost: h\r\n")
        started = time.monotonic()
        assert send(server, "GET", "/health", {}, None).status == 200
        assert time.monotonic() - started < 2
    finally:
        for link in links:
            link.close()


def test_secrets_reach_no_output(serve: Serve, agents: Agents) -> None:
    """Rules: REG-132, REG-150, REG-151"""
    with calling(serve, agents, {"ENVIRONMENT": "testing", "LOG_LEVEL": "DEBUG"}) as calls:
        server = calls.server
        calls.admin()
        token = calls.temporary("agent-1", "test-agent-001")
        calls.post("/auth/set_pin", {"pin": "48213"}, calls.admin())
        wrong = {"agent_id": "agent-1", "agent_type": "testing", "agent_key": "a-secret-wrong-key"}
        refused = calls.post("/auth/agent/request_temp_token", wrong, status=401)
        calls.post("/auth/login", {"username": "ARCP", "password": "a-secret-password"}, status=401)
        headers = JSON | {"X-Client-Fingerprint": "fp"}
        garbled = send(server, "POST", "/auth/login", headers, b'{"password": "a-secret-body"')
        for text in (refused.text, garbled.text, server.output):
            for secret in ("a-secret", "test-agent-001", "48213", token, calls.tokens["<admin-token>"]):
                assert secret not in text
        held = b"".join(path.read_bytes() for path in server.folder.rglob("*") if path.is_file())
        for secret in (b"test-agent-001", b"48213", token.encode(), calls.tokens["<admin-token>"].encode()):
            assert secret not in held


def test_health_is_well_without_optional_parts(server: Server) -> None:
    """Rules: REG-145, REG-180"""
    health = get(Calls(server, None), "/health")  # type: ignore[arg-type]
    assert health["status"] == "healthy"
