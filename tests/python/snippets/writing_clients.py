import os
import asyncio

from arcp import ARCPClient, ClientInfo, WebSocketTransport


async def main() -> None:
    transport = await WebSocketTransport.connect("wss://runtime.example.com/arcp")
    client = ARCPClient(
        client=ClientInfo(name="my-client", version="1.0.0"),
        token=os.environ["TOKEN"],
    )
    await client.connect(transport)
    try:
        handle = await client.submit(
            agent="weekly-report",
            input={"week": "2026-W19"},
            lease_request={"net.fetch": ["s3://example/**"]},
            idempotency_key="weekly-report-2026-W19",
        )
        async for event in handle.events():
            # elided: render event to stdout / UI
            pass
        result = await handle.done
        print(result.result)
    finally:
        await client.close()


asyncio.run(main())
