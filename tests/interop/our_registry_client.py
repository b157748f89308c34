"""Our client does everything it can against the published registry of version 2.0.3."""

import asyncio
import sys

from arcp import ARCPClient, ARCPError, AuthenticationError

URL, AGENT = sys.argv[1:]


async def refusal(call, kind):
    try:
        await call
    except kind as error:
        return error
    raise SystemExit("this was not refused")


async def main() -> None:
    async with ARCPClient(URL) as agent, ARCPClient(URL) as admin, ARCPClient(URL) as anyone:
        registered = await agent.register_agent(
            agent_id="our-agent",
            name="Our Agent",
            agent_type="testing",
            endpoint=AGENT,
            capabilities=["data-processing", "text-analysis"],
            context_brief="An agent of our client that analyses text",
            agent_key="test-agent-001",
        )
        assert (registered.agent_id, registered.status) == ("our-agent", "alive"), registered
        assert (await agent.update_heartbeat("our-agent"))["status"] == "success"
        await agent.update_metrics("our-agent", {"total_requests": 3, "success_rate": 1.0})
        assert (await agent.get_metrics("our-agent")).total_requests == 3
        assert (await agent.get_agent("our-agent")).name == "Our Agent"
        assert [each.agent_id for each in await agent.list_agents()] == ["our-agent"]
        print("registered, heartbeat, metrics, list")

        assert [each.agent_id for each in await anyone.discover_agents()] == ["our-agent"]
        found = await anyone.search_agents("text analysis agent")
        assert [each.id for each in found] == ["our-agent"], found
        assert (await anyone.get_public_agent("our-agent")).endpoint == AGENT
        assert (await anyone.health_check())["service"] == "ARCP Registry"
        assert (await anyone.get_public_stats())["alive_agents"] == 1
        assert "testing" in await anyone.get_allowed_agent_types()
        assert (await anyone.validate_token("garbage"))["valid"] is False
        print("discovery, search, system")

        await admin.login_admin("ARCP", "ARCP")
        assert (await admin.get_system_stats())["registry_statistics"]["total_agents"] == 1
        assert set(await admin.get_resource_utilization()) == {"cpu", "memory", "network", "disk"}
        async for message in anyone.websocket_public():
            assert message["type"] == "welcome", message
            break
        async for message in admin.websocket_agent():
            assert [each["agent_id"] for each in message] == ["our-agent"], message
            break
        print("administrator, sockets")

        asked = await anyone.request_agent_connection("our-agent", "user-1", "https://app.example/callback")
        assert asked["status"] == "connection_requested", asked
        assert (await refusal(anyone.get_public_agent("nobody"), ARCPError)).status == 404
        assert (await refusal(anyone.login_admin("ARCP", "wrong"), AuthenticationError)).status == 401
        assert (await agent.unregister_agent("our-agent"))["status"] == "success"
        print("connection, refusals, unregistered")


asyncio.run(asyncio.wait_for(main(), 90))
