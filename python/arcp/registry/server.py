"""The registry's server, which is a program of its own."""

from typing import Any, NoReturn

from arcp.registry.errors import ConfigurationError

__all__ = ["get_app"]


def get_app(*_: Any, **__: Any) -> NoReturn:
    """Raises `ConfigurationError` with what to do instead: the registry is no ASGI application (REG-001).

    It runs as `arcp registry serve`; in a test, `arcp.testing.registry()` starts one in this process.
    """
    raise ConfigurationError(
        "the registry is a program of its own, not an ASGI application: run `arcp registry serve --host 127.0.0.1 "
        "--port 8001`; in tests, use `async with arcp.testing.registry() as served`"
    )
