"""Payloads of jobs under the name the published SDK has for them; see `arcp.messages` and `arcp.events`."""

from decimal import Decimal
from typing import Any

from pydantic import TypeAdapter

from arcp.events import (
    EVENT_KINDS,
    ArtifactRefBody,
    DelegateBody,
    LogBody,
    MetricBody,
    ProgressBody,
    ResultChunkBody,
    StatusBody,
    ThoughtBody,
    ToolCallBody,
    ToolResultBody,
)
from arcp.lease import Lease, parse_budget_amount
from arcp.messages.event import JobEventPayload
from arcp.messages.job import (
    CredentialConstraintsPayload,
    CredentialPayload,
    JobAcceptedPayload,
    JobCancelPayload,
    JobErrorPayload,
    JobResultPayload,
    JobSubmitPayload,
    JobSubscribedPayload,
    JobSubscribePayload,
    JobUnsubscribePayload,
    LeaseConstraints,
)
from arcp.negotiation import parse_agent_ref

__all__ = [
    "EVENT_KINDS",
    "ArtifactRefBody",
    "CredentialConstraintsPayload",
    "CredentialPayload",
    "DelegateBody",
    "JobAcceptedPayload",
    "JobCancelPayload",
    "JobErrorPayload",
    "JobEventPayload",
    "JobResultPayload",
    "JobSubmitPayload",
    "JobSubscribePayload",
    "JobSubscribedPayload",
    "JobUnsubscribePayload",
    "Lease",
    "LeaseConstraints",
    "LogBody",
    "MetricBody",
    "ProgressBody",
    "ResultChunkBody",
    "StatusBody",
    "ThoughtBody",
    "ToolCallBody",
    "ToolResultBody",
    "format_agent_ref",
    "format_budget_amount",
    "parse_agent_ref",
    "parse_budget_amount",
    "validate_metric_body",
    "validate_progress_body",
    "validate_result_chunk_body",
]


def format_agent_ref(name: str, version: str | None) -> str:
    """`name@version`, or the bare name."""
    return name if version is None else f"{name}@{version}"


def format_budget_amount(currency: str, value: Decimal) -> str:
    """`USD:1.00`."""
    return f"{currency}:{value:f}"


def validate_metric_body(body: dict[str, Any]) -> None:
    """`ValueError` unless it is the body of a `metric`."""
    TypeAdapter(MetricBody).validate_python(body)


def validate_progress_body(body: dict[str, Any]) -> None:
    """`ValueError` unless it is the body of a `progress`. `current` may be beyond `total` (R-8.2.1.2)."""
    TypeAdapter(ProgressBody).validate_python(body)


def validate_result_chunk_body(body: dict[str, Any]) -> None:
    """`ValueError` unless it is the body of a `result_chunk`."""
    TypeAdapter(ResultChunkBody).validate_python(body)
