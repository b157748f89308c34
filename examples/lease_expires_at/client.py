"""Grants a job two seconds, and sees it end when they are over."""

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta

from arcp import ARCPClient, ClientInfo, LeaseConstraints, LeaseExpiredError, WebSocketTransport

URL = os.environ.get("ARCP_DEMO_URL", "ws://127.0.0.1:7777/arcp")
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")
LEASE_SEC = float(os.environ.get("ARCP_DEMO_LEASE_SEC", "2"))


async def main() -> None:
    client = ARCPClient(client=ClientInfo(name="lease-expires-at", version="1.0.0"), token=TOKEN)
    async with client:
        await client.connect(await WebSocketTransport.connect(URL))
        expires_at = datetime.now(UTC) + timedelta(seconds=LEASE_SEC)
        begun = time.monotonic()
        handle = await client.submit(
            agent="sleeper",
            lease_constraints=LeaseConstraints(expires_at=expires_at.isoformat().replace("+00:00", "Z")),
        )
        messages = []
        async for event in handle.events():
            print(event["body"]["message"])
            messages.append(event["body"]["message"])
        try:
            await handle.done
        except LeaseExpiredError as error:
            took = time.monotonic() - begun
            print(f"{error.code} after {took:.1f} s: {error.message}")
        else:
            raise AssertionError("the lease did not end the job")

        assert messages[-1] == "the lease has ended"
        assert LEASE_SEC - 0.5 < took < LEASE_SEC + 3


if __name__ == "__main__":
    asyncio.run(main())
