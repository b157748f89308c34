"""Which jobs there are."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

import arcp
from arcp import ListJobsFilter
from arcp.runtime import JobContext, StaticBearerVerifier
from conftest import ALICE, TOKEN, make_runtime, run, session


async def waits(value: Any, ctx: JobContext) -> None:
    await asyncio.Event().wait()


async def echo(value: Any, ctx: JobContext) -> Any:
    return value


def two_principals() -> arcp.ARCPRuntime:
    runtime = make_runtime({"waits": waits}, bearer=StaticBearerVerifier({TOKEN: ALICE, "tok-bob": "bob"}))
    return runtime.register_agent_version("echo", "1.0", echo)


def test_jobs_are_listed_page_by_page() -> None:
    async def main() -> None:
        async with session(two_principals()) as client:
            running = [(await client.submit(agent="waits")).job_id for _ in range(3)]
            first = await client.list_jobs(filter=ListJobsFilter(status=("running",)), limit=2)
            assert [job.job_id for job in first.jobs] == running[:2]
            assert first.next_cursor is not None
            second = await client.list_jobs(
                filter=ListJobsFilter(status=("running",)), limit=2, cursor=first.next_cursor
            )
            assert [job.job_id for job in second.jobs] == running[2:]
            assert second.next_cursor is None
            for job_id in running:
                await client.cancel_job(job_id)

    run(main)


def test_a_listing_shows_what_was_asked_for() -> None:
    async def main() -> None:
        async with session(two_principals()) as client:
            handle = await client.submit(agent="echo", lease_request={"cost.budget": ["USD:1.00"]})
            await handle.done
            await client.submit(agent="waits")
            (job,) = (await client.list_jobs(filter=ListJobsFilter(agent="echo"))).jobs
            assert (job.job_id, job.agent, job.status) == (handle.job_id, "echo@1.0", "success")
            assert (job.trace_id, job.parent_job_id) == (handle.trace_id, None)
            assert job.budget is not None
            assert Decimal(job.budget["USD"]) == 1
            assert job.created_at is not None
            later = ListJobsFilter(created_after=job.created_at, agent="echo")
            assert (await client.list_jobs(filter=later)).jobs == ()
            unknown = ListJobsFilter(status=("asleep",))
            assert (await client.list_jobs(filter=unknown)).jobs == ()

    run(main)


def test_others_jobs_are_not_listed() -> None:
    async def main() -> None:
        runtime = two_principals()
        async with session(runtime) as alice, session(runtime, token="tok-bob") as bob:
            await (await alice.submit(agent="echo@1.0")).done
            assert len((await alice.list_jobs()).jobs) == 1
            assert (await bob.list_jobs()).jobs == ()

    run(main)


def test_what_a_listing_refuses() -> None:
    async def main() -> None:
        async with session(two_principals()) as client:
            with pytest.raises(arcp.InvalidRequestError, match="cursor"):
                await client.list_jobs(cursor="nonsense")
            with pytest.raises(ValueError, match="limit"):
                await client.list_jobs(limit=0)
            with pytest.raises(ValueError, match="created_after"):
                await client.list_jobs(filter=ListJobsFilter(created_after="yesterday"))
        async with session(two_principals(), features=["progress"]) as client:
            with pytest.raises(arcp.InvalidRequestError, match="not negotiated"):
                await client.list_jobs()

    run(main)
