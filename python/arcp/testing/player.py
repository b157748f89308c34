"""Plays one side of a conversation on record."""

import asyncio
from typing import Any, Self

from arcp._json import as_object
from arcp.errors import TransportClosed
from arcp.testing.transcript import Side, Step, Transcript, compare, fill

# What a peer says when it sees fit, whatever the record holds.
_UNASKED = ("session.ping", "session.pong", "session.ack")
# Either says that the session ends.
_FAREWELL = ("session.bye", "session.close")


class TranscriptMismatch(AssertionError):
    """The other side did not do what is on record; the message names the step and the member."""


class Player:
    """Plays `side` of a transcript to a client or runtime under test; `Transcript.play` makes it.

        async with transcript.play("runtime") as player:
            await client.connect(player.transport())
            ...

    It sends a message once everything the other side said before it, on any connection, has come. What comes is held
    against the record in its order; members the record lacks are passed over. Pings and acknowledgements come when they
    come: they are let through, answered and not waited for, and so is a farewell that is not on record. Leaving the
    `async with` waits until all was played and raises `TranscriptMismatch` for what was not as on record.
    """

    def __init__(self, transcript: Transcript, side: Side, *, token: str | None = None, timeout: float = 10.0) -> None:
        """`token` takes the place of the one in a recorded hello; `timeout` bounds the wait at the end, in seconds."""
        if side not in ("client", "runtime"):
            raise ValueError(f"side must be client or runtime, got {side!r}")
        self._transcript = transcript
        self._side = side
        self._token = token
        self._timeout = timeout
        self._steps = [(number, step) for number, step in enumerate(transcript.steps) if _is_played(step, side)]
        self._left = {number for number, _ in self._steps}
        self._names: dict[str, Any] = {}
        self._changed = asyncio.Condition()
        self._mismatch: str | None = None
        self._transports: dict[str | None, _Played] = {}

    def __repr__(self) -> str:
        return f"<Player of {self._transcript.id!r} as {self._side}: {len(self._left)} steps left>"

    @property
    def received(self) -> list[dict[str, Any]]:
        """The messages that came, in order, over all connections."""
        return [message for transport in self._transports.values() for message in transport.received]

    def transport(self, connection: str | None = None) -> "_Played":
        """The transport for the next connection that was not given out, or for the one of this name.

        `ValueError` when the record has no such connection, or it was given out.
        """
        names = list(dict.fromkeys(step.get("connection") for _, step in self._steps))
        free = [name for name in names if name not in self._transports]
        name = connection if connection is not None else next(iter(free), None)
        if name not in free:
            raise ValueError(f"{self._transcript.id} has no connection left of name {name!r}; left are {free}")
        transport = self._transports[name] = _Played(self, name)
        return transport

    async def finish(self) -> None:
        """Waits until all was played. `TranscriptMismatch` for a mismatch, and for what did not come in time."""
        try:
            async with asyncio.timeout(self._timeout), self._changed:
                await self._changed.wait_for(lambda: not self._left or self._mismatch is not None)
        except TimeoutError:
            number, step = next((number, step) for number, step in self._steps if number in self._left)
            what = step["message"].get("type") if "message" in step else "the break"
            raise TranscriptMismatch(
                f"{self._transcript.id}, step {number}: {what} from the {step.get('from', 'link')} did not come"
            ) from None
        if self._mismatch is not None:
            raise TranscriptMismatch(self._mismatch)

    async def close(self) -> None:
        """Ends every connection."""
        for transport in self._transports.values():
            await transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, _: object) -> None:
        try:
            if self._mismatch is not None:
                # What it led to is a consequence.
                raise TranscriptMismatch(self._mismatch) from error
            if error is None:
                await self.finish()
        finally:
            await self.close()

    def _next(self, connection: str | None) -> tuple[int, Step] | None:
        """The next step of ours on a connection, once all that came before it has happened."""
        for number, step in self._steps:
            if number in self._left:
                ours = step.get("from") == self._side or "message" not in step
                if step.get("connection") == connection and ours:
                    return number, step
                if not ours or step.get("breaks"):
                    return None
        return None

    async def _take(self, transport: "_Played", message: dict[str, Any]) -> None:
        async with self._changed:
            awaited = next(
                (
                    (number, step)
                    for number, step in self._steps
                    if number in self._left
                    and step.get("from") not in (self._side, None)
                    and step.get("connection") == transport.name
                ),
                None,
            )
            kind = message.get("type")
            due = None if awaited is None else awaited[1]["message"].get("type")
            if kind in _UNASKED:
                transport.answer(message)
            elif kind in _FAREWELL and due in (None, *_FAREWELL):
                transport.is_leaving = True
                if awaited is not None:
                    compare({"id": awaited[1]["message"].get("id")}, message, self._names, str(kind))
                    self._left.discard(awaited[0])
            elif awaited is None or due != kind:
                place = "nothing more" if awaited is None else f"{due} (step {awaited[0]})"
                self._fail(f"{self._transcript.id}: {kind} came where {place} was due")
            else:
                number, step = awaited
                difference = compare(step["message"], message, self._names, str(kind))
                if difference is not None:
                    self._fail(f"{self._transcript.id}, step {number}: {difference}")
                self._left.discard(number)
            self._changed.notify_all()

    def _has_more(self, connection: str | None) -> bool:
        return any(number in self._left and step.get("connection") == connection for number, step in self._steps)

    def _fail(self, text: str) -> None:
        if self._mismatch is None:
            self._mismatch = text

    def _filled(self, step: Step) -> dict[str, Any]:
        message: dict[str, Any] = fill(step["message"], self._names)
        if self._token is not None and message.get("type") == "session.hello":
            message["payload"]["auth"]["token"] = self._token
        return message


class _Played:
    """One connection of a player."""

    def __init__(self, player: Player, name: str | None) -> None:
        self.name = name
        self.received: list[dict[str, Any]] = []
        self.is_closed = False
        self.is_leaving = False
        self._player = player
        self._answers: list[dict[str, Any]] = []
        self._ended = False

    async def send(self, message: dict[str, Any]) -> None:
        if self.is_closed or self._ended:
            raise TransportClosed("the played connection is over")
        self.received.append(message)
        await self._player._take(self, message)
        if self._player._mismatch is not None:
            await self.close()

    async def recv(self) -> dict[str, Any]:
        player = self._player
        async with player._changed:
            while True:
                if self._answers:
                    return self._answers.pop(0)
                if self.is_closed or self._ended or player._mismatch is not None:
                    raise TransportClosed("the played connection is over")
                if (due := player._next(self.name)) is not None:
                    number, step = due
                    player._left.discard(number)
                    player._changed.notify_all()
                    if "message" in step:
                        return player._filled(step)
                    self._ended = True
                elif self.is_leaving and not player._has_more(self.name):
                    self._ended = True
                else:
                    await player._changed.wait()

    async def close(self) -> None:
        self.is_closed = True
        async with self._player._changed:
            self._player._changed.notify_all()

    def answer(self, message: dict[str, Any]) -> None:
        """Answers a ping."""
        if message["type"] == "session.ping":
            payload = as_object(message.get("payload")) or {}
            answer = {"ping_nonce": payload.get("nonce"), "received_at": payload.get("sent_at")}
            self._answers.append(
                {"arcp": "1.1", "id": f"{message.get('id')}-pong", "type": "session.pong", "payload": answer}
            )


def _is_played(step: Step, side: Side) -> bool:
    if "message" not in step:
        return bool(step.get("breaks"))
    kind = step["message"].get("type")
    return kind != "session.pong" and not (step["from"] != side and kind in _UNASKED)
