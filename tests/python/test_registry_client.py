"""The registry half of the client: attributes, errors, where a subclass may step in, tasks."""

import asyncio
import builtins
import json
import logging
import pickle
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest

import arcp
from arcp import (
    AgentNotFoundError,
    ARCPClient,
    ARCPError,
    AuthenticationError,
    ClientInfo,
    ConfigurationError,
    ConnectionError,
    RegistrationError,
    RegistryClient,
    SearchError,
    ValidationError,
)
from arcp.client import MetricsSnapshot, get_system_health, monitor_system
from arcp.registry import errors
from conftest import TOKEN, make_runtime, run
from registry_peer import AGENT, HANG, Answer, Asked, by_path, scripted

GOLDEN = Path(__file__).parents[1] / "corpus" / "registry" / "golden" / "client.json"
HEALTHY = {"status": "healthy"}
NEW = {name: AGENT[name] for name in ("agent_id", "name", "agent_type", "endpoint", "capabilities", "context_brief")}
REGISTERED = {
    "POST /auth/agent/request_temp_token": {"temp_token": "TT", "token_type": "bearer", "expires_in": 900},
    "POST /agents/register": {"status": "success", "agent_id": "a-1", "access_token": "AT"},
    "GET /agents/a-1": AGENT,
}


# What there is.


def test_names() -> None:
    """Rules: REG-001, REG-002, REG-004"""
    import pydantic

    contract = json.loads(GOLDEN.read_text())["entries"][0]["exports"]
    assert set(contract) <= set(arcp.__all__)
    assert arcp.ValidationError is pydantic.ValidationError
    assert isinstance(arcp.get_client("http://localhost:8001", timeout=5.0), ARCPClient)
    assert "get_client" not in arcp.__all__
    assert {"MetricsSnapshot", "get_system_health", "monitor_system"} <= set(arcp.client.__all__)


def test_get_app_says_what_to_do() -> None:
    """Rules: REG-001"""
    with pytest.raises(ConfigurationError, match="arcp registry serve"):
        arcp.get_app()


def test_what_a_new_client_shows() -> None:
    """Rules: REG-010, REG-011, REG-024"""
    client = ARCPClient("http://localhost:8001/")
    assert client.base_url == "http://localhost:8001"
    assert (client.timeout, client.retry_attempts, client.max_retries) == (30.0, 3, 3)
    assert (client.retry_delay, client.max_retry_delay) == (1.0, 60.0)
    assert client.user_agent == "ARCPClient/2.0.3"
    assert (client._client, client._access_token, client._token_expires_at) == (None, None, None)
    assert (client._refresh_token, client._session_id) == (None, None)
    assert re.fullmatch(r"[0-9a-f-]{36}", client._client_fingerprint)
    assert client._client_fingerprint != ARCPClient("http://localhost:8001")._client_fingerprint
    assert not client.is_authenticated()


def test_a_repr_holds_no_secret() -> None:
    client = RegistryClient("http://user:hunter2@localhost:8001", access_token="hunter2", agent_key="hunter2")
    assert "hunter2" not in repr(client)
    assert "localhost:8001" in repr(client)


def test_settings_count_when_they_are_changed() -> None:
    """Rules: REG-010"""

    async def main() -> None:
        async with scripted(HEALTHY) as peer:
            client = ARCPClient("http://127.0.0.1:1", user_agent="before")
            client._access_token = "T"
            client.base_url, client.user_agent, client.max_retries = peer.url, "after", 0
            await client.health_check()
            assert peer.asked[0].headers["user-agent"] == "after"
            assert client.retry_attempts == 0
            assert client._access_token == "T"
            client._token_expires_at = datetime.now(UTC) + timedelta(minutes=1)
            assert client.is_authenticated()
            await client.close()

    run(main)


# Two halves.


def test_a_half_that_was_not_set_up_says_what_is_missing() -> None:
    async def main() -> None:
        registry = ARCPClient("http://localhost:8001")
        ours, theirs = arcp.pair_memory_transports()
        for call in (registry.submit(agent="echo"), registry.list_jobs(), registry.connect(ours)):
            with pytest.raises(ConfigurationError, match=r"client=ClientInfo.*token="):
                await call
        assert registry.session_id is None
        # What could not be used is not used up.
        await ours.send({"type": "x"})
        await ours.close()
        await theirs.close()
        runtime = ARCPClient(client=ClientInfo(name="a", version="1"), token=TOKEN)
        with pytest.raises(ConfigurationError, match="base_url="):
            await runtime.health_check()
        await runtime.close()
        await registry.close()

    run(main)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "base_url=.*client= and token="),
        ({"base_url": "http://h", "token": "t"}, "client= is missing.*access_token="),
        ({"client": ClientInfo(name="a", version="1")}, "token= is missing"),
        ({"base_url": "http://h", "features": []}, "client= and token="),
        ({"base_url": 8001}, "base_url must be a text"),
    ],
)
def test_arguments_that_make_no_half(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(TypeError, match=told):
        ARCPClient(**arguments)


def test_one_client_with_both_halves() -> None:
    async def echo(input: Any, ctx: Any) -> Any:
        return input

    async def main() -> None:
        runtime = make_runtime({"echo": echo})
        ours, theirs = arcp.pair_memory_transports()
        accepting = asyncio.create_task(runtime.accept(theirs))
        async with scripted(HEALTHY) as peer:
            async with ARCPClient(peer.url, client=ClientInfo(name="a", version="1"), token=TOKEN) as client:
                await client.connect(ours)
                job = await client.submit(agent="echo", input=1)
                assert (await client.health_check())["status"] == "healthy"
                assert await job.result() == 1
            # The registry's half opens again, the session is over.
            assert (await client.health_check())["status"] == "healthy"
            with pytest.raises(arcp.TransportClosed):
                await client.submit(agent="echo")
            await client.close()
        await accepting
        await runtime.close()

    run(main)


# Life of a client.


def test_closing_and_using_again() -> None:
    """Rules: REG-012"""

    async def main() -> None:
        async with scripted(HEALTHY) as peer:
            client = ARCPClient(peer.url)
            async with client as entered:
                assert entered is client
                await client.health_check()
            await client.close()
            await client.close()
            assert await client.health_check() == HEALTHY
            await client.aclose()

    run(main)


def test_one_client_over_two_loops() -> None:
    client = ARCPClient("http://127.0.0.1:1", retry_attempts=0)

    async def main() -> None:
        async with scripted(HEALTHY) as peer:
            client.base_url = peer.url
            assert await client.health_check() == HEALTHY
            client._client = Sender()
            assert await client.health_check() == {"sent": True}
            client._client = None

    run(main)
    run(main)
    asyncio.run(client.close())


def test_a_cancelled_call_leaves_nothing() -> None:
    async def main() -> None:
        async with scripted(HANG) as peer, ARCPClient(peer.url) as client:
            call = asyncio.create_task(client.health_check())
            while not peer.asked:
                await asyncio.sleep(0.001)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    run(main)


# Where a subclass may step in.


class Sender:
    """As little of an HTTP client as there may be."""

    def __init__(self, answer: Any = None, error: Exception | None = None) -> None:
        self.sent: list[tuple[str, str, dict[str, Any]]] = []
        self.closed = 0
        self._answer = {"sent": True} if answer is None else answer
        self._error = error

    async def request(self, method: str, url: str, **more: Any) -> Any:
        self.sent.append((method, url, more))
        if self._error is not None:
            raise self._error
        response = AsyncMock()
        response.status_code = 200
        response.json.return_value = self._answer
        return response

    async def aclose(self) -> None:
        self.closed += 1


def test_a_client_of_one_s_own_sends_every_request() -> None:
    """Rules: REG-011, REG-013, REG-015"""

    class Pooled(ARCPClient):
        async def _ensure_client(self) -> None:
            if self._client is None:
                self._client = Sender([AGENT])

    async def main() -> None:
        client = Pooled("http://127.0.0.1:1/prefix")
        agents = await client.discover_agents(capabilities=["a", "b"])
        assert agents[0].agent_id == "a-1"
        sender = client._client
        method, url, more = sender.sent[0]
        assert (method, url) == ("GET", "http://127.0.0.1:1/prefix/public/discover")
        assert [pair for pair in more["params"] if pair[0] == "capabilities"] == [
            ("capabilities", "a"),
            ("capabilities", "b"),
        ]
        headers = {name.lower(): value for name, value in more["headers"].items()}
        assert headers["x-client-fingerprint"] == client._client_fingerprint
        assert headers["user-agent"] == client.user_agent
        await client.close()
        await client.close()
        assert (sender.closed, client._client) == (1, None)
        # And again on use.
        await client.discover_agents()
        assert client._client is not sender
        await client.close()

    run(main)


class ConnectError(Exception):
    """By the name HTTP libraries have for it."""


def test_what_a_client_of_one_s_own_raises() -> None:
    async def main() -> None:
        client = ARCPClient("http://127.0.0.1:1", retry_attempts=2, retry_delay=0.001)
        client._client = sender = Sender(error=ConnectError("nobody there"))
        with pytest.raises(ConnectionError, match=r"Health check failed: .*nobody there"):
            await client.health_check()
        assert len(sender.sent) == 3
        client._client = broken = Sender(error=KeyError("odd"))
        with pytest.raises(ARCPError):
            await client.health_check()
        assert len(broken.sent) == 1
        await client.close()

    run(main)


def test_a_request_of_one_s_own_stands_before_every_method() -> None:
    """Rules: REG-011"""

    class Watched(ARCPClient):
        seen: list[str]

        async def _request(self, method: str, endpoint: str, *args: Any, **kwargs: Any) -> Any:
            self.seen.append(f"{method} {endpoint}")
            return await super()._request(method, endpoint, *args, **kwargs)

    async def main() -> None:
        answers = {**REGISTERED, "GET /health": HEALTHY, "GET /metrics": "x 1\n", "GET /agents/zz": (404, {})}
        async with scripted(by_path(answers)) as peer, Watched(peer.url) as client:
            client.seen = []
            assert await client.health_check() == HEALTHY
            assert (await client.register_agent(**NEW, agent_key="test-agent-001")).agent_id == "a-1"
            assert await client.get_system_metrics() == "x 1\n"
            with pytest.raises(ARCPError) as caught:
                await client.get_agent("zz")
            assert caught.value.status == 404
            assert client.seen == peer.lines()
            authorization = [asked.headers.get("authorization") for asked in peer.asked]
            assert authorization[:4] == [None, None, "Bearer TT", "Bearer AT"]

    run(main)


def test_a_request_that_is_a_double() -> None:
    """Rules: REG-011"""

    async def main() -> None:
        client: Any = ARCPClient("http://127.0.0.1:1")
        client._request = AsyncMock(return_value=HEALTHY)
        assert await client.health_check() == HEALTHY
        assert client._request.await_args.args[:2] == ("GET", "/health")
        await client.close()

    run(main)


def test_headers_of_one_s_own() -> None:
    """Rules: REG-011"""

    class Proxied(ARCPClient):
        def _get_auth_headers(self) -> dict[str, str]:
            return {**super()._get_auth_headers(), "X-Tenant": "blue", "Authorization": "Bearer own"}

    async def main() -> None:
        async with scripted(by_path({"GET /agents/stats": {"n": 1}})) as peer, Proxied(peer.url) as client:
            assert await client._request("GET", "/agents/stats") == {"n": 1}
            # Also where the client itself has no token.
            assert await client.get_system_stats() == {"n": 1}
            client._access_token = "held"
            assert await client.get_system_stats() == {"n": 1}
            for asked in peer.asked:
                assert asked.headers["x-tenant"] == "blue"
                assert asked.headers["authorization"] == "Bearer own"
            with pytest.raises(ARCPError):
                await client.health_check()
            assert "authorization" not in peer.asked[-1].headers

    run(main)


def test_any_request() -> None:
    """Rules: REG-011, REG-014, REG-022, REG-025"""

    async def main() -> None:
        said: Callable[[Asked], Answer] = lambda asked: "" if asked.method == "DELETE" else {"n": 1}  # noqa: E731
        async with scripted(said) as peer, ARCPClient(peer.url + "/prefix") as client:
            client._access_token = "T"
            assert await client._request("DELETE", "/agents/a b") == {}
            asked = {"params": {"a": ["x", "y"], "b": True, "c": None}, "json_data": {"z": [1]}}
            assert await client._request("POST", "/x", **asked) == {"n": 1}
            await client._request("GET", "/x", public_api=True)
        assert peer.asked[0].path == "/prefix/agents/a%20b"
        assert peer.asked[1].params == [("a", "x"), ("a", "y"), ("b", "true")]
        assert peer.asked[1].json == {"z": [1]}
        assert [asked.headers.get("authorization") for asked in peer.asked] == ["Bearer T", "Bearer T", None]

    run(main)


# Tries and errors.


def test_slow_answers_are_tried_again() -> None:
    """Rules: REG-020"""

    async def main() -> None:
        answers = iter([HANG, HANG, HEALTHY])
        async with (
            scripted(lambda asked: next(answers)) as peer,
            ARCPClient(peer.url, timeout=0.2, retry_delay=0.01) as client,
        ):
            assert await client.health_check() == HEALTHY
        assert len(peer.asked) == 3

    run(main)


def test_a_busy_registry_is_asked_again_when_it_says() -> None:
    """Rules: REG-020"""

    async def main() -> None:
        answers = iter([(503, {}, {"Retry-After": "0"}), (429, {}, {"Retry-After": "0"}), HEALTHY])
        async with scripted(lambda asked: next(answers)) as peer, ARCPClient(peer.url, retry_delay=0.01) as client:
            assert await client.health_check() == HEALTHY
        assert len(peer.asked) == 3

    run(main)


def test_a_registry_that_is_not_there() -> None:
    """Rules: REG-020, REG-023"""

    async def main() -> None:
        client = ARCPClient("http://127.0.0.1:1", retry_attempts=1, retry_delay=0.001)
        with pytest.raises(ConnectionError, match="Health check failed: ") as caught:
            await client.health_check()
        assert isinstance(caught.value, builtins.ConnectionError)
        assert caught.value.retryable
        assert caught.value.status_code is None
        assert caught.value.__cause__ is not None
        for call, cls in (
            (client.search_agents("some query"), SearchError),
            (client.register_agent(**NEW, agent_key="k" * 12), RegistrationError),
            (client.login_admin("u", "p"), AuthenticationError),
        ):
            with pytest.raises(ConnectionError) as caught:
                await call
            assert isinstance(caught.value, cls)
        await client.close()

    run(main)


def test_time_that_ran_out() -> None:
    """Rules: REG-023"""

    async def main() -> None:
        async with scripted(HANG) as peer, ARCPClient(peer.url, timeout=0.1, retry_attempts=0) as client:
            with pytest.raises(ConnectionError) as caught:
                await client.health_check()
            assert isinstance(caught.value, builtins.TimeoutError)

    run(main)


def problem(status: int, slug: str, **more: Any) -> Answer:
    return status, {"type": f"https://h.example/{slug}", "status": status, "detail": f"about {slug}", **more}


@pytest.mark.parametrize(
    ("answer", "cls", "code"),
    [
        (problem(401, "token-invalid"), errors.TokenValidationError, "token-invalid"),
        (problem(403, "insufficient-permissions"), AuthenticationError, "insufficient-permissions"),
        (problem(404, "agent-not-found"), AgentNotFoundError, "agent-not-found"),
        (problem(404, "agent-not-available"), AgentNotFoundError, "agent-not-available"),
        (problem(500, "internal-error"), ARCPError, "internal-error"),
        (problem(422, "validation-failed", errors=[{"loc": ["limit"]}]), ARCPError, "validation-failed"),
    ],
)
def test_a_refusal(answer: Answer, cls: type[ARCPError], code: str) -> None:
    """Rules: REG-021, REG-023, REG-100"""

    async def main() -> None:
        async with scripted(answer) as peer, ARCPClient(peer.url, retry_attempts=0) as client:
            with pytest.raises(ARCPError, match="Failed to get public agent a-1: ") as caught:
                await client.get_public_agent("a-1")
            error = caught.value
            assert type(error) is cls
            assert (error.code, error.status, error.status_code) == (code, answer[0], answer[0])
            assert error.details is not None
            assert error.details["problem"]["detail"] == f"about {code}"
            assert error.details.get("errors") == answer[1].get("errors")
            assert isinstance(error.__cause__, ARCPError)
            assert str(error).endswith(str(error.__cause__))
            copy = pickle.loads(pickle.dumps(error))
            assert (type(copy), str(copy), copy.code, copy.status) == (cls, str(error), code, answer[0])

    run(main)


def test_a_refusal_without_a_slug() -> None:
    """Rules: REG-021, REG-102"""

    async def main() -> None:
        gone = {"status": "error", "message": "Agent not found"}
        answers = {"GET /agents/a-1": (404, gone), "GET /health": (404, {"detail": "Not Found"}), "GET /": (418, "tea")}
        async with scripted(by_path(answers)) as peer, ARCPClient(peer.url, access_token="T") as client:
            with pytest.raises(AgentNotFoundError) as missing:
                await client.get_agent("a-1")
            assert (missing.value.code, missing.value.status) == ("agent-not-found", 404)
            for call, code in ((client.health_check(), "not-found"), (client.get_system_info(), "request-error")):
                with pytest.raises(ARCPError) as caught:
                    await call
                assert (type(caught.value), caught.value.code) == (ARCPError, code)

    run(main)


def test_every_class_of_errors_pickles() -> None:
    """Rules: REG-003"""
    for name in dir(errors):
        cls = getattr(errors, name)
        if isinstance(cls, type) and issubclass(cls, ARCPError):
            error = cls("words", {"a": 1}, status=418)
            copy = pickle.loads(pickle.dumps(error))
            assert (type(copy), str(copy), copy.details, copy.status) == (cls, "words", {"a": 1}, 418)


def test_the_hierarchy() -> None:
    """Rules: REG-003"""
    for cls in (
        AuthenticationError,
        errors.AgentRegistrationError,
        AgentNotFoundError,
        ConfigurationError,
        SearchError,
    ):
        assert issubclass(cls, ARCPError)
    assert issubclass(RegistrationError, errors.AgentRegistrationError)
    assert errors.ARCPException is ARCPError
    assert errors.ARCPException("words", {"a": 1}).details == {"a": 1}


def test_data_that_is_refused_before_it_is_sent() -> None:
    """Rules: REG-033, REG-101"""

    async def main() -> None:
        async with scripted({}) as peer, ARCPClient(peer.url) as client:
            with pytest.raises(RegistrationError, match="Invalid registration data: ") as caught:
                await client.register_agent(**{**NEW, "name": "x", "max_tokens": 0})
            assert isinstance(caught.value.__cause__, ValidationError)
            assert {line["loc"] for line in caught.value.__cause__.errors()} == {("name",), ("max_tokens",)}
            assert caught.value.details is not None
            assert len(caught.value.details["errors"]) == 2
            with pytest.raises(SearchError, match="Invalid search parameters: "):
                await client.search_agents("some query", top_k=0)
            with pytest.raises(ARCPError, match="Invalid connection request: "):
                await client.request_agent_connection("a-1", "u 1", "nowhere")
            assert peer.asked == []

    run(main)


# Credentials.


def test_sensible_values_for_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules: REG-033"""
    monkeypatch.setenv("ARCP_AGENT_KEY", "test-agent-001")

    async def main() -> None:
        async with scripted(by_path(REGISTERED)) as peer, ARCPClient(peer.url, owner="Own") as client:
            await client.register_agent(**NEW)
            sent = next(asked.json for asked in peer.asked if asked.line == "POST /agents/register")
            assert (sent["version"], sent["communication_mode"], sent["owner"]) == ("1.0.0", "remote", "Own")
            assert len(sent["public_key"]) >= 32
            assert sent["metadata"]
            assert peer.asked[0].json["agent_key"] == "test-agent-001"

    run(main)


def test_several_agents_on_one_client() -> None:
    """Rules: REG-033"""

    def answer(asked: Asked) -> Answer:
        who = asked.json["agent_id"] if asked.json else asked.path.split("/")[2]
        if asked.path == "/auth/agent/request_temp_token":
            return {"temp_token": f"temporary of {who}", "token_type": "bearer", "expires_in": 900}
        if asked.path == "/agents/register":
            return {"status": "success", "agent_id": who, "access_token": f"token of {who}"}
        return {**AGENT, "agent_id": who} if asked.method == "GET" else {"status": "success"}

    async def main() -> None:
        async with scripted(answer) as peer, ARCPClient(peer.url) as client:
            await asyncio.gather(
                *(client.register_agent(**{**NEW, "agent_id": f"a-{n}"}, agent_key=f"test-agent-00{n}") for n in (1, 2))
            )
            peer.asked.clear()
            await asyncio.gather(client.update_heartbeat("a-1"), client.update_heartbeat("a-2"))
            assert {asked.path: asked.headers["authorization"] for asked in peer.asked} == {
                f"/agents/a-{n}/heartbeat": f"Bearer token of a-{n}" for n in (1, 2)
            }

    run(main)


def test_a_login_when_it_is_needed() -> None:
    def answer(asked: Asked) -> Answer:
        if asked.path == "/auth/login":
            return {"access_token": "NEW", "token_type": "bearer", "expires_in": 60}
        return {"n": 1} if asked.headers.get("authorization") == "Bearer NEW" else problem(401, "authentication-failed")

    async def main() -> None:
        async with scripted(answer) as peer:
            async with ARCPClient(peer.url, admin_username="ARCP", admin_password="secret") as client:
                assert await client.get_system_stats() == {"n": 1}
                assert client.is_authenticated()
                left = client._token_expires_at
                assert left is not None
                assert timedelta(seconds=50) < left - datetime.now(UTC) <= timedelta(seconds=60)
            assert "POST /auth/login" in peer.lines()

    run(main)


def test_nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The guide's debug mode: method, path, status, time and attempt."""
    caplog.set_level(logging.DEBUG, "arcp")

    async def main() -> None:
        async with scripted(by_path({**REGISTERED, "POST /auth/login": {"access_token": "hunter2"}})) as peer:
            async with ARCPClient(peer.url, access_token="hunter2") as client:
                await client.login_admin("ARCP", "hunter2")
                await client.register_agent(**NEW, agent_key="hunter2hunter2")
                with pytest.raises(ARCPError):
                    await client.get_system_stats()
            await asyncio.sleep(0.05)

    run(main)
    told = [record.getMessage() for record in caplog.records]
    assert not [text for text in told if "hunter2" in text]
    line = next(text for text in told if "/auth/login" in text)
    assert "POST" in line
    assert "200" in line
    assert re.search(r"\d+(\.\d+)? ?ms|\d\.\d+ ?s", line)


# Tasks and monitoring.


def test_a_heartbeat_task() -> None:
    """Rules: REG-059"""

    async def main() -> None:
        async with scripted(by_path({"POST /agents/a-1/heartbeat": {"status": "success"}})) as peer:
            client = ARCPClient(peer.url)
            beating = await client.start_heartbeat_task("a-1", interval=0.02)
            assert isinstance(beating, asyncio.Task)
            while len(peer.asked) < 3:
                await asyncio.sleep(0.005)
            beating.cancel()
            with pytest.raises(asyncio.CancelledError):
                await beating
            beats = len(peer.asked)
            await asyncio.sleep(0.06)
            assert len(peer.asked) <= beats + 1
            with pytest.raises(ValueError, match="interval"):
                await client.start_heartbeat_task("a-1", interval=0)
            await client.close()

    run(main)


def test_a_forgotten_agent_is_registered_again() -> None:
    """Rules: REG-059"""
    forgotten = True

    def answer(asked: Asked) -> Answer:
        nonlocal forgotten
        if asked.path == "/agents/a-1/heartbeat":
            return problem(404, "agent-not-found") if forgotten else {"status": "success"}
        if asked.path == "/agents/register" and len([a for a in peer.asked if a.path == asked.path]) > 1:
            forgotten = False
        return by_path(REGISTERED)(asked)

    async def main() -> None:
        nonlocal peer
        async with scripted(answer) as peer, ARCPClient(peer.url) as client:
            await client.register_agent(**NEW, agent_key="test-agent-001")
            beating = await client.start_heartbeat_task("a-1", interval=0.02)
            while forgotten:
                await asyncio.sleep(0.005)
            beating.cancel()

    peer: Any = None
    run(main)


FIGURES: dict[str, Answer] = {
    "POST /auth/login": {"access_token": "T", "token_type": "bearer", "expires_in": 60},
    "GET /metrics": "# HELP x y\narcp_system_cpu_utilization_percent 95.5\narcp_system_memory_utilization_percent 40\n"
    'arcp_requests_total{method="GET"} 7\n',
    "GET /agents/stats": {"registry_statistics": {"alive_agents": 1, "total_agents": 1}},
}


def test_monitoring(capsys: pytest.CaptureFixture[str]) -> None:
    """Rules: REG-050, REG-051, REG-052, REG-053, REG-054"""
    taken: list[MetricsSnapshot] = []

    async def main() -> None:
        async with scripted(by_path(FIGURES)) as peer, ARCPClient(peer.url) as client:
            await client.login_admin("U", "P")
            await client.monitor_system(0.01, taken.append, duration=0.1)
            await client.monitor_system(0.01, duration=0.015)
            health = await client.admin_health_check()
            assert health["status"] == "warning"
            assert health["checks"]["cpu_usage"]["threshold"] == 90
            assert health["checks"]["memory_usage"]["status"] == "healthy"
            assert health["checks"]["agent_availability"]["status"] == "healthy"
            exported = json.loads(await client.export_metrics("json"))
            assert list(exported) == ["timestamp", "agent_stats", "resource_utilization", "metrics_size"]
            with pytest.raises(ValueError, match="xml"):
                await client.export_metrics("xml")
            assert (await get_system_health(peer.url, "U", "P"))["status"] == "warning"
            await monitor_system(peer.url, "U", "P", interval=0.01, duration=0.01)
        # What fails is printed, and an operator's page goes on.
        lost = ARCPClient(peer.url, retry_attempts=0)
        await lost.monitor_system(0.01, duration=0.01)
        assert (await lost.admin_health_check())["status"] == "error"
        await lost.close()

    run(main)
    assert len(taken) > 1
    assert isinstance(taken[0].timestamp, datetime)
    assert taken[0].get_metric_value("arcp_requests_total") == 7
    assert taken[0].get_metric_value("arcp_other") is None
    assert taken[0].resource_utilization["cpu"] == 95.5
    printed = capsys.readouterr().out
    assert "cpu 95.5 %" in printed
    assert "1 of 1 alive" in printed
    assert "Monitoring failed" in printed
