"""Every block of the two guides, run as printed; `examples.toml` is the table of what proves each.

Rules: REG-001, REG-005, REG-010, REG-011, REG-012, REG-030, REG-031, REG-032, REG-033, REG-034, REG-035, REG-036,
REG-037, REG-038, REG-039, REG-040, REG-041, REG-042, REG-043, REG-044, REG-045, REG-046, REG-047, REG-055, REG-056,
REG-057, REG-059, REG-073, REG-180, REG-199, REG-310, REG-334, REG-336, REG-500, REG-504
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import golden
import servers
import sockets

HERE = Path(__file__).parent
PORT = 8001
PATIENCE = 45.0
BLOCKS: list[dict[str, Any]] = tomllib.loads((HERE / "examples.toml").read_text())["block"]
# Where an application keeps what it may do.
APPLICATION = {"ARCP_ADMIN_USERNAME": "ARCP", "ARCP_ADMIN_PASSWORD": "ARCP", "ARCP_AGENT_KEY": "test-agent-001"}
# The words of an `except` branch, and of a program that dies.
REFUSED = (
    "Traceback",
    "failed",
    "Failed",
    "Check if ARCP",
    "Check your",
    "Consider increasing",
    "Rate limited",
    "'error':",
)
# Of `sitecustomize`: long waits are shortened where the example is not looking.
HURRY = """
import asyncio, os
part = float(os.environ["ARCP_TEST_HURRY"])
sleep = asyncio.sleep

async def hurried(delay, result=None):
    return await sleep(delay * part if delay > 1 else delay, result)

asyncio.sleep = hurried
"""


def lines_of(guide: str) -> list[str]:
    return (HERE / "guides" / guide).read_text().splitlines()


def text_of(block: dict[str, Any]) -> str:
    first, last = block["lines"]
    return "\n".join(lines_of(block["guide"])[first - 1 : last]) + "\n"


def first_imports(guide: str) -> list[str]:
    """The imports of the guide's first Python block."""
    first = next(block for block in BLOCKS if block["guide"] == guide and "asyncio.run" in text_of(block))
    return [line for line in text_of(first).splitlines() if re.match(r"import |from ", line)]


def program_of(block: dict[str, Any]) -> str:
    text = text_of(block)
    lacking = [line for line in first_imports(block["guide"]) if line not in text]
    wanted = [*lacking, *block.get("imports", "").splitlines()]
    return "\n".join([*wanted, text, block.get("after", "")])


def name_of(block: dict[str, Any]) -> str:
    number = sum(each["heading"] == block["heading"] for each in BLOCKS[: BLOCKS.index(block)])
    return f"{block['guide'].split('-')[0]}: {block['heading']}{f' ({number + 1})' if number else ''}"


def wait_for_port() -> None:
    """The guides' port; a server of another test may just be leaving it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", PORT))
                return
            except OSError:
                time.sleep(0.2)
    pytest.fail(f"port {PORT}, which the guides' examples name, is in use")


@contextmanager
def registry(block: dict[str, Any], folder: Path) -> Iterator[tuple[servers.Server, sockets.Calls]]:
    """What the block runs against: a fresh server, and the agent it expects."""
    agents = golden.Agents()
    # Nothing but `--dev`: keys, the administrator and the rest are its defaults.
    server = servers.Ours(folder / "registry", port=PORT)
    if block.get("language") == "env":
        server.folder.mkdir(parents=True)
        (server.folder / ".env").write_text(text_of(block))
    try:
        start(server, block.get("settings", {}))
        calls = sockets.Calls(server, agents)
        if "agent" in block:
            calls.post("/agents/register", guide_agent(agents if block["agent"] == "near" else None), calls.admin())
        with busy(calls) if block.get("busy") else nothing():
            yield server, calls
        server.stop()
    finally:
        server.kill()
        agents.close()


def start(server: servers.Ours, settings: dict[str, str]) -> None:
    """Starts it once the port is free; what takes the port in that moment is waited for too."""
    for last in (False, False, True):
        wait_for_port()
        try:
            server.start(settings, ["--dev"])
            return
        except AssertionError as error:
            if last or "another program listens" not in str(error):
                raise


def guide_agent(near: golden.Agents | None) -> dict[str, Any]:
    """The agent of "Register an Agent"."""
    return {
        "agent_id": "my-testing-agent",
        "name": "My Testing Agent",
        "agent_type": "testing",
        "endpoint": near.url if near else "https://my-agent.example.com",
        "capabilities": ["data-processing", "file-conversion", "text-analysis"],
        "context_brief": "A testing agent for data processing and file conversion",
        "version": "1.0.0",
        "owner": "My Organization",
        "public_key": "my-agent-public-key-that-is-long-enough-32-chars",
        "communication_mode": "remote",
        "metadata": {"framework": "fastapi", "language": "python", "deployment": "docker", "created_at": "2025-01-XX"},
        "features": ["http-api", "json-responses", "async-processing"],
        "max_tokens": 2000,
        "language_support": ["en", "es", "fr"],
        "rate_limit": 100,
        "policy_tags": ["testing", "data-processing"],
    }


@contextmanager
def nothing() -> Iterator[None]:
    yield


@contextmanager
def busy(calls: sockets.Calls) -> Iterator[None]:
    """Another agent comes and goes."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(0.25):
            calls.register("a-visitor")
            if done.wait(0.25):
                return
            golden.send(calls.server, "DELETE", "/agents/a-visitor", calls.admin(), None)

    calls.admin()
    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        done.set()
        worker.join()


def unproven(block: dict[str, Any], output: str) -> str | None:
    """The first proof the output lacks."""
    rest = output.splitlines()
    for proof in block["proof"]:
        at = next((at for at, line in enumerate(rest) if re.search(proof, line)), None)
        if at is None:
            return str(proof)
        rest = rest[at:]
    return None


def run(command: list[str], block: dict[str, Any], folder: Path, environment: dict[str, str]) -> str:
    """The program's output; an endless one is stopped when it has shown what it should."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=servers.clean(APPLICATION | {"PYTHONUNBUFFERED": "1"} | environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    seen: list[str] = []
    assert process.stdout is not None
    stopper = threading.Timer(PATIENCE, process.kill)
    stopper.start()
    try:
        with process.stdout:
            for line in process.stdout:
                seen.append(line)
                if block.get("endless") and unproven(block, "".join(seen)) is None:
                    process.kill()
        status = process.wait()
    finally:
        stopper.cancel()
        process.kill()
        process.wait()
    if not block.get("endless"):
        assert status == block.get("ends", 0), f"it ended with {status}:\n{''.join(seen)}"
    return "".join(seen)


def judge(block: dict[str, Any], output: str) -> None:
    lacking = unproven(block, output)
    assert lacking is None, f"no line matches {lacking!r}:\n{output}"
    for word in {*REFUSED, *block.get("refused", [])} - set(block.get("allowed", [])):
        assert not re.search(word, output), f"{word!r} is in the output:\n{output}"


RUN = [block for block in BLOCKS if "aside" not in block]
PYTHON = [block for block in RUN if "language" not in block]


@pytest.mark.parametrize("block", PYTHON, ids=name_of)
def test_python(block: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(program_of(block))
    environment = {}
    if "hurry" in block:
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside" / "sitecustomize.py").write_text(HURRY)
        environment = {"PYTHONPATH": str(tmp_path / "outside"), "ARCP_TEST_HURRY": str(block["hurry"])}
    with registry(block, tmp_path):
        judge(block, run([sys.executable, "example.py"], block, tmp_path, environment))


@pytest.mark.parametrize("block", [block for block in RUN if block.get("language") == "shell"], ids=name_of)
def test_shell(block: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "example.sh").write_text(text_of(block))
    with registry(block, tmp_path):
        command = ["sh", "example.sh"]
        if block.get("endless"):
            # curl keeps what is no whole line; it hands it out when its time is over.
            command = ["timeout", "2", *command]
        judge(
            block,
            run(command, block | {"endless": False, "ends": 124} if block.get("endless") else block, tmp_path, {}),
        )


@pytest.mark.parametrize("block", [block for block in RUN if block.get("language") == "env"], ids=name_of)
def test_settings(block: dict[str, Any], tmp_path: Path) -> None:
    with registry(block, tmp_path) as (server, _):
        judge(block, golden.send(server, "GET", "/health", {}, None).text)


def browser() -> str | None:
    return next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )


@pytest.mark.parametrize("block", [block for block in RUN if block.get("language") == "javascript"], ids=name_of)
def test_javascript(block: dict[str, Any], tmp_path: Path) -> None:
    found = browser()
    if found is None:
        pytest.fail("the guide's JavaScript runs in Chromium, which is not installed: apt-get install chromium")
    with registry(block, tmp_path) as (_, calls):
        code = text_of(block)
        if "token" in block:
            calls.admin()
            assert block["token"] in code
            code = code.replace(block["token"], calls.tokens["<admin-token>"])
        stubs = "\n".join(
            f"function {name}(value) {{ console.log({name!r}, value); }}" for name in block.get("stubs", [])
        )
        (tmp_path / "example.js").write_text(f"{stubs}\n{code}")
        (tmp_path / "run.json").write_text(json.dumps({"browser": found, "proof": block["proof"], "patience": 15000}))
        command = ["node", str(HERE / "browser" / "run.mjs"), str(tmp_path)]
        judge(block, run(command, block, tmp_path, {"HOME": os.environ.get("HOME", "/tmp")}))


@pytest.mark.parametrize("guide", sorted({block["guide"] for block in BLOCKS}))
def test_every_block_is_in_the_table(guide: str) -> None:
    """No line that is code lies outside the blocks of the table."""
    covered = {
        at for block in BLOCKS if block["guide"] == guide for at in range(block["lines"][0], block["lines"][1] + 1)
    }
    words = "import |from \\w+ import|async def |def |class |@|asyncio\\.run|const |ws\\.|curl |pip |git "
    code = re.compile(rf"^(\s{{4,}}\S|{words}|[{{}}\[\]]|//|#)")
    outside = [f"{at}: {line}" for at, line in enumerate(lines_of(guide), 1) if code.match(line) and at not in covered]
    assert not outside
