"""Whether this installation works: `python -m pytest --pyargs arcp.testing.smoke`.

It needs pytest and nothing else: no network beyond this machine, no file, a few seconds.
"""

import asyncio
import subprocess
import sys
from typing import Any

import pytest

import arcp
from arcp.runtime import JobContext
from arcp.testing.hosting import TOKEN, serve, serve_in_thread, session

_BOUND_SEC = 30.0


async def _echo(value: Any, ctx: JobContext) -> dict[str, Any]:
    await ctx.log("info", "echoing")
    await ctx.progress(1, total=1)
    return {"echoed": value}


async def _one_job(client: arcp.ARCPClient) -> None:
    handle = await client.submit(agent="echo", input={"hi": 1})
    assert [event.kind async for event in handle.events()] == ["log", "progress"]
    assert (await handle.done).result == {"echoed": {"hi": 1}}


def test_a_job_through_memory() -> None:
    """A runtime and a client in one process."""

    async def main() -> None:
        async with asyncio.timeout(_BOUND_SEC), session({"echo": _echo}) as client:
            await _one_job(client)

    asyncio.run(main())


def test_a_job_over_a_socket() -> None:
    """The same over a WebSocket on this machine."""

    async def main() -> None:
        async with asyncio.timeout(_BOUND_SEC), serve({"echo": _echo}) as served, served.session() as client:
            await _one_job(client)

    asyncio.run(main())


def test_a_refusal_is_an_error_of_ours() -> None:
    """An agent nobody hosts."""

    async def main() -> None:
        async with asyncio.timeout(_BOUND_SEC), session({"echo": _echo}) as client:
            with pytest.raises(arcp.AgentNotAvailableError):
                await client.submit(agent="absent", input=None)

    asyncio.run(main())


def _program(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "arcp", *arguments], capture_output=True, text=True, timeout=_BOUND_SEC, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_program_runs() -> None:
    """`python -m arcp`."""
    assert arcp.__version__ in _program("--version")


def test_the_program_submits() -> None:
    """`arcp submit` at a runtime of this process."""
    with serve_in_thread({"echo": _echo}) as served:
        options = ["--url", served.url, "--token", TOKEN, "--agent", "echo", "--input", "[1]", "--output", "json"]
        assert '"echoed":[1]' in _program("submit", *options).replace(" ", "")
