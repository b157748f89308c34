"""`arcp.testing`: runtimes in this process, fixtures, conversations on record."""

import asyncio
import json
import subprocess
import sys
import tomllib
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import arcp
import arcp.sync
from arcp.runtime import JobContext, StaticBearerVerifier
from arcp.testing import (
    PRINCIPAL,
    TOKEN,
    Recorder,
    Transcript,
    TranscriptMismatch,
    load_transcripts,
    make_runtime,
    serve,
    serve_in_thread,
    session,
)
from conftest import BOUND_SEC, make_client, run

HERE = Path(__file__).parent
CORPUS = HERE.parent / "corpus/wire/transcripts.json"


async def echo(value: Any, ctx: JobContext) -> Any:
    await ctx.log("info", "echo started", {"job": ctx.job_id})
    return {"echoed": value, "for": ctx.job.submitter_principal}


def test_a_session_through_memory() -> None:
    async def main() -> None:
        async with session({"echo": echo}, features=["ack"]) as client:
            assert client.negotiated_features == ("ack",)
            handle = await client.submit(agent="echo", input=1)
            assert (await handle.done).result == {"echoed": 1, "for": PRINCIPAL}
        runtime = make_runtime(bearer=StaticBearerVerifier({"mine": "me"}))
        runtime.register_agent("echo", echo)
        with pytest.raises(arcp.UnauthenticatedError):
            async with session(runtime):
                pass
        for _ in range(2):
            async with session(runtime, token="mine") as client:
                assert (await (await client.submit(agent="echo")).done).result["for"] == "me"
        await runtime.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main)


def test_a_runtime_on_a_free_port() -> None:
    async def main() -> None:
        async with serve({"echo": echo}) as one, serve({"echo": echo}) as two:
            assert one.url != two.url
            assert TOKEN not in repr(one)
            async with one.session() as client:
                assert (await (await client.submit(agent="echo", input=1)).done).result["echoed"] == 1
        with pytest.raises(arcp.ConnectionError):
            await arcp.WebSocketTransport.connect(one.url)

    run(main)


def test_a_runtime_in_a_thread() -> None:
    with serve_in_thread({"echo": echo}) as served:
        assert arcp.sync.run("echo", 1, url=served.url, token=served.token)["echoed"] == 1
    with pytest.raises(arcp.ConnectionError):
        arcp.sync.run("echo", 1, url=served.url, token=served.token)


FIXTURES = """
import asyncio
import arcp.sync

async def double(value, ctx):
    return value * 2

def test_blocking(arcp_runtime, arcp_served, arcp_token):
    arcp_runtime.register_agent("double", double)
    assert arcp.sync.run("double", 21, url=arcp_served.url, token=arcp_token) == 42

def test_async(arcp_runtime, arcp_session):
    arcp_runtime.register_agent("double", double)
    async def main():
        async with arcp_session() as client:
            handle = await client.submit(agent="double", input=4)
            assert (await handle.done).result == 8
    asyncio.run(main())

def test_each_test_has_a_runtime_of_its_own(arcp_runtime):
    assert arcp_runtime.agent_inventory() == ()
"""


def test_fixtures(tmp_path: Path) -> None:
    (tmp_path / "test_program.py").write_text(FIXTURES)
    # By module, and not by its entry point, which a clone that was not installed anew lacks.
    options = ["-p", "no:arcp", "-p", "arcp.pytest_plugin", "-p", "no:cacheprovider", "-W", "error", "-q"]
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "3 passed" in done.stdout, done.stdout + done.stderr
    project = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"arcp": "arcp.pytest_plugin"}


def test_the_plugin_costs_other_projects_nothing() -> None:
    source = (
        "import arcp.pytest_plugin; print([n for n in ('pydantic', 'asyncio') if n in sys.modules.keys() - before])"
    )
    command = [sys.executable, "-c", f"import pytest, sys\nbefore = set(sys.modules)\n{source}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND_SEC, check=True)
    assert done.stdout == "[]\n"


async def record(tmp_path: Path) -> Transcript:
    ours, theirs = arcp.pair_memory_transports()
    runtime = make_runtime({"echo": echo})
    accepting = asyncio.create_task(runtime.accept(theirs))
    recorder = Recorder(ours)
    async with make_client(token=TOKEN, auto_ack=False) as client:
        await client.connect(recorder)
        handle = await client.submit(agent="echo", input={"amount": Decimal("1.10")})
        assert (await handle.done).result["echoed"] == {"amount": 1.1}
    await accepting
    await runtime.close()
    assert [side for side, _ in recorder.messages][:2] == ["client", "runtime"]
    assert TOKEN not in repr(recorder)
    recorder.transcript("echo").save(tmp_path / "echo.json")
    return Transcript.load(tmp_path / "echo.json")


def test_what_was_recorded_is_played_to_a_client_and_to_a_runtime(tmp_path: Path) -> None:
    async def main() -> None:
        transcript = await record(tmp_path)
        text = (tmp_path / "echo.json").read_text()
        assert TOKEN not in text
        assert "1.10" in text
        types = [step["message"]["type"] for step in transcript.steps]
        assert types[:3] == ["session.hello", "session.welcome", "job.submit"]
        assert transcript.id == "echo"
        for _ in range(2):
            async with transcript.play("runtime") as player, make_client(auto_ack=False) as client:
                await client.connect(player.transport())
                handle = await client.submit(agent="echo", input={"amount": 1.10})
                assert (await handle.done).result["echoed"] == {"amount": 1.1}
                events = [event async for event in handle.events()]
                # The id this client knows the job by is also in what the agent said.
                assert [event.body["attributes"]["job"] for event in events] == [handle.job_id]
        async with transcript.play("client", token=TOKEN) as player:
            runtime = make_runtime({"echo": echo})
            accepting = asyncio.create_task(runtime.accept(player.transport()))
            await player.finish()
            await accepting
            await runtime.close()
            assert player.received[0]["type"] == "session.welcome"

    run(main)


async def played(transcript: Transcript, use: Callable[[arcp.ARCPClient], Awaitable[object]], **options: Any) -> None:
    """Has a client do something with a played runtime."""
    async with make_client(reconnect=False) as client, transcript.play("runtime", **options) as player:
        await client.connect(player.transport())
        await use(client)


def test_a_mismatch_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        transcript = await record(tmp_path)
        with pytest.raises(TranscriptMismatch, match=r"step 2: job.submit.payload.agent must be 'echo', got 'other'"):
            await played(transcript, lambda client: client.submit(agent="other"))
        with pytest.raises(TranscriptMismatch, match=r"session.list_jobs came where job.submit \(step 2\) was due"):
            await played(transcript, lambda client: client.list_jobs())
        with pytest.raises(TranscriptMismatch, match=r"step 2: job.submit from the client did not come"):
            await played(transcript, lambda _: asyncio.sleep(0), timeout=0.05)
        with pytest.raises(TranscriptMismatch, match=r"session\.bye came where job\.submit"):
            await played(transcript, lambda client: client.close())
        # An error of the test's own is not replaced.
        with pytest.raises(TypeError, match="agent"):
            await played(transcript, lambda client: client.submit(agent=7))  # type: ignore[arg-type]
        player = transcript.play("runtime")
        player.transport()
        for wrong in (None, "B"):
            with pytest.raises(ValueError, match="no connection left"):
                player.transport(wrong)
        with pytest.raises(ValueError, match="side"):
            transcript.play("agent")  # type: ignore[arg-type]

    run(main)


def test_the_corpus_is_played_to_a_client() -> None:
    """Rules: R-6.2.6, R-8.3.1"""

    async def main() -> None:
        transcripts = load_transcripts(CORPUS)
        assert len(transcripts) >= 10
        features = ["heartbeat", "ack", "list_jobs"]
        async with transcripts["transcript-handshake"].play("runtime") as player:
            client = arcp.ARCPClient(
                client=arcp.ClientInfo(name="examplectl", version="0.4.1"), token="tok-alice", features=features
            )
            await client.connect(player.transport())
            assert client.has_feature("list_jobs")
            await client.close(reason="done")
        transcript = transcripts["transcript-submit"]
        names = transcript.steps[0]["message"]["payload"]["capabilities"]["features"]
        async with transcript.play("runtime") as player:
            client = arcp.ARCPClient(
                client=arcp.ClientInfo(name="examplectl", version="0.4.1"), token="tok-alice", features=names
            )
            async with client:
                await client.connect(player.transport())
                handle = await client.submit(
                    agent="echo",
                    input={"hi": 1},
                    lease_request={"tool.call": ["clock"]},
                    max_runtime_sec=60,
                    trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
                )
                assert (await handle.done).result == {"echoed": {"hi": 1}}
                kinds = [event.kind async for event in handle.events()]
                assert kinds == ["log", "tool_call", "tool_result", "progress"]

    run(main)


def test_connections_that_break(tmp_path: Path) -> None:
    async def main() -> None:
        hello = {"from": "client", "message": {"type": "hello", "n": {"$any": "nonce", "as": "n", "like": "x"}}}
        transcript = Transcript(
            "two",
            (
                hello | {"connection": "A"},
                {"from": "runtime", "connection": "A", "message": {"type": "one", "n": {"$is": "n"}}},
                {"note": "for people"},
                {"connection": "A", "breaks": True},
                {"from": "client", "connection": "B", "message": {"type": "again", "n": {"$is": "n"}}},
                {"from": "runtime", "connection": "B", "message": {"type": "two", "list": [1, {"$is": "n"}]}},
            ),
        )
        async with transcript.play("runtime") as player:
            first, second = player.transport("A"), player.transport()
            assert isinstance(first, arcp.Transport)
            await first.send({"type": "hello", "n": "mine", "more": True})
            assert await first.recv() == {"type": "one", "n": "mine"}
            with pytest.raises(arcp.TransportClosed):
                await first.recv()
            with pytest.raises(arcp.TransportClosed):
                await first.send({})
            await second.send({"type": "again", "n": "mine"})
            assert await second.recv() == {"type": "two", "list": [1, "mine"]}
        with pytest.raises(arcp.TransportClosed):
            await second.recv()

    run(main)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([7], "step 0: must be an object, got int"),
        ([{"from": "x", "message": {}}], "`from` must be client or runtime, got 'x'"),
        ([{"from": "client", "message": 7}], "`message` must be an object, got int"),
        ([{"from": "client", "message": {"a": {"$is": "b"}}}], "nothing before it is named 'b'"),
        ([{"from": "client", "message": {"a": [{"$any": "b"}]}}], "'b' is none of the kinds"),
        ([{}], "must have a `message`, a `note` or `breaks`"),
    ],
)
def test_a_bad_transcript_is_refused(steps: list[Any], says: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"cases": [{"id": "bad", "steps": steps}]}))
    with pytest.raises(ValueError, match=says):
        load_transcripts(path)


def test_a_bad_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    for text, says in {
        "[]": "holds no transcripts",
        '{"cases": [{}]}': "`id`",
        '{"cases": []}': "0 transcripts",
    }.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=says):
            Transcript.load(path)
    with pytest.raises(TypeError, match="int has not"):
        Recorder(7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="side"):
        Recorder(arcp.pair_memory_transports()[0], "agent")  # type: ignore[arg-type]
