"""The faults one published implementation was seen to have, each put to this one."""

import asyncio
import itertools
from decimal import Decimal
from typing import Any

import pytest

import arcp
from arcp import ListJobsFilter
from arcp.runtime import JobContext
from conftest import TOKEN, make_client, make_runtime, numbers_of, run, session
from links import Steps, accept, behind_a_cutter, resumable, take_up


async def echo(value: Any, ctx: JobContext) -> Any:
    return value


async def counts(value: Any, ctx: JobContext) -> str:
    for number in range(value):
        await ctx.progress(number)
    return "counted"


def hello(**members: Any) -> dict[str, Any]:
    payload = {
        "client": {"name": "by-hand", "version": "1"},
        "auth": {"scheme": "bearer", "token": TOKEN},
        "capabilities": {"encodings": ["json"], "features": list(arcp.V1_1_FEATURES)},
    }
    return {"arcp": "1.1", "id": "01J00000000000000000000000", "type": "session.hello", "payload": payload} | members


def test_probe_1_history_of_a_finished_job() -> None:
    async def main() -> None:
        async with session(make_runtime({"counts": counts})) as client:
            handle = await client.submit(agent="counts", input=6)
            await handle.done
            async with asyncio.timeout(5):
                followed = await client.subscribe(handle.job_id, history=True)
                assert followed.replayed
                assert await numbers_of(followed.handle.events()) == list(range(6))
                assert (await followed.handle.done).result == "counted"

    run(main)


def test_probe_2_history_of_a_running_job() -> None:
    async def main() -> None:
        agent = Steps()
        runtime = make_runtime({"agent": agent})
        async with session(runtime) as submitter, session(runtime) as watcher:
            handle = await submitter.submit(agent="agent", input=10)
            agent.tell(5)
            events = handle.events()
            for _ in range(5):
                await anext(events)
            followed = await watcher.subscribe(handle.job_id, history=True)
            agent.tell(5)
            assert followed.replayed
            assert await numbers_of(followed.handle.events()) == list(range(10))

    run(main)


def test_probe_3_subscribing_to_ones_own_job() -> None:
    async def main() -> None:
        agent = Steps()
        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent", input=4)
            followed = await client.subscribe(handle.job_id, history=True)
            agent.tell(4)
            assert await numbers_of(handle.events()) == list(range(4))
            assert await numbers_of(followed.handle.events()) == list(range(4))
            assert (await handle.done).result == (await followed.handle.done).result == "done"
            # Four events and the end, each sent once.
            assert client.latest_event_seq == 5

    run(main)


def test_probe_4_a_link_lost_in_the_middle_of_a_job() -> None:
    async def main() -> None:
        agent = Steps()
        async with behind_a_cutter(make_runtime({"agent": agent})) as (cutter, url), make_client() as client:
            await client.connect(await arcp.WebSocketTransport.connect(url))
            handle = await client.submit(agent="agent", input=100)
            events = handle.events()
            agent.tell(1)
            taken = [(await anext(events)).body["current"]]
            cutter.cut()
            agent.tell(99)
            taken += await numbers_of(events)
            assert taken == list(range(100))
            assert (await handle.done).result == "done"

    run(main)


def test_probe_5_replayed_events_have_a_handle() -> None:
    async def main() -> None:
        agent = Steps()
        runtime = make_runtime({"agent": agent})
        client, transport = await resumable(runtime)
        handle = await client.submit(agent="agent", input=8)
        events = handle.events()
        agent.tell(2)
        for _ in range(2):
            await anext(events)
        await transport.close()
        agent.tell(6)
        other = await take_up(runtime, client, last_event_seq=2)
        same = other.job(handle.job_id)
        assert await numbers_of(same.events()) == list(range(2, 8))
        assert (await same.done).result == "done"
        await other.close()
        await runtime.close()

    run(main)


def test_probe_6_a_resume_with_a_wrong_token_burns_nothing() -> None:
    async def main() -> None:
        runtime = make_runtime()
        client, transport = await resumable(runtime)
        await transport.close()
        with pytest.raises(arcp.ResumeWindowExpiredError):
            await take_up(runtime, client, resume_token="rtk_wrong")
        other = await take_up(runtime, client)
        assert other.session_id == client.session_id
        await other.close()
        await runtime.close()

    run(main)


def test_probe_7_a_resume_after_a_clean_close_finds_jobs_that_went_on() -> None:
    async def main() -> None:
        agent = Steps()
        runtime = make_runtime({"agent": agent})
        client, _ = await resumable(runtime)
        handle = await client.submit(agent="agent", input=3)
        await client.close()
        with pytest.raises(arcp.TransportClosed):
            await client.submit(agent="agent")
        agent.tell(3)
        other = await take_up(runtime, client)
        assert await numbers_of(other.job(handle.job_id).events()) == [0, 1, 2]
        await other.close()
        await runtime.close()

    run(main)


def test_probe_8_a_resume_that_comes_too_late_says_so() -> None:
    async def main() -> None:
        runtime = make_runtime(resume_window_sec=0.2)
        client, transport = await resumable(runtime)
        with pytest.raises(arcp.ResumeWindowExpiredError):
            await take_up(runtime, client, session_id="sess_01J00000000000000000000000")
        await transport.close()
        await asyncio.sleep(0.5)
        with pytest.raises(arcp.ResumeWindowExpiredError):
            await take_up(runtime, client)
        await runtime.close()

    run(main)


def test_probe_9_a_refused_submit_fails_alone() -> None:
    async def main() -> None:
        agent = Steps()
        async with session(make_runtime({"agent": agent})) as client:
            handles = [await client.submit(agent="agent", input=1) for _ in range(3)]
            with pytest.raises(arcp.AgentNotAvailableError):
                await client.submit(agent="nobody")
            agent.tell(3)
            assert [(await handle.done).result for handle in handles] == ["done"] * 3

    run(main)


class Joined:
    """A transport of the test's own, through which it can speak for the client."""

    def __init__(self, inner: arcp.Transport) -> None:
        self.inner = inner
        self.received: list[dict[str, Any]] = []

    async def send(self, message: dict[str, Any]) -> None:
        await self.inner.send(message)

    async def recv(self) -> dict[str, Any]:
        message = await self.inner.recv()
        self.received.append(message)
        return message

    async def close(self) -> None:
        await self.inner.close()

    @property
    def is_closed(self) -> bool:
        return self.inner.is_closed


def test_probe_10_an_unknown_message_harms_no_job() -> None:
    async def main() -> None:
        agent = Steps()
        runtime = make_runtime({"agent": agent})
        ours, theirs = arcp.pair_memory_transports()
        joined = Joined(ours)
        accept(runtime, theirs)
        async with make_client() as client:
            await client.connect(joined)
            handle = await client.submit(agent="agent", input=1)
            await joined.send(hello(type="job.teleport", session_id=client.session_id, payload={}))
            agent.tell(1)
            assert (await handle.done).result == "done"
            await (await client.submit(agent="agent", input=0)).done
            refusals = [message for message in joined.received if message["type"] == "session.error"]
            assert [message["payload"]["code"] for message in refusals] in ([], ["INVALID_REQUEST"])
        await runtime.close()

    run(main)


def test_probe_11_one_key_twice_while_the_job_runs() -> None:
    async def main() -> None:
        agent = Steps()
        async with session(make_runtime({"agent": agent})) as client:
            first = await client.submit(agent="agent", input=2, idempotency_key="key")
            second = await client.submit(agent="agent", input=2, idempotency_key="key")
            assert first.job_id == second.job_id
            agent.tell(2)
            async with asyncio.timeout(5):
                assert (await first.done).result == (await second.done).result == "done"

    run(main)


def test_probe_12_a_queued_job_is_cancelled() -> None:
    async def main() -> None:
        agent = Steps()
        async with session(make_runtime({"agent": agent}, max_concurrent_jobs=1)) as client:
            running = await client.submit(agent="agent", input=1)
            queued = await client.submit(agent="agent", input=1)
            (waiting,) = (await client.list_jobs(filter=ListJobsFilter(status=("pending",)))).jobs
            assert waiting.job_id == queued.job_id
            await client.cancel_job(queued.job_id)
            async with asyncio.timeout(5):
                with pytest.raises(arcp.CancelledError):
                    await queued.done
            agent.tell(1)
            assert (await running.done).result == "done"

    run(main)


def test_probe_13_a_chunk_as_large_as_allowed_over_a_websocket() -> None:
    size = (1 << 20) - 1

    async def agent(value: Any, ctx: JobContext) -> None:
        async with ctx.stream_result(chunk_bytes=size) as out:
            await out.write("x" * size)

    async def main() -> None:
        runtime = make_runtime({"agent": agent})
        async with await arcp.serve_websocket(runtime.accept, port=0) as server, make_client() as client:
            await client.connect(await arcp.WebSocketTransport.connect(server.url))
            handle = await client.submit(agent="agent")
            assert [len(chunk["data"]) async for chunk in handle.chunks()] == [size]
            assert (await handle.done).result_size == size

    run(main)


def test_probe_14_a_burst_leaves_room_for_others() -> None:
    async def main() -> None:
        stopped = False

        async def bursts(value: Any, ctx: JobContext) -> None:
            for number in itertools.count():
                if stopped:
                    return
                await ctx.progress(number)

        runtime = make_runtime({"bursts": bursts, "echo": echo})
        async with session(runtime) as chatty, session(runtime) as quiet:
            handle = await chatty.submit(agent="bursts")
            events = handle.events()
            # The first events come, and others' jobs end, long before the burst does.
            assert (await anext(events)).body["current"] == 0
            for number in range(20):
                assert (await (await quiet.submit(agent="echo", input=number)).done).result == number
            stopped = True
            await handle.done

    run(main)


def test_probe_15_a_consumer_that_never_reads() -> None:
    async def main() -> None:
        emitted = 0

        async def bursts(value: Any, ctx: JobContext) -> None:
            nonlocal emitted
            for emitted in range(200_000):  # noqa: B007
                await ctx.log("info", "x" * 100)

        runtime = make_runtime({"bursts": bursts, "echo": echo})
        ours, theirs = arcp.pair_memory_transports()
        accept(runtime, theirs)
        await ours.send(hello())
        welcome = await ours.recv()
        submit = {"type": "job.submit", "id": "01J00000000000000000000001", "payload": {"agent": "bursts"}}
        await ours.send(hello(session_id=welcome["session_id"], **submit))
        async with session(runtime) as client:
            # The agent comes to rest, far from its end, with others unharmed.
            before = -1
            while before != emitted or emitted == 0:
                before = emitted
                assert (await (await client.submit(agent="echo", input=1)).done).result == 1
                await asyncio.sleep(0.2)
            assert emitted < 100_000
        await ours.close()
        await runtime.close()

    run(main)


def test_probe_16_finished_jobs_are_forgotten() -> None:
    async def main() -> None:
        async with session(make_runtime({"echo": echo}, retention_sec=0.2, resume_window_sec=0.2)) as client:
            handle = await client.submit(agent="echo")
            await handle.done
            assert [job.job_id for job in (await client.list_jobs()).jobs] == [handle.job_id]
            async with asyncio.timeout(10):
                while (await client.list_jobs()).jobs:
                    await asyncio.sleep(0.05)
            with pytest.raises(arcp.JobNotFoundError):
                await client.subscribe(handle.job_id, history=True)

    run(main)


@pytest.mark.parametrize("frame", [{"nonsense": 1}, hello(arcp="9.9"), hello(type="job.submit"), hello(payload=[])])
def test_probe_17_a_malformed_first_message(frame: dict[str, Any]) -> None:
    async def main() -> None:
        runtime = make_runtime()
        ours, theirs = arcp.pair_memory_transports()
        accept(runtime, theirs)
        await ours.send(frame)
        answer = await ours.recv()
        assert (answer["type"], answer["payload"]["code"]) == ("session.error", "INVALID_REQUEST")

    run(main)


def test_probe_18_money_that_is_overspent() -> None:
    async def agent(value: Any, ctx: JobContext) -> str:
        await ctx.metric("cost.tokens", Decimal("3.00"), "USD")
        # It was spent, so it is booked.
        assert ctx.budget == {"USD": Decimal("-2.00")}
        with pytest.raises(arcp.BudgetExhaustedError):
            ctx.authorize("fs.read", "/data/file")
        with pytest.raises(arcp.BudgetExhaustedError):
            await ctx.tool_call(tool="clock", args={}, call_id="c1")
        raise arcp.BudgetExhaustedError("nothing is left")

    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            lease = {"cost.budget": ["USD:1.00"], "fs.read": ["/data/**"], "tool.call": ["clock"]}
            handle = await client.submit(agent="agent", lease_request=lease)
            events = [event async for event in handle.events()]
            remaining = [event.body for event in events if event.body.get("name") == "cost.budget.remaining"]
            assert [body["value"] for body in remaining] == [-2]
            (refused,) = [event.body["error"]["code"] for event in events if event.kind == "tool_result"]
            assert refused == "BUDGET_EXHAUSTED"
            with pytest.raises(arcp.BudgetExhaustedError, match="nothing is left"):
                await handle.done

    run(main)


def test_probe_19_a_session_has_one_row_of_numbers() -> None:
    async def main() -> None:
        agent = Steps()
        runtime = make_runtime({"agent": agent})
        async with session(runtime) as submitter, session(runtime) as watcher:
            jobs = [await submitter.submit(agent="agent", input=10) for _ in range(2)]
            followed = [(await watcher.subscribe(job.job_id)).handle for job in jobs]
            own = await watcher.submit(agent="agent", input=10)
            agent.tell(30)
            seen = []
            for handle in [*followed, own]:
                seen += [event.event_seq async for event in handle.events()]
                await handle.done
            # Thirty events and three ends, each with a number of its own.
            assert len(set(seen)) == len(seen) == 30
            assert set(seen) < set(range(1, 34))
            assert watcher.latest_event_seq == 33

    run(main)


def test_probe_20_an_agent_that_raises_inside_a_result_stream() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        async with ctx.stream_result() as out:
            await out.write("half of it")
            raise ValueError("broken")

    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent")
            with pytest.raises(arcp.InternalError, match="broken"):
                await handle.collect_chunks()
            with pytest.raises(arcp.InternalError, match="broken"):
                await handle.done

    run(main)


def test_probe_21_a_second_loop_over_a_finished_handle() -> None:
    async def main() -> None:
        async with session(make_runtime({"counts": counts})) as client:
            handle = await client.submit(agent="counts", input=3)
            assert await numbers_of(handle.events()) == [0, 1, 2]
            async with asyncio.timeout(5):
                assert [event async for event in handle.events()] == []
                assert [chunk async for chunk in handle.chunks()] == []

    run(main)


def test_probe_22_a_connection_that_stays_silent() -> None:
    async def main() -> None:
        runtime = make_runtime()
        async with await arcp.serve_websocket(runtime.accept, port=0) as server:
            # Silent behind the upgrade, and silent before it.
            spoken = await arcp.WebSocketTransport.connect(server.url)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())

            async with asyncio.timeout(15):
                refusal, _ = await asyncio.gather(spoken.recv(), reader.read())
                assert refusal["type"] == "session.error"
                with pytest.raises(arcp.TransportClosed):
                    await spoken.recv()
            writer.close()

    run(main)
