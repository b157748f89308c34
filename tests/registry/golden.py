"""Plays the recorded exchanges of `tests/corpus/registry/golden` against a server and holds its answers against them.

Each file says its configuration (`config`); an entry may say what comes first or how it is taken: `wait` seconds, a
`restart` with another configuration (`fresh`: and nothing of before), `paced` (the next request comes no sooner than
the recorded server answered, as its lockouts count in time), `if_refused` (the headers that do the same another way, so
that what follows finds what it needs), `moment` (the places where the answer depends on the moment). Files of one
`session` are played against one server, in the order of their entries' `turn`.
"""

import base64
import hashlib
import hmac
import http.client
import json
import re
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import compare
from compare import Difference
from servers import ENVIRONMENT, ROOT, Server, dev_flags

FOLDER = ROOT / "tests" / "corpus" / "registry" / "golden"
RECORDED_AGENTS = ("http://127.0.0.1:9977", "http://127.0.0.1:9978", "http://127.0.0.1:9979")
MADE = ("<token16>", "<token:expired>", "<forged-token-for-sub-ARCP>")


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return loaded


def neutral(text: str, *also: str) -> str:
    """The addresses of the called agents as one word."""
    for address in (*RECORDED_AGENTS, *also):
        text = text.replace(address, "http://agents.test")
    return text


def embeddings(request: dict[str, Any]) -> dict[str, Any]:
    """What an embedding service answers: words by their first letters, counted."""
    texts = request["input"] if isinstance(request["input"], list) else [request["input"]]
    data = []
    for at, text in enumerate(texts):
        vector = [0.0] * 1536
        for word in re.findall(r"[a-z0-9]+", text.lower()):
            vector[int(hashlib.sha256(word[:4].encode()).hexdigest(), 16) % 1536] += 1.0
        length = sum(value * value for value in vector) ** 0.5 or 1.0
        floats = [value / length for value in vector]
        packed = base64.b64encode(struct.pack(f"<{len(floats)}f", *floats)).decode()
        told = packed if request.get("encoding_format") == "base64" else floats
        data.append({"object": "embedding", "index": at, "embedding": told})
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return {"object": "list", "data": data, "model": request.get("model", "stub"), "usage": usage}


class Agents:
    """The agents that are called: `/ok` answers, `/err500` fails, `/slow` takes its time; what was posted is kept."""

    def __init__(self) -> None:
        kept: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                text = self.rfile.read(length)
                headers = {name.lower(): value for name, value in self.headers.items()}
                value = json.loads(text or b"null")
                if self.path.startswith("/embed/"):
                    self.answer(200, embeddings(value))
                    return
                kept.append({"method": "POST", "path": self.path, "headers": headers, "json": value})
                self.answer(500 if "err500" in self.path else 200)

            def do_GET(self) -> None:
                kept.append({"method": "GET", "path": self.path, "headers": dict(self.headers), "json": None})
                self.answer(200)

            def answer(self, status: int, value: Any = None) -> None:
                text = json.dumps(value or {"status": "accepted"}).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                pass

        self.received = kept
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def decode(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    head, claims, _ = token.split(".")
    read = [json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in (head, claims)]
    return read[0], read[1]


def signed(claims: dict[str, Any], secret: str, algorithm: str = "HS256") -> str:
    """A token as a server with that secret would make it."""
    head = encode(json.dumps({"alg": algorithm, "typ": "JWT"}).encode())
    body = encode(json.dumps(claims).encode())
    proof = hmac.new(secret.encode(), f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{encode(proof)}"


class Answer:
    """An answer as it came."""

    def __init__(self, status: int, headers: dict[str, str], text: str, seconds: float) -> None:
        self.status, self.headers, self.text, self.seconds = status, headers, text, seconds

    @property
    def json(self) -> Any:
        return json.loads(self.text) if self.text else None


def send(
    server: Server, method: str, path: str, headers: dict[str, str], body: bytes | None, patience: float = 30
) -> Answer:
    """One request on a connection of its own, redirects not followed."""
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=patience)
    started = time.monotonic()
    try:
        link.putrequest(method, path, skip_accept_encoding=True)
        if body is not None or method in ("POST", "PUT"):
            link.putheader("content-length", str(len(body or b"")))
        for name, value in headers.items():
            link.putheader(name, value)
        link.endheaders(body)
        answer = link.getresponse()
        text = answer.read().decode(errors="replace")
        kept: dict[str, str] = {}
        for name, value in answer.getheaders():
            kept[name.lower()] = f"{kept[name.lower()]}, {value}" if name.lower() in kept else value
        return Answer(answer.status, kept, text, time.monotonic() - started)
    finally:
        link.close()


class Player:
    """Plays one session; `found` holds the differences of each exchange by `file#id`."""

    def __init__(self, make: Callable[[], Server], agents: Agents) -> None:
        self.make, self.agents = make, agents
        self.tokens: dict[str, str] = {}
        self.answers: dict[str, Answer] = {}
        self.found: dict[str, list[Difference] | Exception] = {}

    def play(self, names: list[str]) -> None:
        files = {name: load(name) for name in names}
        config: dict[str, str] = {}
        for file in files.values():
            config |= self.filled(file.get("config", {}))
        steps = [(name, entry) for name, file in files.items() for entry in file["entries"]]
        steps.sort(key=lambda step: step[1].get("turn", 0))
        server = self.make()
        kind = server.name
        variables = ENVIRONMENT | config
        server.start(variables, dev_flags(kind, variables))
        try:
            for name, entry in steps:
                at = f"{name}#{entry['id']}"
                try:
                    if "restart" in entry:
                        variables = ENVIRONMENT | (entry["restart"] or config)
                        if entry.get("fresh"):
                            server.stop()
                            server.folder = server.folder.with_name(f"{server.folder.name}-{entry['id']}")
                        server.restart(variables, dev_flags(kind, variables))
                    if "wait" in entry:
                        time.sleep(entry["wait"])
                    if "request" in entry:
                        self.found[at] = self.exchange(server, at, entry)
                    elif "received" in entry and entry["id"] == "forwarded-posts":
                        self.found[at] = self.forwarded(entry)
                except Exception as error:
                    self.found[at] = error
            server.stop()
        finally:
            server.kill()

    def filled(self, value: Any) -> Any:
        """The recorded value with what this run has in the places of what that run had."""
        text = json.dumps(value)
        for recorded in RECORDED_AGENTS:
            text = text.replace(recorded, self.agents.url)
        text = text.replace("<embeddings>", f"{self.agents.url}/embed")
        for name in sorted(self.tokens, key=len, reverse=True):
            text = text.replace(name, self.tokens[name])
        for name in MADE:
            if name in text:
                text = text.replace(name, self.made(name))
        return json.loads(text)

    def made(self, name: str) -> str:
        """The tokens no server gave out."""
        now = int(time.time())
        if name == "<token16>":
            head, claims, proof = self.tokens["<token9>"].split(".")
            return f"{head}.{claims}.{proof[:-4]}{'AAAA' if proof[-4:] != 'AAAA' else 'BBBB'}"
        secret = ENVIRONMENT["JWT_SECRET"] if name == "<token:expired>" else "not the secret of the server"
        claims = {
            "sub": "gold-1",
            "agent_id": "gold-1",
            "scopes": [],
            "role": "agent",
            "iat": now - 7200,
            "exp": now - 3600,
        }
        if name != "<token:expired>":
            claims |= {"sub": "ARCP", "agent_id": "user_ARCP", "role": "admin", "iat": now, "exp": now + 3600}
        return signed(claims, secret)

    def exchange(self, server: Server, at: str, entry: dict[str, Any]) -> list[Difference]:
        request = self.filled(entry["request"])
        headers, data = dict(request["headers"]), None
        if "json" in request:
            data = json.dumps(request["json"]).encode()
            headers["Content-Type"] = "application/json"
        elif "body" in request:
            text: str = request["body"]
            data = (
                b"x" * int(text[1:].split()[0]) if text.startswith("<") and text.endswith(" bytes>") else text.encode()
            )
        answer = send(server, request["method"], request["path"], headers, data)
        if entry.get("paced"):
            time.sleep(max(0.0, entry["elapsed_ms"] / 1000 - answer.seconds))
        self.answers[at] = answer
        if "if_refused" in entry and answer.status >= 400:
            instead = headers | self.filled(entry["if_refused"])
            again = send(server, request["method"], request["path"], instead, data)
            assert again.status == 200, f"{at}: refused the other way too: {again.text}"
            self.keep(entry["response"].get("json"), again.json)
        return self.compared(entry, answer)

    def keep(self, recorded: Any, answered: Any) -> None:
        """The tokens of this run under the names they have in the recording."""
        if isinstance(recorded, dict) and isinstance(answered, dict):
            for key, value in recorded.items():
                if isinstance(value, str) and compare.TOKEN.match(value) and isinstance(answered.get(key), str):
                    self.tokens[value] = answered[key]

    def compared(self, entry: dict[str, Any], answer: Answer) -> list[Difference]:
        recorded = json.loads(neutral(json.dumps(entry["response"])))
        differences: list[Difference] = []
        if recorded["status"] != answer.status:
            differences.append(Difference("status", recorded["status"], answer.status))
        differences += compare.headers(self.local(recorded["headers"]), answer.headers)
        if "json" in recorded:
            try:
                answered = self.portable(answer.json)
            except ValueError:
                return [*differences, Difference("json", recorded["json"], answer.text)]
            self.keep(recorded["json"], answered)
            if recorded["json"] is not None:
                differences += compare.body(recorded["json"], answered)
        elif not compare.same_text("text", recorded.get("text", ""), answer.text, ()):
            differences.append(Difference("text", recorded.get("text", ""), answer.text))
        for claims in entry.get("jwt", []):
            differences += self.claims(claims)
        moment = entry.get("moment", [])
        return [each for each in differences if not each.path.startswith(tuple(moment))]

    def local(self, headers: dict[str, str]) -> dict[str, str]:
        """Recorded headers with this server's address where the recorded one's was."""
        return {
            name: value.replace("http://127.0.0.1:8101", "<server>")
            for name, value in headers.items()
            if name != "location"
        }

    def portable(self, value: Any) -> Any:
        return json.loads(neutral(json.dumps(value), self.agents.url))

    def claims(self, recorded: dict[str, Any]) -> list[Difference]:
        token = self.tokens.get(f"<{recorded['name']}>")
        if token is None:
            return []
        head, claims = decode(token)
        differences = list(compare.body(recorded["header"], head, f"jwt.{recorded['name']}.header"))
        differences += compare.body(recorded["claims"], claims, f"jwt.{recorded['name']}.claims")
        lives = [each["exp"] - each["iat"] for each in (recorded["claims"], claims) if "exp" in each and "iat" in each]
        if len(lives) == 2 and lives[0] != lives[1]:
            differences.append(Difference(f"jwt.{recorded['name']}.life", *lives))
        return differences

    def forwarded(self, entry: dict[str, Any]) -> list[Difference]:
        differences: list[Difference] = []
        posts, wanted_posts = self.portable(self.agents.received), json.loads(neutral(json.dumps(entry["received"])))
        if len(posts) != len(wanted_posts):
            differences.append(Difference("received.length", len(wanted_posts), len(posts)))
        for at, (recorded, post) in enumerate(zip(wanted_posts, posts, strict=False)):
            for field in ("method", "path"):
                if recorded[field] != post[field]:
                    differences.append(Difference(f"received[{at}].{field}", recorded[field], post[field]))
            differences += compare.body(recorded["json"], post["json"], f"received[{at}].json")
            wanted = recorded["headers"]["user-agent"]
            if wanted.startswith("ARCP-") and post["headers"].get("user-agent") != wanted:
                differences.append(
                    Difference(f"received[{at}].headers.user-agent", wanted, post["headers"].get("user-agent"))
                )
        return differences


def exchanges(name: str) -> list[str]:
    """The ids of what a file holds to compare."""
    held = [entry for entry in load(name)["entries"] if "request" in entry or entry["id"] == "forwarded-posts"]
    return [f"{name}#{entry['id']}" for entry in held]


def sessions(names: list[str]) -> dict[str, list[str]]:
    """The files by the server they are played against."""
    grouped: dict[str, list[str]] = {}
    for name in names:
        grouped.setdefault(load(name).get("session", name), []).append(name)
    return grouped


def temporary(base: Path, name: str) -> Path:
    folder = base / name.replace("#", "-")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
