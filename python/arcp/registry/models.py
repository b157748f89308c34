"""What is said to a registry and what it says (REG-070 to REG-077), as pydantic models.

Made by hand, a model checks every bound and raises `ValidationError` with a line for each fault. What a registry sends
is taken leniently: agents of any type, members that are missing, members of later versions.
"""

from datetime import datetime
from typing import Any, ClassVar

import pydantic
from pydantic import Field

from arcp.registry._model import Checked, Received, RegistryModel

__all__ = [
    "AgentConnectionRequest",
    "AgentInfo",
    "AgentMetrics",
    "AgentRegistration",
    "AgentRequirements",
    "ConfigField",
    "OptionalConfigField",
    "SearchRequest",
    "SearchResponse",
    "ValidationError",
]


ValidationError = pydantic.ValidationError
"""What a model raises for values out of bounds: pydantic's own (REG-004)."""


class ConfigField(RegistryModel):
    """One setting an agent asks its user for (REG-072)."""

    name: str
    """1 to 100 letters, digits, `_` and `-`."""
    label: str
    """What people see, 1 to 200 characters."""
    type: str
    """`text`, `select`, `multiselect`, `boolean`, `number`, `textarea` or `array`."""
    description: str | None = None
    """At most 1000 characters."""
    default_value: str | int | bool | list[str] | None = None
    """What it is unless the user says so."""
    options: list[str] | None = None
    """What there is to choose from: at most 50 texts of 200 characters."""
    validation: str | None = None
    """A regular expression of at most 500 characters."""
    placeholder: str | None = None
    """What an empty input shows, at most 300 characters."""


class OptionalConfigField(ConfigField):
    """A setting that may stay empty."""

    category: str | None = None
    """The group it is shown in, at most 100 characters."""


class AgentRequirements(Checked):
    """What an agent needs to run (REG-071)."""

    _kind: ClassVar[str] = "requirements"

    system_requirements: list[str] = Field(default_factory=list[str])
    """At most 50; entries longer than 200 characters are dropped."""
    permissions: list[str] = Field(default_factory=list[str])
    """At most 30; entries longer than 100 characters are dropped."""
    dependencies: list[str] = Field(default_factory=list[str])
    """At most 100; entries longer than 200 characters are dropped."""
    minimum_system_version: str | None = None
    """A dotted number with an optional suffix, at most 50 characters."""
    minimum_memory_mb: int | None = None
    """1 to 1048576 MB."""
    minimum_disk_space_mb: int | None = None
    """1 to 10485760 MB."""
    requires_internet: bool = True
    network_ports: list[str] = Field(default_factory=list[str])
    """At most 20 ports, `8080` or `8000-8010`."""
    required_fields: list[ConfigField] = Field(default_factory=list[ConfigField])
    """Settings a user must give, at most 50."""
    optional_fields: list[OptionalConfigField] = Field(default_factory=list[OptionalConfigField])
    """Settings a user may give, at most 100."""
    user_configuration: dict[str, Any] = Field(default_factory=dict[str, Any])
    """At most 100 members."""
    schema_version: str = "1.0"
    """`N.N`."""


class AgentMetrics(Checked):
    """How an agent does (REG-074). Members of your own are kept. Times are in seconds."""

    _kind: ClassVar[str] = "metrics"

    agent_id: str
    """3 to 100 letters, digits, `_` and `-`."""
    success_rate: float = 0.0
    """0 to 1."""
    avg_response_time: float = 0.0
    """0 to 3600 s."""
    total_requests: int = 0
    """At least 0."""
    last_active: datetime = Field(default_factory=lambda: datetime.now().astimezone())
    """Now, unless said."""
    reputation_score: float = 0.0
    """0 to 10."""
    requests_processed: int = 0
    """At least 0."""
    average_response_time: float = 0.0
    """0 to 3600 s; the same as `avg_response_time`, by its other name."""
    error_rate: float = 0.0
    """0 to 1."""


class AgentRegistration(Checked):
    """What an agent says of itself (REG-070). Surrounding blanks are removed before anything is checked."""

    _kind: ClassVar[str] = "registration"

    name: str
    """2 to 32 characters."""
    agent_id: str
    """3 to 100 letters, digits, `_` and `-`."""
    agent_type: str
    """2 to 50 letters, digits, `_` and `-`. Which types there are is the registry's to say."""
    endpoint: str
    """Where the agent answers: `http://` or `https://`, at most 2048 characters, no blanks."""
    context_brief: str
    """What the agent is for, in 10 to 1000 characters; searches read it."""
    capabilities: list[str]
    """1 to 50, each of 2 to 100 letters, digits, `_`, `-` and blanks."""
    owner: str
    """2 to 50 characters."""
    public_key: str
    """32 to 1024 letters, digits, `+ / = - _` and blanks; a PEM text passes."""
    metadata: dict[str, Any]
    """1 to 50 members: keys of at most 100 characters; texts of at most 1000, numbers, bools or lists."""
    version: str
    """`N.N.N` or `N.N.N-suffix`."""
    communication_mode: str
    """`remote`, `local` or `hybrid`."""
    features: list[str] | None = None
    """At most 100; blank entries and those longer than 100 characters are dropped."""
    max_tokens: int | None = None
    """1 to 1000000."""
    language_support: list[str] | None = None
    """At most 20 codes of 2 to 5 characters; others are dropped."""
    rate_limit: int | None = None
    """1 to 10000."""
    requirements: AgentRequirements | None = None
    """What the agent needs; also taken as a dict or as JSON text."""
    policy_tags: list[str] | None = None
    """At most 20; blank entries and those longer than 50 characters are dropped."""


class AgentInfo(Received):
    """An agent as the registry knows it (REG-073). Only the first three members are always there."""

    agent_id: str
    name: str
    status: str
    """`alive` or `dead`."""
    agent_type: str = ""
    endpoint: str = ""
    """Where the agent answers."""
    capabilities: list[str] = Field(default_factory=list[str])
    context_brief: str = ""
    version: str = ""
    owner: str = ""
    public_key: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict[str, Any])
    communication_mode: str = ""
    features: list[str] | None = None
    max_tokens: int | None = None
    language_support: list[str] | None = None
    rate_limit: int | None = None
    requirements: AgentRequirements | None = None
    policy_tags: list[str] | None = None
    last_seen: datetime | None = None
    """When the registry heard of it last."""
    registered_at: datetime | None = None
    similarity: float | None = None
    """How well it matches a search, 0 to 1."""
    metrics: AgentMetrics | None = None


class SearchRequest(Checked):
    """A search by meaning (REG-075)."""

    _kind: ClassVar[str] = "search_request"

    query: str
    """2 to 1000 characters."""
    top_k: int = 10
    """1 to 100."""
    min_similarity: float = 0.5
    """0 to 1."""
    capabilities: list[str] | None = None
    """All of which an agent must have: 1 to 20."""
    weighted: bool = False
    """Whether the reputation of agents counts."""
    agent_type: str | None = None
    """2 to 50 letters, digits, `_` and `-`."""


class SearchResponse(Received):
    """An agent that was found (REG-076)."""

    id: str
    """The agent's id."""
    name: str
    url: str = ""
    """Its endpoint."""
    capabilities: list[str] = Field(default_factory=list[str])
    version: str = ""
    owner: str = ""
    similarity: float | None = None
    """0 to 1."""
    metrics: AgentMetrics | None = None
    """Only of a weighted search."""


class AgentConnectionRequest(Checked):
    """Asks an agent to get in touch (REG-077)."""

    _kind: ClassVar[str] = "connection_request"

    user_id: str
    """2 to 100 letters, digits, `_ @ . -`."""
    user_endpoint: str
    """Where the agent is to answer: `http://` or `https://`."""
    display_name: str = "Anonymous User"
    """At most 200 characters, no control characters."""
    additional_info: dict[str, Any] = Field(default_factory=dict[str, Any])
    """At most 50 members: keys of at most 100 characters; texts of at most 1000, numbers, bools, lists or objects."""
