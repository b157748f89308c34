import asyncio

from arcp import RuntimeInfo, serve_websocket
from arcp.runtime import ARCPRuntime, StaticBearerVerifier

runtime = ARCPRuntime(
    runtime=RuntimeInfo(name="my-runtime", version="1.1.0"),
    bearer=StaticBearerVerifier({"tok": "me@example.com"}),
)
runtime.register_agent("echo", lambda inp, ctx: {"echoed": inp})


async def main() -> None:
    server = await serve_websocket(
        runtime.accept, host="127.0.0.1", port=7777, path="/arcp",
    )
    async with server:
        await server.serve_forever()


asyncio.run(main())
