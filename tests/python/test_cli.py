"""The program as the wheel ships it."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import arcp
from conftest import BOUND_SEC

APP = """
from arcp import ARCPRuntime, RuntimeInfo
from arcp.runtime import StaticBearerVerifier

def make():
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="app", version="1.0"), bearer=StaticBearerVerifier({"tok": "me@example.com"})
    )
    return runtime.register_agent("double", lambda inp, ctx: inp * 2)

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
    output, errors = process.communicate(timeout=BOUND_SEC)
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


@pytest.mark.parametrize(
    ("options", "says"),
    [(["--metrics", "127.0.0.1:1"], "--metrics"), (["--audit", "no/such/folder/audit.jsonl"], "--audit")],
)
def test_what_an_app_cannot_be_watched_with_is_one_line(folder: Path, options: list[str], says: str) -> None:
    status, output, errors = finish(start(folder, "serve", "--app", "app:runtime", "--port", "0", *options))
    assert (status, output, errors.count("\n")) == (1, "", 1), errors
    assert says in errors


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


def test_wrong_usage(folder: Path) -> None:
    assert finish(start(folder, "serve", "--port", "none"))[0] == 2
