"""Puts a conversation on record."""

import re
from typing import Any

from arcp._json import as_array, as_object
from arcp.testing.hosting import as_transport
from arcp.testing.transcript import SIDES, Side, Step, Transcript
from arcp.transport import Transport

# Members of an envelope or a payload whose values are made anew in every conversation.
_KINDS = {
    "id": "message_id",
    "session_id": "session_id",
    "job_id": "job_id",
    "child_job_id": "job_id",
    "parent_job_id": "job_id",
    "request_id": "message_id",
    "trace_id": "trace_id",
    "result_id": "result_id",
    "resume_token": "resume_token",
    "nonce": "nonce",
    "ping_nonce": "nonce",
}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
# What belongs to the application, where a member's name says nothing.
_FOREIGN = frozenset({"input", "result", "arguments", "args", "output", "details", "data", "lease", "lease_request"})
_SECRET = {"resume_token": "rt_recorded", "token": "recorded", "value": "recorded"}


class Recorder:
    """A transport around `inner` that keeps what goes over it, for `client.connect` or `runtime.accept`."""

    def __init__(self, inner: Transport, side: Side = "client", *, connection: str | None = None) -> None:
        """`side` says who holds this end. `connection` names it, where several are recorded into one transcript."""
        if side not in SIDES:
            raise ValueError(f"side must be client or runtime, got {side!r}")
        self._inner = as_transport(inner)
        self._side: Side = side
        self._connection = connection
        self.messages: list[tuple[Side, dict[str, Any]]] = []
        """Who sent what, in order, as it was: with tokens and other secrets."""

    def __repr__(self) -> str:
        return f"<Recorder of {len(self.messages)} messages>"

    async def send(self, message: dict[str, Any]) -> None:
        """As the transport within."""
        self.messages.append((self._side, message))
        await self._inner.send(message)

    async def recv(self) -> dict[str, Any]:
        """As the transport within."""
        message = await self._inner.recv()
        self.messages.append(("runtime" if self._side == "client" else "client", message))
        return message

    async def close(self) -> None:
        """As the transport within."""
        await self._inner.close()

    @property
    def is_closed(self) -> bool:
        """As the transport within."""
        return self._inner.is_closed

    @property
    def is_private(self) -> bool:
        """As the transport within."""
        return getattr(self._inner, "is_private", False) is True

    def transcript(self, id: str = "recorded") -> Transcript:
        """What was said so far, to be saved and played.

        Ids, times, nonces, and the names and versions of programs become values of their kind, the same where they were
        the same. Tokens and credentials are left out. What agents were given and gave is kept as it was.
        """
        names = _Names()
        steps: list[Step] = []
        for side, message in self.messages:
            step: Step = {"from": side}
            if self._connection is not None:
                step["connection"] = self._connection
            steps.append(step | {"message": names.message(message)})
        return Transcript(id, tuple(steps))


class _Names:
    """Values that were seen, and what they are called."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._count: dict[str, int] = {}

    def message(self, message: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in message.items() if name not in ("payload", "extensions")}
        return {name: self._member(name, value) for name, value in kept.items()} | {
            "payload": self._known(message.get("payload") or {})
        }

    def _known(self, part: Any) -> Any:
        if (members := as_object(part)) is not None:
            return {name: self._member(name, value) for name, value in members.items()}
        if (items := as_array(part)) is not None:
            return [self._known(value) for value in items]
        return self._foreign(part)

    def _member(self, name: str, value: Any) -> Any:
        if name in _FOREIGN:
            return self._foreign(value)
        if name in ("client", "runtime") and (program := as_object(value)) is not None:
            return {inner: {"$any": "text", "like": text} for inner, text in program.items() if isinstance(text, str)}
        if not isinstance(value, str):
            return self._known(value)
        if value in self._names:
            return {"$is": self._names[value]}
        if name in _KINDS:
            return self._name(_KINDS[name], value, _SECRET.get(name, value))
        if name in _SECRET:
            return {"$any": "text", "like": _SECRET[name]}
        if _TIME.fullmatch(value):
            return {"$any": "time", "like": value}
        return value

    def _foreign(self, value: Any) -> Any:
        """What is not ours, save for names we know."""
        if (members := as_object(value)) is not None:
            return {name: self._foreign(inner) for name, inner in members.items()}
        if (items := as_array(value)) is not None:
            return [self._foreign(inner) for inner in items]
        return {"$is": self._names[value]} if isinstance(value, str) and value in self._names else value

    def _name(self, kind: str, value: str, like: str) -> dict[str, Any]:
        number = self._count[kind] = self._count.get(kind, 0) + 1
        name = self._names[value] = f"{kind}-{number}"
        return {"$any": kind, "as": name, "like": like}
