"""The client against a real registry: an agent's life, tokens, sockets, and what each call is refused with."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

import arcp.testing
from arcp import (
    AgentNotFoundError,
    AgentRequirements,
    ARCPError,
    AuthenticationError,
    RegistrationError,
    SearchError,
)
from arcp.sync import Registry
from arcp.testing import AGENT_KEYS, ServedRegistry, registry
from conftest import run

AGENT: dict[str, Any] = {
    "agent_id": "word-counter",
    "name": "Word Counter",
    "agent_type": "testing",
    "endpoint": "http://127.0.0.1:9",
    "capabilities": ["text-analysis"],
    "context_brief": "Counts the words of texts and of files",
}


@contextlib.asynccontextmanager
async def an_agent() -> AsyncIterator[tuple[str, list[Any]]]:
    """Something that answers connection requests: where, and what it was asked."""
    asked: list[Any] = []

    async def take(request: web.Request) -> web.Response:
        asked.append(await request.json())
        return web.json_response({"status": "ok"})

    application = web.Application()
    application.router.add_post("/connection/request", take)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


def test_the_life_of_an_agent() -> None:
    """Rules: REG-033, REG-034, REG-035, REG-036, REG-037, REG-038, REG-039, REG-040, REG-041, REG-042, REG-043"""

    async def main() -> None:
        async with registry() as served, an_agent() as (endpoint, asked), served.client() as client:
            agent = await client.register_agent(
                **{**AGENT, "endpoint": endpoint},
                requirements=AgentRequirements(minimum_memory_mb=512, network_ports=["8080"]),
                agent_key=AGENT_KEYS[0],
            )
            assert (agent.agent_id, agent.status, agent.version) == ("word-counter", "alive", "1.0.0")
            assert agent.requirements is not None
            assert agent.requirements.minimum_memory_mb == 512
            assert client.is_authenticated()
            assert (await client.update_heartbeat("word-counter"))["status"] == "success"
            told = {
                "success_rate": 0.98,
                "total_requests": 150,
                "custom_metric": "value",
                "last_active": "2025-01-XX...",
            }
            assert (await client.update_metrics("word-counter", told))["status"] == "success"
            metrics = await client.get_metrics("word-counter")
            assert (metrics.success_rate, metrics.model_dump()["custom_metric"]) == (0.98, "value")
            assert (await client.get_agent("word-counter")).metrics == metrics
            assert [agent.agent_id for agent in await client.list_agents(status="alive")] == ["word-counter"]
            assert [agent.agent_id for agent in await client.discover_agents()] == ["word-counter"]
            assert (await client.get_public_agent("word-counter")).name == "Word Counter"
            for public in (True, False):
                found = await client.search_agents("count words", public_api=public, weighted=True)
                assert [result.id for result in found] == ["word-counter"]
                assert 0.5 < (found[0].similarity or 0) <= 1
                assert found[0].metrics is not None
            answer = await client.request_agent_connection("word-counter", "u@x.example", "https://u.example")
            assert answer["status"] == "connection_requested"
            assert asked[0]["user_id"] == "u@x.example"
            assert await client.refresh_authentication()
            assert (await client.unregister_agent("word-counter"))["status"] == "success"
            with pytest.raises(AgentNotFoundError):
                await client.get_public_agent("word-counter")

    run(main)


def test_what_is_refused() -> None:
    """Rules: REG-023, REG-032, REG-101, REG-192, REG-193"""

    async def main() -> None:
        async with registry() as served, served.client() as client:
            await client.register_agent(**AGENT, agent_key=AGENT_KEYS[0])
            refused: list[tuple[Any, type[ARCPError], int, str]] = [
                (client.register_agent(**AGENT, agent_key=AGENT_KEYS[0]), RegistrationError, 409, "already registered"),
                (
                    client.register_agent(**{**AGENT, "agent_id": "other"}, agent_key=AGENT_KEYS[0]),
                    RegistrationError,
                    400,
                    "word-counter",
                ),
                (
                    client.register_agent(**{**AGENT, "agent_id": "other"}, agent_key="not a key at all"),
                    AuthenticationError,
                    401,
                    "Agent registration failed",
                ),
                (
                    client.register_agent(**{**AGENT, "agent_id": "odd", "agent_type": "odd"}, agent_key=AGENT_KEYS[1]),
                    RegistrationError,
                    422,
                    "agent_type",
                ),
                (client.get_agent("nobody"), AgentNotFoundError, 404, "nobody"),
                (client.get_public_agent("nobody"), AgentNotFoundError, 404, "nobody"),
                (client.update_heartbeat("nobody"), ARCPError, 403, "nobody"),
                (client.get_system_stats(), AuthenticationError, 403, "admin"),
                (client.update_metrics("word-counter", {"success_rate": 5}), ARCPError, 422, "success_rate"),
                (client.discover_agents(limit=1000), ARCPError, 422, "limit"),
                (served.client().login_admin("ARCP", "wrong"), AuthenticationError, 401, "Admin login failed"),
            ]
            for call, cls, status, words in refused:
                with pytest.raises(cls, match=words) as caught:
                    await call
                assert caught.value.status == status
                assert caught.value.code
            with pytest.raises(SearchError):
                await client.search_agents("x")
            assert (await client.validate_token("not-a-token"))["valid"] is False
            assert (await client.validate_token())["valid"] is True
            # What failed left the agent its token.
            await client.update_heartbeat("word-counter")

    run(main)


def test_an_administrator() -> None:
    """Rules: REG-030, REG-048, REG-049, REG-050, REG-051, REG-053, REG-054"""

    async def main() -> None:
        async with registry() as served, served.admin() as client:
            assert "arcp_requests_total" in await client.get_system_metrics()
            assert set(await client.get_system_stats()) == {"registry_statistics", "features", "performance"}
            assert set(await client.get_resource_utilization()) == {"cpu", "memory", "network", "disk"}
            snapshot = await client.get_metrics_snapshot()
            assert (
                snapshot.get_metric_value("arcp_system_cpu_utilization_percent") == snapshot.resource_utilization["cpu"]
            )
            assert (await client.admin_health_check())["status"] in ("healthy", "warning", "critical")
            assert await client.export_metrics("json")
            # An administrator registers without a key.
            await client.register_agent(**AGENT)
            await client.unregister_agent("word-counter")

    run(main)


def test_a_key_takes_its_agent_out_again() -> None:
    """Rules: REG-039"""

    async def main() -> None:
        async with registry() as served:
            async with served.client() as client:
                await client.register_agent(**AGENT, agent_key=AGENT_KEYS[0])
            async with served.client() as another:
                assert (await another.unregister_agent("word-counter", agent_key=AGENT_KEYS[0]))["status"] == "success"

    run(main)


def test_a_forgotten_agent_comes_back() -> None:
    """Rules: REG-059"""

    async def main() -> None:
        async with registry() as served, served.client() as client, served.admin() as admin:
            await client.register_agent(**AGENT, agent_key=AGENT_KEYS[0])
            beating = await client.start_heartbeat_task("word-counter", interval=0.05)
            await admin.unregister_agent("word-counter")
            while not await client.discover_agents():
                await asyncio.sleep(0.02)
            beating.cancel()

    run(main)


def test_changes_arrive() -> None:
    """Rules: REG-055, REG-056, REG-174, REG-313, REG-333, REG-340"""

    async def main() -> None:
        async with registry() as served, served.client() as client, served.admin() as admin:
            async with client.websocket_public() as public:
                assert (await anext(public))["type"] == "welcome"
                assert (await anext(public))["type"] == "discovery_data"
                await client.register_agent(**AGENT, agent_key=AGENT_KEYS[0])
                assert (await update(public))["data"]["total_count"] == 1
                async with client.websocket_agent() as member:
                    assert [agent["agent_id"] for agent in await anext(member)] == ["word-counter"]
                    await client.unregister_agent("word-counter")
                    assert (await update(public))["data"]["total_count"] == 0
                    assert await anext(member) == []
            async with admin.websocket_dashboard() as dashboard:
                types = [(await anext(dashboard))["type"] for _ in range(4)]
                assert types == ["monitoring", "health", "agents", "logs"]
                await dashboard.send({"type": "pause_monitoring"})
                while (message := await anext(dashboard))["type"] != "pause_ack":
                    pass
                assert message["data"]["status"] == "paused"

    run(main)


async def update(stream: Any) -> Any:
    while (message := await anext(stream))["type"] != "agents_update":
        pass
    return message


# The registry of `arcp.testing`.


def test_settings() -> None:
    with registry(settings={"ALLOWED_AGENT_TYPES": ["odd", "even"], "PUBLIC_WS_INTERVAL": 1}) as served:
        with Registry(served.url) as client:
            assert client.get_allowed_agent_types() == ["odd", "even"]
        assert AGENT_KEYS[0] not in repr(served)
    for settings, told in (
        ({"NO_SUCH": 1}, "NO_SUCH"),
        ({"AGENT_HEARTBEAT_TIMEOUT": "soon"}, "AGENT_HEARTBEAT_TIMEOUT"),
    ):
        with pytest.raises(ValueError, match=told):
            registry(settings=settings)


def test_a_port_that_is_taken() -> None:
    with registry() as served:
        port = int(served.url.rpartition(":")[2])
        with pytest.raises(arcp.ConnectionError, match=str(port)), registry(port=port):
            pass
    with registry(port=port) as again:
        assert again.url == served.url


def test_it_is_gone_afterwards() -> None:
    with registry() as served:
        pass
    with Registry(served.url, retry_attempts=0) as client, pytest.raises(arcp.ConnectionError):
        client.health_check()


def test_the_fixture(arcp_registry: ServedRegistry) -> None:
    with Registry(arcp_registry.url) as client:
        assert client.health_check()["status"] == "healthy"
