"""The registry half of the client: agents, discovery, search, sockets (REG-010 to REG-060)."""

import asyncio
import functools
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from arcp._check import expect, expect_seconds
from arcp.errors import ARCPError
from arcp.registry._http import USER_AGENT, HttpHalf, encoded
from arcp.registry._model import READING
from arcp.registry.errors import RegistrationError, SearchError
from arcp.registry.models import AgentInfo, AgentMetrics, AgentRequirements, SearchResponse
from arcp.registry.monitor import MetricsSnapshot, MonitorCallback, exported, judged, snapshot, watch
from arcp.registry.socket import RegistryStream

__all__ = ["RegistryClient"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@functools.cache
def _agents() -> TypeAdapter[list[AgentInfo]]:
    # Built when first used, as models are.
    return TypeAdapter(list[AgentInfo])


@functools.cache
def _found() -> TypeAdapter[list[SearchResponse]]:
    return TypeAdapter(list[SearchResponse])


class RegistryClient(HttpHalf):
    """A client of a registry. `async with` closes its connections; without it, they are opened on use all the same.

    What a method needs to be allowed is found by itself, in this order: a login or registration of this client, the
    arguments below, the environment (`ARCP_TOKEN`, `ARCP_AGENT_KEY`, `ARCP_ADMIN_USERNAME`, `ARCP_ADMIN_PASSWORD`).
    Several agents on one client keep their tokens apart.

    Every method raises `ARCPError` or a class under it: `ConnectionError` when the registry was not reached,
    `AuthenticationError` when it said no, `AgentNotFoundError`, `RegistrationError`, `SearchError`. `status` has the
    HTTP status, `details["errors"]` each field that was refused.
    """

    def __init__(
        self,
        base_url: str,
        timeout: float = 30.0,
        retry_attempts: int = 3,
        retry_delay: float = 1.0,
        max_retry_delay: float = 60.0,
        user_agent: str = USER_AGENT,
        *,
        access_token: str | None = None,
        agent_key: str | None = None,
        admin_username: str | None = None,
        admin_password: str | None = None,
        owner: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
    ) -> None:
        """A client that has sent nothing yet (REG-010); a URL that is wrong is said by the first call.

        A request is tried `retry_attempts` times more when the registry was not reached, was too slow, or had to refuse
        for a moment (429, 502, 503, 504), after waits from `retry_delay` on that double up to `max_retry_delay`.
        `owner` is whose agents are registered when `register_agent` is not told. `ca_file` holds authorities, as PEM,
        to trust beside the system's.
        """
        secrets = {
            "token": access_token,
            "agent_key": agent_key,
            "admin_username": admin_username,
            "admin_password": admin_password,
            "owner": owner,
        }
        super().__init__(base_url, timeout, retry_attempts, retry_delay, max_retry_delay, user_agent, secrets, ca_file)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} base_url={self._shown_url!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections, and `_client` if one was set. Idempotent; the next call opens new ones (REG-012)."""
        await self._close_http()

    async def aclose(self) -> None:
        """As `close`, for `contextlib.aclosing`."""
        await self.close()

    # Who this is.

    async def login_admin(self, username: str, password: str) -> dict[str, Any]:
        """Logs in as an administrator; the token is used from now on (REG-030). `AuthenticationError` when refused."""
        asked = {"username": expect("username", username, str), "password": expect("password", password, str)}
        return await self._object("login_admin", asked)

    async def request_temp_token(self, agent_id: str, agent_type: str, agent_key: str) -> str:
        """A token that registers this agent, once, within 15 minutes (REG-031); `register_agent` asks by itself."""
        asked = {"agent_id": agent_id, "agent_type": agent_type, "agent_key": agent_key}
        return str(await self._value("request_temp_token", asked))

    async def validate_token(self, token: str | None = None) -> dict[str, Any]:
        """What a token, or the one held, is good for (REG-032): `valid`, `agent_id`, `payload`.

        A token that is not valid gives `{"valid": False, "error": ...}`. `AuthenticationError` when there is none.
        """
        return await self._object("validate_token", {"token": token})

    async def refresh_authentication(self) -> bool:
        """Exchanges the token held for a new one; `False` when that failed, and never raises (REG-058)."""
        return bool(await self._value("refresh_authentication", {}))

    # Agents.

    async def register_agent(
        self,
        agent_id: str,
        name: str,
        agent_type: str,
        endpoint: str,
        capabilities: Sequence[str],
        context_brief: str,
        version: str = "1.0.0",
        owner: str | None = None,
        public_key: str | None = None,
        communication_mode: str = "remote",
        metadata: Mapping[str, Any] | None = None,
        features: Sequence[str] | None = None,
        max_tokens: int | None = None,
        language_support: Sequence[str] | None = None,
        rate_limit: int | None = None,
        requirements: AgentRequirements | Mapping[str, Any] | str | None = None,
        policy_tags: Sequence[str] | None = None,
        agent_key: str | None = None,
    ) -> AgentInfo:
        """Registers an agent and gives what the registry knows of it (REG-033); `AgentRegistration` has the bounds.

        `agent_key` is what the registry's operator gave out. Without `owner` it is the client's, else `unknown`;
        without `public_key` one is generated. `RegistrationError` when data is wrong (its `__cause__` is a pydantic
        `ValidationError`), when the agent is there already (`status` 409), and when the registry refuses.
        """
        asked = {
            "agent_id": agent_id,
            "name": name,
            "agent_type": agent_type,
            "endpoint": endpoint,
            "capabilities": capabilities,
            "context_brief": context_brief,
            "version": version,
            "owner": owner,
            "public_key": public_key,
            "communication_mode": communication_mode,
            "metadata": metadata,
            "features": features,
            "max_tokens": max_tokens,
            "language_support": language_support,
            "rate_limit": rate_limit,
            "requirements": requirements,
            "policy_tags": policy_tags,
            "agent_key": agent_key,
        }
        text = await self._call("register_agent", encoded("register_agent", _plain(asked)))
        return _read(AgentInfo.model_validate_json, text, RegistrationError, "Agent registration failed")

    async def unregister_agent(self, agent_id: str, agent_key: str | None = None) -> dict[str, Any]:
        """Takes an agent out of the registry (REG-039)."""
        return await self._object("unregister_agent", {"agent_id": agent_id, "agent_key": agent_key})

    async def get_agent(self, agent_id: str, include_metrics: bool = True) -> AgentInfo:
        """One agent, alive or dead (REG-034). Without a login, the public side of the registry is asked.

        `AgentNotFoundError` when there is none.
        """
        asked = {"agent_id": agent_id, "include_metrics": include_metrics}
        text = await self._call("get_agent", encoded("get_agent", asked))
        return _read(AgentInfo.model_validate_json, text, ARCPError, f"Failed to get agent {agent_id}")

    async def list_agents(
        self,
        agent_type: str | None = None,
        status: str | None = None,
        capabilities: Sequence[str] | None = None,
        include_metrics: bool = False,
    ) -> list[AgentInfo]:
        """All agents: of a type, `alive` or `dead`, with any of these capabilities (REG-035).

        Without a login, the public side of the registry is asked, which tells of agents that are alive.
        """
        asked = {
            "agent_type": agent_type,
            "status": status,
            "capabilities": capabilities,
            "include_metrics": include_metrics,
        }
        text = await self._call("list_agents", encoded("list_agents", asked))
        return _read(_agents().validate_json, text, ARCPError, "Failed to list agents")

    async def update_heartbeat(self, agent_id: str) -> dict[str, Any]:
        """Says that an agent is alive (REG-036)."""
        return await self._object("update_heartbeat", {"agent_id": agent_id})

    async def start_heartbeat_task(self, agent_id: str, interval: float = 30.0) -> "asyncio.Task[None]":
        """A task that says so at once and then every `interval` seconds, until it is cancelled (REG-059).

        What fails is logged and tried again. An agent this client registered is registered anew when the registry has
        forgotten it.
        """
        expect("agent_id", agent_id, str)
        if not expect_seconds("interval", interval):
            raise ValueError(f"interval must be more than 0 seconds, got {interval}")
        beating = asyncio.create_task(self._beat(agent_id, interval), name=f"arcp heartbeat of {agent_id}")
        # The loop alone would let it be collected.
        self._carrying.add(beating)
        beating.add_done_callback(self._carrying.discard)
        return beating

    async def _beat(self, agent_id: str, interval: float) -> None:
        await self._call("keep_alive", encoded("keep_alive", {"agent_id": agent_id, "interval": interval}))

    async def update_metrics(self, agent_id: str, metrics_data: AgentMetrics | Mapping[str, Any]) -> dict[str, Any]:
        """Tells how an agent does (REG-037): members of `AgentMetrics`, and any of your own."""
        if isinstance(metrics_data, AgentMetrics):
            metrics_data = metrics_data.model_dump(exclude_unset=True)
        asked = _plain({"agent_id": agent_id, "metrics_data": metrics_data})
        return await self._object("update_metrics", asked)

    async def get_metrics(self, agent_id: str) -> AgentMetrics:
        """How an agent does (REG-038)."""
        text = await self._call("get_metrics", encoded("get_metrics", {"agent_id": agent_id}))
        return _read(AgentMetrics.model_validate_json, text, ARCPError, f"Failed to get metrics for {agent_id}")

    # For everybody.

    async def search_agents(
        self,
        query: str,
        top_k: int = 3,
        min_similarity: float = 0.5,
        capabilities: Sequence[str] | None = None,
        weighted: bool = False,
        agent_type: str | None = None,
        public_api: bool = True,
    ) -> list[SearchResponse]:
        """Agents by what they are for, the best first (REG-040).

        `capabilities` must all be there. `weighted` lets an agent's reputation count, and shows its metrics.
        `public_api=False` asks as a member. `SearchError` for a search that is wrong or that failed.
        """
        asked = {
            "query": query,
            "top_k": top_k,
            "min_similarity": min_similarity,
            "capabilities": capabilities,
            "weighted": weighted,
            "agent_type": agent_type,
            "public_api": public_api,
        }
        text = await self._call("search_agents", encoded("search_agents", asked))
        return _read(_found().validate_json, text, SearchError, "Agent search failed")

    async def discover_agents(
        self,
        agent_type: str | None = None,
        capabilities: Sequence[str] | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> list[AgentInfo]:
        """Agents that are alive, page by page: of a type, with all of these capabilities (REG-041).

        `limit` is at most 100.
        """
        asked = {"agent_type": agent_type, "capabilities": capabilities, "limit": limit, "offset": offset}
        text = await self._call("discover_agents", encoded("discover_agents", asked))
        return _read(_agents().validate_json, text, ARCPError, "Agent discovery failed")

    async def get_public_agent(self, agent_id: str) -> AgentInfo:
        """One agent that is alive (REG-042); else `AgentNotFoundError`."""
        text = await self._call("get_public_agent", encoded("get_public_agent", {"agent_id": agent_id}))
        return _read(AgentInfo.model_validate_json, text, ARCPError, f"Failed to get public agent {agent_id}")

    async def request_agent_connection(
        self,
        agent_id: str,
        user_id: str,
        user_endpoint: str,
        display_name: str = "Anonymous User",
        additional_info: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Has the registry ask an agent to get in touch at `user_endpoint` (REG-043).

        `AgentConnectionRequest` has the bounds. `status` of the error is 502 when the agent did not answer the
        registry, 504 when it was too slow.
        """
        asked = {
            "agent_id": agent_id,
            "user_id": user_id,
            "user_endpoint": user_endpoint,
            "display_name": display_name,
            "additional_info": additional_info,
        }
        return await self._object("request_agent_connection", _plain(asked))

    async def get_system_info(self) -> dict[str, Any]:
        """What the registry is: `service`, `version`, `status` (REG-044)."""
        return await self._object("get_system_info")

    async def get_public_stats(self) -> dict[str, Any]:
        """How many agents there are, and of which types (REG-045)."""
        return await self._object("get_public_stats")

    async def get_allowed_agent_types(self) -> list[str]:
        """The types an agent may have (REG-046)."""
        return [str(name) for name in await self._value("get_allowed_agent_types", {})]

    async def health_check(self) -> dict[str, Any]:
        """How the registry is: `status` is `healthy` or `degraded` (REG-047)."""
        return await self._object("health_check")

    # For administrators.

    async def get_system_metrics(self) -> str:
        """The registry's figures, as Prometheus reads them (REG-048)."""
        return str(await self._value("get_system_metrics", {}))

    async def get_system_stats(self) -> dict[str, Any]:
        """`registry_statistics`, `features` and `performance` (REG-049)."""
        return await self._object("get_system_stats")

    async def get_resource_utilization(self) -> dict[str, float]:
        """`cpu`, `memory`, `network` and `disk` of the registry's machine, in percent (REG-050)."""
        return await self._object("get_resource_utilization")

    async def get_metrics_snapshot(self) -> MetricsSnapshot:
        """Figures, statistics and load of one moment (REG-051)."""
        return snapshot(await self._call("get_metrics_snapshot"))

    async def monitor_system(
        self, interval: float = 30, callback: MonitorCallback | None = None, duration: float | None = None
    ) -> None:
        """Takes a snapshot every `interval` seconds, for `duration` seconds or for ever (REG-052).

        `callback` is called with each, and awaited if it gives an awaitable; without it a line is printed. What fails
        is printed, and the monitoring goes on.
        """
        await watch(self.get_metrics_snapshot, interval, callback, duration)

    async def admin_health_check(self) -> dict[str, Any]:
        """Whether the registry's machine and agents are well (REG-053).

        `status` is `healthy`, `warning`, `critical` or `error`; `checks` has `cpu_usage`, `memory_usage` and
        `agent_availability`.
        """
        return await judged(self.get_metrics_snapshot)

    async def export_metrics(self, format: str = "prometheus") -> str:
        """The figures as `prometheus` text, or as `json` with statistics and load (REG-054). Else `ValueError`."""
        return await exported(format, self.get_system_metrics, self.get_metrics_snapshot)

    # Sockets.

    def websocket_public(self) -> RegistryStream:
        """What happens in the registry: `welcome`, `discovery_data`, `agents_update`, `stats_update` (REG-055).

        `async for message in client.websocket_public()`; each message is a dict. `ConnectionError` from the iteration
        when the registry is not reached.
        """
        return RegistryStream(self._core, "public", "{}")

    def websocket_agent(self, token: str | None = None) -> RegistryStream:
        """As a member sees it: first the list of all agents, then what changes (REG-056).

        With `token`, or the credentials of this client; `AuthenticationError` from the iteration without any, and when
        they are refused.
        """
        return RegistryStream(self._core, "agent", encoded("websocket_agent", {"token": token}))

    def websocket_dashboard(self, token: str | None = None) -> RegistryStream:
        """What the operators' page shows: `monitoring`, `health`, `agents`, `logs`, `alert` (REG-340).

        Commands go through `send`. `AuthenticationError` from the iteration for all but administrators.
        """
        return RegistryStream(self._core, "dashboard", encoded("websocket_dashboard", {"token": token}))

    # Answers.

    async def _value(self, operation: str, asked: Mapping[str, Any]) -> Any:
        return json.loads(await self._call(operation, encoded(operation, asked)))

    async def _object(self, operation: str, asked: Mapping[str, Any] | None = None) -> dict[str, Any]:
        text = await self._call(operation, "{}" if asked is None else encoded(operation, asked))
        return cast(dict[str, Any], json.loads(text))


def _plain(asked: dict[str, Any]) -> dict[str, Any]:
    """Models, dates and the like as JSON has them."""
    asked = {name: value for name, value in asked.items() if value is not None}
    plain: dict[str, Any] = to_jsonable_python(asked, exclude_none=True, inf_nan_mode="strings")
    return plain


class _Validate(Protocol[R_co]):
    def __call__(self, data: str, /, *, context: Any | None = None) -> R_co: ...


def _read(validate: _Validate[R], text: str, operation: type[ARCPError], prefix: str) -> R:
    """What the registry sent, as models."""
    try:
        return validate(text, context=READING)
    except ValidationError as error:
        told = f"{prefix}: the registry's answer is not understood: {error}"
        raise operation(told, code="answer-not-understood") from error
