"""Messages about one job, from its submit to its end."""

from typing import Any, Generic, Literal

from pydantic import Field
from typing_extensions import TypeVar

from arcp.messages._payload import Payload

__all__ = [
    "CredentialConstraintsPayload",
    "CredentialPayload",
    "JobAcceptedPayload",
    "JobCancelPayload",
    "JobErrorPayload",
    "JobListEntry",
    "JobResultPayload",
    "JobSubmitPayload",
    "JobSubscribePayload",
    "JobSubscribedPayload",
    "JobUnsubscribePayload",
    "LeaseConstraints",
]

T = TypeVar("T", default=Any)


class LeaseConstraints(Payload):
    """When a lease ends: `expires_at` is RFC 3339 in UTC, such as `2026-05-13T19:30:00Z`."""

    expires_at: str | None = None


class JobListEntry(Payload):
    """A job as a listing shows it."""

    job_id: str
    agent: str
    status: str
    lease: dict[str, list[str]] = Field(default_factory=dict)
    lease_constraints: LeaseConstraints | None = None
    budget: dict[str, Any] | None = None
    parent_job_id: str | None = None
    created_at: str | None = None
    submitted_at: str | None = None
    trace_id: str | None = None
    last_event_seq: int = 0


class CredentialConstraintsPayload(Payload):
    """What a provisioned credential is limited to."""

    cost_budget: tuple[str, ...] = Field(default=(), alias="cost.budget")
    model_use: tuple[str, ...] = Field(default=(), alias="model.use")
    expires_at: str | None = None


class CredentialPayload(Payload):
    """A provisioned credential. `value` is secret and not shown."""

    id: str
    scheme: Literal["bearer"] = "bearer"
    value: str = Field(repr=False)
    endpoint: str
    profile: str | None = None
    constraints: CredentialConstraintsPayload | None = None


class JobSubmitPayload(Payload):
    """`job.submit`: asks for a job."""

    agent: str
    input: Any = None
    lease_request: dict[str, list[str]] = Field(default_factory=dict)
    lease_constraints: LeaseConstraints | None = None
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=256)
    max_runtime_sec: int | None = Field(default=None, ge=1, le=86400)
    parent_job_id: str | None = None
    delegate_id: str | None = None


class JobAcceptedPayload(Payload):
    """`job.accepted`: what was granted. `budget` is currency to amount."""

    job_id: str
    agent: str | None = None
    accepted_at: str | None = None
    lease: dict[str, list[str]] = Field(default_factory=dict)
    lease_constraints: LeaseConstraints | None = None
    budget: dict[str, Any] | None = None
    parent_job_id: str | None = None
    delegate_id: str | None = None
    trace_id: str | None = None
    credentials: tuple[CredentialPayload, ...] | None = Field(default=None, repr=False)
    request_id: str | None = None
    max_runtime_sec: int | None = None


class JobCancelPayload(Payload):
    """`job.cancel`: asks a job to give way; the envelope says which."""

    reason: str
    code: str | None = None


class JobSubscribePayload(Payload):
    """`job.subscribe`: asks to follow a job."""

    job_id: str
    history: bool = False
    from_event_seq: int | None = Field(default=None, ge=0)


class JobSubscribedPayload(Payload):
    """`job.subscribed`: the job as it stood at that moment.

    `replayed` says whether history precedes what is new; some peers send how much of it.
    """

    job_id: str
    current_status: str
    agent: str
    lease: dict[str, list[str]] = Field(default_factory=dict)
    lease_constraints: LeaseConstraints | None = None
    budget: dict[str, Any] | None = None
    parent_job_id: str | None = None
    trace_id: str | None = None
    credentials: tuple[CredentialPayload, ...] | None = Field(default=None, repr=False)
    subscribed_from: int = 0
    replayed: bool | int = False
    request_id: str | None = None


class JobUnsubscribePayload(Payload):
    """`job.unsubscribe`: ends a subscription."""

    job_id: str


class JobResultPayload(Payload, Generic[T]):
    """`job.result`: how a job ended well. `result` is what the agent returned, `None` when it was streamed.

    A streamed result has a `result_id` and a `result_size` in bytes.
    """

    final_status: Literal["success", "cancelled", "timed_out"]
    # Not checked against the type where it is absent, as of a streamed result.
    result: T = Field(default=None)  # type: ignore[assignment]
    result_id: str | None = None
    result_size: int | None = None
    summary: str | None = None
    completed_at: str | None = None


class JobErrorPayload(Payload):
    """`job.error`: how a job failed; `arcp.error_from_payload` makes an exception of it."""

    final_status: Literal["error", "cancelled", "timed_out"] = "error"
    code: str
    message: str
    retryable: bool = False
    completed_at: str | None = None
    details: dict[str, Any] | None = None
