"""Registries in this process."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from arcp import _native
from arcp._background import background
from arcp._port import port as loop_port
from arcp.client import ARCPClient

AGENT_KEYS = ("test-agent-001", "test-agent-002", "test-agent-003")
"""The keys a registry of `registry` takes; each registers one agent that is alive."""

ADMIN = "ARCP"
"""Name and password of its administrator."""


@dataclass(frozen=True)
class ServedRegistry:
    """A registry that listens. Everything is in memory and gone with it."""

    url: str
    """Where, such as `http://127.0.0.1:40123`."""
    agent_keys: tuple[str, ...] = field(default=AGENT_KEYS, repr=False)
    """What agents register with."""
    admin_username: str = ADMIN
    admin_password: str = field(default=ADMIN, repr=False)

    def client(self, **options: Any) -> ARCPClient:
        """A client that has not logged in; `options` are those of `ARCPClient`."""
        return ARCPClient(self.url, **options)

    def admin(self, **options: Any) -> ARCPClient:
        """A client that logs in as administrator when it has to; `options` are those of `ARCPClient`."""
        options.setdefault("admin_username", self.admin_username)
        options.setdefault("admin_password", self.admin_password)
        return ARCPClient(self.url, **options)


class RegistryHost:
    """Serves a registry for as long as it is entered, by `with` or `async with`; `registry` makes it."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._server = _native.RegistryServer(json.dumps(dict(settings)))

    async def _start(self) -> ServedRegistry:
        return ServedRegistry(json.loads(await loop_port().call(self._server.start))["url"])

    async def _stop(self) -> None:
        await loop_port().call(self._server.stop)

    def __enter__(self) -> ServedRegistry:
        return background().call(self._start)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        background().call(self._stop)

    async def __aenter__(self) -> ServedRegistry:
        return await self._start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()


def registry(*, port: int = 0, settings: Mapping[str, Any] | None = None) -> RegistryHost:
    """A real registry in this process, as `arcp registry serve --dev` is, on a free port of this machine, or `port`.

    To be used as `with registry() as served:` or `async with registry() as served:`. `settings` are the program's by
    the names of its environment variables, such as `{"AGENT_HEARTBEAT_TIMEOUT": 2}`; the environment itself is not
    read. Entering raises `arcp.ConnectionError` when the port is taken; `ValueError` names a setting that is wrong.
    """
    given = {"ARCP_HOST": "127.0.0.1", "ARCP_PORT": str(port)}
    for name, value in (settings or {}).items():
        given[name] = _as_text(value)
    return RegistryHost(given)


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ",".join(str(item) for item in value)
    return str(value)
