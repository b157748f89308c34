"""Ours and the published SDK, each in a throwaway environment of its own: both are a module `arcp`."""

import contextlib
import os
import subprocess
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PUBLISHED = "agentruntimecontrolprotocol==1.1.3"


@dataclass(frozen=True)
class Package:
    python: Path
    wheel: Path


def install(folder: Path, wheel: Path) -> dict[str, Package]:
    """Makes an environment for our wheel and one for theirs below this folder, unless they are there already."""
    ours = _install(folder / "ours", str(wheel.resolve()))
    return {"ours": ours, "theirs": _install(folder / "theirs", PUBLISHED)}


def _install(folder: Path, what: str) -> Package:
    python = folder / "bin" / "python"
    done = folder / "installed"
    if not done.exists():
        venv.create(folder, with_pip=True, clear=True)
        wheels = folder / "wheel"
        _run(python, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels, what)
        _run(python, "-m", "pip", "install", "--quiet", *wheels.iterdir())
        done.touch()
    [wheel] = (folder / "wheel").iterdir()
    return Package(python, wheel)


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, env=clean())


def clean() -> dict[str, str]:
    """Neither package may see the other."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    return {name: value for name, value in os.environ.items() if name not in hidden}


@contextlib.contextmanager
def hosted(python: Path, script: Path, *arguments: str) -> Iterator[tuple[str, int]]:
    """Runs a runtime; its URL and its process."""
    command = [str(python), str(script), *arguments]
    with tempfile.TemporaryFile("w+") as said:
        server = subprocess.Popen(command, env=clean(), stdout=subprocess.PIPE, stderr=said, text=True)
        try:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            if not port:
                said.seek(0)
                raise RuntimeError(f"{script.name} does not serve: {said.read()}")
            yield f"ws://127.0.0.1:{port}/arcp", server.pid
        finally:
            server.kill()
            server.communicate()


def figure(python: Path, script: Path, *arguments: str, patience: float = 300) -> float:
    """Runs a script that prints one figure."""
    done = subprocess.run(
        [str(python), str(script), *arguments],
        env=clean(), capture_output=True, text=True, timeout=patience, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(done.stderr or f"{script.name} ended with {done.returncode}")
    return float(done.stdout)
