"""Grants an agent one folder to read, sees it refused elsewhere, and gets its result all the same."""

import asyncio
import os

from arcp import ARCPClient, ClientInfo, WebSocketTransport

URL = os.environ.get("ARCP_DEMO_URL", "ws://127.0.0.1:7777/arcp")
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def main() -> None:
    client = ARCPClient(client=ClientInfo(name="lease-violation", version="1.0.0"), token=TOKEN)
    async with client:
        await client.connect(await WebSocketTransport.connect(URL))
        handle = await client.submit(agent="tidy", lease_request={"fs.read": ["/srv/reports/**"]})
        print(f"granted: {handle.lease}")
        results = {}
        async for event in handle.events():
            body = event["body"]
            results[body["call_id"]] = body
            print(f"{body['call_id']}: {body.get('error') or body['result']}")
        result = await handle.done
        print(f"{result.final_status}: {result.result}")

        assert "error" not in results["read"]
        assert results["write"]["error"]["code"] == "PERMISSION_DENIED"
        assert result.final_status == "success"


if __name__ == "__main__":
    asyncio.run(main())
