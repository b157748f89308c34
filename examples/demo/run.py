"""Runs the demo: the agent, the client, and `arcp tail` beside it, each a process of its own."""

import os
import re
import secrets
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent
PATIENCE = 120


def wait_for(stream: IO[str], pattern: str) -> str:
    """Reads lines until one matches; what was read before is passed on."""
    for line in stream:
        if found := re.search(pattern, line):
            return found.group(1)
        print(line, end="", file=sys.stderr)
    raise SystemExit(f"demo: no line like {pattern!r} came; see above")


def main() -> None:
    environment = os.environ | {"ARCP_DEMO_TOKEN": secrets.token_hex(16)}
    agent = subprocess.Popen(
        [sys.executable, HERE / "agent.py"], env=environment, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    # Whatever hangs, the demo ends.
    watchdog = threading.Timer(PATIENCE, agent.kill)
    watchdog.start()
    try:
        assert agent.stderr is not None
        url = wait_for(agent.stderr, r"listening on (ws://\S+)")
        print(f"agent listens on {url}")
        environment["ARCP_DEMO_URL"] = url
        run_client_and_tail(url, environment)
    finally:
        watchdog.cancel()
        agent.terminate()
        agent.wait(timeout=10)
    print("demo: done")


def run_client_and_tail(url: str, environment: dict[str, str]) -> None:
    client = subprocess.Popen(
        [sys.executable, HERE / "client.py"], env=environment, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert client.stdout is not None
    job = wait_for(client.stdout, r"job (job_\S+)")
    print(f"client submitted {job}; arcp tail follows it")
    command = ["arcp", "tail", "--url", url, "--job-id", job]
    tail = subprocess.Popen(
        command, env=environment | {"ARCP_TOKEN": environment["ARCP_DEMO_TOKEN"]}, stdout=subprocess.PIPE, text=True
    )
    for line in client.stdout:
        print(f"client | {line}", end="")
    lines = tail.communicate(timeout=PATIENCE)[0].splitlines()
    kinds = Counter(found.group(1) for line in lines if (found := re.search(r'"kind": ?"(\w+)"', line)))
    print(f"tail   | {len(lines)} lines: {dict(kinds)}")
    print(f"tail   | {lines[-1]}")
    if client.wait(timeout=PATIENCE) != 0 or tail.returncode != 0:
        raise SystemExit("demo: a process failed; see above")


if __name__ == "__main__":
    main()
