"""What was wrong with the published server (section H of the contract), each shown to be gone."""

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from websockets.sync.client import ClientConnection

import golden
import sockets
from golden import Agents, send
from servers import ENVIRONMENT, KEYS, Server
from sockets import Calls, decoded, described, kind_of, open_socket

Serve = Callable[..., AbstractContextManager[Server]]


@pytest.fixture
def agents() -> Iterator[Agents]:
    running = Agents()
    yield running
    running.close()


@pytest.fixture
def calls(server: Server, agents: Agents) -> Calls:
    return Calls(server, agents)


@contextmanager
def calling(serve: Serve, agents: Agents, environment: dict[str, str], **options: Any) -> Iterator[Calls]:
    with serve(environment, **options) as server:
        yield Calls(server, agents)


def get(calls: Calls, path: str, headers: dict[str, str] | None = None, status: int = 200) -> Any:
    answer = send(calls.server, "GET", path, headers or {}, None)
    assert answer.status == status, f"{path}: {answer.status} {answer.text}"
    return answer.json if "json" in answer.headers.get("content-type", "") else answer.text


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def member(calls: Calls, agent: str, key: str, **changes: Any) -> str:
    """An agent that registered with its key; its token."""
    token = calls.temporary(agent, key)
    value = described(agent, "testing", f"{calls.agents.url}/ok") | changes
    registered: str = calls.post("/agents/register", value, bearer(token)).json["access_token"]
    return registered


def frames(link: ClientConnection, wanted: Callable[[Any], bool], seconds: float = 5) -> Any:
    """The first frame that is wanted."""
    deadline = time.monotonic() + seconds
    while True:
        frame = decoded(link.recv(timeout=max(0.0, deadline - time.monotonic())))
        if wanted(frame):
            return frame


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"name": "x"}, "name", "2"),
        ({"agent_type": "nonsense"}, "agent_type", "testing"),
        ({"endpoint": "ftp://script.example"}, "endpoint", "http"),
        ({"version": "1.0"}, "version", "1.0"),
        ({"metadata": {"link": None}}, "metadata", "link"),
        ({"rate_limit": 10001}, "rate_limit", "10000"),
        ({"public_key": "<script>"}, "public_key", "32"),
    ],
)
def test_refusals_can_be_read(calls: Calls, change: dict[str, Any], field: str, words: str) -> None:
    """Rules: REG-070, REG-100, REG-101"""
    value = described("an-agent", "testing", "http://agent.example") | change
    problem = calls.post("/agents/register", value, calls.admin(), status=422).json
    assert field in problem["detail"]
    assert words in problem["detail"]
    for unreadable in ("&#x27;", "&amp;", "&lt;", "[FILTERED]"):
        assert unreadable not in json.dumps(problem)
    assert any(error["loc"][-1] == field or field in error["loc"] for error in problem["errors"]), problem["errors"]
    assert isinstance(problem["validation_errors"], str)
    assert field in problem["validation_errors"]


def test_all_that_is_wrong_is_told_at_once(calls: Calls) -> None:
    """Rules: REG-101"""
    value = described("an-agent", "testing", "nowhere") | {"name": "x", "owner": "", "capabilities": []}
    problem = calls.post("/agents/register", value, calls.admin(), status=422).json
    told = {error["loc"][1] for error in problem["errors"]}
    assert told == {"endpoint", "name", "owner", "capabilities"}


def test_search_without_a_service_ranks(calls: Calls) -> None:
    """Rules: REG-184, REG-198, REG-199"""
    guide = {
        "agent_id": "my-testing-agent",
        "name": "My Testing Agent",
        "capabilities": ["data-processing", "file-conversion", "text-analysis"],
        "context_brief": "A testing agent for data processing and file conversion",
        "metadata": {"framework": "fastapi", "language": "python"},
    }
    other = {
        "capabilities": ["packet-capture"],
        "context_brief": "Watches network traffic for intrusions",
        "name": "Guard",
    }
    calls.post("/agents/register", described("my-testing-agent", "testing", "http://a.example") | guide, calls.admin())
    calls.post("/agents/register", described("the-guard", "security", "http://b.example") | other, calls.admin())

    def found(query: str, **more: Any) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = calls.post("/public/search", {"query": query} | more).json
        return answer

    # At once, the guide's own query, above the default threshold.
    results = found("find agents that can process text files", top_k=5, min_similarity=0.5)
    assert [each["id"] for each in results] == ["my-testing-agent"]
    assert results[0]["similarity"] > 0.5
    assert [each["id"] for each in found("intrusion detection in network traffic")][:1] == ["the-guard"]
    # Graded, honoured, never null, stable.
    ranked = found("process text files", min_similarity=0.0, top_k=10)
    assert {each["id"] for each in ranked} == {"my-testing-agent", "the-guard"}
    similarities = [each["similarity"] for each in ranked]
    assert similarities == sorted(similarities, reverse=True)
    assert similarities[0] > similarities[1]
    assert found("process text files", min_similarity=0.0, top_k=10) == ranked
    assert found("process text files", min_similarity=1.0) == []
    assert found("zebra quantum banana", min_similarity=0.5) == []
    # By name and id exactly, and with a typo.
    assert found("my-testing-agent")[0]["id"] == "my-testing-agent"
    assert found("Guard", min_similarity=0.0)[0]["id"] == "the-guard"
    assert found("netwrok trafic intrusoins", min_similarity=0.0)[0]["id"] == "the-guard"


def test_search_weighs_reputation(calls: Calls) -> None:
    """Rules: REG-198"""
    tokens = {agent: member(calls, agent, key) for agent, key in zip(("twin-a", "twin-b"), KEYS, strict=False)}
    calls.post("/agents/twin-b/metrics", {"reputation_score": 1.0}, bearer(tokens["twin-b"]))
    plain = calls.post("/public/search", {"query": "echo compute capture", "min_similarity": 0.0}).json
    weighted = calls.post(
        "/public/search", {"query": "echo compute capture", "min_similarity": 0.0, "weighted": True}
    ).json
    assert weighted[0]["id"] == "twin-b"
    assert weighted[0]["metrics"]["reputation_score"] == 1.0
    assert all(each["metrics"] is None for each in plain)
    # What is told stays unweighted.
    assert {each["id"]: each["similarity"] for each in plain} == {each["id"]: each["similarity"] for each in weighted}


def test_unregistering_holds_nobody_up_and_is_told(calls: Calls) -> None:
    """Rules: REG-174, REG-313, REG-333"""
    calls.register("ws-1")
    calls.register("ws-2")
    with open_socket(calls.server, "/public/ws") as public, open_socket(calls.server, "/agents/ws") as agent:
        agent.send(json.dumps({"token": calls.tokens["<admin-token>"]}))
        frames(agent, lambda frame: kind_of(frame) == "array")
        slowest = 0.0
        done = threading.Event()

        def discover() -> None:
            nonlocal slowest
            while not done.is_set():
                started = time.monotonic()
                get(calls, "/public/discover")
                slowest = max(slowest, time.monotonic() - started)

        worker = threading.Thread(target=discover)
        worker.start()
        started = time.monotonic()
        answer = send(calls.server, "DELETE", "/agents/ws-2", calls.admin(), None)
        took = time.monotonic() - started
        done.set()
        worker.join()
        assert answer.status == 200
        assert took < 1, took
        assert slowest < 1, slowest
        # What was registered before may be told late.
        told = frames(public, lambda frame: kind_of(frame) == "agents_update" and frame["data"]["total_count"] == 1)
        assert [each["agent_id"] for each in told["data"]["agents"]] == ["ws-1"]
        array = frames(agent, lambda frame: kind_of(frame) == "array" and len(frame) == 1)
        assert array[0]["agent_id"] == "ws-1"


def test_death_and_cleanup_are_told(serve: Serve, agents: Agents) -> None:
    """Rules: REG-190, REG-311, REG-313"""
    settings = {"AGENT_HEARTBEAT_TIMEOUT": "2", "PUBLIC_WS_INTERVAL": "1"}
    with calling(serve, agents, settings) as calls, open_socket(calls.server, "/public/ws") as public:
        calls.register("brief-1")
        frames(public, lambda frame: kind_of(frame) == "agents_update" and frame["data"]["total_count"] == 1)
        frames(public, lambda frame: kind_of(frame) == "agents_update" and frame["data"]["total_count"] == 0, 8)
        stats = frames(public, lambda frame: kind_of(frame) == "stats_update" and frame["data"]["dead_agents"] == 1)
        assert stats["data"]["total_agents"] == stats["data"]["alive_agents"] + stats["data"]["dead_agents"]


def test_what_was_acknowledged_survives_a_restart(server: Server, calls: Calls) -> None:
    """Rules: REG-190, REG-193, REG-200, REG-201"""
    token = member(calls, "keeper-1", KEYS[0])
    calls.post("/agents/keeper-1/metrics", {"total_requests": 9, "success_rate": 1.0, "custom": "mine"}, bearer(token))
    calls.post("/agents/keeper-1/heartbeat", None, bearer(token))
    before = get(calls, "/agents/keeper-1", bearer(token))
    # Heartbeats are written in batches: a second at most.
    time.sleep(1.2)
    server.restart(ENVIRONMENT, ["--dev"])
    after = get(calls, "/agents/keeper-1", bearer(token))
    for volatile in ("last_seen", "metrics"):
        before.pop(volatile), after.pop(volatile)
    assert after == before
    assert after["status"] == "alive"
    assert get(calls, "/agents/keeper-1/metrics", bearer(token))["total_requests"] == 9
    # The key still belongs to its agent, and the search still finds it.
    temporary = calls.temporary("keeper-2", KEYS[0])
    value = described("keeper-2", "testing", "http://b.example")
    assert (
        calls.post("/agents/register", value, bearer(temporary), status=400).json["title"]
        == "Agent Registration Failed"
    )
    assert [each["id"] for each in calls.post("/public/search", {"query": "golden transcript capture"}).json] == [
        "keeper-1"
    ]


def test_malformed_requests_forgive_nothing(serve: Serve, agents: Agents) -> None:
    """Rules: REG-123, REG-124, REG-125, REG-126"""
    with calling(serve, agents, {"RATE_LIMIT_BURST": "4"}) as calls:
        statuses = []
        for at in range(8):
            wrong = {"username": "ARCP", "password": f"wrong-{at}"}
            headers = {"X-Client-Fingerprint": "fp", "Content-Type": "application/json", "User-Agent": f"agent-{at}"}
            answer = send(calls.server, "POST", "/auth/login", headers, json.dumps(wrong).encode())
            statuses.append(answer.status)
            bad = {"Content-Type": "application/json"}
            send(calls.server, "POST", "/auth/agent/request_temp_token", bad, b"{bad")
            if answer.status == 429:
                assert int(answer.headers["retry-after"]) >= 0
                break
        assert 429 in statuses, statuses
        assert set(statuses) == {401, 429}


def test_one_wrong_key_counts_once(serve: Serve, agents: Agents) -> None:
    """Rules: REG-126, REG-151"""
    with calling(serve, agents, {}) as calls:
        wrong = {"agent_id": "abc", "agent_type": "testing", "agent_key": "wrong-key-000"}
        calls.post("/auth/agent/request_temp_token", wrong, status=401)
        # After one failure there is no wait yet.
        calls.temporary("abc", KEYS[0])


def test_a_lock_is_for_one_account_or_address_not_for_all(serve: Serve, agents: Agents) -> None:
    """Rules: REG-122"""
    with calling(serve, agents, {"RATE_LIMIT_BURST": "2"}) as calls:
        calls.admin()
        for at in range(4):
            wrong = {"username": "somebody", "password": f"wrong-{at}"}
            send(
                calls.server,
                "POST",
                "/auth/login",
                {"X-Client-Fingerprint": "fp", "Content-Type": "application/json"},
                json.dumps(wrong).encode(),
            )
        # Whoever is in stays in.
        assert get(calls, "/auth/session_status", calls.admin())["valid"] is True


def test_a_temporary_token_registers_once_and_nothing_else(calls: Calls) -> None:
    """Rules: REG-133, REG-193"""
    token = calls.temporary("brief-1", KEYS[0])
    _, claims = golden.decode(token)
    assert claims["exp"] - claims["iat"] == 900
    for path in ("/agents", "/agents/brief-1"):
        answer = send(calls.server, "GET", path, bearer(token), None)
        assert answer.status == 403, f"{path}: {answer.status} {answer.text}"
    refreshed = send(calls.server, "POST", "/tokens/refresh", bearer(token), None)
    assert refreshed.status in (401, 403), refreshed.text
    # For its own id only.
    other = described("brief-2", "testing", "http://b.example")
    assert calls.post("/agents/register", other, bearer(token), status=403).json["status"] == 403
    calls.post("/agents/register", described("brief-1", "testing", "http://a.example"), bearer(token))
    send(calls.server, "DELETE", "/agents/brief-1", calls.admin(), None)
    again = send(
        calls.server,
        "POST",
        "/agents/register",
        bearer(token) | {"Content-Type": "application/json"},
        json.dumps(described("brief-1", "testing", "http://a.example")).encode(),
    )
    assert again.status in (401, 403), again.text


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/agents", {"agent", "admin"}), ("/agents/stats", {"admin"}), ("/health/detailed", {"admin"}), ("/health", None)],
)
def test_levels(calls: Calls, path: str, allowed: set[str] | None) -> None:
    """Rules: REG-130, REG-131"""
    agent = member(calls, "agent-1", KEYS[0])
    minted = {"user_id": "user1", "agent_id": "agent-1", "role": "user"}
    user = calls.post("/tokens/mint", minted, calls.admin()).json["access_token"]
    roles = {"anyone": {}, "user": bearer(user), "agent": bearer(agent), "admin": calls.admin()}
    for role, headers in roles.items():
        expected = 200 if allowed is None or role in allowed else 401 if role == "anyone" else 403
        assert send(calls.server, "GET", path, headers, None).status == expected, (role, path)


def test_a_refreshed_administrator_goes_on(calls: Calls) -> None:
    """Rules: REG-163"""
    answer = send(calls.server, "POST", "/tokens/refresh", calls.admin(), None)
    assert answer.status == 200, answer.text
    renewed = bearer(answer.json["access_token"]) | {"X-Client-Fingerprint": sockets.FINGERPRINT}
    assert get(calls, "/auth/session_status", renewed)["valid"] is True


def test_two_logins_of_one_second_are_two_sessions(calls: Calls) -> None:
    """Rules: REG-134"""
    sessions = []
    for at in range(3):
        headers = {"X-Client-Fingerprint": f"client-{at}"}
        login = calls.post("/auth/login", {"username": "ARCP", "password": "ARCP"}, headers)
        sessions.append(headers | bearer(login.json["access_token"]))
    assert len({each["Authorization"] for each in sessions}) == 3
    for each in sessions:
        assert get(calls, "/auth/session_status", each)["valid"] is True


def unsigned(claims: dict[str, Any]) -> str:
    parts = ({"alg": "none", "typ": "JWT"}, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + "."


def test_forged_tokens_are_refused_and_touch_nobody(calls: Calls) -> None:
    """Rules: REG-131, REG-132, REG-135"""
    mine = calls.admin()
    now = int(time.time())
    claims = {
        "sub": "ARCP",
        "agent_id": "user_ARCP",
        "scopes": ["admin"],
        "role": "admin",
        "iat": now,
        "exp": now + 3600,
    }
    secret = ENVIRONMENT["JWT_SECRET"]
    good = calls.tokens["<admin-token>"]
    head, body, proof = good.split(".")
    forged = [
        golden.signed(claims, "another secret of sufficient length 0123456789"),
        unsigned(claims),
        golden.signed(claims, secret, "HS512"),
        golden.signed(claims | {"exp": now - 10}, secret),
        golden.signed({name: value for name, value in claims.items() if name != "exp"}, secret),
        f"{head}.{body}.{proof[:-4]}AAAA",
        f"{head}.{body}",
        "a.b.c",
        "x" * 5000,
    ]
    for token in forged:
        headers = {"Authorization": f"Bearer {token}", "X-Client-Fingerprint": sockets.FINGERPRINT}
        for path in ("/agents", "/auth/session_status"):
            answer = send(calls.server, "GET", path, headers, None)
            assert answer.status == 401, f"{token[:40]}: {answer.status} {answer.text}"
            assert token not in answer.text or len(token) < 8
    assert get(calls, "/auth/session_status", mine)["valid"] is True


def test_reputation_belongs_to_the_agent(calls: Calls) -> None:
    """Rules: REG-176, REG-178, REG-194"""
    mine, other = member(calls, "agent-1", KEYS[0]), member(calls, "agent-2", KEYS[1])
    for path in (
        "/agents/report-metrics/agent-1?response_time=30&success=false",
        "/agents/agent-1/metrics/compat?response_time=30&success=false",
    ):
        assert send(calls.server, "POST", path, bearer(other), None).status == 403
    calls.post("/agents/agent-1/metrics", {"reputation_score": 0.0}, bearer(other), status=403)
    assert get(calls, "/agents/agent-1/metrics", bearer(mine))["total_requests"] == 0
    told = calls.post("/agents/report-metrics/agent-1?response_time=0.2&success=true", None, bearer(mine)).json
    assert told["current_metrics"]["total_requests"] == 1
    assert told["current_metrics"]["success_rate"] == 1.0
    assert told["current_metrics"]["reputation_score"] == 1.0
    calls.post("/agents/agent-1/metrics", {"reputation_score": 0.5}, calls.admin())


@pytest.mark.parametrize(
    "bad", [{"success_rate": 5}, {"total_requests": "abc"}, {"avg_response_time": -1}, {"reputation_score": 11}]
)
def test_metrics_are_checked(calls: Calls, bad: dict[str, Any]) -> None:
    """Rules: REG-074, REG-176"""
    token = member(calls, "agent-1", KEYS[0])
    problem = calls.post("/agents/agent-1/metrics", bad, bearer(token), status=422).json
    assert next(iter(bad)) in problem["detail"]
    assert get(calls, "/agents/agent-1/metrics", bearer(token))["success_rate"] == 0


def test_metrics_of_nobody_are_not_kept(calls: Calls) -> None:
    """Rules: REG-176"""
    assert (
        calls.post("/agents/nobody-1/metrics", {"total_requests": 1}, calls.admin(), status=404).json["status"] == 404
    )


def test_every_key_counts_whole(serve: Serve, agents: Agents) -> None:
    """Rules: REG-152"""
    keys = [f"good-key-{at:04}" for at in range(12)] + ["k" * 64 + "-a"]
    with calling(serve, agents, {"AGENT_KEYS": ",".join(keys)}) as calls:
        for at, key in enumerate(keys):
            calls.temporary(f"agent-{at}", key)
        # One that agrees in its first 64 characters only.
        wrong = {"agent_id": "agent-x", "agent_type": "testing", "agent_key": "k" * 64 + "-b"}
        calls.post("/auth/agent/request_temp_token", wrong, status=401)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "UTC"])
def test_no_zone_removes_the_living(serve: Serve, agents: Agents, zone: str) -> None:
    """Rules: REG-191, REG-203"""
    with calling(serve, agents, {"TZ": zone, "AGENT_CLEANUP_INTERVAL": "1"}) as calls:
        calls.register("tz-1")
        time.sleep(2.5)
        stats = get(calls, "/public/stats")
        assert (stats["alive_agents"], stats["total_agents"]) == (1, 1)


def test_logs_are_sent_when_they_changed(serve: Serve, agents: Agents) -> None:
    """Rules: REG-342, REG-346"""
    with calling(serve, agents, {"DASHBOARD_WS_INTERVAL": "1"}) as calls:
        calls.admin()
        with open_socket(calls.server, "/dashboard/ws") as board:
            board.send(json.dumps({"type": "auth", "token": calls.tokens["<admin-token>"]}))
            seen = []
            deadline = time.monotonic() + 4.5
            while (left := deadline - time.monotonic()) > 0:
                try:
                    seen.append(kind_of(decoded(board.recv(timeout=left))))
                except TimeoutError:
                    break
            assert seen.count("monitoring") >= 4, seen
            # The first, and at most what the first seconds added.
            assert seen.count("logs") <= 2, seen


def test_unknown_paths_make_no_series(serve: Serve, agents: Agents) -> None:
    """Rules: REG-117, REG-144, REG-202"""
    with calling(serve, agents, {"METRICS_SCRAPE_TOKEN": "scrape-token"}) as calls:

        def series() -> set[str]:
            text = get(calls, "/metrics/scrape", bearer("scrape-token"))
            return {line.rsplit(" ", 1)[0] for line in text.splitlines() if line.startswith("arcp_requests_total")}

        get(calls, "/nothing/at/all", status=404)
        send(calls.server, "GET", "/public/agent/none", {}, None)
        series()
        before = series()
        for at in range(40):
            send(calls.server, "GET", f"/no/such/path/{at}", {}, None)
            send(calls.server, "GET", f"/public/agent/none-{at}", {}, None)
            send(calls.server, "GET", f"/agents/none-{at}/metrics", {}, None)
        added = series() - before
        assert len(added) <= 1, added
        assert not any("none-" in line or "/no/such" in line for line in series())


def test_markup_is_text(calls: Calls) -> None:
    """Rules: REG-408"""
    value = described("xss-1", "testing", 'http://h.example/"><svg/onload=alert(1)>') | {"name": "<b onclick=x>"}
    calls.post("/agents/register", value, calls.admin())
    told = send(calls.server, "GET", "/public/agent/xss-1", {}, None)
    assert told.headers["content-type"].startswith("application/json")
    assert told.json["name"] == "<b onclick=x>"
    page = send(calls.server, "GET", "/dashboard", {}, None)
    assert page.status == 200
    # Nothing is fetched from elsewhere, and no agent is in the page itself.
    assert "xss-1" not in page.text
    policy = page.headers["content-security-policy"]
    assert "'unsafe-eval'" not in policy
    for foreign in ("cdn.", "cdnjs", "googleapis", "gstatic"):
        assert foreign not in page.text
        assert foreign not in policy


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[fd00:ec2::254]/",
        "http://127.0.0.1:1/",
        "http://localhost:1/",
        "http://10.0.0.1/",
        "http://192.168.1.1/",
        "http://172.16.0.1/",
        "http://[::1]:1/",
        "http://0.0.0.0:1/",
        "http://2130706433/",
        "http://[::ffff:127.0.0.1]:1/",
        "http://100.64.0.1/",
    ],
)
def test_inner_hosts_are_out_of_reach(serve: Serve, agents: Agents, endpoint: str) -> None:
    """Rules: REG-186, REG-195, REG-196"""
    with calling(serve, agents, {"ENVIRONMENT": "testing", "ARCP_ALLOW_UNSAFE": "true"}) as calls:
        value = described("inner-1", "testing", endpoint)
        registered = send(
            calls.server,
            "POST",
            "/agents/register",
            calls.admin() | {"Content-Type": "application/json"},
            json.dumps(value).encode(),
        )
        if registered.status == 422:
            return
        started = time.monotonic()
        asked = {"user_id": "u1", "user_endpoint": "http://u.example"}
        answer = calls.post("/public/connect/inner-1", asked, status=502)
        assert time.monotonic() - started < 5
        assert "meta-data" not in answer.text or endpoint in answer.text


def test_redirects_are_not_followed_and_answers_are_bounded(calls: Calls) -> None:
    """Rules: REG-195, REG-196"""
    reached = threading.Event()
    asked = {"user_id": "u1", "user_endpoint": "http://u.example"}
    with listener(
        lambda link: (reached.set(), link.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"))
    ) as inner:
        answer = f"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{inner}/\r\ncontent-length: 0\r\n\r\n".encode()
        with listener(lambda link: link.sendall(answer)) as outer:
            calls.post("/agents/register", described("moved-1", "testing", f"http://127.0.0.1:{outer}"), calls.admin())
            calls.post("/public/connect/moved-1", asked, status=502)
    assert not reached.is_set()

    def endless(link: socket.socket) -> None:
        link.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            link.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    with listener(endless) as flood:
        calls.post("/agents/register", described("flood-1", "testing", f"http://127.0.0.1:{flood}"), calls.admin())
        before = calls.server.memory()
        started = time.monotonic()
        value = json.dumps(asked).encode()
        answered = send(calls.server, "POST", "/public/connect/flood-1", {"Content-Type": "application/json"}, value)
        assert answered.status in (200, 502, 504), answered.text
        assert time.monotonic() - started < 15
        assert calls.server.memory() - before < 32 << 20


def test_an_agent_that_does_not_answer_is_a_time_out(calls: Calls) -> None:
    """Rules: REG-186, REG-195"""
    with listener(lambda link: time.sleep(20)) as silent:
        calls.post("/agents/register", described("slow-1", "testing", f"http://127.0.0.1:{silent}"), calls.admin())
        started = time.monotonic()
        calls.post("/public/connect/slow-1", {"user_id": "u1", "user_endpoint": "http://u.example"}, status=504)
        assert 5 < time.monotonic() - started < 14


@contextmanager
def listener(answer: Callable[[socket.socket], Any]) -> Iterator[int]:
    """A host that says the same to everyone."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    link, _ = server.accept()
                except OSError:
                    return
                with link:
                    try:
                        link.recv(65536)
                        answer(link)
                    except OSError:
                        pass

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def test_an_email_as_user_is_connected(calls: Calls) -> None:
    """Rules: REG-077, REG-195"""
    calls.register("agent-1")
    asked = {"user_id": "a.b@example.com", "user_endpoint": "https://my-app.example.com/callback"}
    told = calls.post("/public/connect/agent-1", asked).json
    assert told["status"] == "connection_requested"
    assert len(told["request_id"]) <= 50


def test_notify_needs_its_fields(calls: Calls) -> None:
    """Rules: REG-182"""
    calls.register("agent-1")
    problem = calls.post("/agents/agent-1/connection/notify", {}, calls.admin(), status=400).json
    assert "agent_id" in problem["detail"]


def test_no_answer_is_held_back(calls: Calls) -> None:
    """Rules: REG-121, REG-127"""
    started = time.monotonic()
    calls.admin()
    calls.temporary("abc", KEYS[0])
    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize("query", ["limit=-1", "offset=-1", "limit=0&offset=-5", "limit=99999999999999999999"])
def test_pages_have_bounds(calls: Calls, query: str) -> None:
    """Rules: REG-183"""
    assert get(calls, f"/public/discover?{query}", status=422)["status"] == 422


def test_json_that_is_no_object_is_answered(calls: Calls) -> None:
    """Rules: REG-319, REG-320"""
    with open_socket(calls.server, "/public/ws") as public:
        frames(public, lambda frame: kind_of(frame) == "welcome")
        for odd in ("[1, 2]", "3", "null", '"text"'):
            public.send(odd)
            assert frames(public, lambda frame: kind_of(frame) == "error")["message"]
        public.send("ping")
        assert frames(public, lambda frame: kind_of(frame) == "pong") == "pong"


def test_json_pings_are_answered_everywhere(calls: Calls) -> None:
    """Rules: REG-315, REG-334"""
    calls.admin()
    token = calls.tokens["<admin-token>"]
    for path, first in (
        ("/public/ws", None),
        ("/agents/ws", {"token": token}),
        ("/dashboard/ws", {"type": "auth", "token": token}),
    ):
        with open_socket(calls.server, path) as link:
            if first:
                link.send(json.dumps(first))
            link.send('{"type": "ping"}')
            assert isinstance(
                frames(link, lambda frame: isinstance(frame, dict) and frame.get("type") == "pong")["timestamp"],
                float | str,
            )
            link.send(" PING ")
            assert frames(link, lambda frame: frame == "pong") == "pong"


def test_pins_are_wanted_by_the_server(calls: Calls) -> None:
    """Rules: REG-154, REG-155, REG-408"""
    mine = calls.admin()
    calls.post("/auth/set_pin", {"pin": "48213"}, mine)
    calls.register("agent-1")
    assert get(calls, "/auth/pin_status", mine) == {"pin_set": True}
    refused = send(
        calls.server, "POST", "/dashboard/config", mine | {"Content-Type": "application/json"}, b'{"ui": {}}'
    )
    assert refused.status in (400, 401, 403), "with a PIN set, what the page asks it for needs it"
    allowed = send(
        calls.server,
        "POST",
        "/dashboard/config",
        mine | {"Content-Type": "application/json", "X-Session-Pin": "48213"},
        b'{"ui": {}}',
    )
    assert allowed.status == 200, allowed.text
