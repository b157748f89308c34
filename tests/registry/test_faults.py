"""Faults: killed servers, full disks, clients that do not read, sockets by the thousand, a clock that jumps.

The short form takes some seconds; `ARCP_FAULTS=long` is the whole of it.
"""

import contextlib
import http.client
import json
import os
import random
import resource
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from golden import Agents, send
from servers import ENVIRONMENT, Ours, Server, running
from sockets import Calls, described, open_socket
from test_weaknesses import agents, calls, get

__all__ = ["agents", "calls"]

LONG = os.environ.get("ARCP_FAULTS") == "long"
KILLS = 50 if LONG else 6
SOCKETS = 10_000 if LONG else 1_500


class Load:
    """Registers, beats and unregisters from several connections, and keeps what was acknowledged."""

    def __init__(self, server: Server, headers: dict[str, str], round: int) -> None:
        self.server, self.headers, self.round = server, headers, round
        self.there: dict[str, dict[str, Any]] = {}
        self.gone: set[str] = set()
        # What was asked for and not answered may be there or not.
        self.unsure: set[str] = set()
        self.done = threading.Event()
        self.workers = [threading.Thread(target=self.work, args=(at,)) for at in range(4)]

    def work(self, worker: int) -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=5)) as link:
            self.ask(link, worker)

    def ask(self, link: http.client.HTTPConnection, worker: int) -> None:
        count = 0
        while not self.done.is_set():
            agent = f"r{self.round}-w{worker}-{count}"
            count += 1
            value = described(agent, "testing", "http://agent.example") | {
                "metadata": {"count": count, "worker": worker}
            }
            self.unsure.add(agent)
            try:
                link.request(
                    "POST", "/agents/register", json.dumps(value), self.headers | {"Content-Type": "application/json"}
                )
                answer = link.getresponse()
                answer.read()
                if answer.status == 200:
                    self.there[agent] = value
                self.unsure.discard(agent)
                if count % 5 == 0 and answer.status == 200:
                    self.unsure.add(agent)
                    link.request("DELETE", f"/agents/{agent}", headers=self.headers)
                    deleted = link.getresponse()
                    deleted.read()
                    if deleted.status == 200:
                        del self.there[agent]
                        self.gone.add(agent)
                        self.unsure.discard(agent)
            except (OSError, http.client.HTTPException):
                return

    def __enter__(self) -> "Load":
        for worker in self.workers:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        for worker in self.workers:
            worker.join()


def listed(server: Server, headers: dict[str, str]) -> dict[str, dict[str, Any]]:
    answer = send(server, "GET", "/agents", headers, None)
    assert answer.status == 200, answer.text
    return {each["agent_id"]: each for each in answer.json}


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, agents: Agents) -> None:
    """Rules: REG-201"""
    chance = random.Random(20_261_128)
    server = Ours(tmp_path / "registry")
    # Beyond the test: every agent stays.
    settings = ENVIRONMENT | {"AGENT_HEARTBEAT_TIMEOUT": "3600"}
    there: dict[str, dict[str, Any]] = {}
    gone: set[str] = set()
    acknowledged = 0
    try:
        for round in range(KILLS):
            server.start(settings, ["--dev"])
            calls = Calls(server, agents)
            headers = calls.admin()
            kept = listed(server, headers)
            for agent, value in there.items():
                assert agent in kept, f"round {round}: {agent} was acknowledged and is gone"
                assert kept[agent]["metadata"] == value["metadata"], f"round {round}: {agent} is torn"
            assert not gone & kept.keys(), f"round {round}: what was taken out is back"
            with Load(server, headers, round) as load:
                time.sleep(chance.uniform(0.05, 0.4))
                server.kill()
            acknowledged += len(load.there) + len(load.gone)
            there |= load.there
            gone |= load.gone
            for agent in load.unsure:
                there.pop(agent, None)
        assert acknowledged > KILLS * 5, acknowledged
        server.start(settings, ["--dev"])
        assert there.keys() <= listed(server, Calls(server, agents).admin()).keys()
        server.stop()
        with contextlib.closing(sqlite3.connect(server.database)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        server.kill()


def test_a_full_disk_is_said_and_passes(tmp_path: Path, agents: Agents) -> None:
    """Rules: REG-100, REG-201"""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False).returncode == 0
    )
    if not mounted:
        pytest.skip("a small disk needs the right to mount one")
    try:
        server = Ours(folder / "registry")
        server.start(ENVIRONMENT, ["--dev"])
        try:
            calls = Calls(server, agents)
            headers = calls.admin() | {"Content-Type": "application/json"}
            acknowledged, refused = [], None
            ballast = {f"key-{at}": "x" * 900 for at in range(30)}
            for at in range(400):
                value = described(f"agent-{at}", "testing", "http://agent.example") | {"metadata": ballast}
                answer = send(server, "POST", "/agents/register", headers, json.dumps(value).encode())
                if answer.status != 200:
                    refused = answer
                    break
                acknowledged.append(f"agent-{at}")
            assert refused is not None, "the disk did not fill"
            assert refused.status in (500, 503, 507), refused.text
            assert refused.headers["content-type"] == "application/problem+json"
            # What is there can still be read, and beats are taken.
            assert len(get(calls, "/public/discover?limit=100")) > 0
            assert send(server, "POST", f"/agents/{acknowledged[0]}/heartbeat", headers, None).status == 200
            # A refused agent is not told about.
            assert send(server, "GET", f"/public/agent/agent-{len(acknowledged)}", {}, None).status == 404
            # Room again: it goes on by itself.
            subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)
            deadline = time.monotonic() + 10
            value = described("agent-after", "testing", "http://agent.example")
            while send(server, "POST", "/agents/register", headers, json.dumps(value).encode()).status != 200:
                assert time.monotonic() < deadline, "it did not go on"
                time.sleep(0.2)
            server.kill()
            server.start(ENVIRONMENT, ["--dev"])
            kept = listed(server, Calls(server, agents).admin())
            assert {*acknowledged, "agent-after"} <= kept.keys()
            server.stop()
        finally:
            server.kill()
    finally:
        subprocess.run(["umount", "-l", folder], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def test_who_does_not_read_hurts_only_himself(tmp_path: Path, agents: Agents) -> None:
    """Rules: REG-300, REG-313, REG-504"""
    with running("ours", tmp_path, {"PUBLIC_WS_TIMEOUT": "1"}) as server:
        calls = Calls(server, agents)
        calls.admin()
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", server.port))
        deaf.sendall(
            b"GET /public/ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n"
        )
        with open_socket(server, "/public/ws") as reader:
            reader.recv(timeout=5)
            before = server.memory()
            seen = 0
            # More than what the buffers between the two take.
            ballast = {f"key-{at}": "x" * 1000 for at in range(40)}
            for at in range(60):
                value = described(f"agent-{at}", "testing", "http://agent.example") | {"metadata": ballast}
                started = time.monotonic()
                calls.post("/agents/register", value, calls.admin())
                assert time.monotonic() - started < 1
            deadline = time.monotonic() + 10
            while seen < 60 and time.monotonic() < deadline:
                frame = json.loads(reader.recv(timeout=5))
                if frame["type"] == "agents_update":
                    seen = frame["data"]["total_count"]
            assert seen == 60
            assert server.memory() - before < 64 << 20
        # The deaf one is put out, once nothing more for it can be put down anywhere.
        deadline = time.monotonic() + 20
        links = f"/proc/{server.pid}/fd"
        held = len(os.listdir(links))
        while len(os.listdir(links)) >= held:
            assert time.monotonic() < deadline, "who does not read is still there"
            send(server, "DELETE", "/agents/agent-1", calls.admin(), None)
            calls.register("agent-1")
        deaf.close()


def test_sockets_by_the_thousand(tmp_path: Path) -> None:
    """Rules: REG-300"""
    wanted = 4096
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, wanted), hard), hard))
    with running("ours", tmp_path, {"PUBLIC_WS_MAX_CONNECTIONS": "20000", "MAX_CONNECTIONS": "20000"}) as server:
        request = (
            b"GET /public/ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n"
        )
        before = 0
        opened = 0
        while opened < SOCKETS:
            batch = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(250)]
            for link in batch:
                link.sendall(request)
            for at, link in enumerate(batch):
                assert link.recv(64).startswith(b"HTTP/1.1 101"), "a socket was refused"
                if at % 2:
                    # Dropped without a word: what is left in it is thrown away.
                    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                link.close()
            opened += len(batch)
            before = before or server.memory()
        deadline = time.monotonic() + 10
        while len(os.listdir(f"/proc/{server.pid}/fd")) > 60 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(os.listdir(f"/proc/{server.pid}/fd")) <= 60, "dropped sockets are still open"
        assert server.memory() - before < 24 << 20
        with open_socket(server, "/public/ws") as still:
            assert json.loads(still.recv(timeout=5))["type"] == "welcome"


def test_a_clock_that_jumps_kills_nobody(tmp_path: Path, agents: Agents) -> None:
    """Rules: REG-190, REG-191

    `wall.c` moves the wall clock of the server alone, an hour forward and back, while the monotonic one goes on.
    """
    library, offset = tmp_path / "wall.so", tmp_path / "offset"
    source = Path(__file__).with_name("wall.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    offset.write_text("0")
    settings = {"LD_PRELOAD": str(library), "ARCP_TEST_WALL": str(offset), "AGENT_CLEANUP_INTERVAL": "1"}
    with running("ours", tmp_path, settings) as server:
        calls = Calls(server, agents)
        calls.register("agent-1")
        seen = []
        for jump in (3600, -3600, 0):
            offset.write_text(str(jump))
            time.sleep(1.2)
            stats = get(calls, "/public/stats")
            assert (stats["alive_agents"], stats["total_agents"]) == (1, 1), jump
            seen.append(datetime.fromisoformat(stats["last_updated"]).timestamp())
        # The server did see its clock jump.
        assert seen[0] - seen[1] > 7000
        calls.post("/agents/agent-1/heartbeat", None, calls.admin())


def test_a_second_process_is_told_who_has_the_file(tmp_path: Path) -> None:
    """Rules: REG-201"""
    with running("ours", tmp_path) as server:
        second = Ours(server.folder)
        with pytest.raises(AssertionError) as told:
            second.start(ENVIRONMENT, ["--dev"])
        assert str(server.pid) in str(told.value)
        assert str(server.folder) in str(told.value)
        assert send(server, "GET", "/health", {}, None).status == 200
