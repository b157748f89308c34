"""The runtime: hosts agents and serves sessions."""

import asyncio
import json
import logging
import os
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Literal, Self

from arcp import _native, _pump
from arcp._check import expect, expect_optional, expect_range, expect_seconds
from arcp._plugged import Plugged
from arcp._port import Port, port
from arcp._port import logger as default_logger
from arcp._run import Agent, Run, as_coroutine, is_async, is_generator
from arcp._secrets import without_secrets
from arcp._threads import DaemonPool
from arcp.context import Job, JobContext, SessionContext, SessionState
from arcp.credentials import (
    Credential,
    CredentialConstraints,
    CredentialProvisioner,
    InMemoryCredentialProvisioner,
    InMemoryRevocationLog,
    JobCredentialContext,
    RevocationLog,
    UpstreamBudgetExhausted,
)
from arcp.delegation import ChildJob
from arcp.errors import InvalidRequestError, UnauthenticatedError
from arcp.event_log import EventLog, InMemoryEventLog, SqliteEventLog
from arcp.lease import (
    LeaseOpContext,
    assert_lease_subset,
    initial_budget_from_lease,
    is_lease_subset,
    validate_lease_constraints,
    validate_lease_op,
    validate_lease_shape,
)
from arcp.messages import AgentInventoryEntry, Capabilities, LeaseConstraints, RuntimeInfo
from arcp.negotiation import features_for_runtime
from arcp.policy import AuthorizationContext, JobAuthorizationPolicy, ObservedJob, same_principal
from arcp.result_stream import ResultStream
from arcp.transport import Transport, pair_with_core
from arcp.verifier import BearerVerifier, Identity, JWTVerifier, StaticBearerVerifier

__all__ = [
    "ARCPRuntime",
    "Agent",
    "AuthorizationContext",
    "BearerVerifier",
    "ChildJob",
    "Credential",
    "CredentialConstraints",
    "CredentialProvisioner",
    "EventLog",
    "Identity",
    "InMemoryCredentialProvisioner",
    "InMemoryEventLog",
    "InMemoryRevocationLog",
    "JWTVerifier",
    "Job",
    "JobAuthorizationPolicy",
    "JobContext",
    "JobCredentialContext",
    "LeaseConstraints",
    "LeaseOpContext",
    "ObservedJob",
    "ResultStream",
    "RevocationLog",
    "SessionContext",
    "SessionState",
    "SqliteEventLog",
    "StaticBearerVerifier",
    "UpstreamBudgetExhausted",
    "assert_lease_subset",
    "features_for_runtime",
    "initial_budget_from_lease",
    "is_lease_subset",
    "validate_lease_constraints",
    "validate_lease_op",
    "validate_lease_shape",
]

EVENT_LOG_END_SEC = 5.0
"""How long a closing runtime waits for an event log to be told the rest."""


class ARCPRuntime:
    """Hosts agents and serves sessions: agents on the event loop that first accepts, sessions on the core's threads."""

    runtime_info: RuntimeInfo
    """Who the runtime is, as its welcome shows it."""
    bearer: BearerVerifier
    """Says who a token belongs to."""
    capabilities: Capabilities
    """What it can do."""
    heartbeat_interval_sec: float | None
    """`None` without heartbeats."""
    resume_window_sec: float
    """How long a session can be taken up after its connection ended."""
    max_concurrent_jobs: int
    """How many jobs run at once."""
    chunk_size_cap: int
    """How many bytes a chunk of a result may have."""
    db: str | None
    """The SQLite file that keeps what the runtime knows."""
    logger: logging.Logger
    """Where the runtime says what went wrong."""

    def __init__(
        self,
        *,
        runtime: RuntimeInfo,
        bearer: BearerVerifier,
        capabilities: Capabilities | None = None,
        features: Iterable[str] | None = None,
        heartbeat_interval_sec: float | None = 30,
        resume_window_sec: float = 600,
        retention_sec: float = 600,
        idempotency_ttl_sec: float = 86400,
        max_concurrent_jobs: int = 100,
        chunk_size_cap: int = 1_048_576,
        lease_expiry_grace_sec: float = 1.0,
        cancel_grace_sec: float = 30.0,
        cancel_policy: Literal["session", "principal"] = "session",
        job_authorization_policy: JobAuthorizationPolicy | None = None,
        authorization_policy: JobAuthorizationPolicy | None = None,
        event_log: EventLog | None = None,
        credential_provisioner: CredentialProvisioner | None = None,
        revocation_log: RevocationLog | None = None,
        db: str | os.PathLike[str] | None = None,
        synchronous: Literal["normal", "full"] = "normal",
        db_key_file: str | os.PathLike[str] | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        """A runtime without agents. All times are in seconds.

        `bearer` says who a token belongs to. `heartbeat_interval_sec` of `None` turns heartbeats off. A session can be
        taken up for `resume_window_sec` after its connection ended, and an ended job be looked up for as long, or for
        `retention_sec` if that is more. A cancelled agent has `cancel_grace_sec` to end, one whose lease ended
        `lease_expiry_grace_sec`. Jobs beyond `max_concurrent_jobs` wait. A chunk of a result has at most
        `chunk_size_cap` decoded bytes. `features` is what is offered; by default all of version 1.1, and with a
        provisioner `provisioned_credentials`.

        `job_authorization_policy` (also `authorization_policy`) says who may list and follow which job; without one a
        principal sees its own. `cancel_policy` says who may cancel: the submitting session alone, or every session of
        its principal (D-22).

        `credential_provisioner` makes credentials for each job of a client that negotiated them, and takes them back
        when the job ends (R-9.8). It needs a `revocation_log`, or a `db` that is one (R-9.8.2.6).

        `event_log` gets a copy of every numbered message once it is stored; a `SqliteEventLog` is more, its file is
        used as `db` (D-33).

        `db` is a SQLite file that belongs to this runtime alone until it is closed: sessions, jobs, events and
        idempotency keys are back when a later runtime opens it. `None` keeps them in memory. What was said counts as
        kept when it survives the process, with `synchronous` of `full` a power loss too. `db_key_file` names a file
        with 32 random bytes, as they are, in hexadecimal or in Base64 (`arcp db key` makes one): with it the database
        is made encrypted, and opens with the same key alone (R-14.9).

        `InvalidRequestError` for a provisioner whose credentials could not be taken back after a restart; `ValueError`
        for an option that is wrong, for a database that another process has or that cannot be used, and for a key file
        that cannot be read, that other users can read too, or that is not the database's.
        """
        expect("runtime", runtime, RuntimeInfo)
        expect_optional("capabilities", capabilities, Capabilities)
        for name, seconds in (
            ("heartbeat_interval_sec", heartbeat_interval_sec),
            ("resume_window_sec", resume_window_sec),
            ("retention_sec", retention_sec),
            ("idempotency_ttl_sec", idempotency_ttl_sec),
            ("lease_expiry_grace_sec", lease_expiry_grace_sec),
            ("cancel_grace_sec", cancel_grace_sec),
        ):
            expect_seconds(name, seconds)
        expect_range("max_concurrent_jobs", max_concurrent_jobs, 1, 2**53)
        if not isinstance(bearer, BearerVerifier):
            raise TypeError(f"bearer must have an async verify(token); {type(bearer).__name__} has not")
        if job_authorization_policy is not None and authorization_policy is not None:
            raise ValueError("job_authorization_policy and authorization_policy are one option; give one of them")
        policy = authorization_policy if job_authorization_policy is None else job_authorization_policy
        if policy is not None and not callable(policy):
            raise TypeError(f"job_authorization_policy must be callable, got {type(policy).__name__}")
        if isinstance(event_log, SqliteEventLog):
            if db is not None and os.path.abspath(_path(db)) != os.path.abspath(event_log.path):
                raise ValueError("event_log is a SqliteEventLog, whose file is the database; leave db out")
            db = event_log._become_store(None if db_key_file is None else _path(db_key_file, "db_key_file"))
        elif event_log is not None and not isinstance(event_log, EventLog):
            raise TypeError(
                f"event_log must have the members of arcp.runtime.EventLog; {type(event_log).__name__} has not"
            )
        if credential_provisioner is not None:
            if not isinstance(credential_provisioner, CredentialProvisioner):
                kind = type(credential_provisioner).__name__
                raise TypeError(f"credential_provisioner must have async issue and revoke; {kind} has not")
            if revocation_log is None and db in (None, "memory"):
                raise InvalidRequestError(
                    "credential_provisioner needs revocation_log or db: what is issued when the process ends must be "
                    "taken back by the next one"
                )
        if revocation_log is not None and not isinstance(revocation_log, RevocationLog):
            kind = type(revocation_log).__name__
            raise TypeError(f"revocation_log must have async record, forget and outstanding; {kind} has not")
        self.runtime_info = runtime
        self.bearer = bearer
        self.heartbeat_interval_sec = heartbeat_interval_sec
        self.resume_window_sec = resume_window_sec
        self.max_concurrent_jobs = max_concurrent_jobs
        self.chunk_size_cap = expect_range("chunk_size_cap", chunk_size_cap, 1, 2**53) or 0
        self.policy: JobAuthorizationPolicy = same_principal if policy is None else policy
        self.event_log = event_log
        self.credential_provisioner = credential_provisioner
        self.revocation_log = revocation_log
        self.logger = default_logger if logger is None else logger
        if isinstance(features, str):
            raise TypeError('features must be a list of names, got a text; write ["progress"]')
        offered = None if features is None else tuple(features)
        if offered is None and capabilities is not None and "features" in capabilities.model_fields_set:
            offered = capabilities.features
        if offered is None:
            offered = features_for_runtime(provisioner_configured=credential_provisioner is not None)
        self.capabilities = Capabilities(features=offered) if capabilities is None else capabilities
        options: dict[str, Any] = {
            "name": runtime.name,
            "version": runtime.version,
            "features": list(offered),
            "heartbeat_interval_sec": heartbeat_interval_sec or 0,
            "resume_window_sec": resume_window_sec,
            "retention_sec": retention_sec,
            "idempotency_ttl_sec": idempotency_ttl_sec,
            "max_concurrent_jobs": max_concurrent_jobs,
            "result_chunk_cap": chunk_size_cap,
            "cancel_policy": cancel_policy,
            "lease_expiry_grace_sec": lease_expiry_grace_sec,
            "cancel_grace_sec": cancel_grace_sec,
            "db": None if db is None else _path(db),
            "synchronous": synchronous,
            "db_key_file": None if db_key_file is None else _path(db_key_file, "db_key_file"),
        }
        self.db = options["db"]
        self._plugged = Plugged(
            policy=self.policy,
            provisioner=credential_provisioner,
            revocations=revocation_log,
            event_log=event_log,
            logger=self.logger,
        )
        # Its own port: agents may be registered, and tokens be asked about, before any loop runs.
        self._port = Port(self._handle)
        self._options = options
        self._native = self._open()
        self._agents: dict[str, Agent] = {}
        # Those of them that run on the loop.
        self._coroutines: set[str] = set()
        # What was asked of the core, to be asked again of another.
        self._registrations: list[Callable[[_native.Runtime], None]] = []
        self._attached = False
        # That of the last traced transport.
        self._tracing: Any = None
        self._closed = False
        self._running: dict[int, Run] = {}
        # Questions that are answered, and tokens that are verified.
        self._answering: set[asyncio.Task[None]] = set()
        self._verifying: set[asyncio.Task[None]] = set()
        self._threads = DaemonPool(max_concurrent_jobs)

    def __repr__(self) -> str:
        return f"<ARCPRuntime {self.runtime_info.name!r} agents={sorted(self._agents)}>"

    def _open(self) -> _native.Runtime:
        bearer = self.bearer
        tokens: list[tuple[str, str]] | None = (
            list(bearer._tokens.items()) if type(bearer) is StaticBearerVerifier else None
        )
        jwt = bearer._options if type(bearer) is JWTVerifier else None
        return _native.Runtime(_native.encode(self._options, "options"), self._port.native, tokens, jwt)

    def keep_in(self, db: str, synchronous: str | None, db_key_file: str | None = None) -> None:
        """Keeps things in this database; for `arcp serve --app`, which has one for a runtime without."""
        if self.db is not None:
            raise ValueError("the app names its own database; leave --db out, or db= in ARCPRuntime")
        if self._attached:
            raise ValueError("the app has begun to serve already; name the database as ARCPRuntime(db=...)")
        given = {"db": db, "synchronous": synchronous, "db_key_file": db_key_file}
        self._options |= {name: value for name, value in given.items() if value is not None}
        native = self._open()
        for register in self._registrations:
            register(native)
        self._native, self.db = native, db

    def register_agent(self, name: str, fn: Agent, *, restartable: bool = False) -> Self:
        """Adds an agent under a bare name, or replaces it.

        A plain function runs in a daemon thread, with the context variables of its loop; whatever awaitable an agent
        returns is awaited. An async generator yields text or bytes, the parts of the result, and dicts of `kind` and
        `body`, events (D-6). A `restartable` one is run again, under the same job id, for a job that died with an
        earlier process over the same `db`; other jobs that died so end in a retryable `INTERNAL_ERROR` (D-26). Register
        before the first session. `InvalidRequestError` for a name outside the grammar (R-7.5.9).
        """
        return self._register(name, None, fn, restartable)

    def register_agent_version(self, name: str, version: str, fn: Agent, *, restartable: bool = False) -> Self:
        """Adds one version of an agent, or replaces it; the first becomes the default (R-7.5)."""
        return self._register(name, version, fn, restartable)

    def _register(self, name: str, version: str | None, fn: Agent, restartable: bool) -> Self:
        if not callable(fn):
            raise TypeError(f"an agent must be callable, as agent(input, ctx); got {type(fn).__name__}")
        port = self._port.native
        self._ask_core(lambda native: native.register_agent(port, name, version, restartable))
        reference = name if version is None else f"{name}@{version}"
        if is_generator(fn):
            fn = as_coroutine(fn)
        self._agents[reference] = fn
        if is_async(fn):
            self._coroutines.add(reference)
        else:
            self._coroutines.discard(reference)
        return self

    def set_default_agent_version(self, name: str, version: str) -> Self:
        """Sets the version a bare name means. `AgentNotAvailableError`, `AgentVersionNotAvailableError`."""
        self._ask_core(lambda native: native.set_default_agent_version(name, version))
        return self

    def _ask_core(self, ask: Callable[[_native.Runtime], None]) -> None:
        ask(self._native)
        if not self._attached:
            self._registrations.append(ask)

    def agent_inventory(self) -> tuple[AgentInventoryEntry, ...]:
        """The agents, as the welcome shows them."""
        return tuple(AgentInventoryEntry.model_validate(entry) for entry in json.loads(self._native.agent_inventory()))

    async def accept(self, transport: Transport) -> None:
        """Runs one whole session, until a `session.bye`, a close or a lost link; no peer can make it raise."""
        native = self.attach()
        self._tracing = getattr(transport, "_tracing", self._tracing)
        handle, pump = pair_with_core(transport)
        try:
            await port().call(native.accept, handle)
            if pump is not None:
                # The last words, such as a refusal, are still on their way.
                await _pump.finish(pump)
        finally:
            if pump is not None:
                await _pump.stop(pump)

    def attach(self) -> _native.Runtime:
        """Has agents run on the running loop, unless another open loop has them."""
        self._port.adopt(asyncio.get_running_loop())
        if not self._attached:
            self._plug_in()
            self._attached = True
            self._registrations.clear()
        return self._native

    def _plug_in(self) -> None:
        """Before the first session, so that none is served without."""
        port = self._port.native
        if self.policy is not same_principal:
            self._native.set_policy(port)
        if self.credential_provisioner is not None:
            self._native.set_provisioner(port, self.revocation_log is not None)
        if self.event_log is not None and not isinstance(self.event_log, SqliteEventLog):
            self._native.set_event_log(port)

    def policy_changed(self) -> None:
        """Says that the policy's answers may have changed: subscriptions it no longer allows end (R-7.6.24).

        It is asked anew about each of them, and those it refuses are told nothing more. Requests are decided when they
        are made, so nothing else has to be told.
        """
        if self._attached:
            self._native.policy_changed()

    async def serve_metrics(self, address: str) -> str:
        """Serves `/metrics` (Prometheus), `/health` and `/ready` over HTTP at `HOST:PORT`, until the process ends.

        Gives the URL of the metrics; port 0 takes a free one. `ConnectionError` when the address cannot be had.
        """
        url: str = json.loads(await port().call(self._native.serve_metrics, expect("address", address, str)))
        return url

    def audit_to(self, path: str | os.PathLike[str]) -> None:
        """Appends who did what, and what was refused, to this file, one JSON object per line (R-14.5).

        `ValueError` when it cannot be appended to. Call it before the first session.
        """
        audit = _path(path, "path")
        self._ask_core(lambda native: native.set_audit(audit))

    async def close(self, *, reason: str = "runtime.close", grace_sec: float = 5.0) -> None:
        """Cancels every job, gives agents up to `grace_sec` to end, and says `session.bye` everywhere.

        Sessions and jobs of a `db` can be taken up by the runtime that opens it next. Idempotent.
        """
        await port().call(self._native.shutdown, reason, grace_sec)
        for verifying in self._verifying:
            verifying.cancel()
        if self.event_log is not None and not self._closed:
            self._closed = True
            await port().call(self._native.flush_event_log, EVENT_LOG_END_SEC)
            await self.event_log.close()
        if not self._running:
            self._port.release()

    def _handle(self, item: tuple[Any, ...]) -> None:
        if item[0] == "invoke":
            invocation = item[1]
            reference = invocation.agent_ref
            run = Run(self, invocation, JobContext(invocation, self, self._port))
            self._running[run.number] = run
            run.start(self._agents[reference], on_loop=reference in self._coroutines)
            return
        match item:
            case ("cancel", number, _, _) if number in self._running:
                self._running[number].cancel()
            case ("abandoned", number) if number in self._running:
                self._running[number].abandon()
            case ("verify", request):
                self._start(self._verify(request), self._verifying)
            case ("ask", request):
                self._start(self._plugged.answer(request), self._answering)

    def _start(self, answer: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.get_running_loop().create_task(answer)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _verify(self, request: _native.VerifyRequest) -> None:
        try:
            identity = await self.bearer.verify(request.token)
            principal = expect("the principal a bearer verifier gives", identity.principal, str)
            if not principal:
                # Everyone without a name would see the jobs of the others.
                raise ValueError("the principal a bearer verifier gives must not be empty")
            request.accept(principal, list(getattr(identity, "scopes", ())))
        except UnauthenticatedError as error:
            request.refuse(error.code, error.message, error.retryable)
        except Exception as error:
            self.logger.error("the bearer verifier failed", exc_info=without_secrets(error, [request.token]))
            request.refuse("INTERNAL_ERROR", "the token could not be verified", True)


def _path(value: Any, name: str = "db") -> str:
    path: object = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        raise TypeError(f"{name} must be a path as text, got {type(path).__name__}")
    return path
