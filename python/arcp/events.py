"""Events of a job, typed by their `kind`: one class per kind of event, one per kind of body.

An event is a dict of `kind`, `body` and `ts`, and has them as attributes too; its body is read when somebody first
looks. A body is a dict whose members are attributes as well, so `event["body"]["level"]` and `event.body.level` are the
same:

    async for event in handle.events():
        match event:
            case LogEvent():
                print(event.body.level, event.body.message)
            case ProgressEvent():
                draw(event.body.current, event.body.total)

`isinstance`, class patterns and `event.kind == "log"` narrow the type. Attributes read either spelling a peer may use
(`tool` or `name`, `call_id` or `tool_call_id`). Reading never fails: a member that a peer left out is `None`, a kind
that nobody knows comes through as a `VendorEvent` (R-8.2.2, R-8.2.3). `arcp.messages.parse_event` checks instead of
trusting.
"""

import json
from abc import ABCMeta
from collections.abc import ItemsView, Iterator, ValuesView
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, cast, overload

from arcp import _native

if TYPE_CHECKING:
    from pydantic_core import CoreSchema


__all__ = [
    "EVENT_KINDS",
    "ArtifactRefBody",
    "ArtifactRefEvent",
    "DelegateBody",
    "DelegateEvent",
    "Event",
    "EventBody",
    "JobEvent",
    "LogBody",
    "LogEvent",
    "MetricBody",
    "MetricEvent",
    "ProgressBody",
    "ProgressEvent",
    "ResultChunkBody",
    "ResultChunkEvent",
    "StatusBody",
    "StatusEvent",
    "ThoughtBody",
    "ThoughtEvent",
    "ToolCallBody",
    "ToolCallEvent",
    "ToolError",
    "ToolResultBody",
    "ToolResultEvent",
    "VendorBody",
    "VendorEvent",
]

T = TypeVar("T")
K = TypeVar("K", bound=str, covariant=True)
B = TypeVar("B", covariant=True)


class _Member(Generic[T]):
    """A member of a body, read as an attribute under the first of its spellings that is there."""

    def __init__(self, shape: str, *spellings: str, required: bool = False) -> None:
        self.shape = shape
        self.spellings = spellings
        self.required = required

    @overload
    def __get__(self, body: None, owner: type) -> "_Member[T]": ...
    @overload
    def __get__(self, body: "EventBody", owner: type) -> T: ...
    def __get__(self, body: "EventBody | None", owner: type) -> Any:
        if body is None:
            return self
        for name in self.spellings:
            if name in body:
                return body[name]
        return None


class EventBody(dict[str, Any]):
    """What an event says: a dict, and its members as attributes."""

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: object) -> "CoreSchema":
        """For pydantic: a body of this class, unless a member is missing or of the wrong shape."""
        return cls._schema()

    @classmethod
    def _schema(cls) -> "CoreSchema":
        from arcp.messages.event import body_schema

        found = cast(dict[str, Any], vars(cls))
        members: dict[str, _Member[Any]] = {
            name: member for name, member in found.items() if isinstance(member, _Member)
        }
        return body_schema(cls, members)


class LogBody(EventBody):
    """A line of a log."""

    __slots__ = ()
    level = _Member[str]("str", "level", required=True)
    """`trace`, `debug`, `info`, `warn`, `error` or `critical`; a peer may say others."""
    message = _Member[str]("str", "message", required=True)
    attributes = _Member[dict[str, Any] | None]("dict", "attributes")


class ThoughtBody(EventBody):
    """What an agent considers."""

    __slots__ = ()
    text = _Member[str]("str", "text", required=True)


class ToolCallBody(EventBody):
    """An agent calls a tool."""

    __slots__ = ()
    tool = _Member[str]("str", "tool", "name", required=True)
    args = _Member[dict[str, Any] | None]("dict", "args", "arguments")
    call_id = _Member[str]("str", "call_id", "tool_call_id", required=True)
    """Joins call and result."""


class ToolError(EventBody):
    """Why a tool failed; `arcp.error_from_payload` makes an exception of it."""

    __slots__ = ()
    code = _Member[str]("str", "code", required=True)
    message = _Member[str]("str", "message", required=True)
    retryable = _Member[bool | None]("bool", "retryable")
    details = _Member[dict[str, Any] | None]("dict", "details")


class ToolResultBody(EventBody):
    """What came of a tool call: `result` or `error`."""

    __slots__ = ()
    call_id = _Member[str]("str", "call_id", "tool_call_id", required=True)
    """Joins call and result."""
    result = _Member[Any]("any", "result", "output")

    @property
    def error(self) -> ToolError | None:
        """Why it failed; `None` when it did not."""
        error = self.get("error")
        return ToolError(cast(dict[str, Any], error)) if isinstance(error, dict) else None


class StatusBody(EventBody):
    """The phase an agent is in."""

    __slots__ = ()
    phase = _Member[str]("str", "phase", required=True)

    def __repr__(self) -> str:
        # A rotated credential's value is for the program, not for what it prints (R-9.8.2.7).
        hidden = {"value": "***"} if self.get("phase") == "credential_rotated" and "value" in self else {}
        return repr({**self, **hidden})

    message = _Member[str | None]("str", "message")


class MetricBody(EventBody):
    """A measured value; a name that begins with `cost.` charges the job's budget."""

    __slots__ = ()
    name = _Member[str]("str", "name", required=True)
    value = _Member[float]("number", "value", required=True)
    """An `int` or a `float`."""
    unit = _Member[str | None]("str", "unit")
    """Of a cost the currency."""
    dimensions = _Member[dict[str, Any] | None]("dict", "dimensions", "dims", "attributes")


class ArtifactRefBody(EventBody):
    """Something the job made, and where it can be fetched."""

    __slots__ = ()
    uri = _Member[str]("str", "uri", required=True)
    content_type = _Member[str | None]("str", "content_type", "media_type")
    byte_size = _Member[int | None]("count", "byte_size", "size_bytes", "size")
    sha256 = _Member[str | None]("str", "sha256")
    """Digest in hex."""


class DelegateBody(EventBody):
    """The job has another agent do a part of it."""

    __slots__ = ()
    agent = _Member[str]("str", "agent", required=True)
    delegate_id = _Member[str | None]("str", "delegate_id")
    """Joins delegation, child and result; one published peer names the child's job instead."""
    child_job_id = _Member[str | None]("str", "child_job_id")
    input = _Member[Any]("any", "input")
    lease_request = _Member[dict[str, list[str]] | None]("dict", "lease_request")
    lease_constraints = _Member[dict[str, Any] | None]("dict", "lease_constraints")


class ProgressBody(EventBody):
    """How far the job is. `current` may be beyond `total` (R-8.2.1.2)."""

    __slots__ = ()
    current = _Member[float]("amount", "current", required=True)
    """An `int` or a `float`."""
    total = _Member[float | None]("amount", "total")
    units = _Member[str | None]("str", "units")
    """What is counted."""
    message = _Member[str | None]("str", "message")


class ResultChunkBody(EventBody):
    """A part of a streamed result; `JobHandle.chunks` gives these."""

    __slots__ = ()
    result_id = _Member[str]("str", "result_id", required=True)
    chunk_seq = _Member[int]("count", "chunk_seq", required=True)
    data = _Member[str]("str", "data", required=True)
    encoding = _Member[Literal["utf8", "base64"]]("encoding", "encoding", required=True)
    more = _Member[bool]("bool", "more", required=True)


class VendorBody(EventBody):
    """A body of a vendor's kind, or of one this version does not know. Members are attributes by their own names."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the event's body has no member {name!r}") from None


BODIES: dict[str, type[EventBody]] = {
    "log": LogBody,
    "thought": ThoughtBody,
    "tool_call": ToolCallBody,
    "tool_result": ToolResultBody,
    "status": StatusBody,
    "metric": MetricBody,
    "artifact_ref": ArtifactRefBody,
    "delegate": DelegateBody,
    "progress": ProgressBody,
    "result_chunk": ResultChunkBody,
}

EVENT_KINDS: tuple[str, ...] = tuple(BODIES)
"""The ten kinds of the protocol."""


class JobEvent(dict[str, Any]):
    """One event of a job: a dict of `kind`, `body` and `ts`, with these as attributes.

    The body of one that came from a runtime is read when it is first looked at, in whatever way. `json.dumps`, `dict`,
    `==`, `copy` and `pickle` work as with any dict.
    """

    __slots__ = ("_data",)

    # Stands for the body until that is read, so that what reads dicts from below fails instead of missing it.
    _data: _native.EventData

    def __init__(self, kind: str, body: Any, ts: str, event_seq: int = 0) -> None:
        """One made by hand, for tests and for a copy from elsewhere. `TypeError` for a body JSON has no form for."""
        data = _native.EventData(kind, body, ts, event_seq)
        super().__init__(kind=data.kind, body=data, ts=data.ts)
        self._data = data

    @property
    def kind(self) -> str:
        """`log`, `progress`, ... or a vendor's kind."""
        kind: str = dict.__getitem__(self, "kind")
        return kind

    @property
    def ts(self) -> str:
        """When the agent made it, RFC 3339 in UTC."""
        ts: str = dict.__getitem__(self, "ts")
        return ts

    @property
    def body(self) -> Any:
        """What the kind carries.

        The same object every time; of a known kind always a dict with attributes, an empty one where a peer sent no
        object, so that looking into it never fails.
        """
        body = self["body"]
        if isinstance(body, dict):
            return cast(Any, body)
        known = BODIES.get(self.kind)
        return body if known is None else known()

    @property
    def event_seq(self) -> int:
        """Its number in the session; not part of the dict."""
        return self._data.event_seq

    def to_json(self) -> str:
        """The event as one JSON object, without a look into a body that nobody has read."""
        untouched = dict.get(self, "body") is self._data
        return self._data.to_json() if untouched else json.dumps(self, separators=(",", ":"), ensure_ascii=False)

    def _read(self) -> None:
        if dict.get(self, "body") is self._data:
            dict.__setitem__(self, "body", self._data.value)

    def __getitem__(self, key: str, /) -> Any:
        value = dict.__getitem__(self, key)
        if value is self._data:
            value = self._data.value
            dict.__setitem__(self, key, value)
        return value

    def get(self, key: str, default: Any = None, /) -> Any:
        """As of a dict."""
        if key == "body":
            self._read()
        return super().get(key, default)

    def __iter__(self) -> Iterator[str]:
        # An override, however plain, keeps `dict(event)` from copying from below.
        return super().__iter__()

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        """As of a dict."""
        self._read()
        return super().items()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        """As of a dict."""
        self._read()
        return super().values()

    def copy(self) -> dict[str, Any]:
        """A plain dict."""
        self._read()
        return super().copy()

    def pop(self, *arguments: Any) -> Any:
        """As of a dict."""
        self._read()
        return super().pop(*arguments)

    def popitem(self) -> tuple[str, Any]:
        """As of a dict."""
        self._read()
        return super().popitem()

    def setdefault(self, key: str, default: Any = None, /) -> Any:
        """As of a dict."""
        self._read()
        return super().setdefault(key, default)

    def __or__(self, other: Any) -> Any:
        self._read()
        return super().__or__(other)

    def __ror__(self, other: Any) -> Any:
        self._read()
        return super().__ror__(other)

    def __eq__(self, other: object) -> bool:
        self._read()
        if isinstance(other, JobEvent):
            other._read()
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __repr__(self) -> str:
        self._read()
        return super().__repr__()

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # What a program changed or added goes with it.
        self._read()
        data = self._data
        return JobEvent, (data.kind, data.value, data.ts, data.event_seq), None, None, iter(super().items())


class _Kind(ABCMeta):
    """Makes `isinstance` look at the kind: at run time every event is a `JobEvent`."""

    _of: str | None = None

    def __instancecheck__(cls, event: object) -> bool:
        if not isinstance(event, JobEvent):
            return False
        return event.kind not in BODIES if cls._of is None else event.kind == cls._of


if TYPE_CHECKING:
    _Typed = JobEvent
else:

    class _Typed:
        """What the classes below have in common at run time, where no event is made of them."""


class _Event(_Typed, Generic[K, B], metaclass=_Kind):
    def __init_subclass__(cls, kind: str | None = None) -> None:
        cls._of = kind

    if TYPE_CHECKING:

        @property
        def kind(self) -> K: ...
        @property
        def body(self) -> B: ...
        @overload
        def __getitem__(self, key: Literal["body"]) -> B: ...
        @overload
        def __getitem__(self, key: Literal["kind", "ts"]) -> str: ...
        @overload
        def __getitem__(self, key: str) -> Any: ...
        def __getitem__(self, key: str) -> Any: ...

    else:

        def __new__(cls, *_, **__):
            raise TypeError(
                f"{cls.__name__} is for isinstance and patterns; make an event with JobEvent(kind, body, ts)"
            )


class LogEvent(_Event[Literal["log"], LogBody], kind="log"):
    """A line of a log."""


class ThoughtEvent(_Event[Literal["thought"], ThoughtBody], kind="thought"):
    """What an agent considers."""


class ToolCallEvent(_Event[Literal["tool_call"], ToolCallBody], kind="tool_call"):
    """An agent calls a tool."""


class ToolResultEvent(_Event[Literal["tool_result"], ToolResultBody], kind="tool_result"):
    """What came of a tool call."""


class StatusEvent(_Event[Literal["status"], StatusBody], kind="status"):
    """The phase an agent is in. The runtime makes one itself when a client lags behind (`back_pressure`)."""


class MetricEvent(_Event[Literal["metric"], MetricBody], kind="metric"):
    """A measured value."""


class ArtifactRefEvent(_Event[Literal["artifact_ref"], ArtifactRefBody], kind="artifact_ref"):
    """Something the job made."""


class DelegateEvent(_Event[Literal["delegate"], DelegateBody], kind="delegate"):
    """A part of the job was given to another agent."""


class ProgressEvent(_Event[Literal["progress"], ProgressBody], kind="progress"):
    """How far the job is."""


class ResultChunkEvent(_Event[Literal["result_chunk"], ResultChunkBody], kind="result_chunk"):
    """A part of a streamed result. `JobHandle.events` leaves these to `JobHandle.chunks`."""


class VendorEvent(_Event[Literal["x-vendor.*"], Any]):
    """An event of a vendor's kind (`x-vendor.acme.thing`), or of one this version does not know.

    A body that is an object is a `VendorBody`; vendors may send any other JSON value. Type checkers take `kind` for the
    one text `x-vendor.*`: were it any text, `event.kind == "log"` would tell them nothing. Compare `event["kind"]`,
    which is a `str` to them.
    """


Event: TypeAlias = (
    LogEvent
    | ThoughtEvent
    | ToolCallEvent
    | ToolResultEvent
    | StatusEvent
    | MetricEvent
    | ArtifactRefEvent
    | DelegateEvent
    | ProgressEvent
    | ResultChunkEvent
    | VendorEvent
)
"""Any event: what `JobHandle.events` gives."""
