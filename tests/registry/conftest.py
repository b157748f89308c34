"""What the tests of the registry share: which server they run against, and its folders."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import golden
import servers
import sockets
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The recordings come last: they are played from the beginning on, and most of their time is waiting."""
    items.sort(key=lambda item: "test_golden" in item.nodeid)


class Recordings:
    """The recordings, played all at once, each session against a server of its own."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        names = [path.name for path in sorted(golden.FOLDER.glob("*.json")) if not path.name.startswith("client")]
        calls = [name for name in names if not name.startswith("ws-")]
        # A registry keeps what it knows in its own file; a shared backend is for later, and so is its recording.
        self.sessions = golden.sessions([name for name in calls if "needs" not in golden.load(name)])
        # The public sockets count agents, so they come while there is one.
        self.sockets = ["ws-public.json", "ws-agent.json", "ws-dashboard.json"]
        pool = ThreadPoolExecutor(len(self.sessions) + 1)
        self.played: dict[str, Future[golden.Player]] = {name: pool.submit(self.play, name) for name in self.sessions}
        self.played_sockets = pool.submit(self.play_sockets)

    def play(self, name: str) -> golden.Player:
        agents = golden.Agents()
        make = servers.KINDS[self.kind]
        player = golden.Player(lambda: make(golden.temporary(self.folder, name)), agents)
        try:
            player.play(self.sessions[name])
        finally:
            agents.close()
        return player

    def play_sockets(self) -> sockets.Player:
        player = sockets.Player(self.kind, golden.temporary(self.folder, "sockets"))
        player.play(self.sockets)
        return player

    def of(self, exchange: str) -> golden.Player:
        """The session that exchange is of."""
        file = exchange.split("#")[0]
        return next(self.played[name].result() for name, files in self.sessions.items() if file in files)


@pytest.fixture(scope="session", autouse=True)
def recordings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recordings | None:
    if not any("test_golden" in item.nodeid for item in request.session.items):
        return None
    return Recordings(request.config.getoption("--registry"), tmp_path_factory.mktemp("recordings"))


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
