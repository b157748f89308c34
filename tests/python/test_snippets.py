"""The documentation's snippets, letter by letter; only host, token and agent names are replaced."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import BOUND_SEC

SNIPPETS = Path(__file__).parent / "snippets"


def python(source: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-X", "dev", "-u", "-W", "error", "-c", source]
    return subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | environment
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=BOUND_SEC)
    assert (process.returncode, errors) == (0, ""), errors
    return output


def test_quickstart() -> None:
    source = (SNIPPETS / "quickstart.py").read_text()
    assert finish(python(source)) == "{'echoed': {'hi': 1}}\n"


def test_running_the_runtime_and_writing_clients() -> None:
    # A free port, and a line that tells it.
    source = (SNIPPETS / "running_the_runtime.py").read_text().replace("port=7777", "port=0")
    source = source.replace("    async with server:\n", "    print(server.url)\n    async with server:\n")
    server = python(source)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        assert url.startswith("ws://127.0.0.1:"), url
        source = (SNIPPETS / "writing_clients.py").read_text()
        source = source.replace("wss://runtime.example.com/arcp", url).replace('agent="weekly-report"', 'agent="echo"')
        assert finish(python(source, TOKEN="tok")) == "{'echoed': {'week': '2026-W19'}}\n"
    finally:
        server.terminate()
        server.communicate(timeout=BOUND_SEC)
