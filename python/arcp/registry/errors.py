"""A registry's errors (REG-003, REG-023). All derive from `arcp.ARCPError`; `arcp.ConnectionError` is raised too.

`code` is the slug of the registry's problem document (REG-100), `status` its HTTP status (also as `status_code`),
`details` its other members; `errors` in them names each field that was refused. `__cause__` is what was behind it.
"""

import builtins
from typing import Any

from arcp.errors import ARCPError, ConnectionError

__all__ = [
    "ARCPException",
    "AgentNotFoundError",
    "AgentRegistrationError",
    "AuthenticationError",
    "ConfigurationError",
    "RegistrationError",
    "SearchError",
    "TokenValidationError",
    "VectorSearchError",
]

ARCPException = ARCPError
"""The root of the errors, by the name the registry's own package has for it."""


class AuthenticationError(ARCPError):
    """Not logged in, or not allowed to: statuses 401 and 403, and a login or token that was refused."""

    code = "authentication-failed"


class TokenValidationError(AuthenticationError):
    """The token presented is broken, expired, or of another registry."""

    code = "token-invalid"


class AgentRegistrationError(ARCPError):
    """An agent was not registered."""

    code = "agent-registration-failed"


class RegistrationError(AgentRegistrationError):
    """`register_agent` failed: the data is wrong, the agent is there already, or the registry refused it."""


class AgentNotFoundError(ARCPError):
    """The registry has no such agent, or none that is alive."""

    code = "agent-not-found"


class ConfigurationError(ARCPError):
    """The client or the registry is not set up for what was asked; the message names the setting."""

    code = "configuration-error"


class SearchError(ARCPError):
    """`search_agents` failed."""

    code = "search-failed"


class VectorSearchError(SearchError):
    """The registry cannot search by meaning at the moment."""

    code = "vector-search-unavailable"


# One failure is several things at once: whoever catches either name catches it.


class ConnectionTimeoutError(ConnectionError, builtins.TimeoutError):
    """The registry did not answer in time, counting all tries. Also a builtin `TimeoutError`."""


class AuthenticationConnectionError(AuthenticationError, ConnectionError):
    """A login that did not reach the registry."""

    code = ConnectionError.code


class AuthenticationTimeoutError(AuthenticationConnectionError, ConnectionTimeoutError):
    """A login that was not answered in time."""


class RegistrationAuthenticationError(RegistrationError, AuthenticationError):
    """An agent that was not registered because this client may not."""

    code = AuthenticationError.code


class RegistrationConnectionError(RegistrationError, ConnectionError):
    """An agent that was not registered because the registry was not reached."""

    code = ConnectionError.code


class RegistrationTimeoutError(RegistrationConnectionError, ConnectionTimeoutError):
    """A registration that was not answered in time; it may have been done."""


class SearchAuthenticationError(SearchError, AuthenticationError):
    """A search this client may not make."""

    code = AuthenticationError.code


class SearchConnectionError(SearchError, ConnectionError):
    """A search that did not reach the registry."""

    code = ConnectionError.code


class SearchTimeoutError(SearchConnectionError, ConnectionTimeoutError):
    """A search that was not answered in time."""


_OPERATIONS: dict[str, type[ARCPError]] = {
    "authentication": AuthenticationError,
    "registration": RegistrationError,
    "search": SearchError,
}

_JOINED: dict[tuple[type[ARCPError], type[ARCPError]], type[ARCPError]] = {
    (AuthenticationError, ConnectionError): AuthenticationConnectionError,
    (AuthenticationError, ConnectionTimeoutError): AuthenticationTimeoutError,
    (RegistrationError, AuthenticationError): RegistrationAuthenticationError,
    (RegistrationError, ConnectionError): RegistrationConnectionError,
    (RegistrationError, ConnectionTimeoutError): RegistrationTimeoutError,
    (SearchError, AuthenticationError): SearchAuthenticationError,
    (SearchError, ConnectionError): SearchConnectionError,
    (SearchError, ConnectionTimeoutError): SearchTimeoutError,
}

_BY_CODE: dict[str, type[ARCPError]] = {
    "token-invalid": TokenValidationError,
    "agent-not-found": AgentNotFoundError,
    "agent-not-available": AgentNotFoundError,
    "vector-search-unavailable": VectorSearchError,
}

_BY_KIND: dict[str, type[ARCPError]] = {
    "authentication": AuthenticationError,
    "forbidden": AuthenticationError,
    "connection": ConnectionError,
    "timeout": ConnectionTimeoutError,
}


# What a refusal without a slug is called.
_CODES = {
    "forbidden": "insufficient-permissions",
    "not_found": "not-found",
    "rate_limit": "rate-limit-exceeded",
    "server": "internal-error",
    "request": "request-error",
    "invalid": "validation-failed",
    "answer": "answer-not-understood",
}

_KEPT = ("kind", "retry_after", "problem", "errors")


def _joined(operation: type[ARCPError], failure: type[ARCPError]) -> type[ARCPError]:
    """The class that is what the operation raises, and what the failure is."""
    if issubclass(failure, operation):
        return failure
    for base in failure.__mro__:
        if (found := _JOINED.get((operation, base))) is not None:
            return found
    return operation


def from_core(code: str, message: str, retryable: bool, details: dict[str, Any]) -> ARCPError:
    """The exception for a failure of the core's client; `details` as `_native.RegistryHttp.call` says."""
    kind: str = details.get("kind", "")
    kept = {name: details[name] for name in _KEPT if details.get(name) is not None}
    if kind == "not_found" and not code and kept.get("problem", {}).get("status") == "error":
        # Members are told of a missing agent in a shape of its own (REG-102).
        code = AgentNotFoundError.code
    failure = _BY_CODE.get(code) or _BY_KIND.get(kind, ARCPError)
    cls = _joined(_OPERATIONS.get(details.get("area", ""), ARCPError), failure)
    code = code or _CODES.get(kind, failure.code)
    status: int | None = details.get("status")
    cause: str = details.get("cause") or message
    error = cls(message, kept, retryable=retryable, code=code, status=status)
    if kind == "invalid" and details.get("errors"):
        error.__cause__ = _invalid(cause, details["errors"])
    elif cause != message:
        error.__cause__ = failure(cause, kept, retryable=retryable, code=code, status=status)
    return error


def _invalid(title: str, faults: list[dict[str, Any]]) -> Exception:
    from arcp.registry._model import validation_error

    return validation_error(title, faults)
