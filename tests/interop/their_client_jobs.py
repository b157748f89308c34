"""Run by the published SDK: what its client can do, against our runtime with agents."""

import asyncio
import contextlib
import json

from scenarios import Link, play, raises

from arcp import (
    AgentNotAvailableError,
    AgentVersionNotAvailableError,
    BudgetExhaustedError,
    CancelledError,
    ClientInfo,
    DuplicateKeyError,
    InternalError,
    InvalidRequestError,
    JobNotFoundError,
    ListJobsFilter,
    ResumeWindowExpiredError,
    SessionResume,
    TimeoutError,
    TransportClosed,
    UnauthenticatedError,
    WebSocketTransport,
)
from arcp.client import ARCPClient, AutoAckOptions

SPENDING = {"cost.budget": ["USD:1.00"], "tool.call": ["**"]}


@contextlib.asynccontextmanager
async def connected(url: str, token: str, **options):
    client = ARCPClient(client=ClientInfo(name="published", version="1.1.3"), token=token, **options)
    await client.connect(await WebSocketTransport.connect(url))
    try:
        yield client
    finally:
        await client.close()


async def kinds_of(handle) -> list[str]:
    return [event["kind"] async for event in handle.events()]


async def budgets_come_as_text_and_end_the_job_when_spent(url: str, token: str) -> None:
    async with connected(url, token) as client:
        handle = await client.submit(agent="spender", input=0.4, lease_request=SPENDING)
        assert handle.budget == {"USD": "USD:1"}, handle.budget
        metrics = [(e["body"]["name"], e["body"]["value"]) async for e in handle.events() if e["kind"] == "metric"]
        assert ("cost.inference", 0.4) in metrics, metrics
        assert ("cost.budget.remaining", 0.6) in metrics, metrics
        with raises(BudgetExhaustedError):
            await handle.done
        # The session goes on.
        assert (await (await client.submit(agent="echo", input=1)).done).result == {"echoed": 1}


async def a_cancelled_job_raises_their_cancelled_error(url: str, token: str) -> None:
    async with connected(url, token) as client:
        handle = await client.submit(agent="sleeper")
        await anext(handle.events())
        await client.cancel_job(handle.job_id)
        with raises(CancelledError):
            await handle.done
        # A second cancel is harmless: job.cancelled is no type they know, and they ignore it.
        await client.cancel_job(handle.job_id)
        assert (await (await client.submit(agent="echo", input=1)).done).final_status == "success"


async def a_job_that_runs_too_long_raises_their_timeout_error(url: str, token: str) -> None:
    async with connected(url, token) as client:
        handle = await client.submit(agent="sleeper", max_runtime_sec=1)
        with raises(TimeoutError):
            await handle.done


async def jobs_are_listed_by_filter_and_page(url: str, token: str) -> None:
    async with connected(url, token) as client:
        sleepers = {(await client.submit(agent="sleeper")).job_id for _ in range(3)}
        echo = await client.submit(agent="echo")
        await echo.done
        seen, cursor = [], None
        while True:
            running = ListJobsFilter(status=("running",), agent="sleeper")
            page = await client.list_jobs(filter=running, limit=2, cursor=cursor)
            assert len(page.jobs) <= 2, page
            seen += page.jobs
            cursor = page.next_cursor
            if cursor is None:
                break
        # Others of this run may be there.
        assert {job.job_id for job in seen} >= sleepers, seen
        assert len({job.job_id for job in seen}) == len(seen), seen
        assert {(job.agent, job.status) for job in seen} == {("sleeper", "running")}, seen
        ended = await client.list_jobs(filter=ListJobsFilter(status=("success",)))
        assert echo.job_id in {job.job_id for job in ended.jobs}, ended
        for job_id in sleepers:
            await client.cancel_job(job_id)


async def a_subscriber_gets_what_is_new_and_the_end(url: str, token: str) -> None:
    name = "subscriber"
    async with connected(url, token) as owner, connected(url, token) as other:
        handle = await owner.submit(agent="chatty", input={"events": 3, "gate": name})
        first = [await anext(handle.events()) for _ in range(3)]
        assert [event["body"]["current"] for event in first] == [0, 1, 2], first
        fresh = await other.subscribe(handle.job_id)
        assert fresh.handle.job_id == handle.job_id
        await owner.submit(agent="opener", input=name)
        assert [e["body"]["current"] async for e in fresh.handle.events()] == [3, 4, 5]
        assert (await fresh.handle.done).result == "said"
        # With history they get at least the end. Their client makes the handle only after it has read on, so of what
        # stands right behind job.subscribed it may drop a part or all, the end included: then the handle hears no more.
        late = await other.subscribe(handle.job_id, history=True)
        assert late.replayed >= 1, late
        with contextlib.suppress(asyncio.TimeoutError):
            async with asyncio.timeout(1):
                assert (await late.handle.done).result == "said"


async def a_repeated_submit_gets_the_same_job_and_its_end_again(url: str, token: str) -> None:
    async with connected(url, token) as client:
        first = await client.submit(agent="echo", input=1, idempotency_key="k1")
        await first.done
        again = await client.submit(agent="echo", input=1, idempotency_key="k1")
        assert again.job_id == first.job_id
        assert (await again.done).result == {"echoed": 1}
        with raises(DuplicateKeyError):
            await client.submit(agent="echo", input=2, idempotency_key="k1")


async def a_streamed_result_is_collected(url: str, token: str) -> None:
    async with connected(url, token) as client:
        handle = await client.submit(agent="streams", input=200_000)
        collected = await handle.collect_chunks()
        assert collected == b"one,\xfftwo" + b"three" * 200_000, len(collected)
        result = await handle.done
        assert (result.result, result.result_size) == (None, len(collected)), result


async def a_session_is_taken_up_after_a_dropped_link(url: str, token: str) -> None:
    name = "dropped"
    async with Link(url) as link, connected(url, token) as other:
        before = ARCPClient(client=ClientInfo(name="published", version="1.1.3"), token=token)
        await before.connect(await WebSocketTransport.connect(link.url))
        submit = {"agent": "chatty", "input": {"events": 5, "gate": name}, "idempotency_key": name}
        handle = await before.submit(**submit)
        for _ in range(5):
            await anext(handle.events())
        # The welcome's number of this session; their handle fails by itself.
        seen = before.latest_event_seq
        link.cut()
        with raises(TransportClosed):
            await handle.done
        await (await other.submit(agent="opener", input=name)).done
        after = ARCPClient(client=ClientInfo(name="published", version="1.1.3"), token=token)
        resume = SessionResume(
            session_id=before.session_id, resume_token=before.welcome.resume_token, last_event_seq=seen
        )
        welcome = await after.resume(await WebSocketTransport.connect(link.url), resume=resume)
        assert welcome.session_id == before.session_id
        assert welcome.resume_token != before.welcome.resume_token
        # Their new client has no handle for the old job: it counts the replay, five events and the end, and drops it.
        while after.latest_event_seq < seen + 6:
            await asyncio.sleep(0.01)
        # The key gives the handle back, with the end.
        again = await after.submit(**submit)
        assert again.job_id == handle.job_id
        assert (await again.done).result == "said"
        # A token works once.
        late = ARCPClient(client=ClientInfo(name="published", version="1.1.3"), token=token)
        with raises(ResumeWindowExpiredError):
            await late.resume(await WebSocketTransport.connect(link.url), resume=resume)
        await after.close()
        await before.close()


async def acks_by_themselves_and_by_hand_are_taken(url: str, token: str) -> None:
    async with connected(url, token, auto_ack=AutoAckOptions(every_n=10, interval_sec=0.05)) as client:
        handle = await client.submit(agent="chatty", input={"events": 500})
        assert (await kinds_of(handle)).count("progress") == 500
        await asyncio.sleep(0.1)
        await client.ack(client.latest_event_seq)
        assert (await (await client.submit(agent="echo", input=1)).done).result == {"echoed": 1}


async def a_refusal_raises_the_class_of_its_code(url: str, token: str) -> None:
    stranger = ARCPClient(client=ClientInfo(name="published", version="1.1.3"), token="wrong")
    with raises(UnauthenticatedError):
        await stranger.connect(await WebSocketTransport.connect(url))
    async with connected(url, token) as client:
        with raises(AgentNotAvailableError):
            await client.submit(agent="nobody")
        with raises(AgentVersionNotAvailableError):
            await client.submit(agent="versioned@9.9.9")
        with raises(InvalidRequestError):
            await client.submit(agent="echo", lease_request={"cost.budget": ["money"]})
        with raises(JobNotFoundError):
            await client.subscribe("job_01JX3000000000000000000001")
        handle = await client.submit(agent="failing")
        with raises(InternalError, "boom"):
            await handle.done


async def one_refusal_fails_their_other_handles_and_ours_cannot_prevent_it(url: str, token: str) -> None:
    # Their client fails every handle at any session.error; it says nothing of which request it belongs to.
    async with connected(url, token) as client:
        sleeper = await client.submit(agent="sleeper")
        with raises(AgentNotAvailableError):
            await client.submit(agent="nobody")
        with raises(AgentNotAvailableError):
            await sleeper.done
        await client.cancel_job(sleeper.job_id)
        assert json.dumps((await (await client.submit(agent="echo", input=1)).done).result)


play(
    budgets_come_as_text_and_end_the_job_when_spent,
    a_cancelled_job_raises_their_cancelled_error,
    a_job_that_runs_too_long_raises_their_timeout_error,
    jobs_are_listed_by_filter_and_page,
    a_subscriber_gets_what_is_new_and_the_end,
    a_repeated_submit_gets_the_same_job_and_its_end_again,
    a_streamed_result_is_collected,
    a_session_is_taken_up_after_a_dropped_link,
    acks_by_themselves_and_by_hand_are_taken,
    a_refusal_raises_the_class_of_its_code,
    one_refusal_fails_their_other_handles_and_ours_cannot_prevent_it,
)
