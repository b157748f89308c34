"""The registry's page in a browser."""

import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from servers import ENVIRONMENT, Server
from sockets import Calls, described
from test_weaknesses import agents, calls, get

__all__ = ["agents", "calls"]

HERE = Path(__file__).parent


def shown(url: str, *proof: str) -> str:
    """What the page shows, once it shows that."""
    found = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
    if found is None:
        pytest.fail("the page is looked at in Chromium, which is not installed: apt-get install chromium")
    command = ["node", str(HERE / "browser" / "page.mjs"), found, url, *proof]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_shows_agents_as_text_and_fetches_nothing(calls: Calls) -> None:
    """Rules: REG-142, REG-402, REG-408"""
    value = described("xss-1", "testing", 'http://h.example/"><svg/onload=alert(1)>')
    calls.post("/agents/register", value | {"name": "<img src=x onerror=alert(1)>"}, calls.admin())
    calls.post("/agents/register", described("plain-1", "security", "http://h.example"), calls.admin())
    text = shown(calls.server.url, "onerror=alert", "plain-1")
    assert "<img src=x onerror=alert(1)>" in text
    assert "plain-1" in text
    for bad in ("dialog:", "foreign:", "page error:"):
        assert bad not in text


def test_the_page_reconnects(server: Server, calls: Calls) -> None:
    """Rules: REG-407"""
    calls.register("before-1")
    with ThreadPoolExecutor(1) as pool:
        page = pool.submit(shown, server.url, "after-1")
        # It is open when somebody listens.
        deadline = time.monotonic() + 15
        while "arcp_websocket_connections 0" in get(calls, "/metrics", calls.admin()):
            assert time.monotonic() < deadline, "the page did not connect"
            time.sleep(0.1)
        server.restart(ENVIRONMENT, ["--dev"])
        Calls(server, calls.agents).register("after-1")
        assert "after-1" in page.result()
