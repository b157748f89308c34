"""The published Python SDK against ours, both ways, each in an environment of its own."""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import registry

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PUBLISHED = "agentruntimecontrolprotocol==1.1.3"
ENVIRONMENT = ROOT / "target" / "interop" / PUBLISHED
TOKEN = "interop-token"
PATIENCE = 60


def published_python() -> Path:
    """The interpreter of the published SDK's environment, made on first use."""
    python = ENVIRONMENT / "bin" / "python"
    done = ENVIRONMENT / "installed"
    if not done.exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PUBLISHED], check=True)
        done.touch()
    return python


def clean() -> dict[str, str]:
    """Neither side may see the other's packages."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    return {name: value for name, value in os.environ.items() if name not in hidden}


def serve(command: list[str | Path]) -> tuple[subprocess.Popen[str], str]:
    server = subprocess.Popen(command, env=clean(), stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    seen = []
    for line in server.stderr:
        seen.append(line)
        if found := re.search(r"listening on (ws://\S+)", line):
            return server, found.group(1)
    raise SystemExit(f"interop: {command[0]} did not listen:\n{''.join(seen)}")


def play(name: str, server_command: list[str | Path], client: list[str | Path]) -> bool:
    server, url = serve(server_command)
    try:
        done = subprocess.run(
            [*client, url, TOKEN], env=clean(), capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    finally:
        server.terminate()
        server.wait(timeout=10)
    print(f"{name}: {'ok' if done.returncode == 0 else 'FAILED'}")
    print(*(f"  {line}" for line in done.stdout.splitlines()), sep="\n", end="\n" if done.stdout else "")
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
    return done.returncode == 0


def main() -> None:
    theirs = published_python()
    ours = Path(sys.executable)
    options = ["--host", "127.0.0.1", "--token", TOKEN, "--principal", "me@example.com"]
    program = ROOT / "target" / "debug" / "arcp"
    results = [
        *registry.plays(),
        play(
            "their client, our arcp serve",
            [program, "serve", "--port", "0", "--db", "memory", *options],
            [theirs, HERE / "their_client.py"],
        ),
        play(
            "our client, their arcp serve",
            [theirs.parent / "arcp", "serve", "--port", str(free_port()), *options],
            [ours, HERE / "our_client.py"],
        ),
        play(
            "their client, our runtime with agents",
            [ours, HERE / "our_runtime.py", TOKEN],
            [theirs, HERE / "their_client_jobs.py"],
        ),
        play(
            "our client, their runtime with agents",
            [theirs, HERE / "their_runtime.py", TOKEN],
            [ours, HERE / "our_client_jobs.py"],
        ),
    ]
    print(f"{results.count(True)} passed, {results.count(False)} failed")
    sys.exit(0 if all(results) else 1)


def free_port() -> int:
    """Their server does not tell which port it took, so it is told one that was free a moment ago."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
