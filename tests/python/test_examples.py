"""The example programs, each as a newcomer runs it: a server, and a client that finds it."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from conftest import run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@dataclass(frozen=True)
class Example:
    """What a pair prints that proves its point, as patterns; and its figures, made quicker."""

    client: tuple[str, ...]
    server: tuple[str, ...] = ()
    shared: tuple[tuple[str, str], ...] = ()
    """Of the client's lines and of the server's: what they capture is the same on both sides."""
    environment: dict[str, str] = field(default_factory=dict)


PAIRS = {
    "submit_and_stream": Example(
        (
            r"1\. status: .*started",
            r"2\. log: ",
            r"3\. thought: ",
            r"4\. tool_call: .*search",
            r"5\. tool_result: ",
            r"6\. metric: ",
            r"7\. artifact_ref: ",
            r"8\. status: .*finished",
            r"success: \{'topic': 'tides', 'hits': 3\}",
        )
    ),
    "delegate": Example(
        (r"delegate: .*'summarise'.*job_\w+", r"tool_result: .*job_\w+", r"parent and child ran in trace [0-9a-f]{32}")
    ),
    "resume": Example(
        (
            r"before: step 1",
            r"before: step 2",
            r"session sess_\w+ goes on behind event 2",
            r"after: step 3",
            r"after: step 10",
            r"success: \{'steps': 10\}",
        ),
        environment={"ARCP_DEMO_STEP_SEC": "0.1"},
    ),
    "idempotent_retry": Example(
        (r"first  (job_\w+): .*'charges': 1", r"second job_\w+: .*'charges': 1", r".*DUPLICATE_KEY")
    ),
    "lease_violation": Example(
        (r"granted: .*fs\.read", r"write: .*PERMISSION_DENIED", r"success: \{'read': 1, 'written': 0\}")
    ),
    "cancel": Example(
        (r"tick 0", r"cancelling", r"cleaning up", r"CANCELLED after \d\.\d s: .*seen enough"),
        environment={"ARCP_DEMO_STEP_SEC": "0.1", "ARCP_DEMO_AFTER_SEC": "0.4"},
    ),
    "vendor_extensions": Example(
        (
            r"handle_naively: started, finished; success",
            r"handle_awarely: started, 10 pages, 20 pages, 30 pages, finished; success",
        )
    ),
    "custom_auth": Example(
        (
            r"signed in as ada@example\.com",
            r"expired: UNAUTHENTICATED: the token has expired",
            r"garbage: UNAUTHENTICATED: the token's signature is wrong",
        )
    ),
    "heartbeat": Example(
        (r"the runtime asks for a sign of life every 1 s", r"success after \d\.\d s of silence: \{'answer': 42\}"),
        environment={"ARCP_DEMO_HEARTBEAT_SEC": "1", "ARCP_DEMO_SILENT_SEC": "4"},
    ),
    "ack_backpressure": Example(
        (r"back pressure: \d+ events are not acknowledged; acknowledging", r"success: 200 events, [2-9] warnings")
    ),
    "list_jobs": Example((r"page 1: job_\w+, job_\w+ \(and more\)", r"page 2: job_\w+ \(the last\)")),
    "subscribe": Example(
        (
            r"bob found job_\w+, which is running",
            r"bob sees: step 1",
            r"bob sees: step 10",
            r"ada's job: success: \{'steps': 10\}",
        ),
        environment={"ARCP_DEMO_STEP_SEC": "0.1"},
    ),
    "agent_versions": Example(
        (
            r"hosted: .*default='1\.2\.3'",
            r"summarise: .*'summarise@1\.2\.3'",
            r"summarise@2\.0\.0-beta: .*'summarise@2\.0\.0-beta'",
            r"summarise@9\.9\.9: AGENT_VERSION_NOT_AVAILABLE",
        )
    ),
    "lease_expires_at": Example(
        (r"allowed until 2\d{3}-", r"the lease has ended", r"LEASE_EXPIRED after [23]\.\d s"),
    ),
    "cost_budget": Example(
        (
            r"remaining: 0\.7 USD",
            r"remaining: 0\.4 USD",
            r"remaining: 0\.1 USD",
            r"remaining: -0\.2 USD",
            r"call-5: BUDGET_EXHAUSTED",
            r"success: \{'calls': 4",
        )
    ),
    "progress": Example(
        (r"\[#\.{9}\] 1/10 files", r"\[#{10}\] 10/10 files", r"success: \{'files': 10\}"),
        environment={"ARCP_DEMO_STEP_SEC": "0.02"},
    ),
    "result_chunk": Example((r"186 bytes, 186 announced: 30 rows of squares", r"3\d parts")),
    "host_tracing": Example(
        (
            r"span arcp\.send job\.submit trace=[0-9a-f]{32}",
            r"span arcp\.recv job\.result trace=[0-9a-f]{32}",
            r"success: \{'echoed': \{'hi': 1\}\}",
        ),
        (r"span arcp\.recv job\.submit trace=[0-9a-f]{32}", r"span arcp\.send job\.result trace=[0-9a-f]{32}"),
        (
            (r"span arcp\.send job\.submit trace=(\w+)", r"span arcp\.recv job\.submit trace=(\w+)"),
            (r"span arcp\.recv job\.event trace=(\w+)", r"span arcp\.send job\.event trace=(\w+)"),
            (r"span arcp\.recv job\.result trace=(\w+)", r"span arcp\.recv job\.submit trace=(\w+)"),
        ),
    ),
    "host_asgi": Example((r"health: ok", r"\['echo started'\], success: \{'echoed': \{'hi': 1\}\}")),
    "host_aiohttp": Example((r"health: ok", r"\['echo started'\], success: \{'echoed': \{'hi': 1\}\}")),
}

STDIO = Example(
    (r"\['echo started'\], success: \{'echoed': \{'hi': 1\}\}", r"the child has ended with status 0"),
)


class Program:
    """One of an example's two processes; it does not outlive its test."""

    def __init__(self, path: Path, environment: dict[str, str]) -> None:
        self.path = path
        # Its own, as the variables of the one that runs the tests are no part of the example.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ARCP_")}
        self.environment = inherited | environment
        self.lines: list[str] = []

    async def __aenter__(self) -> Self:
        # What was left open would be seen.
        command = [sys.executable, "-W", "default::ResourceWarning", str(self.path)]
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(*command, env=self.environment, stdout=pipe, stderr=pipe)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.communicate()

    async def line(self, pattern: str) -> str:
        assert self.process.stdout is not None
        while line := (await self.process.stdout.readline()).decode():
            self.lines.append(line.rstrip("\n"))
            if found := re.match(pattern, line):
                return found.group(1)
        raise AssertionError(f"no line like {pattern!r}: {self.lines} {await self.end()}")

    async def end(self) -> tuple[int | None, str]:
        """Its status, and what it said on standard error."""
        output, errors = await self.process.communicate()
        self.lines += output.decode().splitlines()
        return self.process.returncode, errors.decode()


def expect_lines(program: Program, patterns: tuple[str, ...]) -> None:
    """Each pattern matches a line, in this order."""
    lines: Iterator[str] = iter(program.lines)
    for pattern in patterns:
        assert any(re.match(pattern, line) for line in lines), f"no {pattern!r} in its place in {program.lines}"


def captured(program: Program, pattern: str) -> str:
    """What the first line that matches holds."""
    return next(found.group(1) for line in program.lines if (found := re.match(pattern, line)))


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """A shell's background job ignores interrupts, and so would the programs started here."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", PAIRS)
def test_pair(name: str) -> None:
    example = PAIRS[name]

    async def main() -> None:
        environment = example.environment | {"ARCP_DEMO_PORT": "0", "ARCP_DEMO_TOKEN": f"token-of-{name}"}
        async with Program(EXAMPLES / name / "server.py", environment) as server:
            url = await server.line(r"listening on (ws://127\.0\.0\.1:\d+/arcp)$")
            async with Program(EXAMPLES / name / "client.py", environment | {"ARCP_DEMO_URL": url}) as client:
                assert await client.end() == (0, ""), client.lines
            # Half of them are interrupted, half are told to end.
            server.process.send_signal(signal.SIGINT if list(PAIRS).index(name) % 2 else signal.SIGTERM)
            assert await server.end() == (0, ""), server.lines
        expect_lines(client, example.client)
        expect_lines(server, example.server)
        for ours, theirs in example.shared:
            assert captured(client, ours) == captured(server, theirs)

    run(main)


def test_stdio() -> None:
    async def main() -> None:
        async with Program(EXAMPLES / "stdio" / "client.py", {"ARCP_DEMO_TOKEN": "token-of-stdio"}) as client:
            assert await client.end() == (0, "server: serving my parent\nserver: my parent has left\n")
        expect_lines(client, STDIO.client)

    run(main)


def test_every_example_is_here_and_in_the_tables() -> None:
    names = {path.name for path in EXAMPLES.iterdir() if (path / "client.py").exists()} - {"demo"}
    assert names == {*PAIRS, "stdio"}
    assert len(names) == 21
    for table in (EXAMPLES / "README.md", EXAMPLES.parent / "README.md"):
        text = table.read_text(encoding="utf-8")
        for name in names:
            assert f"{name}/)" in text, f"{name} is not in {table}"
