"""Fixtures for pytest, there by themselves where `arcp` is installed.

They need no plugin for `async` tests and work with any: a test that is `async` uses `arcp_session`, one that is not
`arcp_served` with `arcp.sync`. Nothing else is imported before a test asks for it.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from arcp.client import ARCPClient
    from arcp.runtime import ARCPRuntime
    from arcp.testing.hosting import Served
    from arcp.testing.registry_hosting import ServedRegistry


@pytest.fixture
def arcp_token() -> str:
    """The token that `arcp_runtime` takes."""
    from arcp.testing import TOKEN

    return TOKEN


@pytest.fixture
def arcp_runtime() -> "Iterator[ARCPRuntime]":
    """A runtime of this test, without agents: `arcp_runtime.register_agent("echo", echo)`. Closed at the end."""
    from arcp.testing.hosting import close_runtime, make_runtime

    runtime = make_runtime()
    yield runtime
    close_runtime(runtime)


@pytest.fixture
def arcp_session(arcp_runtime: "ARCPRuntime") -> "Callable[..., AbstractAsyncContextManager[ARCPClient]]":
    """What connects a client through memory to `arcp_runtime`, on the test's own loop.

    To be used as `async with arcp_session() as client:`; options are those of `ARCPClient`.
    """
    from arcp.testing import session

    def connect(**options: Any) -> "AbstractAsyncContextManager[ARCPClient]":
        return session(arcp_runtime, **options)

    return connect


@pytest.fixture
def arcp_served(arcp_runtime: "ARCPRuntime") -> "Iterator[Served]":
    """`arcp_runtime` on a free port, from a thread of its own: `arcp_served.url`, `arcp_served.token`."""
    from arcp.testing import serve_in_thread

    with serve_in_thread(arcp_runtime) as served:
        yield served


@pytest.fixture
def arcp_registry() -> "Iterator[ServedRegistry]":
    """A registry of this test on a free port: `arcp_registry.url`, `arcp_registry.agent_keys`."""
    from arcp.testing import registry

    with registry() as served:
        yield served
