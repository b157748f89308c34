"""Run by the published SDK: its client against our runtime."""

import asyncio
import sys

from arcp import ClientInfo, Envelope, WebSocketTransport
from arcp.client import ARCPClient


async def main(url: str, token: str) -> None:
    client = ARCPClient(client=ClientInfo(name="published", version="1.1.3"), token=token)
    transport = await WebSocketTransport.connect(url)
    welcome = await client.connect(transport)
    assert client.session_id, welcome
    assert "progress" in client.negotiated_features, client.negotiated_features

    handle = await client.submit(agent="echo", input={"hi": 1})
    kinds = [event["kind"] async for event in handle.events()]
    result = await handle.done
    assert kinds == ["log"], kinds
    assert result.result == {"echoed": {"hi": 1}}, result
    await client.close()

    # By hand, to see the pong: the client answers pings but sends none.
    raw = await WebSocketTransport.connect(url)
    await raw.send(hello(token))
    welcome = await raw.recv()
    assert welcome["type"] == "session.welcome", welcome
    await raw.send(
        message("session.ping", {"nonce": "n1", "sent_at": "2026-01-01T00:00:00.000Z"}, welcome["session_id"])
    )
    pong = await raw.recv()
    assert (pong["type"], pong["payload"]["ping_nonce"]) == ("session.pong", "n1"), pong
    await raw.send(message("session.bye", {"reason": "done"}, welcome["session_id"]))
    closed = await raw.recv()
    assert closed["type"] == "session.closed", closed
    await raw.close()


def message(kind: str, payload: dict, session_id: str | None = None) -> dict:
    from arcp._ulid import new_ulid

    return Envelope(id=new_ulid(), type=kind, session_id=session_id, payload=payload).to_wire()


def hello(token: str) -> dict:
    return message(
        "session.hello",
        {
            "client": {"name": "published", "version": "1.1.3"},
            "auth": {"scheme": "bearer", "token": token},
            "capabilities": {"encodings": ["json"], "features": ["heartbeat"], "agents": []},
        },
    )


asyncio.run(asyncio.wait_for(main(sys.argv[1], sys.argv[2]), 30))
