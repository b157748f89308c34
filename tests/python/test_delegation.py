"""Agents that have other agents do a part of their job."""

import asyncio
from typing import Any

import pytest

import arcp
from arcp import LeaseConstraints
from arcp.runtime import ChildJob, JobContext
from conftest import make_runtime, run, session

LEASE = {"agent.delegate": ["child", "waits", "fails"], "fs.read": ["/data/**"], "cost.budget": ["USD:1.00"]}


async def child(value: Any, ctx: JobContext) -> Any:
    await ctx.metric("cost.tokens", 0.25, "USD") if "cost.budget" in ctx.lease else None
    return {"got": value, "trace_id": ctx.trace_id, "lease": ctx.lease}


async def waits(value: Any, ctx: JobContext) -> None:
    await asyncio.Event().wait()


def fails(value: Any, ctx: JobContext) -> None:
    raise arcp.PermissionDeniedError("not for you", details={"why": "policy"})


async def outcome(parent: Any, **request: Any) -> tuple[Any, list[Any]]:
    runtime = make_runtime({"parent": parent, "child": child, "waits": waits, "fails": fails})
    async with session(runtime) as client:
        handle = await client.submit(agent="parent", lease_request=LEASE, **request)
        events = [event async for event in handle.events()]
        return (await handle.done).result, events


def test_an_agent_delegates_and_awaits_the_result() -> None:
    seen: list[ChildJob] = []

    async def parent(value: Any, ctx: JobContext) -> Any:
        job = await ctx.delegate(
            "child",
            {"n": 1},
            lease_request={"fs.read": ["/data/a/**"], "cost.budget": ["USD:0.50"]},
            lease_constraints=LeaseConstraints(expires_at="2099-01-01T00:00:00Z"),
            delegate_id="mine",
        )
        seen.append(job)
        results = await asyncio.gather(job.result(), job.result())
        assert results[0] == results[1] == (await job.done).result
        assert str(ctx.budget["USD"]) == "0.75"
        return results[0] | {"parent_trace_id": ctx.trace_id}

    async def main() -> None:
        result, events = await outcome(parent)
        assert result["got"] == {"n": 1}
        assert result["trace_id"] == result["parent_trace_id"]
        assert result["lease"]["fs.read"] == ["/data/a/**"]
        (delegated,) = [event.body for event in events if event.kind == "delegate"]
        (job,) = seen
        assert delegated["delegate_id"] == job.delegate_id == "mine"
        assert delegated["agent"] == job.agent_ref == "child"
        assert job.job_id.startswith("job_")
        assert delegated["child_job_id"] == job.job_id
        assert job.trace_id == result["trace_id"]
        assert job.lease == result["lease"]
        assert job.accepted.parent_job_id is not None

    run(main)


def test_a_child_that_fails_raises_its_own_error() -> None:
    async def parent(value: Any, ctx: JobContext) -> str:
        job = await ctx.delegate("fails")
        with pytest.raises(arcp.PermissionDeniedError, match="not for you"):
            await job.result()
        with pytest.raises(arcp.PermissionDeniedError) as ended:
            await job.done
        assert ended.value.details == {"why": "policy"}
        return "went on"

    run_and_expect(parent, "went on")


def test_a_child_is_cancelled() -> None:
    async def parent(value: Any, ctx: JobContext) -> str:
        job = await ctx.delegate("waits")
        waiting = asyncio.ensure_future(job.result())
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        # That stopped the wait and not the child.
        job.cancel(reason="enough")
        with pytest.raises(arcp.CancelledError):
            await job.done
        job.cancel()
        return "went on"

    run_and_expect(parent, "went on")


def test_refused_delegations_are_raised() -> None:
    async def parent(value: Any, ctx: JobContext) -> str:
        with pytest.raises(arcp.PermissionDeniedError):
            await ctx.delegate("parent")
        with pytest.raises(arcp.LeaseSubsetViolationError):
            await ctx.delegate("child", lease_request={"fs.read": ["/**"]})
        with pytest.raises(TypeError, match="agent"):
            await ctx.delegate(3)  # type: ignore[arg-type]
        return "went on"

    run_and_expect(parent, "went on")


def run_and_expect(parent: Any, expected: Any) -> None:
    async def main() -> None:
        result, _ = await outcome(parent)
        assert result == expected

    run(main)
