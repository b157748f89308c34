"""Registry servers under test: ours, and the published one of version 2.0.3, each started the same way."""

import os
import re
import signal
import socket
import subprocess
import threading
import time
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = Path(os.environ.get("ARCP_PROGRAM", ROOT / "target" / "debug" / "arcp"))
PATIENCE = 30.0
KEYS = ("test-agent-001", "test-agent-002", "test-agent-003")
ADMIN = ("ARCP", "ARCP")
# What the published server needs to start, which ours understands too.
ENVIRONMENT = {
    "ENVIRONMENT": "development",
    "TZ": "UTC",
    "ALLOWED_AGENT_TYPES": "security,monitoring,automation,networking,testing",
    "JWT_SECRET": "a-secret-for-the-tests-of-the-registry-0123456789",
    "JWT_ALGORITHM": "HS256",
    "JWT_EXPIRE_MINUTES": "60",
    "ADMIN_USERNAME": ADMIN[0],
    "ADMIN_PASSWORD": ADMIN[1],
    "AGENT_KEYS": ",".join(KEYS),
    "LOG_LEVEL": "WARNING",
}
# What no server may print, whatever is asked of it.
UNWANTED = re.compile(r"Traceback \(most recent call last\)|panicked at|RUST_BACKTRACE|assertion .*failed")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean(environment: Mapping[str, str] = {}) -> dict[str, str]:
    """The least a program needs: what the tests' own environment says must not change what a server does."""
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ
    }
    return kept | dict(environment)


def published_python(version: str) -> Path:
    """The interpreter of an environment that holds `arcp-py` of that version, made on first use."""
    environment = ROOT / "target" / "interop" / f"arcp-py=={version}"
    python, done = environment / "bin" / "python", environment / "installed"
    if not done.exists():
        venv.create(environment, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", f"arcp-py=={version}"], check=True)
        done.touch()
    return python


class Server:
    """A running registry; `stop` says when it printed what no server should."""

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[str] | None = None
        self.lines: list[str] = []
        self._reader: threading.Thread | None = None

    def command(self, environment: Mapping[str, str], flags: list[str]) -> tuple[list[str], dict[str, str]]:
        raise NotImplementedError

    def start(self, environment: Mapping[str, str] = {}, flags: list[str] = []) -> "Server":  # noqa: B006
        self.folder.mkdir(parents=True, exist_ok=True)
        command, variables = self.command(environment, flags)
        self.process = subprocess.Popen(
            command,
            env=clean(variables),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                self._reader.join(5)
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.output}")
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0 and self.process.poll() is None:
                    return self
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"the server did not listen within {PATIENCE} s:\n{self.output}")

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.lines.append(line)

    @property
    def output(self) -> str:
        return "".join(self.lines)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.M)
        assert found
        return int(found.group(1)) * 1024

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(f"the server did not stop within 15 s of SIGTERM:\n{self.output}") from None
        if self._reader is not None:
            self._reader.join(5)
        found = UNWANTED.search(self.output)
        assert not found, f"the server printed {found.group(0)!r}:\n{self.output}"

    def restart(self, environment: Mapping[str, str] = {}, flags: list[str] = []) -> None:  # noqa: B006
        self.stop()
        self.lines.clear()
        self.start(environment, flags)


class Ours(Server):
    """`arcp registry serve`."""

    name = "ours"

    @property
    def database(self) -> Path:
        return self.folder / "registry.db"

    def command(self, environment: Mapping[str, str], flags: list[str]) -> tuple[list[str], dict[str, str]]:
        command = [str(PROGRAM), "registry", "serve", "--host", "127.0.0.1", "--port", str(self.port)]
        if "--db" not in flags:
            command += ["--db", str(self.database)]
        return [*command, *flags], dict(environment)


class Published(Server):
    """The server of `arcp-py` 2.0.3."""

    name = "published"

    def command(self, environment: Mapping[str, str], flags: list[str]) -> tuple[list[str], dict[str, str]]:
        python = published_python("2.0.3")
        command = [str(python), "-m", "uvicorn", "arcp.__main__:app", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--log-level", "warning", "--no-server-header", "--no-access-log"]
        folders = {
            "ARCP_PORT": str(self.port),
            "ARCP_DATA_DIR": str(self.folder / "data"),
            "ARCP_LOGS_DIR": str(self.folder / "logs"),
            "STATE_FILE": str(self.folder / "data" / "registry_state.json"),
        }
        (self.folder / "data").mkdir(exist_ok=True)
        (self.folder / "logs").mkdir(exist_ok=True)
        return command, folders | dict(environment)


KINDS: dict[str, type[Server]] = {"ours": Ours, "published": Published}


@contextmanager
def running(
    kind: str,
    folder: Path,
    environment: Mapping[str, str] = {},
    flags: list[str] | None = None,
    port: int | None = None,
) -> Iterator[Server]:
    """A server with the tests' environment and what is said beyond it; `--dev` where the environment is development."""
    variables = ENVIRONMENT | dict(environment)
    server = KINDS[kind](folder, port=port)
    try:
        server.start(variables, dev_flags(kind, variables) if flags is None else flags)
        yield server
        server.stop()
    finally:
        server.kill()


def dev_flags(kind: str, variables: Mapping[str, str]) -> list[str]:
    return ["--dev"] if kind == "ours" and variables.get("ENVIRONMENT") == "development" else []
