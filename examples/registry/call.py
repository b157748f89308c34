"""Finds an agent by what it can do, calls it, and has the registry introduce us.

Needs `pip install httpx`.
"""

import asyncio
import os

import httpx

from arcp import ARCPClient

REGISTRY = os.environ.get("ARCP_DEMO_REGISTRY", "http://127.0.0.1:8001")


async def main() -> None:
    async with ARCPClient(REGISTRY) as registry:
        found = await registry.search_agents("how many words does my essay have")
        for hit in found:
            print(f"{hit.similarity:.2f} {hit.id} at {hit.url}")
        assert found, "start agent.py first"

        # Without a question: a list, by type and capabilities.
        listed = await registry.discover_agents(agent_type="automation", capabilities=["word-count"])
        assert found[0].id in [agent.agent_id for agent in listed]

        async with httpx.AsyncClient() as http:
            answer = await http.post(f"{found[0].url}/api/process", json={"data": "to be or not to be"})
            answer.raise_for_status()
        print(f"{answer.json()['agent']} counted {answer.json()['words']} words")
        assert answer.json()["words"] == 6

        # For agents that call back: the registry tells this one who we are and where.
        response = await registry.request_agent_connection(
            agent_id=found[0].id,
            user_id="reader-1",
            user_endpoint="http://127.0.0.1:9000/callback",
            display_name="The Reader",
        )
        print(f"connection: {response['status']}")
        assert response["status"] == "connection_requested"


if __name__ == "__main__":
    asyncio.run(main())
