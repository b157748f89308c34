"""The programs of `examples/registry`, each in a process of its own, against a registry as a newcomer starts it."""

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import registry_server
from conftest import run
from test_examples import EXAMPLES, Program, expect_lines, interruptible

__all__ = ["interruptible"]

FOLDER = EXAMPLES / "registry"


@pytest.fixture
def registry() -> Iterator[str]:
    with registry_server.served() as url:
        yield url


def agent(registry: str, name: str = "word-counter", key: str = "test-agent-001") -> Program:
    return program(registry, "agent", ARCP_DEMO_PORT="0", ARCP_DEMO_AGENT=name, ARCP_AGENT_KEY=key)


def program(registry: str, name: str, **environment: str) -> Program:
    return Program(FOLDER / f"{name}.py", {"ARCP_DEMO_REGISTRY": registry} | environment)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_an_agent_is_found_called_and_asked_to_connect(registry: str, end: signal.Signals) -> None:
    """Rules: REG-195"""

    async def main() -> None:
        async with agent(registry) as serving:
            endpoint = await serving.line(r"word-counter listens on (http://127\.0\.0\.1:\d+)$")
            async with program(registry, "call") as calling:
                assert await calling.end() == (0, ""), calling.lines
            serving.process.send_signal(end)
            assert await serving.end() == (0, ""), serving.lines
        expect_lines(
            calling,
            (
                rf"[01]\.\d\d word-counter at {endpoint}$",
                r"word-counter counted 6 words$",
                r"connection: connection_requested$",
            ),
        )
        expect_lines(
            serving,
            (
                r"The Reader wants to connect from http://127\.0\.0\.1:9000/callback$",
                r"word-counter has left$",
            ),
        )
        assert registry_server.ask(f"{registry}/public/discover") == []

    run(main)


def test_a_pool_goes_on_when_an_agent_is_killed(registry: str) -> None:
    async def main() -> None:
        async with agent(registry, "first") as first, agent(registry, "second", "test-agent-002") as second:
            await first.line(r"first (listens)")
            await second.line(r"second (listens)")
            async with program(registry, "pool") as sharing:
                assert await sharing.end() == (0, ""), sharing.lines
            assert len(sharing.lines) == 6
            assert {line.split()[1] for line in sharing.lines} == {"first", "second"}

            # The registry goes on taking it for alive.
            first.process.kill()
            await first.end()
            async with program(registry, "pool") as failing:
                assert await failing.end() == (0, ""), failing.lines
            assert failing.lines.count("first failed: ConnectError") == 1
            expect_lines(failing, (r"1: second counted 1 words", r"6: second counted 6 words"))

    run(main)


def test_metrics_reach_the_registry(registry: str) -> None:
    async def main() -> None:
        async with agent(registry) as serving:
            endpoint = await serving.line(r"word-counter listens on (\S+)")
            registry_server.ask(f"{endpoint}/api/process", {"data": "to be"})
            token = registry_server.login(registry)
            while not (figures := registry_server.ask(f"{registry}/agents/word-counter/metrics", token=token))[
                "total_requests"
            ]:
                # It is reported after the answer, and nobody is told when.
                time.sleep(0.02)
            assert (figures["total_requests"], figures["success_rate"]) == (1, 1.0)

    run(main)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_monitor_sees_who_comes_and_goes(registry: str, end: signal.Signals) -> None:
    """Rules: REG-313"""

    async def main() -> None:
        async with program(registry, "monitor") as watching:
            await watching.line(r"alive: (nobody)$")
            async with agent(registry) as serving:
                await watching.line(r"\+ (word-counter)$")
                serving.process.terminate()
                await watching.line(r"- (word-counter)$")
                await serving.end()
            watching.process.send_signal(end)
            assert await watching.end() == (0, ""), watching.lines

    run(main)


def test_an_agent_comes_back_to_a_registry_that_has_forgotten_it() -> None:
    """Rules: REG-059"""

    async def main() -> None:
        with registry_server.served() as url:
            serving = program(url, "agent", ARCP_DEMO_PORT="0", ARCP_DEMO_BEAT_SEC="0.2")
            await serving.__aenter__()
            await serving.line(r"word-counter (listens)")
        try:
            port = urlsplit(url).port
            assert port is not None
            with registry_server.served(port=port):
                while not registry_server.ask(f"{url}/public/discover"):
                    # Nobody is told when it is back.
                    await asyncio.sleep(0.05)
                serving.process.terminate()
                status, errors = await serving.end()
                assert status == 0, errors
        finally:
            await serving.__aexit__()

    run(main)


def test_a_batch(registry: str) -> None:
    """Rules: REG-193"""

    async def main() -> None:
        async with program(registry, "batch") as batch:
            assert await batch.end() == (0, ""), batch.lines
        expect_lines(
            batch,
            (
                r"registered: shelf-\d, shelf-\d, shelf-\d$",
                r"refused: .*key",
                r"heartbeats: success, success, success$",
                r"left: 0$",
            ),
        )

    run(main)


def test_every_program_is_in_the_readme() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    programs = {path.name for path in FOLDER.glob("*.py")}
    assert programs == {"agent.py", "call.py", "pool.py", "monitor.py", "batch.py"}
    for name in programs:
        assert f"({name})" in text
    for table in (EXAMPLES / "README.md", EXAMPLES.parent / "README.md"):
        assert "registry/)" in Path(table).read_text(encoding="utf-8"), table
