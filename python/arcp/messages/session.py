"""Messages about a session: the handshake, heartbeats, acknowledgements, listings and the end."""

from typing import Any, Literal

from pydantic import Field

from arcp.messages._payload import Payload
from arcp.messages.job import JobListEntry

__all__ = [
    "AgentInventoryEntry",
    "AuthBearer",
    "Capabilities",
    "ClientInfo",
    "Identity",
    "JobListEntry",
    "ListJobsFilter",
    "RuntimeInfo",
    "SessionAckPayload",
    "SessionByePayload",
    "SessionErrorPayload",
    "SessionHelloPayload",
    "SessionJobsPayload",
    "SessionListJobsPayload",
    "SessionPingPayload",
    "SessionPongPayload",
    "SessionResume",
    "SessionWelcomePayload",
]


class ClientInfo(Payload):
    """Who a client is, as its hello shows it."""

    name: str
    version: str


class RuntimeInfo(Payload):
    """Who a runtime is, as its welcome shows it."""

    name: str
    version: str


class AuthBearer(Payload):
    """How a client proves who it is. `token` is secret and not shown."""

    scheme: Literal["bearer"] = "bearer"
    token: str = Field(repr=False)


class AgentInventoryEntry(Payload):
    """An agent a runtime hosts; `default` is the version a bare name means."""

    name: str
    versions: tuple[str, ...] = ()
    default: str | None = None


class Capabilities(Payload):
    """What a side can do. `agents` are bare names, or entries once `agent_versions` is negotiated (R-6.2.2)."""

    encodings: tuple[str, ...] = ("json",)
    features: tuple[str, ...] = ()
    agents: tuple[AgentInventoryEntry | str, ...] = ()


class SessionResume(Payload):
    """A session to take up: its id, the token of its last welcome, and the highest `event_seq` that was processed."""

    session_id: str
    resume_token: str = Field(repr=False)
    last_event_seq: int = Field(default=0, ge=0)


class SessionHelloPayload(Payload):
    """`session.hello`: a client opens a session, or takes one up."""

    client: ClientInfo
    auth: AuthBearer
    capabilities: Capabilities = Field(default_factory=Capabilities)
    resume: SessionResume | None = None


class SessionWelcomePayload(Payload):
    """`session.welcome`: the answer to a hello. `resume_token` is secret and not shown."""

    session_id: str
    runtime: RuntimeInfo
    resume_token: str = Field(repr=False)
    resume_window_sec: int = Field(default=600, ge=0)
    heartbeat_interval_sec: int | None = None
    capabilities: Capabilities = Field(default_factory=Capabilities)
    accepted_at: str | None = None


class SessionByePayload(Payload):
    """`session.bye`: either side ends the session."""

    reason: str
    code: str | None = None


class SessionErrorPayload(Payload):
    """`session.error`: a request that names no job was refused; `arcp.error_from_payload` makes an exception of it."""

    code: str
    message: str
    retryable: bool = False
    details: dict[str, Any] | None = None


class SessionPingPayload(Payload):
    """`session.ping`: asks for a sign of life."""

    nonce: str
    sent_at: str


class SessionPongPayload(Payload):
    """`session.pong`: gives it."""

    ping_nonce: str
    received_at: str


class SessionAckPayload(Payload):
    """`session.ack`: every event up to this `event_seq` was processed."""

    last_processed_seq: int = Field(ge=0)


class ListJobsFilter(Payload):
    """Which jobs to list. Times are RFC 3339, both ends not included; an agent without a version means all versions."""

    status: tuple[str, ...] | None = None
    agent: str | None = None
    created_after: str | None = None
    created_before: str | None = None


class SessionListJobsPayload(Payload):
    """`session.list_jobs`: asks for one page of jobs; 100 of them without a `limit`."""

    filter: ListJobsFilter | None = None
    limit: int | None = Field(default=None, ge=1, le=1000)
    cursor: str | None = None


class SessionJobsPayload(Payload):
    """`session.jobs`: one page of jobs; `next_cursor` asks for the next, and is `None` on the last."""

    request_id: str | None = None
    jobs: tuple[JobListEntry, ...] = ()
    next_cursor: str | None = None


class Identity(Payload):
    """Who a token belongs to."""

    principal: str
    scopes: tuple[str, ...] = ()
