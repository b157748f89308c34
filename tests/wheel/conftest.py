"""A wheel, and environments outside this tree that have it."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--wheel", required=True, type=Path, help="the wheel to install and try")


@dataclass(frozen=True)
class Environment:
    """A virtual environment that knows nothing of this tree."""

    folder: Path
    """Where programs run; empty at first."""
    bin: Path

    @property
    def python(self) -> str:
        return str(self.bin / "python")

    def run(self, *command: str, cwd: Path | None = None, bound_sec: float = 60.0) -> str:
        """What a program of the environment prints; it must succeed and say nothing on stderr."""
        done = self.start(*command, cwd=cwd, bound_sec=bound_sec)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return done.stdout

    def start(
        self, *command: str, cwd: Path | None = None, bound_sec: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """The outcome of a program of the environment."""
        ours = ("ARCP_", "PYTHON", "VIRTUAL_ENV", "PYTEST")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environment["PATH"] = f"{self.bin}{os.pathsep}{environment['PATH']}"
        own = self.bin / command[0]
        program = str(own) if own.exists() else command[0]
        return subprocess.run(
            [program, *command[1:]],
            cwd=cwd or self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=bound_sec,
            check=False,
        )

    def pip(self, *arguments: str) -> None:
        """Runs the pip of this test in the environment, which needs none of its own then."""
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", self.python]
        subprocess.run([*pip, *arguments], cwd=self.folder, check=True, timeout=600)

    def files(self) -> set[Path]:
        """All there is in it."""
        home = self.bin.parent
        return {path.relative_to(home) for path in home.rglob("*")}


@pytest.fixture(scope="session")
def wheel(request: pytest.FixtureRequest) -> Path:
    path: Path = request.config.getoption("--wheel").resolve()
    assert path.is_file(), f"there is no {path}"
    return path


@pytest.fixture(scope="session")
def make_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Environment]:
    def make(name: str) -> Environment:
        home = tmp_path_factory.mktemp(name)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home / "venv")], check=True, timeout=60)
        (home / "work").mkdir()
        return Environment(home / "work", home / "venv" / ("Scripts" if os.name == "nt" else "bin"))

    return make


@pytest.fixture(scope="session")
def clean(make_environment: Callable[[str], Environment], wheel: Path) -> Environment:
    """The wheel, and what it brings along."""
    environment = make_environment("clean")
    environment.pip("install", str(wheel))
    return environment


@pytest.fixture(scope="session")
def furnished(make_environment: Callable[[str], Environment], wheel: Path) -> Environment:
    """The wheel, pytest, and the host frameworks."""
    environment = make_environment("furnished")
    environment.pip("install", str(wheel), "--group", f"{ROOT / 'pyproject.toml'}:test")
    return environment
