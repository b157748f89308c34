"""The payloads a program meets, as pydantic models. Members a peer adds are kept."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from arcp import _native
from arcp._call import call
from arcp._json import loads_exact

__all__ = [
    "AgentInventoryEntry",
    "Capabilities",
    "ClientInfo",
    "CredentialConstraintsPayload",
    "CredentialPayload",
    "Envelope",
    "Identity",
    "JobAcceptedPayload",
    "JobListEntry",
    "JobResultPayload",
    "JobSubscribedPayload",
    "LeaseConstraints",
    "ListJobsFilter",
    "RuntimeInfo",
    "SessionJobsPayload",
    "SessionResume",
    "SessionWelcomePayload",
]


class _Payload(BaseModel):
    model_config = ConfigDict(extra="allow", populate_by_name=True)


class ClientInfo(_Payload):
    """Who a client is, as its hello shows it."""

    name: str
    version: str


class RuntimeInfo(_Payload):
    """Who a runtime is, as its welcome shows it."""

    name: str
    version: str


class AgentInventoryEntry(_Payload):
    """An agent a runtime hosts; `default` is the version a bare name means."""

    name: str
    versions: tuple[str, ...] = ()
    default: str | None = None


class Capabilities(_Payload):
    """What a side can do. `agents` are bare names, or entries once `agent_versions` is negotiated (R-6.2.2)."""

    encodings: tuple[str, ...] = ("json",)
    features: tuple[str, ...] = ()
    agents: tuple[AgentInventoryEntry | str, ...] = ()


class SessionWelcomePayload(_Payload):
    """The answer to a hello."""

    session_id: str
    runtime: RuntimeInfo
    resume_token: str = Field(repr=False)
    resume_window_sec: int = 600
    heartbeat_interval_sec: int | None = None
    capabilities: Capabilities
    accepted_at: str | None = None


class SessionResume(_Payload):
    """A session to take up: its id, the token of its last welcome, and the highest `event_seq` that was processed."""

    session_id: str
    resume_token: str = Field(repr=False)
    last_event_seq: int = Field(default=0, ge=0)


class ListJobsFilter(_Payload):
    """Which jobs to list. Times are RFC 3339, both ends not included; an agent without a version means all versions."""

    status: tuple[str, ...] | None = None
    agent: str | None = None
    created_after: str | None = None
    created_before: str | None = None


class JobListEntry(_Payload):
    """A job as a listing shows it."""

    job_id: str
    agent: str
    status: str
    lease: dict[str, list[str]] = Field(default_factory=dict)
    lease_constraints: "LeaseConstraints | None" = None
    budget: dict[str, Any] | None = None
    parent_job_id: str | None = None
    created_at: str | None = None
    submitted_at: str | None = None
    trace_id: str | None = None
    last_event_seq: int = 0


class SessionJobsPayload(_Payload):
    """One page of jobs; `next_cursor` asks for the next, and is `None` on the last."""

    request_id: str | None = None
    jobs: tuple[JobListEntry, ...] = ()
    next_cursor: str | None = None


class LeaseConstraints(_Payload):
    """When a lease ends: `expires_at` is RFC 3339 in UTC, such as `2026-05-13T19:30:00Z`."""

    expires_at: str | None = None


class CredentialConstraintsPayload(_Payload):
    """What a provisioned credential is limited to."""

    cost_budget: tuple[str, ...] = Field(default=(), alias="cost.budget")
    model_use: tuple[str, ...] = Field(default=(), alias="model.use")
    expires_at: str | None = None


class CredentialPayload(_Payload):
    """A provisioned credential. `value` is secret and not shown."""

    id: str
    scheme: Literal["bearer"] = "bearer"
    value: str = Field(repr=False)
    endpoint: str
    profile: str | None = None
    constraints: CredentialConstraintsPayload | None = None


class JobAcceptedPayload(_Payload):
    """The answer to a submit: what was granted. `budget` is currency to amount."""

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


class JobSubscribedPayload(_Payload):
    """The answer to a subscribe: the job as it stood at that moment."""

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
    replayed: bool = False
    request_id: str | None = None


class JobResultPayload(_Payload):
    """How a job ended well. `result` is what the agent returned."""

    final_status: str
    result: Any = None
    result_id: str | None = None
    result_size: int | None = None
    summary: str | None = None
    completed_at: str | None = None


class Identity(_Payload):
    """Who a token belongs to."""

    principal: str
    scopes: tuple[str, ...] = ()


class Envelope(_Payload):
    """One message of the wire (R-5.1). Unknown members are kept."""

    arcp: Literal["1.1"] = "1.1"
    id: str
    type: str
    session_id: str | None = None
    trace_id: str | None = None
    job_id: str | None = None
    event_seq: int | None = None
    payload: dict[str, Any] = Field(default_factory=dict)

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
