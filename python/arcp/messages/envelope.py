"""The frame around every message."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field

from arcp import _native
from arcp._call import call
from arcp._json import loads_exact
from arcp.messages._payload import Payload

__all__ = ["Envelope"]


class Envelope(Payload):
    """One message of the wire (R-5.1). Unknown members are kept. The payload may hold secrets and is not shown."""

    arcp: Literal["1.1"] = "1.1"
    # Opaque: peers name messages as they like.
    id: str = Field(min_length=1)
    type: str = Field(min_length=1)
    session_id: str | None = None
    # 32 lower-case hex digits, not all of them zero.
    trace_id: str | None = Field(default=None, pattern=r"^0*[1-9a-f][0-9a-f]*\z", min_length=32, max_length=32)
    job_id: str | None = None
    event_seq: int | None = Field(default=None, ge=1)
    payload: dict[str, Any] = Field(default_factory=dict, repr=False)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any], *, receiver: Literal["client", "runtime"] | None = None) -> Self:
        """Reads a message as the core does; with `receiver`, its payload too. `InvalidRequestError` names the fault."""
        return cls.from_json(_native.encode(wire, "envelope"), receiver=receiver)

    @classmethod
    def from_json(cls, text: str, *, receiver: Literal["client", "runtime"] | None = None) -> Self:
        """As `from_wire`, from the text of a frame."""
        return cls.model_validate(loads_exact(call("envelope", text=text, receiver=receiver)["text"]))

    def to_wire(self) -> dict[str, Any]:
        """The message as a dict, without members that are `None`."""
        return {name: value for name, value in self.model_dump().items() if value is not None}
