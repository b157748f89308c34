"""Who may list and follow the jobs of others."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

import arcp
from arcp.runtime import AuthorizationContext, JobContext, StaticBearerVerifier
from conftest import ALICE, TOKEN, make_client, make_runtime, run, session

BOB = "bob@example.com"


async def waits(value: Any, ctx: JobContext) -> None:
    await ctx.status("waiting")
    await asyncio.Event().wait()


def open_runtime(policy: Any, **options: Any) -> arcp.ARCPRuntime:
    bearer = StaticBearerVerifier({TOKEN: ALICE, "tok-bob": BOB})
    return make_runtime({"waits": waits}, bearer=bearer, job_authorization_policy=policy, **options)


@contextlib.asynccontextmanager
async def two(runtime: arcp.ARCPRuntime, link: str) -> AsyncIterator[tuple[arcp.ARCPClient, arcp.ARCPClient]]:
    """Alice and Bob at one runtime."""
    if link == "memory":
        async with session(runtime) as alice, session(runtime, token="tok-bob") as bob:
            yield alice, bob
        return
    async with (
        await arcp.serve_websocket(runtime.accept, port=0) as server,
        make_client() as alice,
        make_client(token="tok-bob") as bob,
    ):
        for client in (alice, bob):
            await client.connect(await arcp.WebSocketTransport.connect(server.url))
        yield alice, bob


@pytest.mark.parametrize("link", ["memory", "websocket"])
def test_a_policy_opens_jobs_to_others(link: str) -> None:
    """Rules: R-7.6.12"""

    async def main() -> None:
        asked: list[AuthorizationContext] = []

        def policy(context: AuthorizationContext) -> bool:
            asked.append(context)
            return context.job.agent == "waits"

        runtime = open_runtime(policy)
        assert runtime.policy is policy
        async with two(runtime, link) as (alice, bob):
            handle = await alice.submit(agent="waits")
            found = (await bob.list_jobs()).jobs
            assert [job.job_id for job in found] == [handle.job_id]
            subscription = await bob.subscribe(handle.job_id, history=True)
            event = await anext(subscription.handle.events())
            assert (event.kind, event.body["phase"]) == ("status", "waiting")
            # A cancel asks nobody: it is the submitter's.
            before = len(asked)
            await bob.cancel_job(handle.job_id)
            (listed_job,) = (await alice.list_jobs()).jobs
            assert (listed_job.status, len(asked)) == ("running", before)
        listed, followed = asked
        assert (listed.operation, followed.operation) == ("list", "subscribe")
        for context in asked:
            assert context.requester_principal == BOB
            job = context.job
            assert (job.job_id, job.submitter_principal, job.agent_ref) == (handle.job_id, ALICE, "waits")
            assert (job.state, job.session_id, job.parent_job_id) == ("running", alice.session_id, None)
            assert job.created_at.endswith("Z")
        await runtime.close()

    run(main)


def test_a_policy_may_be_async_and_narrow_what_a_principal_sees() -> None:
    async def main() -> None:
        async def policy(context: AuthorizationContext) -> bool:
            await asyncio.sleep(0)
            return context.job.agent != "waits"

        runtime = open_runtime(None, authorization_policy=policy)
        async with session(runtime) as alice, session(runtime) as other:
            handle = await alice.submit(agent="waits")
            # The submitting session always sees its own.
            assert [job.job_id for job in (await alice.list_jobs()).jobs] == [handle.job_id]
            assert (await other.list_jobs()).jobs == ()
            with pytest.raises(arcp.JobNotFoundError):
                await other.subscribe(handle.job_id)
        await runtime.close()

    run(main)


@pytest.mark.parametrize(
    ("says", "raises", "logged"),
    [
        (False, arcp.JobNotFoundError, False),
        (arcp.PermissionDeniedError("ask first"), arcp.PermissionDeniedError, False),
        (ValueError("broken"), arcp.JobNotFoundError, True),
        ("yes", arcp.JobNotFoundError, True),
    ],
)
def test_what_a_policy_does_not_allow_is_refused(
    says: Any, raises: type[Exception], logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Rules: R-7.6.13"""

    async def main() -> None:
        def policy(context: AuthorizationContext) -> bool:
            if isinstance(says, Exception):
                raise says
            return says  # type: ignore[no-any-return]

        runtime = open_runtime(policy)
        async with session(runtime) as alice, session(runtime, token="tok-bob") as bob:
            handle = await alice.submit(agent="waits")
            with pytest.raises(raises):
                await bob.subscribe(handle.job_id)
            assert (await bob.list_jobs()).jobs == ()
        await runtime.close()

    with caplog.at_level(logging.ERROR, "arcp"):
        run(main)
    assert ("the policy failed" in caplog.text) is logged


def test_a_listing_over_a_policy_is_paged_without_gaps() -> None:
    """Rules: R-6.6.8"""

    async def main() -> None:
        def policy(context: AuthorizationContext) -> bool:
            return int(context.job.agent.removeprefix("a")) % 3 != 0

        runtime = open_runtime(policy, max_concurrent_jobs=500)
        for number in range(6):
            runtime.register_agent(f"a{number}", waits)
        async with session(runtime) as alice, session(runtime, token="tok-bob") as bob:
            handles = [await alice.submit(agent=f"a{number % 6}") for number in range(150)]
            expected = [handle.job_id for number, handle in enumerate(handles) if number % 3 != 0]
            for limit in (7, 100, 1000):
                seen: list[str] = []
                cursor = None
                while True:
                    page = await bob.list_jobs(limit=limit, cursor=cursor)
                    assert 0 < len(page.jobs) <= limit
                    seen += [job.job_id for job in page.jobs]
                    cursor = page.next_cursor
                    if cursor is None:
                        break
                assert seen == expected
        await runtime.close()

    run(main)


def test_a_withdrawn_permission_ends_a_living_subscription() -> None:
    """Rules: R-7.6.24"""

    async def main() -> None:
        asked_for: asyncio.Queue[None] = asyncio.Queue()

        async def steps(value: Any, ctx: JobContext) -> None:
            for number in range(value):
                await asked_for.get()
                await ctx.progress(number)
            await asyncio.Event().wait()

        allowed = {BOB}
        decided = asyncio.Event()

        def policy(context: AuthorizationContext) -> bool:
            decided.set()
            return context.requester_principal in allowed

        runtime = open_runtime(policy).register_agent("steps", steps)
        runtime.policy_changed()
        async with session(runtime) as alice, session(runtime, token="tok-bob") as bob:
            handle = await alice.submit(agent="steps", input=2)
            followed = await bob.subscribe(handle.job_id)
            asked_for.put_nowait(None)
            theirs = followed.handle.events()
            assert (await anext(theirs)).body["current"] == 0
            decided.clear()
            allowed.clear()
            runtime.policy_changed()
            await decided.wait()
            # Answered behind the verdict, on the same loop.
            with pytest.raises(arcp.JobNotFoundError):
                await bob.subscribe(handle.job_id)
            asked_for.put_nowait(None)
            ours = handle.events()
            assert [(await anext(ours)).body["current"] for _ in range(2)] == [0, 1]
            # Nothing more came: what is sent later would have come before this answer.
            await bob.list_jobs()
            waiting = asyncio.ensure_future(anext(theirs))
            await asyncio.wait([waiting], timeout=0.1)
            assert not waiting.done()
            waiting.cancel()
        await runtime.close()

    run(main)


def test_what_is_no_policy_is_refused() -> None:
    with pytest.raises(TypeError, match="job_authorization_policy"):
        open_runtime("everybody")
    with pytest.raises(ValueError, match="one option"):
        open_runtime(bool, authorization_policy=bool)
