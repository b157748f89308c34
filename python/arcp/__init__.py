"""ARCP: find AI agents and run them.

`ARCPClient` finds agents in a registry, opens a session with a runtime, submits jobs and follows their events;
`ARCPRuntime` hosts agents.
Names are loaded on first use, so that importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import arcp._interpreter  # pyright: ignore[reportUnusedImport]  # noqa: F401  (before the core is loaded)
from arcp._native import IMPL_VERSION, PROTOCOL_VERSION

if TYPE_CHECKING:
    from arcp.client import ARCPClient, RegistryClient, RuntimeClient
    from arcp.credentials import Credential, CredentialConstraints
    from arcp.errors import (
        ERROR_CODES,
        AgentNotAvailableError,
        AgentVersionNotAvailableError,
        ARCPCancelledError,
        ARCPConnectionError,
        ARCPError,
        ARCPTimeoutError,
        BudgetExhaustedError,
        CancelledError,
        ConnectionError,
        DuplicateKeyError,
        HeartbeatLostError,
        InternalError,
        InvalidRequestError,
        JobNotFoundError,
        LeaseExpiredError,
        LeaseSubsetViolationError,
        PermissionDeniedError,
        ResumeWindowExpiredError,
        TimeoutError,
        TransportClosed,
        UnauthenticatedError,
        error_class_for,
        error_from_payload,
    )
    from arcp.lease import Lease, parse_budget_amount
    from arcp.messages import (
        Capabilities,
        ClientInfo,
        CredentialConstraintsPayload,
        CredentialPayload,
        Envelope,
        LeaseConstraints,
        ListJobsFilter,
        RuntimeInfo,
        SessionResume,
        SessionWelcomePayload,
    )
    from arcp.negotiation import V1_1_FEATURES, intersect_features, parse_agent_ref
    from arcp.registry.errors import (
        AgentNotFoundError,
        AgentRegistrationError,
        ARCPException,
        AuthenticationError,
        ConfigurationError,
        RegistrationError,
        SearchError,
        TokenValidationError,
        VectorSearchError,
    )
    from arcp.registry.models import (
        AgentConnectionRequest,
        AgentInfo,
        AgentMetrics,
        AgentRegistration,
        AgentRequirements,
        SearchRequest,
        SearchResponse,
        ValidationError,
    )
    from arcp.registry.server import get_app
    from arcp.runtime import ARCPRuntime
    from arcp.transport import (
        MemoryTransport,
        StdioTransport,
        Transport,
        WebSocketTransport,
        pair_memory_transports,
        serve_websocket,
    )

__version__ = IMPL_VERSION
"""The version of this package."""

__all__ = [
    "ERROR_CODES",
    "IMPL_VERSION",
    "PROTOCOL_VERSION",
    "V1_1_FEATURES",
    "ARCPCancelledError",
    "ARCPClient",
    "ARCPConnectionError",
    "ARCPError",
    "ARCPException",
    "ARCPRuntime",
    "ARCPTimeoutError",
    "AgentConnectionRequest",
    "AgentInfo",
    "AgentMetrics",
    "AgentNotAvailableError",
    "AgentNotFoundError",
    "AgentRegistration",
    "AgentRegistrationError",
    "AgentRequirements",
    "AgentVersionNotAvailableError",
    "AuthenticationError",
    "BudgetExhaustedError",
    "CancelledError",
    "Capabilities",
    "ClientInfo",
    "ConfigurationError",
    "ConnectionError",
    "Credential",
    "CredentialConstraints",
    "CredentialConstraintsPayload",
    "CredentialPayload",
    "DuplicateKeyError",
    "Envelope",
    "HeartbeatLostError",
    "InternalError",
    "InvalidRequestError",
    "JobNotFoundError",
    "Lease",
    "LeaseConstraints",
    "LeaseExpiredError",
    "LeaseSubsetViolationError",
    "ListJobsFilter",
    "MemoryTransport",
    "PermissionDeniedError",
    "RegistrationError",
    "RegistryClient",
    "ResumeWindowExpiredError",
    "RuntimeClient",
    "RuntimeInfo",
    "SearchError",
    "SearchRequest",
    "SearchResponse",
    "SessionResume",
    "SessionWelcomePayload",
    "StdioTransport",
    "TimeoutError",
    "TokenValidationError",
    "Transport",
    "TransportClosed",
    "UnauthenticatedError",
    "ValidationError",
    "VectorSearchError",
    "WebSocketTransport",
    "__version__",
    "error_class_for",
    "error_from_payload",
    "get_app",
    "intersect_features",
    "pair_memory_transports",
    "parse_agent_ref",
    "parse_budget_amount",
    "serve_websocket",
]

# Searched in this order; the first that offers a name gives it. Those that need pydantic come last.
_MODULES = (
    "errors",
    "registry.errors",
    "lease",
    "negotiation",
    "transport",
    "registry.server",
    "messages",
    "registry.models",
    "client",
    "credentials",
    "runtime",
)

# Offered beside `__all__`, as the registry's own package has it.
_UNLISTED = ("get_client",)


def __getattr__(name: str) -> Any:
    if name in __all__ or name in _UNLISTED:
        for module in _MODULES:
            found = import_module(f"arcp.{module}")
            if name in found.__all__:
                globals()[name] = value = getattr(found, name)
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
