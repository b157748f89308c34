"""Signs in with a token it signed itself, then fails to with an expired one and with garbage."""

import asyncio
import hashlib
import hmac
import os
import time

from arcp import ARCPClient, ClientInfo, UnauthenticatedError, WebSocketTransport

URL = os.environ.get("ARCP_DEMO_URL", "ws://127.0.0.1:7777/arcp")
SECRET = os.environ.get("ARCP_DEMO_SECRET", "demo-secret").encode()


def sign(principal: str, *, lasts_sec: float) -> str:
    """What an issuer of tokens would do."""
    signed = f"{principal}:{time.time() + lasts_sec:.0f}"
    return f"{signed}:{hmac.new(SECRET, signed.encode(), hashlib.sha256).hexdigest()}"


async def whoami(token: str) -> str:
    client = ARCPClient(client=ClientInfo(name="custom-auth", version="1.0.0"), token=token)
    async with client:
        await client.connect(await WebSocketTransport.connect(URL))
        handle = await client.submit(agent="whoami")
        principal: str = (await handle.done).result["principal"]
        return principal


async def main() -> None:
    principal = await whoami(sign("ada@example.com", lasts_sec=60))
    print(f"signed in as {principal}")
    assert principal == "ada@example.com"

    for what, token in [("expired", sign("ada@example.com", lasts_sec=-60)), ("garbage", "garbage")]:
        try:
            await whoami(token)
        except UnauthenticatedError as error:
            print(f"{what}: {error.code}: {error.message}")
        else:
            raise AssertionError(f"{what} was taken for a token")


if __name__ == "__main__":
    asyncio.run(main())
