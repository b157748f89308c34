"""Our registry beside the published one (`arcp-py` 2.0.3), in one run.

Each serves from a process of its own; what asks is a program of ours (`benches/load`).
Rounds in which every row is taken for ours and for theirs; medians count. Words choose the rows they occur in.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests" / "registry"))
sys.path.insert(0, str(HERE.parent / "python"))

from table import PACKAGES, Row, markdown, write_between  # noqa: E402

import golden  # noqa: E402
import servers  # noqa: E402

README = ROOT / "README.md"
LOAD = ROOT / "target" / "release" / "arcp-load"
ROUNDS = 3
AGENTS = 10_000
FINGERPRINT = "fp-bench"
SETTINGS = {
    # Agents of a bench do not beat.
    "AGENT_HEARTBEAT_TIMEOUT": "86400",
    "AGENT_CLEANUP_INTERVAL": "86400",
    "PUBLIC_WS_MAX_CONNECTIONS": "5000",
    "PUBLIC_WS_PING_INTERVAL": "3600",
    "PUBLIC_WS_INTERVAL": "3600",
    "MAX_CONNECTIONS": "10000",
}
FIELDS = ["text", "image", "audio", "network", "database", "finance", "weather", "travel", "legal", "medical"]
DOINGS = ["analysis", "conversion", "monitoring", "planning", "search", "translation", "forecast", "review"]


def agent(at: int) -> dict[str, Any]:
    field, doing = FIELDS[at % len(FIELDS)], DOINGS[at // len(FIELDS) % len(DOINGS)]
    return {
        "agent_id": f"agent-{at:06}",
        "name": f"{field} {doing} {at}",
        "agent_type": ("testing", "automation", "monitoring")[at % 3],
        "endpoint": f"https://agents.example.com/{at}",
        "capabilities": [f"{field}-{doing}", field, doing],
        "context_brief": f"Agent number {at} for the {doing} of {field} in documents and streams",
        "version": "1.0.0",
        "owner": "Bench",
        "public_key": "bench-public-key-0123456789-abcdefghijklmn",
        "metadata": {"framework": "fastapi", "language": "python", "number": at},
        "communication_mode": "remote",
    }


def load(task: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run([LOAD], input=json.dumps(task), capture_output=True, text=True, check=False, timeout=900)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip() or "arcp-load failed")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


class Registry:
    """A running server of either kind, with the administrator logged in."""

    def __init__(self, server: servers.Server) -> None:
        self.server = server
        self.address = f"127.0.0.1:{server.port}"
        headers = {"X-Client-Fingerprint": FINGERPRINT, "Content-Type": "application/json"}
        answer = golden.send(server, "POST", "/auth/login", headers, b'{"username": "ARCP", "password": "ARCP"}')
        if answer.status != 200:
            raise RuntimeError(answer.text)
        self.token = answer.json["access_token"]

    def request(self, method: str, path: str, body: Any = None, *, anonymous: bool = False) -> dict[str, Any]:
        headers = {"X-Client-Fingerprint": FINGERPRINT}
        if not anonymous:
            headers["Authorization"] = f"Bearer {self.token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        return {"method": method, "path": path, "headers": headers, "body": "" if body is None else json.dumps(body)}

    def ask(
        self, requests: list[dict[str, Any]], connections: int, seconds: float | None, warm: float = 0
    ) -> dict[str, Any]:
        task: dict[str, Any] = {"do": "http", "address": self.address, "connections": connections, "requests": requests}
        task |= {"seconds": seconds, "warm": warm} if seconds is not None else {}
        answer = load(task)
        if set(answer["statuses"]) != {"200"}:
            raise RuntimeError(f"answers with {answer['statuses']}")
        return answer

    def fill(self, first: int, last: int) -> dict[str, Any]:
        """Registers agents, 64 at a time; what that came to."""
        return self.ask([self.request("POST", "/agents/register", agent(at)) for at in range(first, last)], 64, None)


@contextmanager
def registry(kind: str, agents: int) -> Iterator[Registry]:
    """A registry that knows so many agents; the published one finds them in its state file, or it would take hours."""
    with tempfile.TemporaryDirectory(prefix="arcp-bench-") as folder:
        if kind == "theirs" and agents:
            now = datetime.now(UTC).replace(tzinfo=None).isoformat()
            told = {
                each["agent_id"]: each
                | {"status": "alive", "last_seen": now, "registered_at": now, "features": [], "policy_tags": []}
                for each in map(agent, range(agents))
            }
            (Path(folder) / "data").mkdir()
            (Path(folder) / "data" / "registry_state.json").write_text(json.dumps({"agents": told, "info_hashes": {}}))
        with servers.running({"ours": "ours", "theirs": "published"}[kind], Path(folder), SETTINGS) as server:
            running = Registry(server)
            if kind == "ours" and agents:
                running.fill(0, agents)
            yield running


class Bench:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def rate(self, kind: str, agents: int, requests: Callable[[Registry], list[dict[str, Any]]], theirs: int) -> float:
        """Requests per second over 16 connections (`theirs` for the published one, where more only make it slower)."""
        with registry(kind, agents) as running:
            connections = 16 if kind == "ours" else theirs
            answer = running.ask(requests(running), connections, self.seconds, warm=0.5)
            return float(answer["per_second"])

    def health(self, kind: str) -> float:
        return self.rate(kind, 0, lambda running: [running.request("GET", "/health", anonymous=True)], 16)

    def discover(self, kind: str) -> float:
        def pages(running: Registry) -> list[dict[str, Any]]:
            path = "/public/discover?limit=50&offset={}"
            return [running.request("GET", path.format(at), anonymous=True) for at in range(0, AGENTS - 50, 950)]

        return self.rate(kind, AGENTS, pages, 2)

    def searches(self, running: Registry) -> list[dict[str, Any]]:
        queries = [f"an agent for the {doing} of {field}" for doing in DOINGS for field in FIELDS]
        return [
            running.request("POST", "/public/search", {"query": query, "top_k": 5}, anonymous=True) for query in queries
        ]

    def search(self, kind: str) -> float:
        return self.rate(kind, AGENTS, self.searches, 2)

    def search_p99(self, kind: str) -> float:
        with registry(kind, AGENTS) as running:
            # As many as keep it busy without a queue.
            answer = running.ask(self.searches(running), 2, self.seconds, warm=0.5)
            return float(answer["p99_ms"])

    def heartbeat(self, kind: str) -> float:
        def beats(running: Registry) -> list[dict[str, Any]]:
            return [running.request("POST", f"/agents/agent-{at:06}/heartbeat") for at in range(0, AGENTS, 7)]

        return self.rate(kind, AGENTS, beats, 16)

    def register(self, kind: str) -> float:
        with registry(kind, AGENTS) as running:
            count = 5_000 if kind == "ours" else 12
            return float(running.fill(AGENTS, AGENTS + count)["per_second"])

    def sockets(self, kind: str) -> float:
        with registry(kind, 100) as running:
            changes = [running.request("POST", "/agents/register", agent(at)) for at in range(100, 105)]
            task = {"do": "sockets", "address": running.address, "sockets": 1000, "changes": changes}
            told = sorted(load(task)["last_ms"])
            return float(told[len(told) // 2])

    def memory(self, agents: int) -> Callable[[str], float]:
        def take(kind: str) -> float:
            with registry(kind, agents) as running:
                # Whatever is built on first use is.
                running.ask(
                    [running.request("GET", "/public/discover?limit=50", anonymous=True), *self.searches(running)[:3]],
                    1,
                    None,
                )
                return running.server.memory() / 1e6

        return take

    def rows(self) -> list[Row]:
        return [
            Row("GET /health", "/s", self.health, "80 k/s"),
            Row("discover, 50 of 10 000 agents", "/s", self.discover, "5 k/s"),
            Row("search, 10 000 agents", "/s", self.search, "1.5 k/s"),
            Row("the same, 99 of 100 within", "ms", self.search_p99, "at most 10 ms"),
            Row("heartbeat, 10 000 agents", "/s", self.heartbeat, "20 k/s"),
            Row("register at 10 000 agents, durable", "/s", self.register, "2 k/s"),
            Row("one change to 1 000 public sockets, 100 agents", "ms", self.sockets, "at most 100 ms"),
            Row("memory, 10 000 agents", "MB", self.memory(10_000), once=True),
            Row("memory, 100 000 agents", "MB", self.memory(100_000), once=True),
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only rows with one of these words in their names")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long a row asks")
    parser.add_argument("--write", action="store_true", help="write the table into README.md too")
    parser.add_argument("--only", choices=PACKAGES, help="one of the two")
    options = parser.parse_args()
    if options.write and (options.words or options.only):
        parser.error("--write wants all rows of both; leave the words out")
    servers.PROGRAM = ROOT / "target" / "release" / "arcp"
    rows = Bench(options.seconds).rows()
    chosen = [row for row in rows if not options.words or any(word in row.what for word in options.words)]
    for number in range(options.rounds):
        for row in chosen:
            for package in PACKAGES if options.only is None else (options.only,):
                row.take(package)
                print(
                    f"{row.what}, {package}: {row.taken[package][-1:]} {row.faults.get(package, '')}", file=sys.stderr
                )
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    table = markdown(chosen).replace("published SDK", "published registry")
    print(table)
    faults = [(row, package, fault) for row in chosen for package, fault in row.faults.items()]
    for row, package, fault in faults:
        print(f"{row.what}, {package}: not measured: {fault}", file=sys.stderr)
    if options.write:
        write_between(README, "bench-registry", table)


if __name__ == "__main__":
    main()
