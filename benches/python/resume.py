"""Milliseconds from a fresh connection until a session that is taken up has events of before once more."""

import asyncio
import time

from session import client, run

from arcp import SessionResume, WebSocketTransport


async def until(reached: int, one: object) -> None:
    while one.latest_event_seq < reached:  # type: ignore[attr-defined]
        await asyncio.sleep(0.0005)


async def measure(url: str, events: int) -> float:
    # What is acknowledged is not kept.
    before = client(auto_ack=False)
    transport = await WebSocketTransport.connect(url)
    await before.connect(transport)
    # What the published runtime says to a lost link it does not say again, so the link is cut after the last event.
    await (await before.submit(agent="stream", input=events)).done
    await until(events + 1, before)
    resume = SessionResume(session_id=before.session_id, resume_token=before.welcome.resume_token, last_event_seq=0)
    await transport.close()
    after = client()
    begin = time.perf_counter()
    await after.resume(await WebSocketTransport.connect(url), resume=resume)
    await until(events + 1, after)
    took = time.perf_counter() - begin
    await after.close()
    return took * 1e3


run(measure)
