"""What the hosts of a runtime have in common: their names, what a client offers, and packages that may be missing."""

from collections.abc import Iterable, Sequence
from importlib import import_module
from ipaddress import IPv6Address, ip_address
from typing import Any

SUBPROTOCOLS = ("arcp.v1.1", "arcp")
"""What is echoed when a client offers it, the first that it does."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""The names a server that listens on this machine alone answers to (R-4.10)."""

_FORWARDED = frozenset({"forwarded", "via", "x-forwarded-for", "x-real-ip"})


def require(module: str, package: str, user: str) -> Any:
    """A host's module; `ModuleNotFoundError` that says which package to install."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        message = f"{user} needs the package {package}, which is not installed: pip install {package}"
        raise ModuleNotFoundError(message, name=error.name) from None


def expect_runtime(runtime: Any) -> None:
    """`TypeError` for what cannot accept a connection."""
    if not callable(getattr(runtime, "accept", None)):
        raise TypeError(f"runtime must be an ARCPRuntime, got {type(runtime).__name__}")


class AllowedHosts:
    """Which `Host` headers are let in: any, or those of a list."""

    def __init__(self, allowed: Iterable[str] | None) -> None:
        """Entries are names or addresses, with a port where that has to match too; `None` lets any in."""
        if isinstance(allowed, str | bytes):
            raise TypeError('allowed_hosts must be a list of names, got a text; write ["example.com"]')
        self._allowed = None if allowed is None else frozenset(_entry(host) for host in allowed)

    def allow(self, headers: Sequence[str]) -> bool:
        """Whether a request with these `Host` headers is let in. One without, or with several, is not."""
        if self._allowed is None:
            return True
        if len(headers) != 1:
            return False
        name, port = split_host(headers[0])
        return bool(name) and ((name, None) in self._allowed or (name, port) in self._allowed)


def _entry(host: Any) -> tuple[str, str | None]:
    if not isinstance(host, str):
        raise TypeError(f"allowed_hosts must be a list of names, got an entry of type {type(host).__name__}")
    name, port = split_host(host)
    if not name or "*" in name or "/" in name:
        raise ValueError(f"allowed_hosts: {host!r} is no host name; leave allowed_hosts out to let any host in")
    return name, port


def split_host(host: str) -> tuple[str, str | None]:
    """Name and port of `example.com:80`, `[::1]:80` or `::1`: lower case, without brackets. No name if malformed."""
    host = host.strip().lower()
    if host.startswith("["):
        name, closed, rest = host[1:].partition("]")
        port = rest[1:] if rest.startswith(":") else None
        return (_ipv6(name), port) if closed and (not rest or _is_port(port)) else ("", None)
    if host.count(":") > 1:
        # A bare IPv6 literal, as in a list; it has no room for a port.
        return _ipv6(host), None
    name, colon, port = host.partition(":")
    if colon and not _is_port(port):
        return "", None
    return name.removesuffix("."), port if colon else None


def _is_port(text: str | None) -> bool:
    return text is not None and text.isascii() and text.isdecimal()


def _ipv6(text: str) -> str:
    try:
        return IPv6Address(text).compressed
    except ValueError:
        return ""


def choose_subprotocol(offered: Iterable[str]) -> str | None:
    """The subprotocol to echo; none is needed."""
    known = set(offered)
    return next((name for name in SUBPROTOCOLS if name in known), None)


def is_private(scheme: str, peer: str | None, headers: Iterable[str]) -> bool:
    """Whether secrets may travel over a connection: it is encrypted, or comes from this machine and not by a proxy."""
    if scheme in ("wss", "https"):
        return True
    try:
        local = peer is not None and ip_address(peer).is_loopback
    except ValueError:
        return False
    return local and not any(name.lower() in _FORWARDED for name in headers)
