"""The registry's client without `async`."""

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from arcp._background import Background, background
from arcp.registry._http import USER_AGENT
from arcp.registry.client import RegistryClient
from arcp.registry.monitor import MetricsSnapshot, MonitorCallback
from arcp.registry.socket import RegistryStream

P = ParamSpec("P")
R = TypeVar("R")


def _blocking(
    method: Callable[Concatenate[RegistryClient, P], Awaitable[R]],
) -> "Callable[Concatenate[Registry, P], R]":
    @functools.wraps(method)
    def call(self: "Registry", /, *args: P.args, **kwargs: P.kwargs) -> R:
        async def work() -> R:
            return await method(self._client, *args, **kwargs)

        return self._home.call(work)

    return call


def _iterating(
    method: Callable[Concatenate[RegistryClient, P], RegistryStream],
) -> "Callable[Concatenate[Registry, P], Iterator[Any]]":
    @functools.wraps(method)
    def read(self: "Registry", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
        stream = method(self._client, *args, **kwargs)

        async def next_message() -> list[Any]:
            async for message in stream:
                return [message]
            return []

        try:
            while message := self._home.call(next_message):
                yield message[0]
        finally:
            self._home.call(stream.aclose)

    return read


class Registry:
    """A client of a registry. Methods and errors are those of `RegistryClient`; leaving its `with` closes it.

    The sockets are iterators: `for message in registry.websocket_public()`. They close with the loop that reads them.
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
        """Arguments are those of `RegistryClient`; nothing is sent yet."""
        self._home: Background = background()
        self._client = RegistryClient(
            base_url,
            timeout,
            retry_attempts,
            retry_delay,
            max_retry_delay,
            user_agent,
            access_token=access_token,
            agent_key=agent_key,
            admin_username=admin_username,
            admin_password=admin_password,
            owner=owner,
            ca_file=ca_file,
        )

    def __repr__(self) -> str:
        return f"<arcp.sync.Registry base_url={self._client._shown_url!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def base_url(self) -> str:
        """Where the registry is."""
        return self._client.base_url

    def is_authenticated(self) -> bool:
        """Whether a token is held that has not expired."""
        return self._client.is_authenticated()

    close = _blocking(RegistryClient.close)
    login_admin = _blocking(RegistryClient.login_admin)
    request_temp_token = _blocking(RegistryClient.request_temp_token)
    validate_token = _blocking(RegistryClient.validate_token)
    refresh_authentication = _blocking(RegistryClient.refresh_authentication)
    register_agent = _blocking(RegistryClient.register_agent)
    unregister_agent = _blocking(RegistryClient.unregister_agent)
    get_agent = _blocking(RegistryClient.get_agent)
    list_agents = _blocking(RegistryClient.list_agents)
    update_heartbeat = _blocking(RegistryClient.update_heartbeat)
    update_metrics = _blocking(RegistryClient.update_metrics)
    get_metrics = _blocking(RegistryClient.get_metrics)
    search_agents = _blocking(RegistryClient.search_agents)
    discover_agents = _blocking(RegistryClient.discover_agents)
    get_public_agent = _blocking(RegistryClient.get_public_agent)
    request_agent_connection = _blocking(RegistryClient.request_agent_connection)
    get_system_info = _blocking(RegistryClient.get_system_info)
    get_public_stats = _blocking(RegistryClient.get_public_stats)
    get_allowed_agent_types = _blocking(RegistryClient.get_allowed_agent_types)
    health_check = _blocking(RegistryClient.health_check)
    get_system_metrics = _blocking(RegistryClient.get_system_metrics)
    get_system_stats = _blocking(RegistryClient.get_system_stats)
    get_resource_utilization = _blocking(RegistryClient.get_resource_utilization)
    get_metrics_snapshot = _blocking(RegistryClient.get_metrics_snapshot)
    admin_health_check = _blocking(RegistryClient.admin_health_check)
    export_metrics = _blocking(RegistryClient.export_metrics)
    websocket_public = _iterating(RegistryClient.websocket_public)
    websocket_agent = _iterating(RegistryClient.websocket_agent)
    websocket_dashboard = _iterating(RegistryClient.websocket_dashboard)

    def monitor_system(
        self, interval: float = 30, callback: MonitorCallback | None = None, duration: float | None = None
    ) -> None:
        """As `RegistryClient.monitor_system`; `callback` is called in a thread of its own."""

        async def tell(taken: MetricsSnapshot) -> None:
            if callback is not None:
                # Not on the loop: it may call this registry.
                await asyncio.to_thread(callback, taken)

        told = None if callback is None else tell
        self._home.call(lambda: self._client.monitor_system(interval, told, duration))

    def start_heartbeat_task(self, agent_id: str, interval: float = 30.0) -> "Heartbeat":
        """Says in the background that an agent is alive, at once and then every `interval` seconds, until `cancel`."""
        task = self._home.call(lambda: self._client.start_heartbeat_task(agent_id, interval))
        return Heartbeat(self._home, task)


class Heartbeat:
    """Goes on until it is cancelled, or the program ends."""

    def __init__(self, home: Background, task: "asyncio.Task[None]") -> None:
        """Made by `Registry.start_heartbeat_task`."""
        self._home = home
        self._task = task

    def cancel(self) -> None:
        """Ends it. Idempotent."""
        self._home.soon(self._task.cancel)
