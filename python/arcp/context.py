"""What an agent is given: its job, and the means to speak to whoever watches it."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from arcp import _native
from arcp._check import expect, expect_optional, expect_range
from arcp._port import Port
from arcp._spellings import with_protocol_names
from arcp.delegation import ChildJob
from arcp.errors import ARCPError
from arcp.lease import (
    Lease,
    LeaseOpContext,
    budget_from_json,
    check_cost,
    initial_budget_from_lease,
    validate_lease_op,
)
from arcp.messages import CredentialPayload, Identity, LeaseConstraints
from arcp.result_stream import ResultStream

if TYPE_CHECKING:
    from arcp.runtime import ARCPRuntime

__all__ = ["Job", "JobContext", "SessionContext", "SessionState"]

CANCELLED_WAIT_SEC = 1.0
"""How long a cancelled plain function waits at each further emit for a client that lags behind."""


@dataclass(frozen=True, slots=True)
class SessionState:
    """A session as it stands at one moment."""

    session_id: str
    principal: str
    last_acked_seq: int
    """The highest `event_seq` its client has acknowledged."""
    negotiated_features: tuple[str, ...] = ()
    heartbeat_interval_sec: int | None = None
    """`None` without heartbeats."""
    resume_window_sec: int = 0
    accepted_at: str | None = None
    """When it was last welcomed, RFC 3339 in UTC; `None` after a restart, until it is taken up."""
    resume_token: None = None
    """Always `None`: the token is its client's secret, and the runtime keeps only a hash of it."""


class SessionContext:
    """The session that submitted a job."""

    def __init__(self, invocation: _native.Invocation) -> None:
        """Made by the runtime."""
        self._invocation = invocation

    def __repr__(self) -> str:
        return f"<SessionContext session_id={self.session_id!r}>"

    @property
    def session_id(self) -> str:
        """The session."""
        return self._invocation.session_id

    @property
    def principal(self) -> str:
        """Whose session it is."""
        return self._invocation.principal

    @property
    def latest_event_seq(self) -> int:
        """The highest `event_seq` sent in the session; 0 once the session has ended."""
        return (self._invocation.session_progress or (0, 0))[0]

    @property
    def identity(self) -> Identity:
        """Whose it is, and the scopes of the token it was last opened or taken up with.

        Scopes are not stored: after a restart there are none until the client has taken the session up again, nor once
        it has ended.
        """
        return Identity(principal=self.principal, scopes=tuple(self._view().get("scopes", ())))

    @property
    def negotiated_features(self) -> tuple[str, ...]:
        """What both sides have, in the client's order; empty once the session has ended."""
        return tuple(self._view().get("features", ()))

    def has_feature(self, name: str) -> bool:
        """Whether this feature was negotiated."""
        return name in self.negotiated_features

    @property
    def state(self) -> SessionState:
        """The session at this moment; what its client has acknowledged, among others."""
        view = self._view()
        return SessionState(
            session_id=self.session_id,
            principal=self.principal,
            last_acked_seq=view.get("acked", 0),
            negotiated_features=tuple(view.get("features", ())),
            heartbeat_interval_sec=view.get("heartbeat_interval_sec"),
            resume_window_sec=view.get("resume_window_sec", 0),
            accepted_at=view.get("accepted_at"),
        )

    def _view(self) -> dict[str, Any]:
        text = self._invocation.session
        view: dict[str, Any] = {} if text is None else json.loads(text)
        return view


class Job:
    """The job an agent runs."""

    session: SessionContext
    """The session that submitted it."""

    def __init__(self, context: "JobContext") -> None:
        self._context = context
        self.session = SessionContext(context._invocation)

    def __repr__(self) -> str:
        return f"<Job job_id={self.job_id!r} state={self.state!r}>"

    @property
    def job_id(self) -> str:
        """The job."""
        return self._context.job_id

    @property
    def agent(self) -> str:
        """The agent's name."""
        return self._context.agent

    @property
    def agent_version(self) -> str | None:
        """Its version, if it has one."""
        return self._context.agent_version

    @property
    def agent_ref(self) -> str:
        """`name@version`, or the bare name."""
        return self._context.agent_ref

    @property
    def lease(self) -> Lease:
        """What the job may do."""
        return self._context.lease

    @property
    def lease_constraints(self) -> LeaseConstraints | None:
        """When the lease ends."""
        return self._context.lease_constraints

    @property
    def budget(self) -> dict[str, Decimal]:
        """What remains per currency, at this moment; empty without a budget."""
        return self._context.budget

    @property
    def initial_budget(self) -> dict[str, Decimal]:
        """What was granted per currency."""
        return initial_budget_from_lease(self.lease)

    @property
    def parent_job_id(self) -> str | None:
        """The job that delegated this one."""
        return self._context.parent_job_id

    @property
    def trace_id(self) -> str:
        """The job's trace, 32 hex digits."""
        return self._context.trace_id

    @property
    def max_runtime_sec(self) -> int | None:
        """How long it may run."""
        return self._context._invocation.max_runtime_sec

    @property
    def submitter_principal(self) -> str:
        """Who submitted it."""
        return self.session.principal

    @property
    def state(self) -> str:
        """`running` for as long as the agent runs, else how it ended."""
        return self._context._state

    def emit_event(self, kind: str, body: Any, *, ts: object = None) -> Awaitable[None]:
        """As `JobContext.emit_event`, for programs written for the published SDK.

        Members that are spelled as there (`tool_call_id`, `name`, `arguments`, `output`, `media_type`, `size_bytes`) go
        out with the protocol's names beside them; so they do in the whole bodies that `tool_call`, `tool_result` and
        `artifact_ref` take. The runtime stamps the time; `ts` is not used.
        """
        return self._context.emit_event(kind, with_protocol_names(kind, body))


class JobContext(_native.JobContext):
    """The second argument of an agent.

    Emitters send their event before they return, from any thread; what they return is to be awaited, which lets other
    tasks run and slows an agent whose client lags behind. A refused event raises `InvalidRequestError`, an argument of
    the wrong type `TypeError`.
    """

    runtime: "ARCPRuntime"
    """The runtime that runs the agent."""
    logger: logging.Logger
    """The runtime's logger."""

    if TYPE_CHECKING:

        def __new__(cls, invocation: _native.Invocation, runtime: "ARCPRuntime", port: Port) -> "JobContext":
            """What is in Rust looks at the first only."""
            ...

    def __init__(self, invocation: _native.Invocation, runtime: "ARCPRuntime", port: Port) -> None:
        """Made by the runtime."""
        self._invocation = invocation
        self._port = port
        self._thread = threading.get_ident()
        self._state = "running"
        # Set to the name of an exception that left a result unfinished.
        self._broken_result: str | None = None
        # Values of credentials that were replaced.
        self._replaced: list[str] = []
        self.runtime = runtime
        self._cancelled = False
        self.logger = runtime.logger

    def __repr__(self) -> str:
        return f"<JobContext job_id={self.job_id!r} agent={self.agent_ref!r}>"

    @cached_property
    def job(self) -> Job:
        """The job."""
        return Job(self)

    @cached_property
    def signal(self) -> asyncio.Event:
        """Set when the job is to give way; an `async` agent also sees `asyncio.CancelledError`."""
        signal = asyncio.Event()
        if self._cancelled:
            signal.set()
        return signal

    def _give_way(self) -> None:
        # First, for a thread that asks for the signal at this moment.
        self._cancelled = True
        self.signal.set()

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self._invocation.job_id

    @property
    def session_id(self) -> str:
        """The submitting session."""
        return self._invocation.session_id

    @property
    def agent(self) -> str:
        """The agent's name."""
        return self._invocation.agent

    @property
    def agent_version(self) -> str | None:
        """Its version, if it has one."""
        return self._invocation.agent_version

    @property
    def agent_ref(self) -> str:
        """`name@version`, or the bare name."""
        return self._invocation.agent_ref

    @property
    def trace_id(self) -> str:
        """The job's trace, 32 hex digits."""
        return self._invocation.trace_id

    @property
    def parent_job_id(self) -> str | None:
        """The job that delegated this one."""
        return self._invocation.parent_job_id

    @property
    def chunk_size_cap(self) -> int:
        """How many bytes a chunk of a result may have."""
        return self.runtime.chunk_size_cap

    @property
    def lease(self) -> Lease:
        """What the job may do, in a copy of one's own: the lease never changes (R-9.1.2)."""
        lease: Lease = json.loads(self._invocation.lease)
        return lease

    @property
    def lease_constraints(self) -> LeaseConstraints | None:
        """When the lease ends."""
        expires_at = self._invocation.expires_at
        return None if expires_at is None else LeaseConstraints(expires_at=expires_at)

    @property
    def budget(self) -> dict[str, Decimal]:
        """What remains per currency, at this moment; empty without a budget."""
        return budget_from_json(self._invocation.budget)

    @property
    def credentials(self) -> tuple[CredentialPayload, ...]:
        """The credentials that were made for this job, with their present values; none once it is over (R-9.8)."""
        return tuple(CredentialPayload.model_validate(one) for one in json.loads(self._invocation.credentials))

    @property
    def cancelled(self) -> bool:
        """Whether the job is to give way; for agents that are plain functions, which no exception can reach."""
        return self._cancelled

    def tool_call(
        self,
        body: Mapping[str, Any] | None = None,
        *,
        tool: str | None = None,
        args: Mapping[str, Any] | None = None,
        call_id: str | None = None,
    ) -> Awaitable[None]:
        """A `tool_call` event, from a whole body or from its members.

        When the lease does not cover `tool.call` of this tool, a `tool_result` with the refusal follows and the refusal
        is raised (R-9.3).
        """
        members = {"tool": tool, "args": args, "call_id": call_id}
        return self.emit_event("tool_call", _body("tool_call", body, members))

    def tool_result(
        self,
        body: Mapping[str, Any] | None = None,
        *,
        call_id: str | None = None,
        result: Any = None,
        error: ARCPError | Mapping[str, Any] | None = None,
    ) -> Awaitable[None]:
        """A `tool_result` event, from a whole body or from its members; `error` instead of `result` when it failed."""
        payload = error.to_payload() if isinstance(error, ARCPError) else error
        members = {"call_id": call_id, "result": result, "error": payload}
        return self.emit_event("tool_result", _body("tool_result", body, members))

    def artifact_ref(
        self,
        body: Mapping[str, Any] | None = None,
        *,
        uri: str | None = None,
        content_type: str | None = None,
        byte_size: int | None = None,
        sha256: str | None = None,
    ) -> Awaitable[None]:
        """An `artifact_ref` event, from a whole body or from its members."""
        members = {"uri": uri, "content_type": content_type, "byte_size": byte_size, "sha256": sha256}
        return self.emit_event("artifact_ref", _body("artifact_ref", body, members))

    def stream_result(self, *, result_id: str | None = None, chunk_bytes: int | None = None) -> ResultStream:
        """Opens the job's result to be written in parts, once per job.

        `result_id` is a name of the agent's own, `chunk_bytes` where the result is cut, 256 KiB when `None`.
        `InvalidRequestError` when it was opened before, or `chunk_bytes` is over the runtime's cap.
        """
        expect_optional("result_id", result_id, str)
        expect_range("chunk_bytes", chunk_bytes, 1, 2**53)
        return ResultStream(self, self._invocation.open_result(result_id, chunk_bytes))

    def result_chunk(self, body: Mapping[str, Any]) -> Awaitable[None]:
        """A chunk made by hand: `result_id`, `chunk_seq`, `data`, `encoding` and `more` (R-8.4).

        `stream_result` does the cutting and counting. `InternalError` over the cap of a chunk, in which the job ends.
        """
        return self.emit_event("result_chunk", body)

    async def delegate(
        self,
        agent: str,
        input: Any = None,
        *,
        lease_request: Lease | None = None,
        lease_constraints: LeaseConstraints | None = None,
        delegate_id: str | None = None,
        detached: bool = False,
    ) -> ChildJob:
        """Has another agent of this runtime do a part of the job, and returns once that is accepted (R-10).

        The child runs in this job's trace, under a lease that must lie within this job's, and what it spends is charged
        to this job too. It is cancelled when this job ends, unless it is `detached`. Raises the refusal:
        `PermissionDeniedError` when the lease does not cover `agent.delegate`, `LeaseSubsetViolationError`,
        `AgentNotAvailableError`, `BudgetExhaustedError` and others.
        """
        expect_optional("lease_constraints", lease_constraints, LeaseConstraints)
        request: dict[str, Any] = {"agent": expect("agent", agent, str), "input": input, "detached": bool(detached)}
        optional = {
            "lease_request": expect_optional("lease_request", lease_request, Mapping),
            "expires_at": None if lease_constraints is None else lease_constraints.expires_at,
            "delegate_id": expect_optional("delegate_id", delegate_id, str),
        }
        request |= {name: value for name, value in optional.items() if value is not None}
        accepted = await self._port.call(self._invocation.delegate, _native.encode(request, "delegate"))
        return ChildJob(self, accepted)

    def authorize(
        self,
        capability: str,
        target: str,
        *,
        cost: Mapping[str, Decimal] | None = None,
        now: datetime | None = None,
    ) -> None:
        """Checks one operation against the lease before it is done (R-9.3).

        `cost` is what it is going to cost, as currency to amount; `now` the time to check at, the present when `None`.
        Raises `LeaseExpiredError`, `PermissionDeniedError` or `BudgetExhaustedError`.
        """
        if now is None:
            self._invocation.authorize(capability, target)
        else:
            operation = LeaseOpContext(capability, target, now=now)
            validate_lease_op(self.lease, operation, constraints=self.lease_constraints, budget=self.budget)
        if cost:
            check_cost(cost, self.budget)

    def authorize_model(self, model_id: str, *, now: datetime | None = None) -> None:
        """As `authorize`, for the use of a model."""
        self.authorize("model.use", model_id, now=now)

    async def rotate_credential(self, credential_id: str, new_value: str) -> None:
        """Replaces the value of one of the job's credentials by one the agent has made.

        Its client is told by a `status` event, `credential_rotated`, whose value nobody else gets, and then the old
        value is revoked (R-9.8.2.7); the new one is when the job ends. `JobNotFoundError` when the job has no such
        credential, `InvalidRequestError` for a value that was used before, `InternalError` while nothing can be stored.
        """
        expect("credential_id", credential_id, str)
        expect("new_value", new_value, str)
        self._replaced.extend(self._secrets())
        self._invocation.rotate_credential(credential_id, new_value)
        await self._turn()

    def _secrets(self) -> list[str]:
        """What must reach no log and no message: the values of the job's credentials, also earlier ones."""
        return [one["value"] for one in json.loads(self._invocation.credentials)] + self._replaced

    @property
    def _on_loop(self) -> bool:
        """Whether the caller is on the agent's loop, where waiting means to await."""
        return threading.get_ident() == self._thread

    def _drained(self) -> Awaitable[None]:
        """What an emitter returns when the submitting client lags behind; called by the core."""
        if self._on_loop:
            return _Drained(self._port, self._invocation)
        # In a thread of its own an agent is held here: it may not look at what is returned. Once cancelled it is let
        # go, to see that; should it emit on, it is held for a while each time.
        loop = self._port.loop
        if loop is not None:
            waiting = asyncio.run_coroutine_threadsafe(self._port.call(self._invocation.drained), loop)
            patience = time.monotonic() + CANCELLED_WAIT_SEC if self.cancelled else 0.0
            while not loop.is_closed() and not (self.cancelled and time.monotonic() >= patience):
                with suppress(TimeoutError):
                    waiting.result(timeout=0.1)
                    break
            waiting.cancel()
        return _Drained(self._port, None)


class _Drained:
    """Awaited, waits until the submitting client has caught up."""

    def __init__(self, port: Port, invocation: _native.Invocation | None) -> None:
        self._port = port
        self._invocation = invocation

    def __await__(self) -> Any:
        if self._invocation is None:
            return iter(())
        return self._port.call(self._invocation.drained).__await__()


def _body(kind: str, body: Mapping[str, Any] | None, members: dict[str, Any]) -> Mapping[str, Any]:
    given = {name: value for name, value in members.items() if value is not None}
    if body is None:
        return given
    if given:
        raise TypeError(f"{kind} takes either a whole body or {', '.join(members)}")
    return with_protocol_names(kind, body)
