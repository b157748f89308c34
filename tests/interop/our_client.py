"""Run by our package: our client against the published runtime."""

import asyncio
import sys
from typing import Any

from arcp import ARCPClient, ClientInfo, WebSocketTransport


async def main(url: str, token: str) -> None:
    client = ARCPClient(client=ClientInfo(name="ours", version="1"), token=token)
    await client.connect(await WebSocketTransport.connect(url))
    assert client.session_id
    handle = await client.submit(agent="echo", input={"hi": 1})
    kinds = [event["kind"] async for event in handle.events()]
    result = await handle.done
    assert kinds == ["log"], kinds
    assert result.result == {"echoed": {"hi": 1}}, result
    await client.close()
    await ping(url, token)


async def ping(url: str, token: str) -> None:
    """By hand over our transport: a client pings by itself only after half a minute of silence."""
    transport = await WebSocketTransport.connect(url)
    hello = {
        "client": {"name": "ours", "version": "1"},
        "auth": {"scheme": "bearer", "token": token},
        "capabilities": {"encodings": ["json"], "features": ["heartbeat"]},
    }
    await transport.send(message("session.hello", "01JX3000000000000000000001", hello))
    welcome = await transport.recv()
    assert welcome["type"] == "session.welcome", welcome
    session = welcome["session_id"]
    sent = {"nonce": "n1", "sent_at": "2026-01-01T00:00:00.000Z"}
    await transport.send(message("session.ping", "01JX3000000000000000000002", sent, session))
    pong = await transport.recv()
    assert (pong["type"], pong["payload"]["ping_nonce"]) == ("session.pong", "n1"), pong
    await transport.send(message("session.bye", "01JX3000000000000000000003", {"reason": "done"}, session))
    await transport.close()


def message(kind: str, number: str, payload: dict[str, Any], session_id: str | None = None) -> dict[str, Any]:
    known = {} if session_id is None else {"session_id": session_id}
    return {"arcp": "1.1", "id": f"msg_{number}", "type": kind, **known, "payload": payload}


asyncio.run(asyncio.wait_for(main(sys.argv[1], sys.argv[2]), 30))
