"""Starts three jobs and lists those that run, two on a page."""

import asyncio
import os

from arcp import ARCPClient, ClientInfo, ListJobsFilter, WebSocketTransport

URL = os.environ.get("ARCP_DEMO_URL", "ws://127.0.0.1:7777/arcp")
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def main() -> None:
    client = ARCPClient(client=ClientInfo(name="list-jobs", version="1.0.0"), token=TOKEN)
    async with client:
        await client.connect(await WebSocketTransport.connect(URL))
        handles = [await client.submit(agent="wait") for _ in range(3)]
        running = ListJobsFilter(status=("running",), agent="wait")
        # Accepted is not yet running.
        while len((await client.list_jobs(filter=running)).jobs) < len(handles):
            await asyncio.sleep(0.01)

        first = await client.list_jobs(filter=running, limit=2)
        second = await client.list_jobs(filter=running, limit=2, cursor=first.next_cursor)
        for number, page in enumerate((first, second), start=1):
            more = "and more" if page.next_cursor else "the last"
            print(f"page {number}: {', '.join(job.job_id for job in page.jobs)} ({more})")
        for handle in handles:
            await client.cancel_job(handle.job_id)

        assert len(first.jobs) == 2
        assert first.next_cursor
        assert len(second.jobs) == 1
        assert second.next_cursor is None
        # The oldest come first.
        assert [job.job_id for job in (*first.jobs, *second.jobs)] == [handle.job_id for handle in handles]
        assert {job.status for job in (*first.jobs, *second.jobs)} == {"running"}


if __name__ == "__main__":
    asyncio.run(main())
