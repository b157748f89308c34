"""`job.event`, checked: one model per kind, joined by `kind`.

What `JobHandle.events` gives is read without a check; `parse_event` checks it. The bodies are those of `arcp.events`.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias, cast

from pydantic import ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidatorFunctionWrapHandler, model_validator
from pydantic_core import CoreSchema, core_schema

from arcp.events import (
    BODIES,
    ArtifactRefBody,
    DelegateBody,
    EventBody,
    JobEvent,
    LogBody,
    MetricBody,
    ProgressBody,
    ResultChunkBody,
    StatusBody,
    ThoughtBody,
    ToolCallBody,
    ToolError,
    ToolResultBody,
)
from arcp.messages._payload import Payload

if TYPE_CHECKING:
    from arcp.events import _Member

__all__ = [
    "ArtifactRefPayload",
    "DelegatePayload",
    "EventPayload",
    "JobEventPayload",
    "LogPayload",
    "MetricPayload",
    "ProgressPayload",
    "ResultChunkPayload",
    "StatusPayload",
    "ThoughtPayload",
    "ToolCallPayload",
    "ToolResultPayload",
    "VendorPayload",
    "parse_event",
]

VENDOR_KIND = r"x-vendor\.[^.\s]+\.\S+"


def _number(**bounds: Any) -> CoreSchema:
    exact = core_schema.chain_schema([core_schema.is_instance_schema(Decimal), core_schema.decimal_schema(**bounds)])
    fraction = core_schema.float_schema(strict=True, allow_inf_nan=False, **bounds)
    return core_schema.union_schema(
        [core_schema.int_schema(strict=True, **bounds), fraction, exact],
        custom_error_type="number",
        custom_error_message="Input should be a finite number" + (" of at least 0" if bounds else ""),
    )


_SHAPES: dict[str, CoreSchema] = {
    "any": core_schema.any_schema(),
    "str": core_schema.str_schema(strict=True),
    "bool": core_schema.bool_schema(strict=True),
    "dict": core_schema.dict_schema(core_schema.str_schema()),
    "count": core_schema.int_schema(strict=True, ge=0),
    "number": _number(),
    "amount": _number(ge=0),
    "encoding": core_schema.literal_schema(["utf8", "base64"]),
}


def body_schema(cls: type[EventBody], members: "dict[str, _Member[Any]]") -> CoreSchema:
    """A dict with these members in any of their spellings, and others; becomes a `cls` that is otherwise as it was."""
    fields = {name: _field(member) for name, member in members.items()}
    if cls is ToolResultBody:
        error = core_schema.nullable_schema(ToolError._schema())
        fields["error"] = core_schema.typed_dict_field(error, required=False)

    def read(value: Any, check: ValidatorFunctionWrapHandler) -> EventBody:
        check(value)
        if cls is ToolResultBody and value.get("error") is not None and ("result" in value or "output" in value):
            raise ValueError("a tool_result has either a result or an error (R-8.2.5)")
        return cls(value)

    return core_schema.no_info_wrap_validator_function(
        read,
        core_schema.typed_dict_schema(fields, extra_behavior="allow"),
        serialization=core_schema.plain_serializer_function_ser_schema(dict),
    )


def _field(member: "_Member[Any]") -> core_schema.TypedDictField:
    shape = _SHAPES[member.shape]
    spellings: list[list[str | int]] = [[name] for name in member.spellings]
    return core_schema.typed_dict_field(
        shape if member.required else core_schema.nullable_schema(shape),
        required=member.required,
        validation_alias=spellings,
    )


class JobEventPayload(Payload):
    """`job.event`. `kind` is one of the ten or `x-vendor.<vendor>.<name>`; the body is checked by it and typed."""

    kind: str
    ts: str
    body: Any = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind in BODIES:
            self.body = _adapter(BODIES[self.kind]).validate_python(self.body)
        elif re.fullmatch(VENDOR_KIND, self.kind) is None:
            raise ValueError(f"kind must be one of {', '.join(BODIES)} or x-vendor.<vendor>.<name>")
        return self


class _Typed(Payload):
    ts: str


class LogPayload(_Typed):
    """A `log` event."""

    kind: Literal["log"] = "log"
    body: LogBody


class ThoughtPayload(_Typed):
    """A `thought` event."""

    kind: Literal["thought"] = "thought"
    body: ThoughtBody


class ToolCallPayload(_Typed):
    """A `tool_call` event."""

    kind: Literal["tool_call"] = "tool_call"
    body: ToolCallBody


class ToolResultPayload(_Typed):
    """A `tool_result` event."""

    kind: Literal["tool_result"] = "tool_result"
    body: ToolResultBody


class StatusPayload(_Typed):
    """A `status` event."""

    kind: Literal["status"] = "status"
    body: StatusBody


class MetricPayload(_Typed):
    """A `metric` event."""

    kind: Literal["metric"] = "metric"
    body: MetricBody


class ArtifactRefPayload(_Typed):
    """An `artifact_ref` event."""

    kind: Literal["artifact_ref"] = "artifact_ref"
    body: ArtifactRefBody


class DelegatePayload(_Typed):
    """A `delegate` event."""

    kind: Literal["delegate"] = "delegate"
    body: DelegateBody


class ProgressPayload(_Typed):
    """A `progress` event."""

    kind: Literal["progress"] = "progress"
    body: ProgressBody


class ResultChunkPayload(_Typed):
    """A `result_chunk` event."""

    kind: Literal["result_chunk"] = "result_chunk"
    body: ResultChunkBody


class VendorPayload(_Typed):
    """An event of a vendor's kind, or of one this version does not know."""

    kind: str
    body: Any = None


def _tag(event: Any) -> str:
    kind: Any = cast(Any, event).get("kind") if isinstance(event, Mapping) else getattr(event, "kind", None)
    return kind if isinstance(kind, str) and kind in BODIES else "vendor"


EventPayload: TypeAlias = Annotated[
    Annotated[LogPayload, Tag("log")]
    | Annotated[ThoughtPayload, Tag("thought")]
    | Annotated[ToolCallPayload, Tag("tool_call")]
    | Annotated[ToolResultPayload, Tag("tool_result")]
    | Annotated[StatusPayload, Tag("status")]
    | Annotated[MetricPayload, Tag("metric")]
    | Annotated[ArtifactRefPayload, Tag("artifact_ref")]
    | Annotated[DelegatePayload, Tag("delegate")]
    | Annotated[ProgressPayload, Tag("progress")]
    | Annotated[ResultChunkPayload, Tag("result_chunk")]
    | Annotated[VendorPayload, Tag("vendor")],
    Discriminator(_tag),
]
"""A checked event, told apart by `kind`; a type for pydantic models of one's own too."""


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape, config=ConfigDict(title="event", hide_input_in_errors=True))


def parse_event(event: JobEvent | Mapping[str, Any]) -> EventPayload:
    """Checks an event and gives the model of its kind; `pydantic.ValidationError` for a body that is not as it says.

    Unknown kinds and members are let through.
    """
    payload: EventPayload = _adapter(EventPayload).validate_python(dict(event))
    return payload
