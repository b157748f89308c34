"""Registries of agents: who is there, what they can do, and how to reach them.

`RegistryClient` speaks to one; `arcp.ARCPClient` with a `base_url` is one too. Names are loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arcp.registry.client import RegistryClient
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
        ConfigField,
        OptionalConfigField,
        SearchRequest,
        SearchResponse,
        ValidationError,
    )
    from arcp.registry.monitor import MetricsSnapshot, get_system_health, monitor_system
    from arcp.registry.socket import RegistryStream

__all__ = [
    "ARCPException",
    "AgentConnectionRequest",
    "AgentInfo",
    "AgentMetrics",
    "AgentNotFoundError",
    "AgentRegistration",
    "AgentRegistrationError",
    "AgentRequirements",
    "AuthenticationError",
    "ConfigField",
    "ConfigurationError",
    "MetricsSnapshot",
    "OptionalConfigField",
    "RegistrationError",
    "RegistryClient",
    "RegistryStream",
    "SearchError",
    "SearchRequest",
    "SearchResponse",
    "TokenValidationError",
    "ValidationError",
    "VectorSearchError",
    "get_system_health",
    "monitor_system",
]

# Searched in this order; the first that offers a name gives it.
_MODULES = ("errors", "models", "socket", "monitor", "client")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            found = import_module(f"arcp.registry.{module}")
            if name in found.__all__:
                globals()[name] = value = getattr(found, name)
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
