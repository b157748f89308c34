"""The program as the wheel ships it."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import arcp
from conftest import BOUND_SEC

APP = """
import asyncio
from arcp import ARCPRuntime, RuntimeInfo
from arcp.runtime import StaticBearerVerifier

def make():
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="app", version="1.0"), bearer=StaticBearerVerifier({"tok": "me@example.com"})
    )
    return runtime.register_agent("double", lambda inp, ctx: inp * 2).register_agent("slow", slow)

async def slow(inp, ctx):
    try:
        await ctx.log("info", "holding on")
        await asyncio.Event().wait()
    finally:
        await ctx.log("info", "cleaning up")
        await asyncio.Event().wait()

runtime = make()
nothing = 3

def broken():
    raise RuntimeError("two\\nlines")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "unimportable.py").write_text("import nosuchmodule")
    return tmp_path


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "arcp", *arguments],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if not key.startswith("ARCP_")},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        output, errors = process.communicate(timeout=BOUND_SEC)
    finally:
        # Else what hangs here would outlive the tests.
        process.kill()
        process.wait()
    return process.returncode, output, errors


def test_version(folder: Path) -> None:
    status, output, errors = finish(start(folder, "--version"))
    assert (status, errors) == (0, "")
    assert arcp.__version__ in output
    assert arcp.PROTOCOL_VERSION in output


@pytest.mark.parametrize("app", ["app:runtime", "app:make"])
def test_serve_a_runtime_written_in_python(folder: Path, app: str) -> None:
    server = start(folder, "serve", "--app", app, "--port", "0")
    try:
        assert server.stderr is not None
        line = server.stderr.readline()
        assert line.startswith("arcp serve listening on ws://127.0.0.1:"), line
        url = line.split()[-1]
        submit = start(folder, "submit", "--url", url, "--token", "tok", "--agent", "double", "--input", "21")
        status, output, errors = finish(submit)
        assert status == 0, errors
        assert json.loads(output)["result"] == 42
    finally:
        server.send_signal(signal.SIGTERM)
    assert finish(server)[0] == 0


def test_an_app_has_metrics_and_an_audit_log(folder: Path) -> None:
    options = ["--metrics", "127.0.0.1:0", "--audit", "audit.jsonl", "--output", "json"]
    server = start(folder, "serve", "--app", "app:runtime", "--port", "0", *options)
    try:
        assert server.stdout is not None
        listening = json.loads(server.stdout.readline())["listening"]
        submit = start(
            folder, "submit", "--url", listening["url"], "--token", "tok", "--agent", "double", "--input", "2"
        )
        assert finish(submit)[0] == 0
        with urllib.request.urlopen(listening["metrics"], timeout=BOUND_SEC) as answer:
            figures = answer.read().decode()
        assert 'arcp_jobs_ended_total{status="success"} 1' in figures
    finally:
        server.send_signal(signal.SIGTERM)
    assert finish(server)[0] == 0
    noted = [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]
    assert {"me@example.com"} == {entry["principal"] for entry in noted if "principal" in entry}
    assert "tok" not in [value for entry in noted for value in entry.values()]


def test_what_an_app_cannot_be_watched_with_is_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        metrics = ["--metrics", f"127.0.0.1:{taken.getsockname()[1]}"]
        for options in (metrics, ["--audit", "no/such/folder/audit.jsonl"]):
            status, output, errors = finish(start(folder, "serve", "--app", "app:runtime", "--port", "0", *options))
            assert (status, output, errors.count("\n")) == (1, "", 1), errors
            assert options[0] in errors


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("absent:runtime", "absent"),
        ("app:absent", "absent"),
        ("app:nothing", "int"),
        ("app:broken", "RuntimeError: two lines"),
        ("unimportable:runtime", "nosuchmodule"),
    ],
)
def test_an_app_that_cannot_be_served_is_one_line(folder: Path, app: str, says: str) -> None:
    status, output, errors = finish(start(folder, "serve", "--app", app, "--port", "0"))
    assert (status, output) == (1, "")
    assert errors.count("\n") == 1
    assert app in errors
    assert says in errors


@pytest.mark.parametrize(
    ("app", "options", "says"),
    [
        ("app:absent", [], "no 'absent'"),
        ("app:runtime", ["--port", "1", "--host", "192.0.2.1"], "cannot listen"),
        ("app:runtime", ["--port", "0", "--db", "."], "--db"),
    ],
)
def test_programs_read_in_json_why_an_app_is_not_served(folder: Path, app: str, options: list[str], says: str) -> None:
    status, output, errors = finish(start(folder, "serve", "--output", "json", "--app", app, *options))
    assert (status, errors.count("\n")) == (1, 1)
    error = json.loads(output)["error"]
    assert (error["code"], error["retryable"]) == ("failed", False)
    assert says in error["message"]
    assert says in errors


def commands(help_text: str) -> list[str]:
    """The commands a help text lists, but for `help`."""
    listed = help_text.partition("Commands:\n")[2].partition("\n\n")[0]
    return [line.split()[0] for line in listed.splitlines() if line[2:3].strip() and line.split()[0] != "help"]


def test_every_command_has_a_help_text(folder: Path) -> None:
    status, output, errors = finish(start(folder, "--help"))
    assert (status, errors) == (0, "")
    found = commands(output)
    assert set(found) == {
        "serve", "submit", "tail", "cancel", "jobs", "sessions", "replay", "db", "completions",
        "registry", "agents", "login",
    }  # fmt: skip
    asked = [[command] for command in found]
    asked += [["db", command] for command in ("backup", "check", "vacuum")]
    for process in [start(folder, *command, "--help") for command in asked]:
        status, output, errors = finish(process)
        assert (status, errors) == (0, "")
        assert "Usage: arcp" in output


def test_ctrl_c_ends_a_submit_that_waits_for_its_input(folder: Path) -> None:
    reading, writing = os.pipe()
    submit = subprocess.Popen(
        [sys.executable, "-m", "arcp", "submit", "--url", "ws://127.0.0.1:1", "--agent", "a", "--input", "-"],
        cwd=folder,
        stdin=reading,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(reading)
    # More than a pipe holds: once all of it is gone, the program is reading.
    os.write(writing, b" ")
    with open(writing, "wb", buffering=0) as pipe:
        pipe.write(b" " * 1_000_000)
        submit.send_signal(signal.SIGINT)
        status, output, errors = finish(submit)
    assert (status, output, errors) == (-signal.SIGINT, "", "")


def test_ctrl_c_ends_a_served_app(folder: Path) -> None:
    server = start(folder, "serve", "--app", "app:runtime", "--port", "0", "--output", "json")
    assert server.stdout is not None
    assert server.stdout.readline().startswith('{"listening":')
    server.send_signal(signal.SIGINT)
    assert finish(server) == (0, "", "")


def test_a_second_ctrl_c_does_not_wait_for_agents(folder: Path) -> None:
    server = start(folder, "serve", "--app", "app:runtime", "--port", "0", "--output", "json")
    assert server.stdout is not None
    url = json.loads(server.stdout.readline())["listening"]["url"]
    options = ["--token", "tok", "--agent", "slow", "--input", "1", "--reconnect", "0", "--output", "json"]
    submit = start(folder, "submit", "--url", url, *options)
    try:
        assert submit.stdout is not None
        for said in ("holding on", "cleaning up"):
            while said not in (line := submit.stdout.readline()):
                assert line, "the program has ended"
            server.send_signal(signal.SIGINT)
        assert finish(server)[0] == 0
    finally:
        submit.kill()
        finish(submit)


def test_wrong_usage(folder: Path) -> None:
    assert finish(start(folder, "serve", "--port", "none"))[0] == 2
