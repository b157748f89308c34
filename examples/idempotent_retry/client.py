"""Submits the same job twice under one key, as after a lost answer: it runs once."""

import asyncio
import os
import secrets
from typing import Any

from arcp import ARCPClient, ClientInfo, DuplicateKeyError, WebSocketTransport

URL = os.environ.get("ARCP_DEMO_URL", "ws://127.0.0.1:7777/arcp")
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def main() -> None:
    client = ARCPClient(client=ClientInfo(name="idempotent-retry", version="1.0.0"), token=TOKEN)
    async with client:
        await client.connect(await WebSocketTransport.connect(URL))
        order = f"order-{secrets.token_hex(4)}"
        request: dict[str, Any] = {"input": {"order": order}, "idempotency_key": f"charge-{order}"}

        first = await client.submit(agent="charge", **request)
        result = await first.done
        again = await client.submit(agent="charge", **request)
        repeated = await again.done
        print(f"first  {first.job_id}: {result.result}")
        print(f"second {again.job_id}: {repeated.result}")
        assert first.job_id == again.job_id
        assert result.result == repeated.result

        try:
            await client.submit(agent="refund", **request)
        except DuplicateKeyError as error:
            print(f"another job under the same key: {error.code}: {error.message}")
        else:
            raise AssertionError("the key was taken for another job")


if __name__ == "__main__":
    asyncio.run(main())
