"""What the tests of the registry share: which server they run against, and its folders."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import servers
from servers import Server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--registry",
        choices=sorted(servers.KINDS),
        default="ours",
        help="the server the recorded exchanges are played against: ours, or the published one they were recorded from",
    )


@pytest.fixture(scope="session")
def kind(request: pytest.FixtureRequest) -> str:
    chosen: str = request.config.getoption("--registry")
    return chosen


@pytest.fixture
def serve(kind: str, tmp_path: Path) -> Callable[..., AbstractContextManager[Server]]:
    """Starts a server of the chosen kind: `with serve({"PUBLIC_WS_INTERVAL": "1"}) as server`."""

    def start(environment: dict[str, str] | None = None, **options: object) -> AbstractContextManager[Server]:
        return servers.running(kind, tmp_path, environment or {}, **options)  # type: ignore[arg-type]

    return start


@pytest.fixture
def server(serve: Callable[..., AbstractContextManager[Server]]) -> Iterator[Server]:
    """A fresh server with the tests' environment."""
    with serve() as running:
        yield running
