"""What the OpenAPI document says is what the server does, tried with made-up requests (schemathesis).

Rules: REG-102, REG-103
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from golden import Agents, send
from servers import KEYS, running
from sockets import FINGERPRINT, Calls

EXAMPLES = "200" if os.environ.get("ARCP_FAULTS") == "long" else "8"
# The only calls that may fail with what is behind the registry.
CONNECTS = {"/public/connect/{agent_id}", "/agents/{agent_id}/connection/notify"}
# Calls that keep something before they answer, which a full disk refuses.
KEEPS = {
    ("post", "/agents/register"),
    ("delete", "/agents/{agent_id}"),
    ("post", "/agents/{agent_id}/metrics"),
    ("post", "/agents/{agent_id}/metrics/compat"),
    ("post", "/agents/report-metrics/{agent_id}"),
}


def test_the_document_is_open_and_complete(tmp_path: Path) -> None:
    with running("ours", tmp_path) as server:
        document = send(server, "GET", "/openapi.json", {}, None).json
        assert document["openapi"].startswith("3.1")
        operations = {
            (method, path): operation
            for path, item in document["paths"].items()
            for method, operation in item.items()
            if method in ("get", "post", "put", "delete", "options", "patch")
        }
        for (method, path), operation in operations.items():
            wrong = {status for status in operation["responses"] if status.startswith("5")}
            allowed = {"502", "504"} if path in CONNECTS else {"500"} if (method, path) in KEEPS else set()
            assert wrong == allowed, f"{method} {path} documents {wrong}"
        described = {path for _, path in operations}
        for path in (
            "/health",
            "/agents/register",
            "/public/discover",
            "/public/search",
            "/auth/login",
            "/tokens/mint",
        ):
            assert path in described


@pytest.mark.parametrize("role", ["anyone", "agent", "admin"])
def test_made_up_requests(role: str, tmp_path: Path) -> None:
    agents = Agents()
    # Nobody is locked out: what is tried here is not whether lockouts work.
    settings = {"RATE_LIMIT_BURST": "100000", "RATE_LIMIT_RPM": "100000"}
    try:
        with running("ours", tmp_path, settings) as server:
            calls = Calls(server, agents)
            headers = []
            if role == "admin":
                headers = [f"{name}: {value}" for name, value in calls.admin().items()]
            elif role == "agent":
                token = calls.register("an-agent", token=calls.temporary("an-agent", KEYS[0]))
                headers = [f"Authorization: Bearer {token}", f"X-Client-Fingerprint: {FINGERPRINT}"]
            command = [
                str(Path(sys.executable).with_name("schemathesis")),
                "run",
                f"{server.url}/openapi.json",
                "--checks=not_a_server_error,status_code_conformance,content_type_conformance",
                f"--max-examples={EXAMPLES}",
                "--phases=examples,fuzzing",
                "--generation-deterministic",
                "--request-timeout=15",
                "--no-color",
                # It ends the session that the requests need.
                "--exclude-path=/auth/logout",
                # Their failures behind the registry are what is documented; the test above says which.
                *(f"--exclude-path={path}" for path in sorted(CONNECTS)),
                *(part for header in headers for part in ("-H", header)),
            ]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
            assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
            assert send(server, "GET", "/health", {}, None).status == 200
    finally:
        agents.close()


def test_connect_calls_fail_as_documented(tmp_path: Path) -> None:
    """Rules: REG-182, REG-186"""
    with running("ours", tmp_path) as server:
        document = send(server, "GET", "/openapi.json", {}, None).json
        for path in CONNECTS:
            assert {"502", "504"} <= document["paths"][path]["post"]["responses"].keys(), path
            for body in (b"{}", b"[]", b"{bad", json.dumps({"agent_id": "x"}).encode()):
                real = path.replace("{agent_id}", "nobody")
                answer = send(server, "POST", real, {"Content-Type": "application/json"}, body)
                assert str(answer.status) in document["paths"][path]["post"]["responses"], (path, answer.status)
