"""How the registry's client reaches the core, and the places where a subclass may step in (REG-011, D-11, D-31)."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import uuid
from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Self, TypeVar, cast, overload
from urllib.parse import urlsplit, urlunsplit

from arcp import _native
from arcp._port import Port, port
from arcp.errors import ARCPError, ConnectionError
from arcp.registry.errors import ConfigurationError

T = TypeVar("T")

USER_AGENT = "ARCPClient/2.0.3"
"""What a client calls itself unless told otherwise; the number is that of the registry's contract."""

# What an exception of an HTTP library means, by the names of its classes: no library is imported for it.
_FAILURES = {
    "ConnectError": "connect",
    "ConnectTimeout": "connect",
    "ClientConnectorError": "connect",
    "ConnectionRefusedError": "connect",
    "TimeoutException": "timeout",
    "TimeoutError": "timeout",
    "NetworkError": "lost",
    "RemoteProtocolError": "lost",
    "ClientConnectionError": "lost",
    "ConnectionError": "lost",
}


class Setting(Generic[T]):
    """An attribute the core's client is made with: when it is set anew, so is that client."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_setting_{name.lstrip('_')}"

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: HttpHalf, owner: type) -> T: ...
    def __get__(self, client: HttpHalf | None, owner: type) -> T | Self:
        return self if client is None else cast(T, client.__dict__[self._name])

    def __set__(self, client: HttpHalf, value: T) -> None:
        client.__dict__[self._name] = value
        client._forget_core()


class HttpHalf:
    """One registry's address and credentials, and requests to it."""

    base_url = Setting[str]()
    """Where the registry is, without a slash at its end. A path is kept in front of every endpoint."""
    timeout = Setting[float]()
    """Seconds for one try of one request."""
    retry_attempts = Setting[int]()
    """How often a request is tried again; 0 for never."""
    retry_delay = Setting[float]()
    """Seconds before the second try; twice as many before each further one, with some chance in it."""
    max_retry_delay = Setting[float]()
    """The most seconds between two tries."""
    user_agent = Setting[str]()
    """What the registry is told this program is."""
    _client_fingerprint = Setting[str]()

    _client: Any
    """An HTTP client of yours: an object with an async `request(method, url, params=, headers=, json=)`."""
    _refresh_token: str | None
    _session_id: str | None

    def __init__(
        self,
        base_url: str | None,
        timeout: float,
        retry_attempts: int,
        retry_delay: float,
        max_retry_delay: float,
        user_agent: str,
        secrets: dict[str, str | None],
        ca_file: str | os.PathLike[str] | None,
    ) -> None:
        if base_url is not None and not isinstance(base_url, str):
            raise TypeError(f"base_url must be a text such as http://localhost:8001, got {type(base_url).__name__}")
        self._http: _native.RegistryHttp | None = None
        self._inner: _native.RegistryHttp | None = None
        self._secrets = secrets
        self._ca_file = None if ca_file is None else os.fspath(ca_file)
        self._client = None
        self._refresh_token = None
        self._session_id = None
        self._carriers: tuple[Port, Port] | None = None
        self._carrying: set[asyncio.Task[None]] = set()
        if base_url is not None:
            self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self.retry_attempts = retry_attempts
        self.retry_delay = retry_delay
        self.max_retry_delay = max_retry_delay
        self.user_agent = user_agent
        self._client_fingerprint = str(uuid.uuid4())

    @property
    def max_retries(self) -> int:
        """The same as `retry_attempts`."""
        return self.retry_attempts

    @max_retries.setter
    def max_retries(self, attempts: int) -> None:
        self.retry_attempts = attempts

    @property
    def _shown_url(self) -> str | None:
        """The address without a password in it."""
        url: str | None = self.__dict__.get("_setting_base_url")
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        except ValueError:
            return "?"

    def _forget_core(self) -> None:
        if self._http is not None:
            # A token that was logged in for is worth more than the setting's old value.
            if (held := self._http.token()) is not None:
                self._secrets = {**self._secrets, "token": held[0]}
            self._http.close()
        self._http = self._inner = None

    def _make_core(self, **options: Any) -> _native.RegistryHttp:
        if "_setting_base_url" not in self.__dict__:
            raise ConfigurationError(
                'this client has no registry: pass base_url=, such as "http://localhost:8001", to '
                f"{type(self).__name__}"
            )
        given = {
            "base_url": self.base_url,
            "timeout": self.timeout,
            "retry_attempts": self.retry_attempts,
            "retry_delay": self.retry_delay,
            "max_retry_delay": self.max_retry_delay,
            "user_agent": self.user_agent,
            "fingerprint": self._client_fingerprint,
            "ca_file": self._ca_file,
            **self._secrets,
            **options,
        }
        return _native.RegistryHttp(_native.encode({k: v for k, v in given.items() if v is not None}, "options"))

    @property
    def _core(self) -> _native.RegistryHttp:
        """The core's client, made on first use: constructing does nothing yet (REG-010)."""
        if self._http is None:
            # A `_request` of a subclass tries again by itself.
            self._http = self._make_core(**({"retry_attempts": 0} if self._steps_in else {}))
        return self._http

    @property
    def _access_token(self) -> str | None:
        held = None if self._http is None else self._http.token()
        return self._secrets.get("token") if held is None else held[0]

    @_access_token.setter
    def _access_token(self, token: str | None) -> None:
        self._secrets = {**self._secrets, "token": token}
        self._core.set_token(token, None)

    @property
    def _token_expires_at(self) -> datetime | None:
        held = None if self._http is None else self._http.token()
        if held is None or held[1] is None:
            return None
        return datetime.now(UTC) + timedelta(seconds=held[1])

    @_token_expires_at.setter
    def _token_expires_at(self, moment: datetime | None) -> None:
        left = None if moment is None else (moment - datetime.now(moment.tzinfo)).total_seconds()
        self._core.set_token(self._access_token, left)

    def is_authenticated(self) -> bool:
        """Whether a token is held that has not expired (REG-057)."""
        held = None if self._http is None else self._http.token()
        return held is not None and held[1] is not None and held[1] > 0

    async def _ensure_client(self) -> None:
        """Awaited before every request. A subclass may set `_client` here, to send requests its own way."""

    def _get_auth_headers(self) -> dict[str, str]:
        """The headers that say who this is. A subclass may add to them."""
        token = self._access_token
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    async def _request(
        self,
        method: str,
        endpoint: str,
        json_data: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        auth_required: bool = True,
        public_api: bool = False,
    ) -> Any:
        """Any request: the JSON it answers with, `{"message": text}` for other text, `{}` for nothing (REG-022).

        A list in `params` is a repeated key. A subclass may override this; the public methods come through here then.
        """
        await self._ensure_client()
        headers = dict(headers or {})
        core: _native.RegistryHttp | None = None
        if self._steps_in:
            if auth_required and not public_api:
                headers = self._with_auth(headers)
            # The public methods' own rules stand around this; here a request is only sent.
            auth_required = False
            if self._inner is None:
                self._inner = self._make_core()
            core = self._inner
        asked = {
            "method": method,
            "endpoint": endpoint,
            "json": json_data,
            "params": params,
            "headers": headers or None,
            "auth_required": auth_required,
            "public_api": public_api,
        }
        carrier = None if self._client is None else self._carrier(through_request=False)
        here = port()
        return json.loads(await here.call((core or self._core).call, "request", encoded("request", asked), carrier))

    def _with_auth(self, headers: dict[str, str]) -> dict[str, str]:
        """The headers with those of `_get_auth_headers`, whose token counts unless it is only the one held."""
        ours = dict(self._get_auth_headers())
        if "Authorization" in headers and ours.get("Authorization") == f"Bearer {self._access_token}":
            # An agent's own was chosen.
            del ours["Authorization"]
        return headers | ours

    async def _call(self, operation: str, arguments: str = "{}") -> str:
        """One operation of the core; its outcome as JSON text."""
        # In one frame, as every call passes here.
        cls, own = type(self), self.__dict__
        carrier = None
        if (
            self._client is not None
            or cls._ensure_client is not _ENSURE_CLIENT
            or cls._request is not _REQUEST
            or cls._get_auth_headers is not _GET_AUTH_HEADERS
            or not _STEPS.isdisjoint(own)
        ):
            carrier = await self._prepare()
        core = self._http or self._core
        here = port()
        number, future = here.begin()
        try:
            if core.call(here.native, number, operation, arguments, carrier):
                here.flush_soon()
            return cast(str, await future)
        finally:
            here.end(number)

    @property
    def _steps_in(self) -> bool:
        """Whether a subclass, or a test, put itself between the methods and their requests."""
        cls, own = type(self), self.__dict__
        return (
            cls._request is not _REQUEST
            or cls._get_auth_headers is not _GET_AUTH_HEADERS
            or "_request" in own
            or "_get_auth_headers" in own
        )

    async def _prepare(self) -> _native.Port | None:
        if self._steps_in:
            return self._carrier(through_request=True)
        await self._ensure_client()
        return None if self._client is None else self._carrier(through_request=False)

    def _carrier(self, *, through_request: bool) -> _native.Port:
        """What the core asks for each HTTP request, where this side is to send it."""
        if self._carriers is None:
            self._carriers = (Port(self._carry_by_client), Port(self._carry_by_request))
        carrier = self._carriers[through_request]
        carrier.adopt(asyncio.get_running_loop())
        return carrier.native

    def _carry_by_client(self, item: tuple[Any, ...]) -> None:
        self._carry(item[1], self._sent_by_client)

    def _carry_by_request(self, item: tuple[Any, ...]) -> None:
        self._carry(item[1], self._sent_by_request)

    def _carry(self, request: _native.HostRequest, send: Any) -> None:
        task = asyncio.get_running_loop().create_task(_answer(request, send))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def _sent_by_client(self, asked: dict[str, Any]) -> dict[str, Any]:
        more: dict[str, Any] = {"headers": asked["headers"]}
        if asked.get("params"):
            more["params"] = [(name, value) for name, value in asked["params"]]
        if asked.get("json") is not None:
            more["json"] = asked["json"]
        try:
            async with asyncio.timeout(asked.get("timeout")):
                response = self._client.request(asked["method"], asked["url"], **more)
                if inspect.isawaitable(response):
                    response = await response
                status: Any = getattr(response, "status_code", None)
                if not isinstance(status, int):
                    status = response.status
                return {"status": status, "headers": _headers(response), "body": await _body(response)}
        except Exception as error:
            kinds = (_FAILURES.get(cls.__name__) for cls in type(error).__mro__)
            return {"failed": next((kind for kind in kinds if kind is not None), "other"), "message": _words(error)}

    async def _sent_by_request(self, asked: dict[str, Any]) -> dict[str, Any]:
        endpoint = asked["url"].removeprefix(self.base_url)
        headers = {name.title(): value for name, value in asked["headers"].items()}
        authorization = headers.get("Authorization")
        more: dict[str, Any] = {}
        if asked.get("json") is not None:
            more["json_data"] = asked["json"]
        if asked.get("params"):
            more["params"] = _grouped(asked["params"])
        if endpoint in _OPEN or endpoint.startswith(_OPEN_BELOW):
            more["auth_required"] = False
        if authorization is not None:
            more["headers"] = {"Authorization": authorization}
        try:
            value = await self._request(asked["method"], endpoint, **more)
        except ConnectionError as error:
            return {"failed": "other", "message": error.message}
        except ARCPError as error:
            problem = (error.details or {}).get("problem") or {"detail": error.message}
            return {"status": error.status or 500, "headers": {}, "body": json.dumps(problem)}
        if endpoint == "/metrics" and isinstance(value, dict) and isinstance(value.get("message"), str):
            return {"status": 200, "headers": {"content-type": "text/plain"}, "body": value["message"]}
        return {"status": 200, "headers": {"content-type": "application/json"}, "body": json.dumps(value)}

    async def _close_http(self) -> None:
        client, self._client = self._client, None
        try:
            if client is not None:
                await _closed(client)
        finally:
            for core in (self._http, self._inner):
                if core is not None:
                    core.close()
            if self._carriers is not None:
                for carrier in self._carriers:
                    carrier.release()


_OPEN = ("/", "/health", "/tokens/validate")
_OPEN_BELOW = ("/public/", "/auth/login", "/auth/agent/")
"""Endpoints that ask for no token, for what a subclass is told of a request."""

_ENSURE_CLIENT = HttpHalf._ensure_client
_REQUEST = HttpHalf._request
_GET_AUTH_HEADERS = HttpHalf._get_auth_headers
_STEPS = frozenset({"_ensure_client", "_request", "_get_auth_headers"})
"""Attributes that, set on an instance, take the place of these."""


def encoded(operation: str, members: Mapping[str, Any]) -> str:
    """An operation's arguments; those that are `None` are left out, for the core's defaults."""
    return _native.encode({name: value for name, value in members.items() if value is not None}, operation)


async def _answer(request: _native.HostRequest, send: Any) -> None:
    try:
        request.answer(json.dumps(await send(json.loads(request.arguments))))
    except Exception as error:
        request.fail(_words(error))
    except asyncio.CancelledError:
        request.fail("cancelled")
        raise


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _headers(response: Any) -> dict[str, str]:
    headers = getattr(response, "headers", None)
    if not isinstance(headers, Mapping):
        return {}
    return {str(name).lower(): str(value) for name, value in headers.items()}


async def _body(response: Any) -> str:
    """The text of an answer, however its library gives it."""
    text: Any = getattr(response, "text", None)
    if callable(text):
        text = text()
    if inspect.isawaitable(text):
        text = await text
    if isinstance(text, str):
        return text
    value = response.json()
    if inspect.isawaitable(value):
        value = await value
    return json.dumps(value)


def _grouped(pairs: list[list[str]]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for name, value in pairs:
        if name in params:
            params[name] = [*(params[name] if isinstance(params[name], list) else [params[name]]), value]
        else:
            params[name] = value
    return params


async def _closed(client: Any) -> None:
    close = getattr(client, "aclose", None) or getattr(client, "close", None)
    if close is not None:
        done: object = close()
        if inspect.isawaitable(done):
            await cast(Awaitable[object], done)
