"""Run by our package: a runtime that hosts the agents."""

import asyncio
import sys

import agents
from arcp import RuntimeInfo, serve_websocket
from arcp.runtime import ARCPRuntime, StaticBearerVerifier


async def main(token: str) -> None:
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="ours", version="1"),
        bearer=StaticBearerVerifier({token: "me@example.com"}),
    )
    for name, agent in agents.ALL.items():
        runtime.register_agent(name, agent)
    runtime.register_agent_version("versioned", "1.0.0", agents.echo)
    server = await serve_websocket(runtime.accept, host="127.0.0.1", port=0, path="/arcp")
    print(f"listening on {server.url}", file=sys.stderr, flush=True)
    async with server:
        await server.serve_forever()


asyncio.run(main(sys.argv[1]))
