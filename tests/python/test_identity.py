"""What an agent can read of whoever submitted its job."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import arcp
from arcp.runtime import Identity, JobContext
from conftest import make_client, make_runtime, run, session


class Scoped:
    """Takes `name:scope,scope` for a token."""

    async def verify(self, token: str) -> Identity:
        name, _, scopes = token.partition(":")
        if not name:
            raise arcp.UnauthenticatedError("no name")
        return Identity(principal=name, scopes=tuple(scopes.split(",")) if scopes else ())


async def who(value: Any, ctx: JobContext) -> Any:
    of = ctx.job.session
    state = of.state
    return {
        "identity": [of.identity.principal, list(of.identity.scopes)],
        "features": [list(of.negotiated_features), of.has_feature("progress"), of.has_feature("subscribe")],
        "state": [getattr(state, name) for name in ("session_id", "principal", "resume_token", "last_acked_seq")],
        "times": [state.heartbeat_interval_sec, state.resume_window_sec, state.accepted_at],
        "negotiated": list(state.negotiated_features),
        "shown": repr(state),
    }


@pytest.mark.parametrize("link", ["memory", "websocket"])
def test_an_agent_reads_whose_session_it_is(link: str) -> None:
    async def main() -> None:
        runtime = make_runtime({"who": who}, bearer=Scoped(), heartbeat_interval_sec=12, resume_window_sec=77)
        options: dict[str, Any] = {"token": "ann:jobs.read,jobs.write", "features": ("heartbeat", "progress")}

        async def use(client: arcp.ARCPClient) -> None:
            told = (await (await client.submit(agent="who")).done).result
            assert told["identity"] == ["ann", ["jobs.read", "jobs.write"]]
            assert told["features"] == [["heartbeat", "progress"], True, False]
            assert told["negotiated"] == ["heartbeat", "progress"]
            assert client.welcome is not None
            # The token that resumes the session is its client's alone.
            assert told["state"] == [client.session_id, "ann", None, 0]
            assert client.welcome.resume_token not in told["shown"]
            assert told["times"] == [12, 77, client.welcome.accepted_at]

        if link == "memory":
            async with session(runtime, **options) as client:
                await use(client)
        else:
            async with await arcp.serve_websocket(runtime.accept, port=0) as server, make_client(**options) as client:
                await client.connect(await arcp.WebSocketTransport.connect(server.url))
                await use(client)
        await runtime.close()

    run(main)


def test_scopes_are_those_of_the_last_token() -> None:
    """A session that is taken up with another token of the same principal allows what that one allows."""

    async def main() -> None:
        seen: list[tuple[str, ...]] = []
        looks: asyncio.Queue[Callable[[], None]] = asyncio.Queue()

        async def looking(value: Any, ctx: JobContext) -> None:
            for _ in range(2):
                tell = await looks.get()
                seen.append(ctx.job.session.identity.scopes)
                tell()

        runtime = make_runtime({"looking": looking}, bearer=Scoped())

        async def look() -> None:
            seen_it = asyncio.Event()
            looks.put_nowait(seen_it.set)
            await seen_it.wait()

        ours, theirs = arcp.pair_memory_transports()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(runtime.accept(theirs))
            first = make_client(token="ann:a,b")
            welcome = await first.connect(ours)
            handle = await first.submit(agent="looking")
            await look()
            await ours.close()
            ours, theirs = arcp.pair_memory_transports()
            tasks.create_task(runtime.accept(theirs))
            async with make_client(token="ann:c") as second:
                resume = arcp.SessionResume(
                    session_id=welcome.session_id, resume_token=welcome.resume_token, last_event_seq=0
                )
                await second.resume(ours, resume=resume)
                await look()
                await second.job(handle.job_id).done
            await first.close()
        assert seen == [("a", "b"), ("c",)]
        await runtime.close()

    run(main)
