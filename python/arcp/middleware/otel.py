"""Traces what goes over a transport with OpenTelemetry (R-11)."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from arcp import _native
from arcp._json import as_object
from arcp._port import logger
from arcp.middleware._host import require

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from arcp.transport import Transport

__all__ = ["OTEL_EXTENSION_KEY", "with_tracing"]

OTEL_EXTENSION_KEY = "x-vendor.opentelemetry.tracecontext"
"""The member of a message's `extensions` that carries `traceparent` and `tracestate` (R-11.5)."""

TRACER = "arcp.middleware.otel"
MAX_JOBS = 4096
"""How many jobs' places in a trace are remembered; beyond it the oldest are forgotten."""

SpanName = str | Callable[[Mapping[str, Any]], str]
Carrier = dict[str, str]


def with_tracing(
    inner: "Transport",
    *,
    tracer: "Tracer | None" = None,
    send_span_name: SpanName | None = None,
    recv_span_name: SpanName | None = None,
) -> "Transport":
    """A transport around `inner` that makes a span of every message, for `client.connect` or `runtime.accept`.

    Spans are `arcp.send <type>` (producer) and `arcp.recv <type>` (consumer, a child of what the message carries); a
    name of your own is a text, or a function of the message. Their attributes are `arcp.direction`, `arcp.type` and
    `arcp.id`, and where the message has them `arcp.session_id`, `arcp.job_id`, `arcp.trace_id`, `arcp.event_seq`,
    `arcp.agent`, `arcp.lease.capabilities`, `arcp.lease.expires_at` and `arcp.budget.remaining`.

    Everything a job says is in the trace of its submit, which is that of the span around `client.submit`; an agent of a
    runtime with a traced transport runs in it too, so spans of its own are children of `arcp.recv job.submit`. A peer
    without tracing is not disturbed, and a tracer that fails disturbs no message (R-11.7).

    `tracer` defaults to the global provider's. `ModuleNotFoundError` without the package `opentelemetry-api`.
    """
    tracing = _Tracing(tracer)
    if not all(hasattr(inner, name) for name in ("send", "recv", "close", "is_closed")):
        raise TypeError(f"inner must be a transport, got {type(inner).__name__}")
    if tracer is not None and not hasattr(tracer, "start_span"):
        raise TypeError(f"tracer must be a tracer of OpenTelemetry, got {type(tracer).__name__}")
    return _Traced(inner, tracing, _namer("send", send_span_name), _namer("recv", recv_span_name))


def _namer(direction: str, name: SpanName | None) -> Callable[[Mapping[str, Any]], str]:
    if name is None:
        return lambda message: f"arcp.{direction} {message.get('type')}"
    if isinstance(name, str):
        return lambda _: name
    if not callable(name):
        raise TypeError(f"{direction}_span_name must be a text or a function of the message, got {type(name).__name__}")
    return name


class _Tracing:
    """The parts of OpenTelemetry that are used, and where jobs are in their traces."""

    def __init__(self, tracer: "Tracer | None") -> None:
        self._trace = require("opentelemetry.trace", "opentelemetry-api", TRACER)
        self._context = require("opentelemetry.context", "opentelemetry-api", TRACER)
        propagation = require("opentelemetry.trace.propagation.tracecontext", "opentelemetry-api", TRACER)
        self._propagator = propagation.TraceContextTextMapPropagator()
        self._tracer: Tracer = self._trace.get_tracer(TRACER) if tracer is None else tracer
        # Of submits that were not accepted yet by message id, of jobs by theirs.
        self._jobs: OrderedDict[str, Context] = OrderedDict()
        self._failed = False

    def current(self) -> tuple[str, str | None] | None:
        """Where the caller is in a trace: `traceparent` and `tracestate`."""
        try:
            carrier = self._carrier(None)
        except Exception as error:
            self._fail(error)
            return None
        return (carrier["traceparent"], carrier.get("tracestate")) if "traceparent" in carrier else None

    def enter(self, place: tuple[str, str | None] | None) -> None:
        """Has the running task go on from that place in a trace."""
        if place is not None:
            try:
                carrier = {"traceparent": place[0]} | ({} if place[1] is None else {"tracestate": place[1]})
                self._context.attach(self._propagator.extract(carrier))
            except Exception as error:
                self._fail(error)

    def begin(
        self, direction: str, name: Callable[[Mapping[str, Any]], str], message: dict[str, Any]
    ) -> "tuple[Span | None, dict[str, Any]]":
        """The span of a message, and the message that carries it on."""
        try:
            kind = self._trace.SpanKind.PRODUCER if direction == "out" else self._trace.SpanKind.CONSUMER
            attributes = {"arcp.direction": direction} | _attributes(message)
            span = self._tracer.start_span(name(message), self._parent(message), kind, attributes)
            within: Context = self._trace.set_span_in_context(span)
            self._remember(message, within)
            carrier = self._carrier(within)
            if carrier:
                extensions = dict(as_object(message.get("extensions")) or {})
                message = message | {"extensions": extensions | {OTEL_EXTENSION_KEY: carrier}}
        except Exception as error:
            self._fail(error)
            return None, message
        return span, message

    def end(self, span: "Span | None", failure: BaseException | None = None) -> None:
        if span is not None:
            try:
                if failure is not None:
                    span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, type(failure).__name__))
                span.end()
            except Exception as error:
                self._fail(error)

    def _parent(self, message: dict[str, Any]) -> "Context | None":
        carried = _member(message, "extensions", OTEL_EXTENSION_KEY)
        if isinstance(carried, dict):
            # What is malformed is passed over, and then there is no span in what comes out.
            context: Context = self._propagator.extract(carried, context=self._context.Context())
            if self._trace.get_current_span(context).get_span_context().is_valid:
                return context
        payload = message.get("payload")
        for key in (message.get("job_id"), _member(payload, "request_id"), _member(payload, "parent_job_id")):
            if isinstance(key, str) and key in self._jobs:
                return self._jobs[key]
        return None

    def _remember(self, message: dict[str, Any], within: "Context") -> None:
        kind, job_id = message.get("type"), message.get("job_id")
        if kind == "job.submit" and isinstance(message.get("id"), str):
            self._jobs[message["id"]] = within
        elif kind == "job.accepted" and isinstance(job_id, str):
            self._jobs[job_id] = self._jobs.pop(str(_member(message, "payload", "request_id")), within)
        elif kind in ("job.result", "job.error"):
            self._jobs.pop(str(job_id), None)
        while len(self._jobs) > MAX_JOBS:
            self._jobs.popitem(last=False)

    def _carrier(self, context: "Context | None") -> Carrier:
        carrier: Carrier = {}
        self._propagator.inject(carrier, context=context)
        return carrier

    def _fail(self, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            logger.warning("messages are sent without tracing: %s", type(error).__name__, exc_info=error)


class _Traced:
    """A transport around another."""

    def __init__(
        self,
        inner: "Transport",
        tracing: _Tracing,
        send_name: Callable[[Mapping[str, Any]], str],
        recv_name: Callable[[Mapping[str, Any]], str],
    ) -> None:
        self._inner = inner
        # Also what a client and a runtime look for, to have submits and agents join in.
        self._tracing = tracing
        self._send_name = send_name
        self._recv_name = recv_name

    async def send(self, message: dict[str, Any]) -> None:
        span, message = self._tracing.begin("out", self._send_name, message)
        try:
            await self._inner.send(message)
        except BaseException as error:
            self._tracing.end(span, error)
            raise
        self._tracing.end(span)

    async def recv(self) -> dict[str, Any]:
        message = await self._inner.recv()
        span, message = self._tracing.begin("in", self._recv_name, message)
        self._tracing.end(span)
        return message

    async def close(self) -> None:
        await self._inner.close()

    @property
    def is_closed(self) -> bool:
        return self._inner.is_closed

    @property
    def is_private(self) -> bool:
        return getattr(self._inner, "is_private", False) is True


def _attributes(message: dict[str, Any]) -> dict[str, Any]:
    """What may be shown of a message: never a token, a credential or a payload (R-14.11)."""
    found: dict[str, Any] = {}
    for name in ("type", "id", "session_id", "job_id", "trace_id", "event_seq"):
        if isinstance(value := message.get(name), str | int):
            found[f"arcp.{name}"] = value
    if isinstance(agent := _member(message, "payload", "agent"), str):
        found["arcp.agent"] = agent
    lease = as_object(_member(message, "payload", "lease_request" if message.get("type") == "job.submit" else "lease"))
    if lease:
        found["arcp.lease.capabilities"] = ",".join(sorted(lease))
    if isinstance(expires_at := _member(message, "payload", "lease_constraints", "expires_at"), str):
        found["arcp.lease.expires_at"] = expires_at
    budget = as_object(_member(message, "payload", "budget"))
    body = as_object(_member(message, "payload", "body"))
    if body is not None and body.get("name") == "cost.budget.remaining":
        budget = {str(body.get("unit")): body.get("value")}
    if budget:
        found["arcp.budget.remaining"] = _native.encode(budget, "budget")
    return found


def _member(message: Any, *path: str) -> Any:
    value = message
    for name in path:
        value = (as_object(value) or {}).get(name)
    return value
