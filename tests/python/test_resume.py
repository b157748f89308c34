"""Sessions that outlive their connection."""

import asyncio
from typing import Any

import pytest

import arcp
from arcp.client import ReconnectOptions
from conftest import TOKEN, make_client, make_runtime, numbers_of, run, session
from links import Steps, behind_a_cutter, resumable, take_up


def test_a_lost_link_is_made_anew() -> None:
    async def main() -> None:
        agent = Steps()
        async with behind_a_cutter(make_runtime({"agent": agent})) as (cutter, url):
            tokens: list[int] = []

            async def token() -> str:
                tokens.append(len(tokens))
                return TOKEN

            async with make_client(token=token) as client:
                await client.connect(await arcp.WebSocketTransport.connect(url))
                session_id = client.session_id
                handle = await client.submit(agent="agent", input=40)
                events = handle.events()
                taken = []
                for round_ in range(4):
                    agent.tell(5)
                    taken += [(await anext(events)).body["current"] for _ in range(5)]
                    cutter.cut()
                    # Said while nobody is there to hear it.
                    agent.tell(5)
                    taken += [(await anext(events)).body["current"] for _ in range(5)]
                    assert cutter.connections == round_ + 2
                assert taken == list(range(40))
                assert (await handle.done).result == "done"
                assert client.session_id == session_id
                assert client.latest_event_seq == 41
                # Asked anew at each connection.
                assert len(tokens) == 5

    run(main)


def test_a_request_survives_a_cut() -> None:
    async def main() -> None:
        runtime = make_runtime({"echo": lambda inp, ctx: inp})
        client = make_client(reconnect=ReconnectOptions(initial_sec=0.01, max_sec=0.05))
        async with behind_a_cutter(runtime) as (cutter, url), client:
            await client.connect(await arcp.WebSocketTransport.connect(url))
            cutter.open = False
            cutter.cut()
            submitting = asyncio.create_task(client.submit(agent="echo", input=7))
            while cutter.refused < 2:
                await asyncio.sleep(0.01)
            assert not submitting.done()
            cutter.open = True
            assert (await (await submitting).done).result == 7

    run(main)


@pytest.mark.parametrize("options", [{"reconnect": False}, {"reconnect": ReconnectOptions(0.01, 0.01, 0.2)}])
def test_a_link_that_is_not_made_anew_closes_everything(options: dict[str, Any]) -> None:
    async def main() -> None:
        agent = Steps()
        client = make_client(**options)
        async with behind_a_cutter(make_runtime({"agent": agent})) as (cutter, url), client:
            await client.connect(await arcp.WebSocketTransport.connect(url))
            handle = await client.submit(agent="agent", input=1)
            cutter.open = False
            cutter.cut()
            assert [event async for event in handle.events()] == []
            with pytest.raises(arcp.TransportClosed):
                await handle.done
            with pytest.raises(arcp.TransportClosed):
                await client.submit(agent="agent")

    run(main)


def test_a_transport_the_application_closed_is_not_opened_again() -> None:
    async def main() -> None:
        async with behind_a_cutter(make_runtime({"agent": Steps()})) as (cutter, url):
            transport = await arcp.WebSocketTransport.connect(url)
            async with make_client() as client:
                await client.connect(transport)
                handle = await client.submit(agent="agent", input=1)
                await transport.close()
                with pytest.raises(arcp.TransportClosed):
                    await handle.done
            assert cutter.connections == 1

    run(main)


def test_another_client_takes_up_a_session() -> None:
    async def main() -> None:
        agent = Steps()
        runtime = make_runtime({"agent": agent})
        client, transport = await resumable(runtime)
        handle = await client.submit(agent="agent", input=10)
        events = handle.events()
        agent.tell(4)
        assert [(await anext(events)).body["current"] for _ in range(4)] == [0, 1, 2, 3]
        await transport.close()
        with pytest.raises(arcp.TransportClosed):
            await handle.done
        # Said while nobody is there to hear it.
        agent.tell(4)
        while not agent.told.locked():
            await asyncio.sleep(0)

        other = await take_up(runtime, client, last_event_seq=4)
        assert client.welcome is not None
        assert other.welcome is not None
        assert other.session_id == client.session_id
        assert other.welcome.resume_token != client.welcome.resume_token
        assert other.latest_event_seq >= 4
        same = other.job(handle.job_id)
        assert handle.job_id in other.jobs()
        assert same.accepted.job_id == handle.job_id
        agent.tell(2)
        assert await numbers_of(same.events()) == [4, 5, 6, 7, 8, 9]
        assert (await same.done).result == "done"
        # The session's right to cancel came along.
        more = await other.submit(agent="agent", input=1)
        await other.cancel_job(more.job_id)
        with pytest.raises(arcp.CancelledError):
            await more.done
        await other.close()
        await runtime.close()

    run(main)


def test_latest_event_seq_begins_at_the_number_presented() -> None:
    async def main() -> None:
        agent = Steps()
        runtime = make_runtime({"agent": agent})
        client, transport = await resumable(runtime)
        handle = await client.submit(agent="agent", input=3)
        agent.tell(3)
        await handle.done
        assert client.latest_event_seq == 4
        await transport.close()
        other = await take_up(runtime, client, last_event_seq=4)
        assert other.latest_event_seq == 4
        await other.close()
        await runtime.close()

    run(main)


def test_what_a_client_without_a_session_taken_up_refuses() -> None:
    async def main() -> None:
        runtime = make_runtime({"echo": lambda inp, ctx: inp})
        async with session(runtime) as client:
            handle = await client.submit(agent="echo")
            await handle.done
            with pytest.raises(arcp.InvalidRequestError, match="subscribe"):
                client.job(handle.job_id)
        with pytest.raises(arcp.TransportClosed):
            make_client().job("job_x")
        with pytest.raises(TypeError, match="SessionResume"):
            await make_client().resume(arcp.pair_memory_transports()[0], resume={"session_id": "x"})  # type: ignore[arg-type]
        for bad in (3, ReconnectOptions(initial_sec=-1)):
            with pytest.raises((TypeError, ValueError), match="reconnect"):
                make_client(reconnect=bad)

    run(main)


def test_what_a_tokens_callable_raises_reaches_connect() -> None:
    def token() -> str:
        raise KeyError("no such key")

    async def number() -> Any:
        return 3

    async def main() -> None:
        runtime = make_runtime()
        for ask, expected in [(token, KeyError), (number, TypeError)]:
            ours, theirs = arcp.pair_memory_transports()
            accepting = asyncio.create_task(runtime.accept(theirs))
            with pytest.raises(expected):
                await make_client(token=ask).connect(ours)
            await ours.close()
            await accepting

    run(main)
