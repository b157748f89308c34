"""Waits for a silent job over a connection that is kept alive by heartbeats, which the client answers by itself."""

import asyncio
import os
import time

from arcp import ARCPClient, ClientInfo, WebSocketTransport

URL = os.environ.get("ARCP_DEMO_URL", "ws://127.0.0.1:7777/arcp")
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def main() -> None:
    client = ARCPClient(client=ClientInfo(name="heartbeat", version="1.0.0"), token=TOKEN, features=("heartbeat",))
    async with client:
        await client.connect(await WebSocketTransport.connect(URL))
        assert client.negotiated_features == ("heartbeat",)
        assert client.welcome is not None
        interval = client.welcome.heartbeat_interval_sec
        print(f"the runtime asks for a sign of life every {interval} s")
        assert interval

        begun = time.monotonic()
        handle = await client.submit(agent="think")
        result = await handle.done
        silence = time.monotonic() - begun
        print(f"{result.final_status} after {silence:.1f} s of silence: {result.result}")

        assert silence > 2 * interval, "without answers the connection would have been given up"
        assert result.result == {"answer": 42}


if __name__ == "__main__":
    asyncio.run(main())
