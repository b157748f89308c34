"""Watches agents come and go over the public socket, which needs no credentials."""

import asyncio
import contextlib
import os
import signal

from arcp import ARCPClient

REGISTRY = os.environ.get("ARCP_DEMO_REGISTRY", "http://127.0.0.1:8001")


async def main() -> None:
    known: set[str] | None = None
    async with ARCPClient(REGISTRY) as registry:
        # Comes back by itself when the connection is lost; the list after that says what was missed.
        async for message in registry.websocket_public():
            data = message.get("data", {})
            match message.get("type"):
                case "discovery_data" | "agents_update":
                    alive = {agent["agent_id"] for agent in data["agents"]}
                    if known is None:
                        print(f"alive: {', '.join(sorted(alive)) or 'nobody'}", flush=True)
                    else:
                        for agent_id in sorted(alive - known):
                            print(f"+ {agent_id}", flush=True)
                        for agent_id in sorted(known - alive):
                            print(f"- {agent_id}", flush=True)
                    known = alive
                case "stats_update":
                    print(f"{data['alive_agents']} alive, {data['dead_agents']} dead", flush=True)


if __name__ == "__main__":
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
