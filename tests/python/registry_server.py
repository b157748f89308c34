"""A registry as its users start it, in a process of its own, and an agent for it to know."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BOUND_SEC = 60
# The variables of the one that runs the tests are no part of what is tested.
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("ARCP_")}
FINGERPRINT = "tests-of-the-registry"


@contextlib.contextmanager
def served(*, port: int = 0, environment: dict[str, str] | None = None) -> Iterator[str]:
    """The URL of a fresh registry in development mode that keeps nothing."""
    command = [sys.executable, "-m", "arcp", "registry", "serve", "--dev", "--port", str(port), "--output", "json"]
    # A pipe that nobody reads would stop it once it is full.
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, env=CLEAN | (environment or {}), stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                process.wait(BOUND_SEC)
                log.seek(0)
                raise AssertionError((process.returncode, log.read()))
            yield json.loads(line)["registry"]["url"]
            assert process.poll() is None, "the registry has ended by itself"
        finally:
            process.terminate()
            process.communicate(timeout=BOUND_SEC)


def ask(
    url: str, body: Any = None, *, method: str | None = None, token: str | None = None, fingerprint: str = FINGERPRINT
) -> Any:
    """One request, whose answer must be JSON."""
    request = urllib.request.Request(url, method=method)
    request.add_header("X-Client-Fingerprint", fingerprint)
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=BOUND_SEC) as answer:
        return json.load(answer)


def login(url: str) -> str:
    """The token of the administrator of `--dev`."""
    token: str = ask(f"{url}/auth/login", {"username": "ARCP", "password": "ARCP"})["access_token"]
    return token


class _Agent(BaseHTTPRequestHandler):
    """Says yes to everything."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = json.dumps({"status": "accepted", "agent": "word-counter", "words": 6}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def word_counter(url: str) -> Iterator[None]:
    """The live agent `word-counter`, registered by the administrator."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Agent)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        registration = {
            "agent_id": "word-counter",
            "name": "Word Counter",
            "agent_type": "automation",
            "endpoint": f"http://127.0.0.1:{server.server_port}",
            "capabilities": ["word-count", "text-analysis"],
            "context_brief": "Counts the words of a text.",
            "version": "1.0.0",
            "owner": "unknown",
            "public_key": "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=",
            "communication_mode": "remote",
            "metadata": {"framework": "fastapi"},
        }
        ask(f"{url}/agents/register", registration, token=login(url))
        yield
    finally:
        server.shutdown()
        thread.join(BOUND_SEC)
        server.server_close()
