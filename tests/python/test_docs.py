"""Every block of Python in the guides, `docs/python`, `docs/registry` and `docs/03-features`, is run.

After ```python stands how:

    (nothing)  as a script in a folder of its own; a block ```output right behind it is what it prints
    fragment   it is only compiled
    registry   as a script that speaks to http://localhost:8001, a registry where `my-testing-agent` is alive
    pytest     as a file of tests
    app        it makes `app`, an ASGI application, which is served; `echo` is run at /arcp with the token `tok`
    server     as a script that serves on port 7777, where `echo` is run with the token `tok`

Scripts find `cert.pem` and `key.pem`, a certificate of `localhost`, and `ca.pem`, its authority, in their folder.
A block that speaks to ws://127.0.0.1:7777/arcp, and is no server, speaks to a runtime with `echo` and the token `tok`.
One that speaks to http://127.0.0.1:8001 speaks to a fresh registry where `word-counter` is alive; and so does a block
```sh run, which is run by a shell.
"""

import ast
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

import arcp
import arcp.sync
import arcp.testing
import registry_server
from arcp.runtime import StaticBearerVerifier
from arcp.testing import make_runtime, serve_in_thread

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(page for folder in ("python", "registry", "03-features") for page in (DOCS / folder).rglob("*.md"))
TLS = Path(__file__).parent / "tls"
URL = "ws://127.0.0.1:7777/arcp"
REGISTRY_URL = "http://localhost:8001"
REGISTRY = "http://127.0.0.1:8001"
BOUND_SEC = 60
GUIDE_AGENT: dict[str, Any] = {
    "agent_id": "my-testing-agent",
    "name": "My Testing Agent",
    "agent_type": "testing",
    "endpoint": "https://my-agent.example.com",
    "capabilities": ["data-processing", "file-conversion", "text-analysis"],
    "context_brief": "A testing agent for data processing and file conversion",
}

_FENCE = re.compile(
    r"^```(?:python[ \t]*(\w*)|sh (run))[ \t]*\n(.*?)^```[ \t]*\n(?:\s*^```output\n(.*?)^```)?",
    re.DOTALL | re.MULTILINE,
)
_SHELL = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    name: str
    how: str
    source: str
    output: str | None


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in _FENCE.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield Block(f"{page.relative_to(DOCS)}:{line}", found[2] or found[1], found[3], found[4])


BLOCKS = list(blocks())


def test_every_block_was_found() -> None:
    pages = [page.read_text(encoding="utf-8") for page in PAGES]
    opened = sum(page.count("```python") + page.count("```sh run") for page in pages)
    assert len(BLOCKS) == opened > 0


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_a_block_does_what_it_says(block: Block, tmp_path: Path) -> None:
    match block.how:
        case "":
            script(block, tmp_path)
        case "run":
            shell(block, tmp_path)
        case "fragment":
            compile(block.source, block.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        case "pytest":
            (tmp_path / "test_block.py").write_text(block.source)
            plugins = ["-p", "no:arcp", "-p", "arcp.pytest_plugin", "-p", "no:cacheprovider"]
            python(tmp_path, "-m", "pytest", "-q", "-W", "error", *plugins, "test_block.py")
        case "registry":
            with arcp.testing.registry() as served:
                with arcp.sync.Registry(served.url, agent_key=served.agent_keys[2]) as client:
                    client.register_agent(**GUIDE_AGENT)
                (tmp_path / "block.py").write_text(block.source.replace(REGISTRY_URL, served.url))
                output = python(tmp_path, "-W", "error", "block.py")
            assert block.output in (None, output)
        case "app":
            (tmp_path / "block.py").write_text(block.source)
            echoes(tmp_path, "-m", "uvicorn", "block:app", "--ws", "wsproto", "--port")
        case "server":
            (tmp_path / "block.py").write_text("import sys\n" + block.source.replace("7777", "int(sys.argv[1])"))
            echoes(tmp_path, "block.py")
        case other:
            pytest.fail(f"{block.name}: no way to run ```python {other}")


def script(block: Block, folder: Path) -> None:
    if REGISTRY in block.source:
        with arcp.testing.registry() as served, registry_server.word_counter(served.url):
            (folder / "block.py").write_text(block.source.replace(REGISTRY, served.url))
            output = python(folder, "-W", "error", "block.py")
        if block.output is not None:
            assert output == block.output
        return
    runtime = make_runtime(bearer=StaticBearerVerifier({"tok": "me@example.com"}))
    runtime.register_agent("echo", lambda inp, ctx: {"echoed": inp})
    with serve_in_thread(runtime) as runs:
        (folder / "block.py").write_text(block.source.replace(URL, runs.url))
        for pem in TLS.glob("*.pem"):
            shutil.copy(pem, folder)
        output = python(folder, "-W", "error", "block.py")
    if block.output is not None:
        assert output == block.output


def shell(block: Block, folder: Path) -> None:
    """The commands as typed, each of which must succeed."""
    with arcp.testing.registry() as served, registry_server.word_counter(served.url):
        command = ["sh", "-e", "-c", block.source.replace(REGISTRY, served.url)]
        # `arcp` and `python3` are those of this environment.
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            command,
            cwd=folder,
            # Nothing is stored in the folders of whoever runs the tests.
            env=registry_server.CLEAN | {"PATH": path, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
            capture_output=True,
            text=True,
            timeout=BOUND_SEC,
        )
    # Programs say there what they do.
    assert done.returncode == 0, done.stdout + done.stderr
    if block.output is not None:
        assert done.stdout == block.output


def python(folder: Path, *arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=registry_server.CLEAN, capture_output=True, text=True, timeout=BOUND_SEC
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def echoes(folder: Path, *arguments: str) -> None:
    """Starts a program with a free port as its last argument, and runs `echo` there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, *arguments, str(port)], cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        while True:
            assert process.poll() is None, process.communicate()[1]
            try:
                value = arcp.sync.run(
                    "echo", {"hi": 1}, url=URL.replace("7777", str(port)), token="tok", timeout=BOUND_SEC
                )
                break
            except arcp.ConnectionError:
                # It does not listen yet, and tells nobody when it does.
                time.sleep(0.05)
        assert value == {"echoed": {"hi": 1}}
    finally:
        process.terminate()
        process.communicate(timeout=BOUND_SEC)


def test_the_commands_of_the_quickstart(tmp_path: Path) -> None:
    """The two lines of the program, with a free port; the module is the block above them."""
    text = (DOCS / "python/quickstart.md").read_text(encoding="utf-8")
    commands = [
        shlex.split(line) for block in _SHELL.findall(text) for line in block.splitlines() if line.startswith("arcp ")
    ]
    assert [command[1] for command in commands] == ["serve", "submit"]
    (module,) = (block.source for block in BLOCKS if block.source.startswith("# agents.py\n"))
    (tmp_path / "agents.py").write_text(module)
    serve, submit = ([sys.executable, "-m", "arcp", *command[1:]] for command in commands)
    serve[serve.index("7777")] = "0"
    server = subprocess.Popen([*serve, "--output", "json"], cwd=tmp_path, text=True, stdout=PIPE, stderr=PIPE)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line, server.communicate(timeout=BOUND_SEC)
        submit[submit.index(URL)] = json.loads(line)["listening"]["url"]
        done = subprocess.run(submit, capture_output=True, text=True, timeout=BOUND_SEC, check=True)
        assert json.loads(done.stdout)["result"] == {"echoed": {"hi": 1}}
    finally:
        server.terminate()
        server.communicate(timeout=BOUND_SEC)
