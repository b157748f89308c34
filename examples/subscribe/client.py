"""Ada submits a job. Bob finds it in a listing, watches it from its beginning, and cannot cancel it."""

import asyncio
import os

from arcp import ARCPClient, ClientInfo, ListJobsFilter, WebSocketTransport

URL = os.environ.get("ARCP_DEMO_URL", "ws://127.0.0.1:7777/arcp")
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def main() -> None:
    ada = ARCPClient(client=ClientInfo(name="ada", version="1.0.0"), token=TOKEN)
    bob = ARCPClient(client=ClientInfo(name="bob", version="1.0.0"), token=f"{TOKEN}-of-bob")
    async with ada, bob:
        await ada.connect(await WebSocketTransport.connect(URL))
        await bob.connect(await WebSocketTransport.connect(URL))

        handle = await ada.submit(agent="watched")
        events = handle.events()
        # Three steps are done before Bob comes.
        for _ in range(3):
            await anext(events)

        page = await bob.list_jobs(filter=ListJobsFilter(status=("running",)))
        (found,) = page.jobs
        print(f"bob found {found.job_id}, which is {found.status}")
        assert found.job_id == handle.job_id

        subscription = await bob.subscribe(found.job_id, history=True)
        assert subscription.replayed, "what was said before is told again"
        await bob.cancel_job(found.job_id, reason="bob has seen enough")
        seen = []
        async for event in subscription.handle.events():
            print(f"bob sees: {event['body']['message']}")
            seen.append(event["body"]["message"])

        result = await handle.done
        print(f"ada's job: {result.final_status}: {result.result}")
        assert seen == [f"step {number}" for number in range(1, 11)], "history, then live, with nothing lost or doubled"
        assert result.result == {"steps": 10}
        assert (await subscription.handle.done).result == result.result


if __name__ == "__main__":
    asyncio.run(main())
