"""Shares work between all agents with a capability, and goes on when one of them fails.

Needs `pip install httpx`.
"""

import asyncio
import os
from typing import Any

import httpx

from arcp import AgentInfo, ARCPClient

REGISTRY = os.environ.get("ARCP_DEMO_REGISTRY", "http://127.0.0.1:8001")
TEXTS = int(os.environ.get("ARCP_DEMO_TEXTS", "6"))


class Pool:
    """Agents with one capability, taken in turn."""

    def __init__(self, registry: ARCPClient, http: httpx.AsyncClient, capability: str) -> None:
        self.registry = registry
        self.http = http
        self.capability = capability
        self.agents: list[AgentInfo] = []

    async def process(self, data: str) -> dict[str, Any]:
        if not self.agents:
            self.agents = await self.registry.discover_agents(capabilities=[self.capability])
        # Every agent at most once: a call ends, whatever fails.
        for _ in range(len(self.agents)):
            agent = self.agents.pop(0)
            try:
                answer = await self.http.post(f"{agent.endpoint}/api/process", json={"data": data})
                answer.raise_for_status()
            except httpx.HTTPError as error:
                # It stays out until the pool is empty and asks the registry again.
                print(f"{agent.agent_id} failed: {type(error).__name__}")
                continue
            self.agents.append(agent)
            read: dict[str, Any] = answer.json()
            return read
        raise RuntimeError(f"no agent with the capability {self.capability!r} is left")


async def main() -> None:
    async with ARCPClient(REGISTRY) as registry, httpx.AsyncClient(timeout=5) as http:
        pool = Pool(registry, http, "word-count")
        for number in range(1, TEXTS + 1):
            answer = await pool.process("word " * number)
            print(f"{number}: {answer['agent']} counted {answer['words']} words")
            assert answer["words"] == number


if __name__ == "__main__":
    asyncio.run(main())
