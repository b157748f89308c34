"""The client: the registry half finds agents, the runtime half runs them (D-4)."""

import logging
import os
from collections.abc import Sequence
from typing import Any, Self, cast, overload

from arcp._job import JobHandle, JobSubscription
from arcp._port import logger as default_logger
from arcp._runtime_client import AutoAckOptions, ReconnectOptions, RuntimeClient, Token
from arcp.events import JobEvent
from arcp.messages import Capabilities, ClientInfo
from arcp.registry._http import USER_AGENT
from arcp.registry.client import RegistryClient
from arcp.registry.errors import ConfigurationError
from arcp.registry.monitor import MetricsSnapshot, get_system_health, monitor_system

__all__ = [
    "ARCPClient",
    "AutoAckOptions",
    "JobEvent",
    "JobHandle",
    "JobSubscription",
    "MetricsSnapshot",
    "ReconnectOptions",
    "RegistryClient",
    "RuntimeClient",
    "get_client",
    "get_system_health",
    "monitor_system",
]


class ARCPClient(RegistryClient, RuntimeClient):
    """A client of a registry, of a runtime, or of both.

    `ARCPClient("http://localhost:8001")` speaks to a registry, as `RegistryClient` does;
    `ARCPClient(client=ClientInfo(...), token=...)` to a runtime, as `RuntimeClient` does; with the arguments of both it
    speaks to both. A method of a half that was not set up raises `ConfigurationError`, which names the argument.
    """

    @overload
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
        client: ClientInfo | None = None,
        token: Token | None = None,
        capabilities: Capabilities | None = None,
        features: Sequence[str] | None = None,
        auto_ack: AutoAckOptions | bool | None = None,
        handshake_timeout_sec: float = 5.0,
        reconnect: ReconnectOptions | bool = True,
        max_result_bytes: int | None = None,
        logger: logging.Logger | None = None,
    ) -> None: ...
    @overload
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
    ) -> None: ...
    def __init__(
        self,
        base_url: str | None = None,
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
        client: ClientInfo | None = None,
        token: Token | None = None,
        capabilities: Capabilities | None = None,
        features: Sequence[str] | None = None,
        auto_ack: AutoAckOptions | bool | None = None,
        handshake_timeout_sec: float = 5.0,
        reconnect: ReconnectOptions | bool = True,
        max_result_bytes: int | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        """A client that has sent nothing yet. Arguments up to `ca_file` are those of `RegistryClient`, the others those
        of `RuntimeClient`; `token` belongs to the runtime, `access_token` to the registry.
        """
        if base_url is None and client is None and token is None:
            raise TypeError(
                'pass base_url=, such as "http://localhost:8001", for a registry, or client= and token= for a runtime'
            )
        RegistryClient.__init__(
            self,
            cast(str, base_url),
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
        self._has_runtime = client is not None or token is not None
        if not self._has_runtime:
            if capabilities is not None or features is not None:
                raise TypeError("capabilities= and features= belong to the runtime half: pass client= and token= too")
            self._native = cast(Any, _NoRuntime())
            self.logger = default_logger if logger is None else logger
            return
        for name, value, of in (("client", client, "a ClientInfo"), ("token", token, "what the runtime takes")):
            if value is None:
                raise TypeError(
                    f"{name}= is missing: the runtime half takes client= and token=, and {name} is {of}"
                    + ("; the registry's token is access_token=" if name == "client" else "")
                )
        RuntimeClient.__init__(
            self,
            client=cast(ClientInfo, client),
            token=cast(Token, token),
            capabilities=capabilities,
            features=features,
            auto_ack=auto_ack,
            handshake_timeout_sec=handshake_timeout_sec,
            reconnect=reconnect,
            max_result_bytes=max_result_bytes,
            logger=logger,
        )

    def __repr__(self) -> str:
        shown = [f"base_url={url!r}"] if (url := self._shown_url) is not None else []
        if self._has_runtime:
            shown.append(f"session_id={self.session_id!r}")
        return f"<{type(self).__name__} {' '.join(shown)}>"

    async def close(self, *, reason: str = "client.close") -> None:
        """Ends both halves. Idempotent. The registry's opens again on use; the session with a runtime is over (D-31).

        `reason` is told to the runtime.
        """
        try:
            if self._has_runtime:
                await RuntimeClient.close(self, reason=reason)
        finally:
            await RegistryClient.close(self)

    async def aclose(self) -> None:
        """As `close`, for `contextlib.aclosing`."""
        await self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _NoRuntime:
    """In place of a session, for a client of a registry alone."""

    def __getattr__(self, name: str) -> Any:
        raise ConfigurationError("this client has no runtime: pass client=ClientInfo(...) and token= to ARCPClient")


def get_client(base_url: str, **options: Any) -> ARCPClient:
    """The same as `ARCPClient(base_url, ...)` (REG-001)."""
    return ARCPClient(base_url, **options)
