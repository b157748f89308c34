"""Errors: the fifteen codes of the protocol (R-12.1), and the failures of this side of the wire.

A registry's errors are in `arcp.registry.errors`; they derive from `ARCPError` too.
"""

import builtins
import json
from collections.abc import Mapping
from typing import Any

from arcp import _native

__all__ = [
    "ERROR_CODES",
    "ARCPCancelledError",
    "ARCPConnectionError",
    "ARCPError",
    "ARCPTimeoutError",
    "AgentNotAvailableError",
    "AgentVersionNotAvailableError",
    "BudgetExhaustedError",
    "CancelledError",
    "ConnectionError",
    "DuplicateKeyError",
    "HeartbeatLostError",
    "InternalError",
    "InvalidRequestError",
    "JobNotFoundError",
    "LeaseExpiredError",
    "LeaseSubsetViolationError",
    "PermissionDeniedError",
    "ResumeWindowExpiredError",
    "TimeoutError",
    "TransportClosed",
    "UnauthenticatedError",
    "error_class_for",
    "error_from_payload",
]


class ARCPError(Exception):
    """An error with a code of the protocol. An agent that raises one ends its job with exactly that error. Pickles."""

    code: str = "INTERNAL_ERROR"
    """The protocol's name for it. Of an instance it may be one this version does not know (R-12.5)."""
    default_retryable: bool = False
    """What `retryable` is unless it is said."""
    message: str
    """What happened, for people."""
    retryable: bool
    """Whether the same request may succeed later."""
    details: dict[str, Any] | None
    """More about it, as JSON values."""
    status: int | None = None
    """The HTTP status a registry answered with; `None` for everything else."""

    def __init__(
        self,
        message: str = "",
        details: dict[str, Any] | None = None,
        *,
        retryable: bool | None = None,
        code: str | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = self.default_retryable if retryable is None else retryable
        self.details = details
        if status is not None:
            self.status = status
        if code is not None and code != type(self).code:
            # A code this version does not know keeps its text.
            self.code = code

    @property
    def status_code(self) -> int | None:
        """The same as `status`, by the name HTTP libraries have for it."""
        return self.status

    def to_payload(self) -> dict[str, Any]:
        """As `job.error` and `tool_result` carry it: `code`, `message`, `retryable`, and `details` if there are any."""
        payload: dict[str, Any] = {"code": self.code, "message": self.message, "retryable": self.retryable}
        if self.details is not None:
            payload["details"] = self.details
        return payload

    def __reduce__(self) -> tuple[Any, ...]:
        # Without `__init__`, whose arguments a class of one's own may name otherwise.
        return _rebuild, (type(self), self.args), dict(vars(self))

    def __str__(self) -> str:
        return self.message or self.code


def _rebuild(cls: type[ARCPError], args: tuple[Any, ...]) -> ARCPError:
    error = cls.__new__(cls, *args)
    # What builtin classes among the bases take away.
    error.args = args
    return error


class PermissionDeniedError(ARCPError):
    """The lease, or a policy, does not cover the operation."""

    code = "PERMISSION_DENIED"


class LeaseSubsetViolationError(ARCPError):
    """A delegation asked for more than its parent holds."""

    code = "LEASE_SUBSET_VIOLATION"


class JobNotFoundError(ARCPError):
    """No such job, or none this principal may know of."""

    code = "JOB_NOT_FOUND"


class DuplicateKeyError(ARCPError):
    """The idempotency key was used for another request."""

    code = "DUPLICATE_KEY"


class AgentNotAvailableError(ARCPError):
    """The runtime hosts no agent of this name."""

    code = "AGENT_NOT_AVAILABLE"


class AgentVersionNotAvailableError(ARCPError):
    """The runtime hosts the agent, but not this version."""

    code = "AGENT_VERSION_NOT_AVAILABLE"


class CancelledError(ARCPError):
    """The job was cancelled: raised by `handle.done`. The agent itself sees `asyncio.CancelledError`."""

    code = "CANCELLED"


class TimeoutError(ARCPError):
    """The job ran longer than it may. A wait that ran out on this side raises the builtin `TimeoutError` instead."""

    code = "TIMEOUT"
    default_retryable = True


class ResumeWindowExpiredError(ARCPError):
    """The session can no longer be resumed from there."""

    code = "RESUME_WINDOW_EXPIRED"


class HeartbeatLostError(ARCPError):
    """The peer fell silent."""

    code = "HEARTBEAT_LOST"
    default_retryable = True


class LeaseExpiredError(ARCPError):
    """The lease has ended."""

    code = "LEASE_EXPIRED"


class BudgetExhaustedError(ARCPError):
    """The lease's money is spent."""

    code = "BUDGET_EXHAUSTED"


class InvalidRequestError(ARCPError):
    """The request breaks a rule; the message names the member at fault."""

    code = "INVALID_REQUEST"


class UnauthenticatedError(ARCPError):
    """The token is not valid."""

    code = "UNAUTHENTICATED"


class InternalError(ARCPError):
    """The agent or the runtime failed. Also stands for codes this version does not know; `code` keeps their text."""

    code = "INTERNAL_ERROR"
    default_retryable = True


class ConnectionError(ARCPError, builtins.ConnectionError):
    """No connection could be made. Also a builtin `ConnectionError`, and so an `OSError`."""

    code = "TRANSPORT"
    default_retryable = True


class TransportClosed(Exception):
    """The transport or session is over. Not an `ARCPError`: no peer sends it (R-12.9).

    `lost` says that the connection was lost, where it was not closed by either side.
    """

    def __init__(self, message: str = "the transport is closed", *, lost: bool = False) -> None:
        super().__init__(message)
        self.lost = lost


# Names that shadow no builtin.
ARCPCancelledError = CancelledError
ARCPConnectionError = ConnectionError
ARCPTimeoutError = TimeoutError

_CLASSES = {
    cls.code: cls
    for cls in (
        PermissionDeniedError,
        LeaseSubsetViolationError,
        JobNotFoundError,
        DuplicateKeyError,
        AgentNotAvailableError,
        AgentVersionNotAvailableError,
        CancelledError,
        TimeoutError,
        ResumeWindowExpiredError,
        HeartbeatLostError,
        LeaseExpiredError,
        BudgetExhaustedError,
        InvalidRequestError,
        UnauthenticatedError,
        InternalError,
    )
}

ERROR_CODES: tuple[str, ...] = tuple(_CLASSES)
"""The fifteen codes, in the order of the taxonomy."""


def error_class_for(code: str) -> type[ARCPError]:
    """The class of a code; `InternalError` for one this version does not know.

    >>> error_class_for("DUPLICATE_KEY")
    <class 'arcp.errors.DuplicateKeyError'>
    """
    return _CLASSES.get(code, InternalError)


def error_from_payload(payload: Mapping[str, Any]) -> ARCPError:
    """The exception for the payload of a `session.error` or `job.error`, or a `tool_result`'s `error`.

    A pinned `retryable` is corrected (R-12.2). `InvalidRequestError` when the payload is malformed.

    >>> error_from_payload({"code": "ACME_QUOTA", "message": "later", "retryable": True}).code
    'ACME_QUOTA'
    """
    arguments = _native.encode({"payload": payload}, "payload")
    read = json.loads(_native.call_function("error_from_payload", arguments))
    code = read["code"]
    return error_class_for(code)(read["message"], retryable=read["retryable"], details=read["details"], code=code)


def _details(text: str | None) -> dict[str, Any] | None:
    """An error's details. What Python cannot hold, such as a number of thousands of digits, stays text."""
    if text is None:
        return None
    try:
        parsed: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        return {"json": text}
    return parsed


def _from_core(  # pyright: ignore[reportUnusedFunction]
    kind: str, code: str, message: str, retryable: bool, details: str | None
) -> Exception:
    """The exception for a failure of the core; called from there."""
    match kind:
        case "protocol":
            return error_class_for(code)(message, retryable=retryable, details=_details(details), code=code)
        case "closed":
            return TransportClosed(message)
        case "timeout":
            return builtins.TimeoutError(message)
        case "transport":
            return ConnectionError(message)
        case "argument":
            return ValueError(message)
        case "registry":
            # Loaded where a registry is spoken to already.
            from arcp.registry.errors import from_core

            return from_core(code, message, retryable, _details(details) or {})
        case _:
            return RuntimeError(message)
