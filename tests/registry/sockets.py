"""Plays the recorded sockets: what the client sent is sent again, what the server sent must come, in its order.

The recorded server worked with longer intervals than the files configure now, so its times are not compared; what comes
by itself (pings, figures, the dashboard's frames) may come between other frames, and must where it came at once.
"""

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

import compare
import golden
from compare import Difference
from golden import Agents, Answer, send
from servers import ENVIRONMENT, KEYS, KINDS, Server, dev_flags

PATIENCE = 6.0
FINGERPRINT = "fp-sockets"
FRAMES = {"free": frozenset({"reason"}), "numbers": False}
BY_THEMSELVES = {
    "/public/ws": {"ping", "stats_update"},
    "/agents/ws": {"ping", "array"},
    "/dashboard/ws": {"ping", "monitoring", "health", "agents", "logs", "alert"},
}


def kind_of(frame: Any) -> str:
    if isinstance(frame, str):
        return frame
    return str(frame.get("type")) if isinstance(frame, dict) else "array"


def decoded(message: str | bytes) -> Any:
    text = message if isinstance(message, str) else message.decode()
    try:
        return json.loads(text)
    except ValueError:
        return text


class Calls:
    """Requests by the roles the recordings have."""

    def __init__(self, server: Server, agents: Agents) -> None:
        self.server, self.agents = server, agents
        self.tokens: dict[str, str] = {}

    def post(self, path: str, value: Any, headers: dict[str, str] | None = None, status: int = 200) -> Answer:
        sent = {"Content-Type": "application/json", "X-Client-Fingerprint": FINGERPRINT} | (headers or {})
        answer = send(self.server, "POST", path, sent, json.dumps(value).encode())
        assert answer.status == status, f"{path}: {answer.status} {answer.text}"
        return answer

    def admin(self) -> dict[str, str]:
        if "<admin-token>" not in self.tokens:
            login = self.post("/auth/login", {"username": "ARCP", "password": "ARCP"})
            self.tokens["<admin-token>"] = login.json["access_token"]
        return {"Authorization": f"Bearer {self.tokens['<admin-token>']}", "X-Client-Fingerprint": FINGERPRINT}

    def temporary(self, agent: str, key: str) -> str:
        value = {"agent_id": agent, "agent_type": "testing", "agent_key": key}
        token: str = self.post("/auth/agent/request_temp_token", value).json["temp_token"]
        return token

    def register(self, agent: str, kind: str = "testing", token: str | None = None) -> str:
        headers = {"Authorization": f"Bearer {token}"} if token else self.admin()
        registered = self.post("/agents/register", described(agent, kind, f"{self.agents.url}/ok"), headers)
        held: str = registered.json["access_token"]
        return held

    def prepare(self) -> None:
        """The agent the recordings start with, and a token of every role."""
        self.tokens["<agent-token>"] = self.register("ws-1", token=self.temporary("ws-1", KEYS[0]))
        minted = self.post("/tokens/mint", {"user_id": "user1", "agent_id": "ws-1", "role": "user"}, self.admin())
        self.tokens["<user-token>"] = minted.json["access_token"]
        self.tokens["<temp-token-3>"] = self.temporary("ws-3", KEYS[2])

    def act(self, act: str) -> None:
        """What was done over HTTP between two frames."""
        mine = {"Authorization": f"Bearer {self.tokens['<agent-token>']}"}
        if act.startswith("register agent ws-2"):
            self.register("ws-2", "security")
        elif act.startswith("heartbeat"):
            self.post("/agents/ws-1/heartbeat", None, mine)
        elif act.startswith("metrics"):
            self.post("/agents/ws-1/metrics", {"total_requests": 5}, mine)
        elif act.startswith("unregister ws-2"):
            answer = send(self.server, "DELETE", "/agents/ws-2", self.admin(), None)
            assert answer.status == 200, answer.text
        else:
            raise ValueError(act)


def described(agent: str, kind: str, endpoint: str) -> dict[str, Any]:
    return {
        "agent_id": agent,
        "name": agent,
        "agent_type": kind,
        "endpoint": endpoint,
        "capabilities": ["echo", "compute"],
        "context_brief": "A golden transcript agent used for capture",
        "version": "1.0.0",
        "owner": "Golden Owner",
        "public_key": "golden-public-key-0123456789abcdef-ok",
        "metadata": {"framework": "fastapi", "tags": ["demo", "golden"], "count": 3},
        "communication_mode": "remote",
    }


def url(server: Server, path: str) -> str:
    return f"ws://127.0.0.1:{server.port}{path}"


def open_socket(server: Server, path: str) -> ClientConnection:
    # The recorded server sends its own pings as text; those of the protocol only blur what is compared.
    return connect(url(server, path), ping_interval=None, compression=None, close_timeout=1, max_size=None)


class Player:
    """`found` holds the differences of each recorded socket by `file#id`."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.found: dict[str, list[Difference] | Exception] = {}

    def play(self, names: list[str]) -> None:
        config: dict[str, str] = {}
        for name in names:
            config |= golden.load(name)["config"]
        agents = Agents()
        server = KINDS[self.kind](self.folder)
        variables = ENVIRONMENT | config
        server.start(variables, dev_flags(self.kind, variables))
        try:
            calls = Calls(server, agents)
            calls.prepare()
            for name in names:
                for entry in golden.load(name)["entries"]:
                    at = f"{name}#{entry['id']}"
                    try:
                        time.sleep(entry.get("wait", 0))
                        self.found[at] = list(self.entry(server, calls, entry))
                    except Exception as error:
                        self.found[at] = error
            server.stop()
        finally:
            server.kill()
            agents.close()

    def entry(self, server: Server, calls: Calls, entry: dict[str, Any]) -> list[Difference]:
        path = entry["path"]
        if "handshake" in entry:
            return self.full(server, calls, entry)
        with open_socket(server, path) as socket:
            return Conversation(socket, calls, path, entry).differences()

    def full(self, server: Server, calls: Calls, entry: dict[str, Any]) -> list[Difference]:
        """One socket more than the cap."""
        with ExitStack() as held:
            for _ in range(3 if "/public" in entry["path"] else 2):
                socket = held.enter_context(open_socket(server, entry["path"]))
                if entry["path"] != "/public/ws":
                    socket.send(json.dumps({"type": "auth", "token": calls.tokens["<admin-token>"]}))
                    for _ in range(3):
                        socket.recv(timeout=PATIENCE)
            recorded = entry["handshake"]["status"]
            try:
                with open_socket(server, entry["path"]):
                    return [Difference("handshake.status", recorded, 101)]
            except InvalidStatus as refused:
                answered = refused.response.status_code
                return [Difference("handshake.status", recorded, answered)] if recorded != answered else []


class Conversation:
    """One recorded socket against one of ours."""

    def __init__(self, socket: ClientConnection, calls: Calls, path: str, entry: dict[str, Any]) -> None:
        self.socket, self.calls, self.entry = socket, calls, entry
        self.spontaneous = BY_THEMSELVES[path]
        self.waiting: list[Any] = []
        self.extra: list[Difference] = []

    def differences(self) -> list[Difference]:
        found: list[Difference] = []
        asked = 0.0
        for at, frame in enumerate(self.entry["frames"]):
            if "http" in frame:
                self.calls.act(frame["http"])
                asked = frame["t"]
            elif frame.get("dir") == "client":
                self.send(frame)
                asked = frame["t"]
            elif frame.get("dir") == "server":
                recorded = frame["json"] if "json" in frame else frame["text"]
                if self.due(kind_of(recorded), frame["t"] - asked):
                    found += self.expect(recorded, f"frames[{at}]")
        return found + self.extra + self.close()

    def due(self, kind: str, after: float) -> bool:
        """Whether a recorded frame must come: an answer, or one that comes by itself and was there at once.

        Alerts depend on the machine and on what was told before, so they may come and need not.
        """
        if kind not in self.spontaneous:
            return True
        quiet = "periodic" in self.entry["id"] or "keepalive" in self.entry["id"]
        return kind != "alert" and (quiet or after < 0.2)

    def send(self, frame: dict[str, Any]) -> None:
        text = frame["text"] if "text" in frame else json.dumps(frame["json"])
        for name, token in self.calls.tokens.items():
            text = text.replace(name, token)
        self.socket.send(text)

    def expect(self, recorded: Any, at: str) -> list[Difference]:
        deadline = time.monotonic() + PATIENCE
        held: list[Any] = []
        try:
            while True:
                if self.waiting:
                    frame = self.waiting.pop(0)
                else:
                    frame = decoded(self.socket.recv(timeout=max(0.0, deadline - time.monotonic())))
                if kind_of(frame) == kind_of(recorded):
                    return list(compare.body(portable(recorded), portable(frame, self.calls.agents.url), at, **FRAMES))  # type: ignore[arg-type]
                if kind_of(frame) not in self.spontaneous:
                    self.extra.append(Difference(f"{at}.extra", None, frame))
        except (TimeoutError, ConnectionClosed) as error:
            return [Difference(at, recorded, repr(error))]
        finally:
            self.waiting = held + self.waiting

    def close(self) -> list[Difference]:
        recorded = self.entry.get("close")
        if recorded is None:
            # Nothing but what comes by itself follows, and the socket stands.
            deadline = time.monotonic() + 0.3
            try:
                while (left := deadline - time.monotonic()) > 0:
                    frame = decoded(self.socket.recv(timeout=left))
                    if kind_of(frame) not in self.spontaneous:
                        return [Difference("end", None, frame)]
            except TimeoutError:
                pass
            except ConnectionClosed as closed:
                return [Difference("close", None, str(closed))]
            return []
        deadline = time.monotonic() + 3
        try:
            while True:
                frame = decoded(self.socket.recv(timeout=max(0.0, deadline - time.monotonic())))
                if kind_of(frame) not in self.spontaneous:
                    return [Difference("end", None, frame)]
        except TimeoutError:
            return [Difference("close", recorded, None)]
        except ConnectionClosed as closed:
            code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (None, None)
            if (code, reason) != (recorded["code"], recorded["reason"]):
                return [Difference("close", (recorded["code"], recorded["reason"]), (code, reason))]
            return []


def portable(value: Any, *addresses: str) -> Any:
    """A frame without what is of its moment: addresses, which logs and alerts there are, how healthy the machine is."""
    frame = json.loads(golden.neutral(json.dumps(value), *addresses))
    if not isinstance(frame, dict) or not isinstance(frame.get("data"), dict):
        return frame
    data = dict(frame["data"])
    if frame["type"] == "logs":
        data["logs"] = [
            {key: entry[key] for key in ("timestamp", "level", "source") if key in entry} for entry in data["logs"][:1]
        ]
        for entry in data["logs"]:
            entry["level"], entry["source"] = "a level", "a source"
    elif frame["type"] == "alert":
        data["alerts"] = [sorted({"severity", "message", "type"} & alert.keys()) for alert in data["alerts"][:1]]
    elif frame["type"] == "health":
        data = {key: "some" if key in ("status", "reason") else value for key, value in data.items() if key != "reason"}
    return frame | {"data": data}
