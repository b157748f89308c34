"""Every call that was recorded of the registry's published client: the requests it sent, what it gave or raised.

Where ours differs, `DIFFERENT` says how and why; the rest must be the same. Random values are compared by their shape.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from arcp import ARCPClient, ARCPError, AuthenticationError, ConnectionError, RegistrationError, SearchError
from conftest import run
from registry_peer import AGENT, DROP, Answer, Asked, by_path, scripted

GOLDEN = Path(__file__).parents[1] / "corpus" / "registry" / "golden" / "client.json"
ENTRIES: dict[str, dict[str, Any]] = {entry["id"]: entry for entry in json.loads(GOLDEN.read_text())["entries"]}

FOUND = {
    "id": "a-1",
    "name": "Agent A",
    "url": "http://h.example",
    "capabilities": ["echo"],
    "version": "1.0.0",
    "owner": "Own",
    "similarity": 0.8,
}
GAUGES = "".join(
    f"arcp_system_{name}_utilization_percent {value}\n"
    for name, value in (("cpu", 5.0), ("memory", 10.0), ("network", 1.0), ("disk", 40.0))
)
ANSWERS: dict[str, Answer] = {
    "GET /": {"service": "ARCP"},
    "GET /health": {"status": "healthy"},
    "GET /public/stats": {"total_agents": 1},
    "GET /public/agent_types": {"allowed_agent_types": ["testing"]},
    "POST /auth/login": {"access_token": "NEW", "token_type": "bearer", "expires_in": 60},
    "POST /auth/agent/request_temp_token": {"temp_token": "TT", "token_type": "bearer", "expires_in": 900},
    "GET /tokens/validate": {"valid": True},
    "POST /tokens/refresh": {"access_token": "R2", "token_type": "bearer"},
    "POST /agents/register": {"status": "success", "agent_id": "a-1", "access_token": "AT"},
    "GET /agents": [AGENT],
    "GET /agents/": AGENT,
    "GET /agents/stats": {"registry_statistics": {}},
    "GET /agents/a-1/metrics": {"agent_id": "a-1", "total_requests": 3},
    "POST /agents/a-1/": {"status": "success"},
    "DELETE /agents/a-1": {"status": "success"},
    "POST /agents/search": [FOUND],
    "POST /public/search": [FOUND],
    "GET /public/discover": [AGENT],
    "GET /public/agent/a-1": AGENT,
    "POST /public/connect/a-1": {"status": "connection_requested"},
    "GET /metrics": GAUGES,
}


@dataclass(frozen=True)
class Case:
    call: Callable[[ARCPClient], Awaitable[Any]]
    token: str | None = None
    answers: dict[str, Answer] | None = None
    options: dict[str, Any] | None = None
    path: str = ""


def registering(**more: Any) -> Callable[[ARCPClient], Awaitable[Any]]:
    data = {name: AGENT[name] for name in ("agent_id", "name", "agent_type", "endpoint", "capabilities")}
    data |= {name: AGENT[name] for name in ("context_brief", "version", "owner", "public_key", "communication_mode")}
    return lambda client: client.register_agent(**{**data, "metadata": {"a": 1}, **more})


def status(number: int, value: Any = None) -> Case:
    return Case(
        lambda client: client.health_check(),
        answers={"GET /health": (number, {"detail": "the detail"} if value is None else value)},
        options={"retry_attempts": 0},
    )


def body(value: Any) -> Case:
    return Case(lambda client: client.health_check(), answers={"GET /health": value})


def metrics_answer(text: str) -> dict[str, Answer]:
    return {"GET /metrics": text}


KEYED = {
    "metadata": {"a": "b"},
    "features": ["x"],
    "language_support": ["en"],
    "requirements": {"minimum_memory_mb": 512},
    "agent_key": "key",
}

CASES: dict[str, Case] = {
    "health_check": Case(lambda client: client.health_check()),
    "get_system_info": Case(lambda client: client.get_system_info()),
    "get_public_stats": Case(lambda client: client.get_public_stats()),
    "get_allowed_agent_types": Case(lambda client: client.get_allowed_agent_types()),
    "login_admin": Case(lambda client: client.login_admin("U", "P")),
    "request_temp_token": Case(lambda client: client.request_temp_token("a-1", "testing", "key")),
    "request_temp_token_empty": Case(
        lambda client: client.request_temp_token("a-1", "testing", "key"),
        answers={"POST /auth/agent/request_temp_token": {}},
    ),
    "validate_token_arg": Case(lambda client: client.validate_token("abc")),
    "validate_token_current": Case(lambda client: client.validate_token(), token="TOKEN"),
    "validate_token_none": Case(lambda client: client.validate_token()),
    "register_agent_with_key": Case(registering(**KEYED)),
    "register_agent_already_authenticated": Case(registering(metadata={"a": "b"}, agent_key="key"), token="TOKEN"),
    "register_agent_no_metadata": Case(registering(metadata={}), token="TOKEN"),
    "register_agent_conflict": Case(
        registering(),
        token="TOKEN",
        answers={"POST /agents/register": (409, {"detail": "Agent a-1 is already registered and alive."})},
    ),
    "get_agent": Case(lambda client: client.get_agent("a-1"), token="TOKEN"),
    "get_agent_no_metrics": Case(lambda client: client.get_agent("a-1", include_metrics=False), token="TOKEN"),
    "get_agent_404": Case(
        lambda client: client.get_agent("zz"),
        token="TOKEN",
        answers={"GET /agents/zz": (404, {"status": "error", "message": "Agent not found"})},
    ),
    "get_agent_incomplete": Case(
        lambda client: client.get_agent("a-1"), token="TOKEN", answers={"GET /agents/a-1": {"agent_id": "a-1"}}
    ),
    "list_agents": Case(lambda client: client.list_agents("testing", "alive", ["x", "y"], True), token="TOKEN"),
    "list_agents_default": Case(lambda client: client.list_agents(), token="TOKEN", answers={"GET /agents": []}),
    "update_heartbeat": Case(lambda client: client.update_heartbeat("a-1"), token="TOKEN"),
    "update_metrics": Case(lambda client: client.update_metrics("a-1", {"total_requests": 1}), token="TOKEN"),
    "get_metrics": Case(lambda client: client.get_metrics("a-1"), token="TOKEN"),
    "get_system_metrics": Case(lambda client: client.get_system_metrics(), token="TOKEN"),
    "get_system_stats": Case(lambda client: client.get_system_stats(), token="TOKEN"),
    "get_resource_utilization": Case(lambda client: client.get_resource_utilization(), token="TOKEN"),
    "get_resource_utilization_none": Case(
        lambda client: client.get_resource_utilization(), token="TOKEN", answers=metrics_answer("x 1\n")
    ),
    "export_metrics_bad": Case(lambda client: client.export_metrics("xml"), token="TOKEN"),
    "export_metrics": Case(lambda client: client.export_metrics(), token="TOKEN"),
    "unregister_agent": Case(lambda client: client.unregister_agent("a-1"), token="TOKEN"),
    "unregister_agent_key": Case(
        lambda client: client.unregister_agent("a-1", agent_key="key"),
        answers={"DELETE /agents/a-1": {"temp_token": "TT"}},
    ),
    "search_agents": Case(lambda client: client.search_agents("some query")),
    "search_agents_all": Case(
        lambda client: client.search_agents("some query", 5, 0.3, ["echo"], True, "testing"), token="TOKEN"
    ),
    "search_agents_auth": Case(lambda client: client.search_agents("some query", public_api=False), token="TOKEN"),
    "search_agents_bad": Case(lambda client: client.search_agents("x")),
    "search_agents_422": Case(
        lambda client: client.search_agents("some query"), answers={"POST /public/search": (422, {"detail": "nope"})}
    ),
    "discover_agents": Case(lambda client: client.discover_agents()),
    "discover_agents_all": Case(lambda client: client.discover_agents("testing", ["a", "b"], 10, 20)),
    "discover_agents_doc_mock": Case(
        lambda client: client.discover_agents(),
        answers={"GET /public/discover": [{"agent_id": "test-agent", "name": "Test Agent", "status": "alive"}]},
    ),
    "get_public_agent": Case(lambda client: client.get_public_agent("a-1")),
    "request_agent_connection": Case(lambda client: client.request_agent_connection("a-1", "u1", "http://u.example")),
    "request_agent_connection_bad": Case(lambda client: client.request_agent_connection("a-1", "u 1", "nowhere")),
    "refresh_authentication": Case(lambda client: client.refresh_authentication(), token="TOKEN"),
    "refresh_authentication_none": Case(lambda client: client.refresh_authentication()),
    "refresh_authentication_401": Case(
        lambda client: client.refresh_authentication(),
        token="TOKEN",
        answers={"POST /tokens/refresh": (401, {"detail": "no"})},
    ),
    **{f"health_status_{number}": status(number) for number in (400, 401, 403, 404, 405, 409, 413, 422, 429)},
    **{f"health_status_{number}": status(number) for number in (500, 502, 503)},
    "health_400_no_json": status(400, "plain words"),
    "health_empty_body": body(""),
    "health_text_body": body("plain words"),
    "health_json_list": body([1]),
    "login_401": Case(
        lambda client: client.login_admin("U", "P"), answers={"POST /auth/login": (401, {"detail": "no"})}
    ),
    "login_429": Case(
        lambda client: client.login_admin("U", "P"),
        answers={"POST /auth/login": (429, {"detail": "slow"})},
        options={"retry_attempts": 0},
    ),
    "system_stats_403": Case(
        lambda client: client.get_system_stats(), token="TOKEN", answers={"GET /agents/stats": (403, {"detail": "no"})}
    ),
    "server_drops_connection": Case(lambda client: client.health_check(), answers={"GET /health": DROP}),
    "base_url_with_path": Case(
        lambda client: client.health_check(), path="/prefix", answers={"GET /prefix/health": {}, "GET /health": {}}
    ),
    "agent_id_with_slash": Case(lambda client: client.get_agent("a/../b"), token="TOKEN"),
}

NOT_PLAYED = {
    "constructor": "test_registry_client.py::test_what_a_new_client_shows",
    "register_agent_bad_type": "types are the registry's to say (REG-073): it is sent",
    "retry_then_ok_timeout": "test_registry_client.py::test_slow_answers_are_tried_again",
    "connect_refused": "test_registry_client.py::test_a_registry_that_is_not_there",
}

WHY_TEXT = "the errors of D-5: what happened stands behind the prefix, without the words `Unexpected error`"
DIFFERENT: dict[str, tuple[str, Any]] = {
    # id: (why, what is compared in place of what was recorded)
    "get_agent_incomplete": ("REG-073: three members are enough, and the name is one", ARCPError),
    "discover_agents_doc_mock": ("REG-015: these three members are enough", None),
    "register_agent_no_metadata": ("REG-101: a text that names field, bound and remedy", RegistrationError),
    "search_agents_bad": ("REG-101: a text that names field, bound and remedy", SearchError),
    "request_agent_connection_bad": ("REG-101: a text that names field, bound and remedy", ARCPError),
    "get_agent_404": ("REG-023: AgentNotFoundError says what was not found", ARCPError),
    "health_status_401": (WHY_TEXT, AuthenticationError),
    "health_status_403": (WHY_TEXT, AuthenticationError),
    "login_401": (WHY_TEXT, AuthenticationError),
    "system_stats_403": (WHY_TEXT, AuthenticationError),
    "server_drops_connection": (WHY_TEXT, ConnectionError),
}


def sent_instead(name: str, recorded: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The requests where ours are not those that were recorded."""
    match name:
        case "register_agent_already_authenticated":
            # D-31: an agent's own key counts, whatever token is held.
            temporary = ENTRIES["register_agent_with_key"]["requests"][0]
            recorded[0]["headers"]["authorization"] = "Bearer TT"
            return [without_noise(temporary), *recorded]
        case "base_url_with_path":
            # REG-014: the path is kept.
            return [{**recorded[0], "path": "/prefix/health"}]
        case "agent_id_with_slash":
            # REG-014: ids are escaped.
            return [{**recorded[0], "path": "/agents/a%2F..%2Fb"}]
    return recorded


def test_every_entry_is_played() -> None:
    assert set(CASES) | set(NOT_PLAYED) == set(ENTRIES)
    assert set(DIFFERENT) <= set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_recorded_call(name: str) -> None:
    """Rules: REG-013, REG-021, REG-022, REG-023, REG-025, REG-026, REG-030, REG-031, REG-032, REG-033, REG-034
    Rules: REG-035, REG-036, REG-037, REG-038, REG-039, REG-040, REG-041, REG-042, REG-043, REG-044, REG-045, REG-046
    Rules: REG-047, REG-048, REG-049, REG-050, REG-054, REG-058
    """
    case, entry = CASES[name], ENTRIES[name]

    async def main() -> None:
        async with scripted(by_path({**ANSWERS, **(case.answers or {})})) as peer:
            client = ARCPClient(peer.url + case.path, retry_delay=0.01, **(case.options or {}))
            if case.token is not None:
                client._access_token = case.token
            try:
                outcome: Any = await case.call(client)
            except Exception as error:
                outcome = error
            same_outcome(name, entry, outcome)
            sent = [shown(asked) for asked in peer.asked]
            recorded = [without_noise(asked) for asked in entry.get("requests", [])]
            assert sent == sent_instead(name, recorded)
            assert client.is_authenticated() == entry["is_authenticated_after"]
            if "token_after" in entry:
                assert client._access_token == entry["token_after"]
            await client.close()

    run(main)


def same_outcome(name: str, entry: dict[str, Any], outcome: Any) -> None:
    recorded = entry.get("raises")
    if name in DIFFERENT:
        _, expected = DIFFERENT[name]
        if expected is None:
            assert not isinstance(outcome, Exception), outcome
        else:
            assert isinstance(outcome, expected), outcome
            assert recorded is None or str(outcome).split(":")[0] == recorded["message"].split(":")[0]
        return
    if recorded is None:
        assert not isinstance(outcome, Exception), outcome
        value = json.loads(json.dumps(outcome, default=dumped))
        assert without_times(value) == without_times(entry["value"])
        assert type(outcome).__name__ == entry["returns"]
    else:
        assert isinstance(outcome, Exception), outcome
        assert recorded["class"] in {cls.__name__ for cls in type(outcome).__mro__}
        assert str(outcome) == recorded["message"]


def dumped(model: Any) -> Any:
    return model.model_dump(mode="json")


def without_times(value: Any) -> Any:
    if isinstance(value, list):
        return [without_times(item) for item in value]
    if isinstance(value, dict):
        return {name: without_times(member) for name, member in value.items() if name != "last_active"}
    return value


def shown(asked: Asked) -> dict[str, Any]:
    headers = {name: value for name, value in asked.headers.items() if name in ("user-agent", "authorization")}
    headers["x-client-fingerprint"] = "<uuid4>" if len(asked.headers["x-client-fingerprint"]) == 36 else "?"
    return {
        "method": asked.method,
        "path": asked.path,
        "query": sorted(asked.params),
        "headers": headers,
        "json": asked.json,
    }


def without_noise(asked: dict[str, Any]) -> dict[str, Any]:
    path, _, query = asked["path"].partition("?")
    pairs = sorted((name, value) for name, _, value in (pair.partition("=") for pair in query.split("&") if pair))
    headers = {name: value for name, value in asked["headers"].items() if name != "content-type"}
    return {"method": asked["method"], "path": path, "query": pairs, "headers": headers, "json": asked["json"]}
