"""The client: its session, its handles and its events."""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import PydanticUserError

import arcp
from arcp.client import AutoAckOptions, JobEvent, ReconnectOptions
from arcp.runtime import JobContext
from conftest import TOKEN, make_client, make_runtime, numbers_of, run, session


async def chatty(value: Any, ctx: JobContext) -> int:
    for number in range(value):
        await ctx.progress(number)
    return int(value)


def test_an_event_behaves_like_a_dict() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        await ctx.log("info", "hello", {"n": 1})

    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent")
            (event,) = [event async for event in handle.events()]
        assert isinstance(event, JobEvent)
        assert isinstance(event, Mapping)
        body = {"level": "info", "message": "hello", "attributes": {"n": 1}}
        assert (event.kind, event.body, event.event_seq) == ("log", body, 1)
        assert event["kind"] == "log"
        assert event["body"] is event.body
        assert event["ts"] == event.ts
        assert event.ts.endswith("Z")
        assert event.get("kind") == "log"
        assert event.get("nothing") is None
        assert event.get("nothing", 3) == 3
        assert list(event) == list(event.keys()) == ["kind", "body", "ts"]
        assert list(event.values()) == ["log", body, event.ts]
        assert dict(event.items()) == dict(event) == {"kind": "log", "body": body, "ts": event.ts}
        assert len(event) == 3
        assert "kind" in event
        assert "event_seq" not in event
        assert 3 not in event
        assert event == dict(event)
        assert event != {"kind": "log"}
        assert event != 3
        assert json.loads(json.dumps(event)) == event
        assert repr(event) == repr(dict(event))
        with pytest.raises(KeyError, match="nothing"):
            event["nothing"]
        match event:
            case {"kind": "log", "body": {"message": message}}:
                assert message == "hello"
            case _:
                pytest.fail("an event does not match as a mapping")

    run(main)


def test_events_come_in_order_and_only_once() -> None:
    async def main() -> None:
        async with session(make_runtime({"chatty": chatty})) as client:
            handle = await client.submit(agent="chatty", input=1000)
            taken = []
            async for event in handle.events():
                taken.append(event.body["current"])
                if len(taken) == 300:
                    break
            # What a first iterator left, a second one takes up.
            taken += [event.body["current"] async for event in handle.events()]
            assert taken == list(range(1000))
            assert [event async for event in handle.events()] == []
            result = await handle.done
            assert (result.result, result.final_status) == (1000, "success")
            # The terminal has a number too.
            assert client.latest_event_seq == 1001

    run(main)


def test_two_iterators_share_the_events() -> None:
    async def main() -> None:
        async with session(make_runtime({"chatty": chatty})) as client:
            handle = await client.submit(agent="chatty", input=2000)

            parts = await asyncio.gather(numbers_of(handle.events()), numbers_of(handle.events()))
            assert sorted(parts[0] + parts[1]) == list(range(2000))

    run(main)


def test_events_do_not_keep_the_loop_to_themselves() -> None:
    async def main() -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with session(make_runtime({"chatty": chatty})) as client:
            handle = await client.submit(agent="chatty", input=5000)
            await handle.done
            counter = asyncio.create_task(count())
            await asyncio.sleep(0)
            before = turns
            assert len(await numbers_of(handle.events())) == 5000
            counter.cancel()
            assert turns - before >= 5000 // 512

    run(main)


def test_the_welcome_and_what_was_negotiated() -> None:
    async def main() -> None:
        runtime = make_runtime({"chatty": chatty}, heartbeat_interval_sec=7)
        async with session(runtime, features=("progress", "nonsense", "heartbeat")) as client:
            assert client.negotiated_features == ("progress", "heartbeat")
            assert client.has_feature("progress")
            assert not client.has_feature("subscribe")
            welcome = client.welcome
            assert welcome is not None
            assert (welcome.runtime.name, welcome.heartbeat_interval_sec) == ("test-runtime", 7)
            assert client.session_id == welcome.session_id
            assert welcome.resume_token
            assert welcome.resume_token not in repr(welcome)
            assert TOKEN not in repr(client)
            assert TOKEN not in repr(runtime.bearer)
            with pytest.raises(arcp.InvalidRequestError):
                await client.subscribe("job_01JX3J00000000000000000001")

    run(main)


def test_a_token_may_come_from_a_callable() -> None:
    async def later() -> str:
        await asyncio.sleep(0)
        return TOKEN

    async def main() -> None:
        for token in (lambda: TOKEN, later):
            async with session(make_runtime({"chatty": chatty}), token=token) as client:
                assert (await (await client.submit(agent="chatty", input=0)).done).result == 0

    run(main)


def test_a_wrong_token_and_another_try() -> None:
    tokens = iter(["wrong", TOKEN])

    async def main() -> None:
        runtime = make_runtime()
        async with make_client(token=lambda: next(tokens)) as client, asyncio.TaskGroup() as tasks:
            for expected in (arcp.UnauthenticatedError, None):
                ours, theirs = arcp.pair_memory_transports()
                tasks.create_task(runtime.accept(theirs))
                if expected is None:
                    await client.connect(ours)
                else:
                    with pytest.raises(expected):
                        await client.connect(ours)
            assert client.session_id is not None
            await client.close()

    run(main)


def test_a_runtime_that_says_nothing() -> None:
    async def main() -> None:
        ours, _theirs = arcp.pair_memory_transports()
        client = make_client(handshake_timeout_sec=0.05)
        with pytest.raises(TimeoutError):
            await client.connect(ours)
        await client.close()

    run(main)


def test_a_second_connect_leaves_the_first_alone() -> None:
    async def main() -> None:
        runtime, client = make_runtime({"chatty": chatty}), make_client()
        ours, theirs = arcp.pair_memory_transports()
        first = asyncio.create_task(client.connect(ours))
        await asyncio.sleep(0)
        with pytest.raises(arcp.InvalidRequestError, match="under way"):
            await client.connect(arcp.pair_memory_transports()[0])
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(runtime.accept(theirs))
            welcome = await first
            assert client.session_id == welcome.session_id
            await (await client.submit(agent="chatty", input=1)).done
            await client.close()

    run(main)


def test_calls_without_a_session() -> None:
    async def main() -> None:
        client = make_client()
        assert (client.session_id, client.welcome, client.negotiated_features) == (None, None, ())
        assert client.latest_event_seq == 0
        with pytest.raises(arcp.TransportClosed, match="connect"):
            await client.submit(agent="echo")
        with pytest.raises(arcp.TransportClosed):
            await client.cancel_job("job_01JX3J00000000000000000001")
        await client.close()
        await client.aclose()

    run(main)


def test_open_handles_end_with_their_session() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        runtime = make_runtime({"agent": agent})
        async with session(runtime) as client:
            handle = await client.submit(agent="agent")
            waiting = asyncio.ensure_future(handle.done)
            await asyncio.sleep(0)
            await client.close()
            with pytest.raises(arcp.TransportClosed):
                await waiting
            with pytest.raises(arcp.TransportClosed):
                await handle.done
            assert [event async for event in handle.events()] == []
        await runtime.close()

    run(main)


def test_a_lost_link_says_so() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        runtime = make_runtime({"agent": agent})
        ours, theirs = arcp.pair_memory_transports()
        accepting = asyncio.create_task(runtime.accept(theirs))
        client = make_client()
        await client.connect(ours)
        handle = await client.submit(agent="agent")
        # Cancelled, the runtime drops its end without a word.
        accepting.cancel()
        with pytest.raises(arcp.TransportClosed) as caught:
            await handle.done
        assert caught.value.lost
        await client.close()
        await runtime.close()

    run(main)


def test_closing_the_transport_under_a_session_cuts_the_link() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        runtime = make_runtime({"agent": agent})
        ours, theirs = arcp.pair_memory_transports()
        accepting = asyncio.create_task(runtime.accept(theirs))
        client = make_client()
        await client.connect(ours)
        handle = await client.submit(agent="agent")
        await ours.close()
        with pytest.raises(arcp.TransportClosed) as caught:
            await handle.done
        assert caught.value.lost
        # The other end sees it too.
        await accepting
        await runtime.close()

    run(main)


def test_following_a_job() -> None:
    async def agent(value: Any, ctx: JobContext) -> str:
        await ctx.status("one")
        await go.wait()
        await ctx.status("two")
        return "done"

    go = asyncio.Event()

    async def main() -> None:
        runtime = make_runtime({"agent": agent})
        async with session(runtime) as first, session(runtime) as second:
            handle = await first.submit(agent="agent")
            await anext(handle.events())
            subscription = await second.subscribe(handle.job_id, history=True)
            assert (subscription.job_id, subscription.status) == (handle.job_id, "running")
            assert subscription.replayed
            unfollowed = await second.subscribe(handle.job_id)
            await second.unsubscribe(unfollowed.job_id)
            again = await second.subscribe(handle.job_id, history=True)
            go.set()
            phases = [event.body["phase"] async for event in again.handle.events()]
            assert phases == ["one", "two"]
            assert (await again.handle.done).result == "done"
            with pytest.raises(arcp.JobNotFoundError):
                await second.subscribe("job_01JX3J00000000000000000001")

    run(main)


def test_wrong_arguments_are_named_before_anything_is_sent() -> None:
    with pytest.raises(TypeError, match="token"):
        make_client(token=3)
    with pytest.raises(TypeError, match="features"):
        make_client(features="progress")
    with pytest.raises(ValueError, match="handshake_timeout_sec"):
        make_client(handshake_timeout_sec=-1)
    for options, error, text in [
        ({"handshake_timeout_sec": "5"}, TypeError, "handshake_timeout_sec must be a number of seconds, got str"),
        ({"handshake_timeout_sec": float("nan")}, ValueError, "handshake_timeout_sec"),
        ({"reconnect": ReconnectOptions(max_sec="1")}, TypeError, r"reconnect\.max_sec"),  # type: ignore[arg-type]
        ({"features": 5}, TypeError, "features must be a list of names, got int"),
        ({"features": [1]}, TypeError, r"features\[0\] must be a text"),
        ({"capabilities": {"features": []}}, TypeError, "capabilities must be an arcp.Capabilities, got dict"),
    ]:
        with pytest.raises(error, match=text):
            make_client(**options)
    with pytest.raises(TypeError, match=r"client must be an arcp\.ClientInfo, got str"):
        arcp.ARCPClient(client="me", token=TOKEN)  # type: ignore[arg-type]

    async def main() -> None:
        async with session(make_runtime({"chatty": chatty})) as client:
            for arguments, error, text in [
                ({"agent": None}, TypeError, "agent"),
                ({"agent": 3}, TypeError, "agent"),
                ({"agent": "chatty", "max_runtime_sec": "1"}, TypeError, "max_runtime_sec"),
                ({"agent": "chatty", "max_runtime_sec": True}, TypeError, "max_runtime_sec"),
                ({"agent": "chatty", "max_runtime_sec": 0}, ValueError, "max_runtime_sec"),
                ({"agent": "chatty", "lease_request": ["fs.read"]}, TypeError, "lease_request"),
                ({"agent": "chatty", "idempotency_key": 3}, TypeError, "idempotency_key"),
                (
                    {"agent": "chatty", "lease_constraints": {"expires_at": "x"}},
                    TypeError,
                    "LeaseConstraints, got dict",
                ),
                ({"agent": "chatty", "result_type": 5}, PydanticUserError, "schema for 5"),
                ({"agent": "chatty", "input": {1, 2}}, TypeError, "submit.input"),
                ({"agent": "chatty", "input": float("inf")}, ValueError, "submit.input"),
            ]:
                with pytest.raises(error, match=text):
                    await client.submit(**arguments)
            with pytest.raises(TypeError, match="job_id"):
                await client.cancel_job(3)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="last_processed_seq"):
                await client.ack("1")  # type: ignore[arg-type]
            for number in (-1, 2**64):
                with pytest.raises(ValueError, match="last_processed_seq must be from 0"):
                    await client.ack(number)
            with pytest.raises(TypeError, match=r"filter must be an arcp\.ListJobsFilter, got dict"):
                await client.list_jobs(filter={"status": ["running"]})  # type: ignore[arg-type]
            assert (await client.list_jobs()).jobs == ()
            for call in (client.cancel_job("job_x", reason=3), client.close(reason=3)):  # type: ignore[arg-type]
                with pytest.raises(TypeError, match="reason must be a text, got int"):
                    await call
            with pytest.raises(TypeError, match=r"transport .* the class MemoryTransport"):
                await make_client().connect(arcp.MemoryTransport)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="transport"):
                await make_client().connect("ws://127.0.0.1:1")  # type: ignore[arg-type]

    run(main)


@pytest.mark.parametrize("auto_ack", [None, True, False, AutoAckOptions()])
def test_acknowledgements(auto_ack: Any) -> None:
    acked: list[int] = []

    async def agent(value: Any, ctx: JobContext) -> None:
        await ctx.status("one")
        state = ctx.job.session.state
        while state.last_acked_seq == 0 and not go.is_set():
            await asyncio.sleep(0.001)
            state = ctx.job.session.state
        acked.append(state.last_acked_seq)

    go = asyncio.Event()

    async def main() -> None:
        async with session(make_runtime({"agent": agent}), auto_ack=auto_ack) as client:
            handle = await client.submit(agent="agent")
            await anext(handle.events())
            if auto_ack is False:
                await client.ack(1)
            await handle.done

    run(main)
    assert acked == [1]


def test_the_idempotency_key_repeats_the_job() -> None:
    async def main() -> None:
        async with session(make_runtime({"chatty": chatty})) as client:
            first = await client.submit(agent="chatty", input=0, idempotency_key="k1")
            await first.done
            second = await client.submit(agent="chatty", input=0, idempotency_key="k1")
            assert second.job_id == first.job_id
            assert (await second.done).result == 0
            with pytest.raises(arcp.DuplicateKeyError):
                await client.submit(agent="chatty", input=1, idempotency_key="k1")

    run(main)


def test_a_loop_that_begins_too_late_says_what_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    async def chatty(count: int, ctx: JobContext) -> None:
        for n in range(count):
            await ctx.log("info", "x" * 1000, {"n": n})

    async def main() -> None:
        async with session(make_runtime({"chatty": chatty})) as client:
            handle = await client.submit(agent="chatty", input=20_000)
            await handle.done
            events = [event async for event in handle.events()]
            seen = [event["body"]["attributes"]["n"] for event in events if event.kind == "log"]
            assert seen == list(range(20_000 - len(seen), 20_000))
            assert 0 < len(seen) < 20_000
            (said,) = [record.getMessage() for record in caplog.records if "dropped" in record.getMessage()]
            dropped = int(re.findall(r"the oldest (\d+) events", said)[0])
            # The runtime told now and then that its client lags.
            assert 20_000 <= len(events) + dropped < 20_100
            assert handle.job_id in said

    run(main)


def test_a_token_that_never_comes_is_not_waited_for_for_ever() -> None:
    async def never() -> str:
        await asyncio.Event().wait()
        return ""

    async def main() -> None:
        _, client_end = arcp.pair_memory_transports()
        client = arcp.ARCPClient(client=arcp.ClientInfo(name="c", version="1"), token=never, handshake_timeout_sec=0.05)
        with pytest.raises(TimeoutError, match=r"no token within 0.05 s"):
            await client.connect(client_end)

    run(main)
