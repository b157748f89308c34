"""Run by our package: what our client can do, against the published runtime with agents."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

from scenarios import Link, play, raises

from arcp import (
    AgentNotAvailableError,
    AgentVersionNotAvailableError,
    ARCPClient,
    BudgetExhaustedError,
    CancelledError,
    ClientInfo,
    DuplicateKeyError,
    InternalError,
    JobNotFoundError,
    ListJobsFilter,
    ResumeWindowExpiredError,
    SessionResume,
    TimeoutError,
    TransportClosed,
    UnauthenticatedError,
    WebSocketTransport,
)

SPENDING = {"cost.budget": ["USD:1.00"], "tool.call": ["**"]}


@contextlib.asynccontextmanager
async def connected(url: str, token: str, **options: Any) -> AsyncIterator[ARCPClient]:
    async with ARCPClient(client=ClientInfo(name="ours", version="1"), token=token, **options) as client:
        await client.connect(await WebSocketTransport.connect(url))
        yield client


async def said(events: AsyncIterator[Any], count: int | None = None) -> list[int]:
    """What the progress events say, all or so many of them."""
    found: list[int] = []
    async for event in events:
        if event.kind == "progress":
            found.append(event.body["current"])
        if count is not None and len(found) == count:
            break
    return found


async def program(command: str, url: str, token: str, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "arcp", command, "--url", url, "--token", token, *arguments,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="surrogateescape"), errors.decode()


async def budgets_in_their_text_form_are_read(url: str, token: str) -> None:
    async with connected(url, token) as client:
        handle = await client.submit(agent="spender", input=0.4, lease_request=SPENDING)
        assert handle.budget == {"USD": "USD:1.00"}, handle.budget
        metrics = [(e.body["name"], e.body["value"]) async for e in handle.events() if e.kind == "metric"]
        assert ("cost.budget.remaining", 0.6) in metrics, metrics
        with raises(BudgetExhaustedError):
            await handle.done


async def a_result_that_says_cancelled_is_a_cancelled_error(url: str, token: str) -> None:
    async with connected(url, token) as client:
        handle = await client.submit(agent="sleeper")
        await anext(handle.events())
        await client.cancel_job(handle.job_id)
        with raises(CancelledError):
            await handle.done
        # Nobody answers a cancel there, and nobody waits for one.
        await client.cancel_job(handle.job_id)
        assert (await (await client.submit(agent="echo", input=1)).done).result == {"echoed": 1}


async def a_result_that_says_timed_out_is_a_timeout_error(url: str, token: str) -> None:
    async with connected(url, token) as client:
        handle = await client.submit(agent="sleeper", max_runtime_sec=1)
        with raises(TimeoutError):
            await handle.done


async def a_subscription_sees_history_before_its_answer_and_numbers_that_repeat(url: str, token: str) -> None:
    async with connected(url, token) as owner, connected(url, token) as other:
        jobs = []
        for name in ("a", "b"):
            handle = await owner.submit(agent="chatty", input={"events": 3, "gate": name})
            assert await said(handle.events(), 3) == [0, 1, 2]
            jobs.append(handle)
        # Each subscription is numbered from 1 by itself.
        followed = [await other.subscribe(handle.job_id, history=True) for handle in jobs]
        fresh = await other.subscribe(jobs[0].job_id)
        for name in ("a", "b"):
            await (await owner.submit(agent="opener", input=name)).done
        for subscription in followed:
            assert await said(subscription.handle.events()) == [0, 1, 2, 3, 4, 5]
            assert (await subscription.handle.done).result == "said"
        # One link per job and session: what the second answered is what is new.
        assert (await said(fresh.handle.events()))[-3:] == [3, 4, 5]
        late = await other.subscribe(jobs[1].job_id, history=True)
        assert await said(late.handle.events()) == [0, 1, 2, 3, 4, 5]
        assert (await late.handle.done).result == "said"
        # Without history the end is not sent again, and their answer says that there was one.
        gone = await other.subscribe(jobs[1].job_id)
        with raises(JobNotFoundError, "success"):
            await gone.handle.done


async def a_repeated_submit_gets_the_same_job_and_its_end_again(url: str, token: str) -> None:
    async with connected(url, token) as client:
        first = await client.submit(agent="echo", input=1, idempotency_key="k1")
        await first.done
        again = await client.submit(agent="echo", input=1, idempotency_key="k1")
        assert again.job_id == first.job_id
        assert (await again.done).result == {"echoed": 1}
        with raises(DuplicateKeyError):
            await client.submit(agent="echo", input=2, idempotency_key="k1")
    # In another session their answer, and the end, still name the first session and come under the ids of then.
    async with connected(url, token) as client:
        again = await client.submit(agent="echo", input=1, idempotency_key="k1")
        assert again.job_id == first.job_id
        assert (await again.done).result == {"echoed": 1}


async def a_streamed_result_is_put_together(url: str, token: str) -> None:
    async with connected(url, token) as client:
        handle = await client.submit(agent="streams", input=100_000)
        collected = await handle.collect_chunks()
        assert collected == b"one,\xfftwo" + b"three" * 100_000, len(collected)
        assert (await handle.done).result_size == len(collected)


async def their_listings_have_no_lease_and_no_cursor_at_the_end(url: str, token: str) -> None:
    async with connected(url, token) as client:
        sleepers = [await client.submit(agent="sleeper") for _ in range(3)]
        seen, cursor = [], None
        while True:
            page = await client.list_jobs(
                filter=ListJobsFilter(status=["running"], agent="sleeper"), limit=2, cursor=cursor
            )
            assert len(page.jobs) <= 2, page
            seen += [job.job_id for job in page.jobs]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert {handle.job_id for handle in sleepers} <= set(seen), seen
        assert len(seen) == len(set(seen)), seen
        for handle in sleepers:
            await client.cancel_job(handle.job_id)


async def a_fresh_client_takes_a_session_up_and_hears_its_job_to_the_end(url: str, token: str) -> None:
    async with Link(url) as link, connected(url, token) as other:
        before = ARCPClient(client=ClientInfo(name="ours", version="1"), token=token)
        welcome = await before.connect(await WebSocketTransport.connect(link.url))
        handle = await before.submit(agent="chatty", input={"events": 3, "gate": "taken up"})
        assert await said(handle.events(), 3) == [0, 1, 2]
        link.hold()
        await before.close()
        link.release()
        point = SessionResume(
            session_id=welcome.session_id, resume_token=welcome.resume_token, last_event_seq=before.latest_event_seq
        )
        async with ARCPClient(client=ClientInfo(name="ours", version="1"), token=token) as after:
            await after.resume(await WebSocketTransport.connect(link.url), resume=point)
            again = after.job(handle.job_id)
            # Its answer says that they have taken the subscription, too.
            await after.list_jobs()
            await (await other.submit(agent="opener", input="taken up")).done
            assert await said(again.events()) == [3, 4, 5]
            assert (await again.done).result == "said"


async def a_refusal_raises_the_class_of_its_code_and_nothing_else_fails(url: str, token: str) -> None:
    stranger = ARCPClient(client=ClientInfo(name="ours", version="1"), token="wrong")
    with raises(UnauthenticatedError):
        await stranger.connect(await WebSocketTransport.connect(url))
    async with connected(url, token) as client:
        sleeper = await client.submit(agent="sleeper")
        with raises(AgentNotAvailableError):
            await client.submit(agent="nobody")
        with raises(AgentVersionNotAvailableError):
            await client.submit(agent="versioned@9.9.9")
        # A lease of a wrong shape is an internal error there, said to be retryable; nothing is retried by itself.
        with raises(InternalError):
            await client.submit(agent="echo", lease_request={"cost.budget": ["money"]})
        with raises(JobNotFoundError):
            await client.subscribe("job_01JX3000000000000000000001")
        handle = await client.submit(agent="failing")
        with raises(InternalError, "boom"):
            await handle.done
        await client.cancel_job(sleeper.job_id)
        with raises(CancelledError):
            await sleeper.done


async def a_link_lost_while_jobs_run_is_healed_and_they_are_followed_on(url: str, token: str) -> None:
    async with Link(url) as link, connected(url, token) as other, connected(link.url, token) as client:
        session = client.session_id
        names = ("cut a", "cut b")
        handles = [await client.submit(agent="chatty", input={"events": 3, "gate": name}) for name in names]
        for handle in handles:
            assert await said(handle.events(), 3) == [0, 1, 2]
        followed = await other.submit(agent="chatty", input={"events": 3, "gate": "cut c"})
        subscription = await client.subscribe(followed.job_id)
        # Twice: what a resumed session follows must be followed anew after the next resume, too.
        for _ in range(2):
            link.cut()
            assert (await (await client.submit(agent="echo", input=1, idempotency_key="e")).done).result
        assert client.session_id == session
        for name in (*names, "cut c"):
            await (await other.submit(agent="opener", input=name)).done
        for handle in (*handles, subscription.handle):
            assert (await said(handle.events()))[-3:] == [3, 4, 5], handle
            assert (await handle.done).result == "said"


async def a_job_that_ended_while_the_link_was_cut_ends_in_an_error_that_says_so(url: str, token: str) -> None:
    async with Link(url) as link, connected(url, token) as other, connected(link.url, token) as client:
        handle = await client.submit(agent="chatty", input={"events": 1, "gate": "meanwhile"})
        assert await said(handle.events(), 1) == [0]
        link.hold()
        # Until they have noticed, what the job does counts as sent.
        for _ in range(3):
            await (await other.submit(agent="echo")).done
        await (await other.submit(agent="opener", input="meanwhile")).done
        link.release()
        # They keep neither the events nor the end of a job whose connection was gone.
        with raises(ResumeWindowExpiredError, "success"):
            await handle.done


async def a_session_they_forgot_is_begun_anew_and_its_jobs_are_followed(url: str, token: str) -> None:
    # Their resume takes one try: a hello that is cut before its welcome arrives has used the record up, and the next is
    # answered with PERMISSION_DENIED.
    async with Link(url) as link, connected(url, token) as other, connected(link.url, token) as client:
        handle = await client.submit(agent="chatty", input={"events": 2, "gate": "anew"})
        assert await said(handle.events(), 2) == [0, 1]
        link.lose_next_welcome()
        link.cut()
        assert (await (await client.submit(agent="echo", input=1, idempotency_key="anew")).done).result
        await (await other.submit(agent="opener", input="anew")).done
        assert (await said(handle.events()))[-2:] == [2, 3]
        assert (await handle.done).result == "said"


async def the_program_submits_lists_tails_and_cancels(url: str, token: str) -> None:
    status, output, errors = await program("submit", url, token, "--agent", "echo", "--input", '{"hi":1}', "--quiet")
    assert (status, json.loads(output)["result"]) == (0, {"echoed": {"hi": 1}}), (output, errors)
    status, output, errors = await program("submit", url, token, "--agent", "streams", "--input", "2", "--quiet")
    assert (status, output.encode(errors="surrogateescape")) == (0, b"one,\xfftwothreethree"), (output, errors)
    detached = [await program("submit", url, token, "--agent", "sleeper", "--detach") for _ in range(3)]
    ids = {output.strip() for _, output, _ in detached}
    listing = ("--status", "running", "--agent", "sleeper", "--limit", "2", "--all", "--output", "json")
    status, output, errors = await program("jobs", url, token, *listing)
    assert status == 0, errors
    # Their entries have no lease, and the last page no cursor.
    jobs = [json.loads(line)["job"] for line in output.splitlines()]
    assert {job["job_id"] for job in jobs} >= ids, output
    assert len(jobs) == len({job["job_id"] for job in jobs}), output
    for job_id in ids:
        status, output, errors = await program("cancel", url, token, "--job-id", job_id)
        assert status == 0, errors
        status, output, errors = await program("tail", url, token, "--job-id", job_id)
        assert status != 0, output
        # Its own session is gone, so its end is kept nowhere: who follows in time hears it, others that there was one.
        assert "cancelled" in errors.lower(), errors


async def every_call_ends_when_the_runtime_is_gone_for_good(url: str, token: str) -> None:
    async with Link(url) as link:
        client = ARCPClient(client=ClientInfo(name="ours", version="1"), token=token)
        await client.connect(await WebSocketTransport.connect(link.url))
        handle = await client.submit(agent="sleeper")
        await link.close()
        async with asyncio.timeout(5):
            await client.close()
            with raises(TransportClosed):
                await handle.done
        status, _, errors = await program("submit", link.url, token, "--agent", "echo", "--reconnect", "1")
        assert status != 0, errors
    async with connected(url, token) as other:
        await other.cancel_job(handle.job_id)


play(
    budgets_in_their_text_form_are_read,
    a_result_that_says_cancelled_is_a_cancelled_error,
    a_result_that_says_timed_out_is_a_timeout_error,
    a_subscription_sees_history_before_its_answer_and_numbers_that_repeat,
    a_repeated_submit_gets_the_same_job_and_its_end_again,
    a_streamed_result_is_put_together,
    their_listings_have_no_lease_and_no_cursor_at_the_end,
    a_fresh_client_takes_a_session_up_and_hears_its_job_to_the_end,
    a_refusal_raises_the_class_of_its_code_and_nothing_else_fails,
    a_link_lost_while_jobs_run_is_healed_and_they_are_followed_on,
    a_job_that_ended_while_the_link_was_cut_ends_in_an_error_that_says_so,
    a_session_they_forgot_is_begun_anew_and_its_jobs_are_followed,
    the_program_submits_lists_tails_and_cancels,
    every_call_ends_when_the_runtime_is_gone_for_good,
)
