"""The published client of version 2.0.3 does everything it can against our registry."""

import asyncio
import sys

from arcp import AgentRequirements, ARCPClient, ARCPError, AuthenticationError

URL, AGENT = sys.argv[1:]


async def refusal(call, kind):
    try:
        await call
    except kind as error:
        return error
    raise SystemExit("this was not refused")


async def main() -> None:
    agent, admin, anyone = ARCPClient(URL), ARCPClient(URL), ARCPClient(URL)
    registered = await agent.register_agent(
        agent_id="their-agent",
        name="Their Agent",
        agent_type="testing",
        endpoint=AGENT,
        capabilities=["data-processing", "text-analysis"],
        context_brief="An agent of the published client that analyses text",
        version="1.0.0",
        owner="Interop",
        public_key="interop-public-key-0123456789-abcdefghij",
        communication_mode="remote",
        metadata={"framework": "fastapi", "tags": ["interop"]},
        requirements=AgentRequirements(minimum_memory_mb=256, network_ports=["8080"]),
        agent_key="test-agent-001",
    )
    assert (registered.agent_id, registered.status) == ("their-agent", "alive"), registered
    assert registered.requirements.minimum_memory_mb == 256, registered.requirements
    assert agent.is_authenticated()
    print("registered")

    beat = await agent.update_heartbeat("their-agent")
    assert beat["status"] == "success", beat
    told = await agent.update_metrics("their-agent", {"total_requests": 12, "success_rate": 0.5, "custom": 1})
    assert told["status"] == "success", told
    metrics = await agent.get_metrics("their-agent")
    assert (metrics.total_requests, metrics.success_rate) == (12, 0.5), metrics
    task = await agent.start_heartbeat_task("their-agent", interval=0.05)
    await asyncio.sleep(0.2)
    task.cancel()
    assert (await agent.validate_token())["valid"] is True
    assert await agent.refresh_authentication()
    assert (await agent.get_agent("their-agent")).metrics.total_requests == 12
    assert [each.agent_id for each in await agent.list_agents(status="alive")] == ["their-agent"]
    print("heartbeat, metrics, token, list")

    found = await anyone.discover_agents(agent_type="testing", capabilities=["text-analysis"], limit=10)
    assert [each.agent_id for each in found] == ["their-agent"], found
    assert (await anyone.get_public_agent("their-agent")).name == "Their Agent"
    results = await anyone.search_agents("an agent that analyses text", min_similarity=0.3)
    assert [each.id for each in results] == ["their-agent"], results
    results = await agent.search_agents(
        "an agent that analyses text", min_similarity=0.3, weighted=True, public_api=False
    )
    assert results[0].metrics.total_requests == 12, results
    print("discovery and search")

    health, info = await anyone.health_check(), await anyone.get_system_info()
    assert health["status"] == "healthy", health
    assert info["service"] == "ARCP", info
    assert (await anyone.get_public_stats())["alive_agents"] == 1
    assert await anyone.get_allowed_agent_types() == ["security", "monitoring", "automation", "networking", "testing"]
    await admin.login_admin("ARCP", "ARCP")
    stats = await admin.get_system_stats()
    assert stats["registry_statistics"]["total_agents"] == 1, stats
    assert set(await admin.get_resource_utilization()) == {"cpu", "memory", "network", "disk"}
    snapshot = await admin.get_metrics_snapshot()
    assert snapshot.agent_stats["registry_statistics"]["total_agents"] == 1, snapshot
    assert (await admin.admin_health_check())["status"] in ("healthy", "warning", "critical")
    print("system and administrator")

    public, member = anyone.websocket_public(), agent.websocket_agent()
    assert (await anext(public))["type"] == "welcome"
    page = await anext(public)
    assert (page["type"], page["data"]["pagination"]["total_agents"]) == ("discovery_data", 1), page
    listed = await anext(member)
    assert [each["agent_id"] for each in listed] == ["their-agent"], listed
    await admin.register_agent(
        agent_id="their-second",
        name="Second",
        agent_type="monitoring",
        endpoint=AGENT,
        capabilities=["watching"],
        context_brief="Another agent, which comes and goes",
        version="1.0.0",
        owner="Interop",
        public_key="interop-public-key-0123456789-abcdefghij",
        communication_mode="remote",
        metadata={"a": "b"},
    )
    while (change := await asyncio.wait_for(anext(public), 5))["type"] != "agents_update":
        pass
    assert change["data"]["total_count"] == 2, change
    await public.aclose()
    await member.aclose()
    print("sockets")

    asked = await anyone.request_agent_connection("their-agent", "user-1", "https://app.example/callback")
    assert asked["status"] == "connection_requested", asked
    print("connection")

    refused = await refusal(anyone.login_admin("ARCP", "wrong"), AuthenticationError)
    assert "Admin login failed" in str(refused)
    refused = await refusal(agent.get_agent("nobody"), ARCPError)
    assert "Endpoint not found" in str(refused)
    gone = await agent.unregister_agent("their-agent")
    assert gone["status"] == "success", gone
    for client in (agent, admin, anyone):
        await client.close()
    print("refusals, unregistered")


asyncio.run(asyncio.wait_for(main(), 60))
