"""Run by the published SDK: a runtime that hosts the agents."""

import asyncio
import sys

import agents
from arcp import RuntimeInfo, serve_websocket
from arcp.runtime import ARCPRuntime, StaticBearerVerifier


async def main(token: str) -> None:
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="theirs", version="1.1.3"),
        bearer=StaticBearerVerifier({token: "me@example.com"}),
    )
    for name, agent in agents.ALL.items():
        runtime.register_agent(name, agent)
    runtime.register_agent_version("versioned", "1.0.0", agents.echo)
    server = await serve_websocket(runtime.accept, host="127.0.0.1", port=0, path="/arcp")
    port = server.sockets[0].getsockname()[1]
    print(f"listening on ws://127.0.0.1:{port}/arcp", file=sys.stderr, flush=True)
    async with server:
        await server.serve_forever()


asyncio.run(main(sys.argv[1]))
