"""The runtime half of the client: one session with a runtime, its jobs and their events."""

import asyncio
import inspect
import logging
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast, overload

from pydantic import BaseModel
from typing_extensions import TypeVar

from arcp import _native, _pump
from arcp._check import expect, expect_optional, expect_range, expect_seconds, expect_token
from arcp._job import JobHandle, JobSubscription, ask, session_errors
from arcp._json import loads_decimal
from arcp._port import Port, port
from arcp._port import logger as default_logger
from arcp.errors import InvalidRequestError
from arcp.lease import Lease
from arcp.messages import (
    Capabilities,
    ClientInfo,
    JobResultPayload,
    JobSubscribedPayload,
    LeaseConstraints,
    ListJobsFilter,
    SessionJobsPayload,
    SessionResume,
    SessionWelcomePayload,
)
from arcp.negotiation import V1_1_FEATURES
from arcp.transport import Transport, pair_with_core

Token = str | Callable[[], str | Awaitable[str]]

T = TypeVar("T", default=Any)

_NOTHING = (None,) * 6
_PLAIN = frozenset({dict, list, str, int, float, bool, type(None)})


@dataclass(frozen=True, slots=True)
class ReconnectOptions:
    """How a lost link is made anew: after random waits, below a limit that doubles with every attempt.

    The limit begins at `initial_sec` and ends at `max_sec`. `give_up_after_sec` counts from the loss; `None` tries for
    ever.
    """

    initial_sec: float = 0.1
    max_sec: float = 5.0
    give_up_after_sec: float | None = 900.0


@dataclass(frozen=True, slots=True)
class AutoAckOptions:
    """Turns acknowledgements on. The core paces them by what the application has taken, at most every 250 ms.

    The members are taken for the sake of older programs and change nothing.
    """

    every_n: int = 100
    interval_sec: float = 1.0
    every_sec: float | None = None


class RuntimeClient:
    """One session with a runtime. Usable as `async with`, which closes it."""

    logger: logging.Logger
    """Where the client says what went wrong."""

    # What a client without a runtime shows.
    _welcome: SessionWelcomePayload | None = None
    _negotiated: tuple[str, ...] = ()
    _opening: bool = False
    _tracing: Any = None
    """That of a traced transport."""

    def __init__(
        self,
        *,
        client: ClientInfo,
        token: Token,
        capabilities: Capabilities | None = None,
        features: Sequence[str] | None = None,
        auto_ack: AutoAckOptions | bool | None = None,
        handshake_timeout_sec: float = 5.0,
        reconnect: ReconnectOptions | bool = True,
        max_result_bytes: int | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        """A client that is not connected.

        `token` may be a callable, async or not, asked at each connection. `features` default to the nine of version
        1.1; those of `capabilities` take precedence. `auto_ack` acknowledges events as they are taken; `None` means on.
        A link that is lost is made anew and the session goes on, unless `reconnect` is `False` or the transport was not
        made by `WebSocketTransport.connect` (D-7). `max_result_bytes` bounds the streamed results that `collect_chunks`
        puts together (64 MiB). `ValueError` for an option that is wrong.
        """
        if not (isinstance(token, str) or callable(token)):
            raise TypeError(f"token must be a text or a callable that gives one, got {type(token).__name__}")
        if isinstance(token, str):
            expect_token(token)
        expect("client", client, ClientInfo)
        expect_optional("capabilities", capabilities, Capabilities)
        if isinstance(features, str):
            raise TypeError('features must be a list of names, got a text; write ["progress"]')
        if features is not None and not isinstance(features, Iterable):
            raise TypeError(f"features must be a list of names, got {type(features).__name__}")
        if capabilities is not None and "features" in capabilities.model_fields_set:
            features = capabilities.features
        self._features = V1_1_FEATURES if features is None else tuple(features)
        for number, feature in enumerate(self._features):
            expect(f"features[{number}]", feature, str)
        self._options = _native.encode(
            {
                "name": client.name,
                "version": client.version,
                "features": self._features,
                "handshake_timeout_sec": expect_seconds("handshake_timeout_sec", handshake_timeout_sec),
                "auto_ack": auto_ack is not False,
                "reconnect": _reconnect_options(reconnect),
                "max_result_bytes": expect_range("max_result_bytes", max_result_bytes, 0, 2**53),
            },
            "options",
        )
        self._native = _native.Client(self._options)
        self._pump: asyncio.Task[None] | None = None
        self.logger = default_logger if logger is None else logger
        self._tokens: str | _Tokens
        if isinstance(token, str):
            self._tokens = token
        else:
            self._tokens = _Tokens(token, self.logger, handshake_timeout_sec)
            # The loop that is asked must not keep a forgotten client's session open.
            weakref.finalize(self, self._tokens.port.release).atexit = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} session_id={self.session_id!r}>"

    async def connect(self, transport: Transport) -> SessionWelcomePayload:
        """Shakes hands and begins to read (R-6.2).

        Uses the transport up. Raises the runtime's error when it refuses, such as `UnauthenticatedError`; the builtin
        `TimeoutError` after `handshake_timeout_sec`; `TransportClosed` when the connection ends first. A client that
        failed to connect can be connected again over another transport.
        """
        return await self._open(transport, None)

    async def resume(self, transport: Transport, *, resume: SessionResume) -> SessionWelcomePayload:
        """Shakes hands and takes up the session of an earlier client, with its jobs and subscriptions (R-6.3).

        `latest_event_seq` begins at the number presented; `job` gives handles for what comes behind it. The token of
        the welcome takes the place of the one presented. `ResumeWindowExpiredError` when the session, or what is behind
        that number, is not kept any more, and for a token that is not its last or a session of another principal; a
        refusal changes nothing. Else as `connect`.
        """
        if not isinstance(resume, SessionResume):
            raise TypeError(f"resume must be a SessionResume, got {type(resume).__name__}")
        request = {
            "session_id": resume.session_id,
            "resume_token": resume.resume_token,
            "last_event_seq": resume.last_event_seq,
        }
        return await self._open(transport, _native.encode(request, "resume"))

    async def _open(self, transport: Transport, resume: str | None) -> SessionWelcomePayload:
        if self._opening:
            # Else the failure of the second would take down the first.
            raise InvalidRequestError("another connect of this client is under way; await it, or make a new client")
        self._opening = True
        try:
            return await self._shake_hands(transport, resume)
        finally:
            self._opening = False

    async def _shake_hands(self, transport: Transport, resume: str | None) -> SessionWelcomePayload:
        native, connect = self._native, self._native.connect
        tokens = self._tokens
        token: str | _native.Port
        if isinstance(tokens, _Tokens):
            tokens.port.adopt(asyncio.get_running_loop())
            token = tokens.port.native
        else:
            token = tokens
        handle, pump = pair_with_core(transport)
        try:
            welcome = await ask(connect, handle, token, resume)
        except BaseException:
            if self._welcome is None:
                self._native = _native.Client(self._options)
            if isinstance(tokens, _Tokens):
                tokens.stop()
            if pump is not None:
                await _pump.stop(pump)
            if isinstance(tokens, _Tokens) and tokens.failure is not None:
                raise tokens.failure from None
            raise
        self._pump = pump
        self._tracing = getattr(transport, "_tracing", None)
        self._welcome = SessionWelcomePayload.model_validate_json(welcome)
        self._negotiated = tuple(name for name in self._features if native.has_feature(name))
        return self._welcome

    @overload
    async def submit(
        self,
        *,
        agent: str,
        input: Any = None,
        lease_request: Lease | None = None,
        lease_constraints: LeaseConstraints | None = None,
        idempotency_key: str | None = None,
        max_runtime_sec: int | None = None,
        trace_id: str | None = None,
        parent_job_id: str | None = None,
        result_type: None = None,
    ) -> "JobHandle[Any]": ...
    @overload
    async def submit(
        self,
        *,
        agent: str,
        input: Any = None,
        lease_request: Lease | None = None,
        lease_constraints: LeaseConstraints | None = None,
        idempotency_key: str | None = None,
        max_runtime_sec: int | None = None,
        trace_id: str | None = None,
        parent_job_id: str | None = None,
        result_type: type[T],
    ) -> "JobHandle[T]": ...
    async def submit(
        self,
        *,
        agent: str,
        input: Any = None,
        lease_request: Lease | None = None,
        lease_constraints: LeaseConstraints | None = None,
        idempotency_key: str | None = None,
        max_runtime_sec: int | None = None,
        trace_id: str | None = None,
        parent_job_id: str | None = None,
        result_type: Any = None,
    ) -> "JobHandle[Any]":
        """Submits a job and returns once it is accepted (R-7.1).

        `agent` is `name` or `name@version`; `input` anything JSON has a form for, or a pydantic model. `result_type` is
        what the result is to be: a model, a dataclass, `list[int]`, whatever pydantic validates; the handle's `done`
        and `result` give that, or raise `pydantic.ValidationError`.

        Raises the refusal, such as `AgentNotAvailableError` or `DuplicateKeyError`; the builtin `TimeoutError` after
        30 s without an answer; `TransportClosed` without a session; `TypeError` or `ValueError` for an argument that
        cannot be sent.
        """
        expect("agent", agent, str)
        expect_optional("lease_constraints", lease_constraints, LeaseConstraints)
        if result_type is not None:
            # A type pydantic cannot validate is refused before a job runs for nothing.
            cast(Any, JobResultPayload)[result_type].model_rebuild(raise_errors=False)
        # The model's own check is slow.
        if type(input) not in _PLAIN and isinstance(input, BaseModel):
            input = input.model_dump(mode="json", by_alias=True)
        optional = (lease_request, lease_constraints, idempotency_key, max_runtime_sec, trace_id, parent_job_id)
        if optional == _NOTHING and self._tracing is None:
            return JobHandle(await ask(self._native.submit_plain, agent, input), result_type)
        request: dict[str, Any] = {"agent": agent, "input": input}
        given = {
            "lease_request": expect_optional("lease_request", lease_request, Mapping),
            "expires_at": None if lease_constraints is None else lease_constraints.expires_at,
            "idempotency_key": expect_optional("idempotency_key", idempotency_key, str),
            "max_runtime_sec": expect_range("max_runtime_sec", max_runtime_sec, 1, 86400),
            "trace_id": expect_optional("trace_id", trace_id, str),
            "parent_job_id": expect_optional("parent_job_id", parent_job_id, str),
        }
        if self._tracing is not None and trace_id is None and (place := self._tracing.current()) is not None:
            given |= {"traceparent": place[0], "tracestate": place[1]}
        request |= {name: value for name, value in given.items() if value is not None}
        job = await ask(self._native.submit, _native.encode(request, "submit"))
        return JobHandle(job, result_type)

    async def cancel_job(self, job_id: str, *, reason: str = "client.cancel") -> None:
        """Asks to cancel a job and returns at once; the job's own end tells what came of it (R-7.4)."""
        expect("job_id", job_id, str)
        expect("reason", reason, str)
        with session_errors():
            self._native.cancel_job(job_id, reason)

    async def subscribe(
        self, job_id: str, *, history: bool = False, from_event_seq: int | None = None
    ) -> "JobSubscription":
        """Follows a job of the same principal; with `history`, from its kept beginning or behind `from_event_seq`.

        `JobNotFoundError`, `PermissionDeniedError`; `InvalidRequestError` when `subscribe` was not negotiated (R-7.6).
        """
        request = {
            "job_id": expect("job_id", job_id, str),
            "history": bool(history),
            "from_event_seq": expect_range("from_event_seq", from_event_seq, 0, 2**53),
        }
        job = await ask(self._native.subscribe, _native.encode(request, "subscribe"))
        opening = JobSubscribedPayload.model_validate_json(job.opening)
        return JobSubscription(
            job_id=opening.job_id,
            request_id=opening.request_id,
            subscribed_from=opening.subscribed_from,
            replayed=opening.replayed,
            handle=JobHandle(job),
            status=opening.current_status,
        )

    async def list_jobs(
        self, *, filter: ListJobsFilter | None = None, limit: int | None = None, cursor: str | None = None
    ) -> SessionJobsPayload:
        """One page of the jobs this principal may see, the oldest first (R-6.6).

        `limit` is 1 to 1000, 100 when `None`; `cursor` is the `next_cursor` of the page before, under the same filter.
        `InvalidRequestError` for a bad cursor, or when `list_jobs` was not negotiated.
        """
        expect_optional("filter", filter, ListJobsFilter)
        request = {
            "filter": None if filter is None else filter.model_dump(include=set(ListJobsFilter.model_fields)),
            "limit": expect_range("limit", limit, 1, 2**53),
            "cursor": expect_optional("cursor", cursor, str),
        }
        jobs = await ask(self._native.list_jobs, _native.encode(request, "list_jobs"))
        return SessionJobsPayload.model_validate(loads_decimal(jobs))

    def job(self, job_id: str) -> "JobHandle[Any]":
        """A handle for a job of the session that `resume` took up: what came since, and what comes (D-24).

        `InvalidRequestError` for a client that took up none: keep the handle of `submit`, or subscribe.
        """
        with session_errors():
            return JobHandle(self._native.job(expect("job_id", job_id, str)))

    def jobs(self) -> tuple[str, ...]:
        """The ids of jobs this session knows of: those with handles, and after `resume` those something came for."""
        return tuple(self._native.jobs())

    async def unsubscribe(self, job_id: str) -> None:
        """Stops following a job. Silent when `subscribe` was not negotiated."""
        self._native.unsubscribe(expect("job_id", job_id, str))

    async def ack(self, last_processed_seq: int) -> None:
        """Acknowledges by hand, for a client with `auto_ack=False`. Silent when `ack` was not negotiated (R-6.5)."""
        expect("last_processed_seq", last_processed_seq, int)
        expect_range("last_processed_seq", last_processed_seq, 0, 2**53)
        self._native.ack(last_processed_seq)

    async def close(self, *, reason: str = "client.close") -> None:
        """Says `session.bye` and ends the connection, in bounded time whatever the peer does (R-6.7).

        Jobs go on; open handles raise `TransportClosed`. Idempotent.
        """
        await port().call(self._native.close, expect("reason", reason, str))
        if self._pump is not None:
            await _pump.finish(self._pump)
        if isinstance(self._tokens, _Tokens):
            self._tokens.stop()
            self._tokens.port.release()

    async def aclose(self) -> None:
        """As `close`, for `contextlib.aclosing`."""
        await self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def session_id(self) -> str | None:
        """The session, once connected."""
        return None if self._welcome is None else self._welcome.session_id

    @property
    def welcome(self) -> SessionWelcomePayload | None:
        """The runtime's answer to the hello, once connected."""
        return self._welcome

    @property
    def negotiated_features(self) -> tuple[str, ...]:
        """What both sides have, in the order asked for (R-6.2.3)."""
        return self._negotiated

    def has_feature(self, name: str) -> bool:
        """Whether a feature was negotiated."""
        return name in self._negotiated

    @property
    def latest_event_seq(self) -> int:
        """The highest `event_seq` received."""
        return self._native.latest_event_seq()


class _Tokens:
    """Gives a client's token whenever it connects, from a callable that is asked on the client's loop."""

    def __init__(self, ask: Callable[[], str | Awaitable[str]], logger: logging.Logger, patience_sec: float) -> None:
        self._ask = ask
        self._logger = logger
        self._patience_sec = patience_sec
        self._tasks: set[asyncio.Task[None]] = set()
        # What the callable raised last.
        self.failure: Exception | None = None
        self.port = Port(self._handle)

    def _handle(self, item: tuple[Any, ...]) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(item[1]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        """Waits for no token any more."""
        for task in self._tasks:
            task.cancel()

    async def _answer(self, request: _native.TokenRequest) -> None:
        try:
            async with asyncio.timeout(self._patience_sec):
                request.give(await self._token())
            self.failure = None
        except TimeoutError:
            self.failure = TimeoutError(f"the token's callable gave no token within {self._patience_sec} s")
            request.refuse(str(self.failure))
        except Exception as error:
            self.failure = error
            self._logger.warning("the token's callable failed", exc_info=True)
            # Its text may hold what it should not.
            request.refuse(f"the token's callable raised {type(error).__name__}")
        except asyncio.CancelledError:
            request.refuse("the token's callable was cancelled")
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise

    async def _token(self) -> str:
        token: object = self._ask()
        if inspect.isawaitable(token):
            token = await token
        if not isinstance(token, str):
            raise TypeError(f"the token's callable must give a text, gave {type(token).__name__}")
        return expect_token(token)


def _reconnect_options(reconnect: ReconnectOptions | bool) -> dict[str, Any] | bool:
    if isinstance(reconnect, bool):
        return reconnect
    if not isinstance(reconnect, ReconnectOptions):
        raise TypeError(f"reconnect must be a bool or ReconnectOptions, got {type(reconnect).__name__}")
    give_up = reconnect.give_up_after_sec
    return {
        "initial_sec": expect_seconds("reconnect.initial_sec", reconnect.initial_sec),
        "max_sec": expect_seconds("reconnect.max_sec", reconnect.max_sec),
        "give_up_after_sec": 0 if give_up is None else expect_seconds("reconnect.give_up_after_sec", give_up),
    }
