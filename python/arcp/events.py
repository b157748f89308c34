"""Events of a job, typed by their `kind`: one class per kind of event, one per kind of body.

An event is a read-only mapping of `kind`, `body` and `ts`, and has them as attributes too. A body is a dict whose
members are attributes as well, so `event["body"]["level"]` and `event.body.level` are the same:

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

from abc import ABCMeta
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, cast, overload

from arcp._native import JobEvent

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

    from arcp._native import JobEvent as _Typed
else:

    class _Typed:
        """At run time all events are of one class, and of these only by `isinstance`."""


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

cast(Any, Mapping).register(JobEvent)

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


class _Kind(ABCMeta):
    """Makes `isinstance` look at the kind: every event is of one class, made by the core."""

    _of: str | None = None

    def __instancecheck__(cls, event: object) -> bool:
        if not isinstance(event, JobEvent):
            return False
        return event.kind not in BODIES if cls._of is None else event.kind == cls._of


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
