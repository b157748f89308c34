"""A registry from every language, through the shims (tests/shims): its health, a registration, and who is there."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from servers import KEYS, ROOT, Server

SHIMS: dict[str, Any] = json.loads((ROOT / "tests" / "shims" / "shims.json").read_text())
AGENT = {
    "name": "My Testing Agent",
    "agent_type": "testing",
    "endpoint": "http://127.0.0.1:9",
    "capabilities": ["data-processing"],
    "context_brief": "A testing agent for data processing and file conversion",
}


@contextmanager
def shim(language: str) -> Iterator[Callable[..., dict[str, Any]]]:
    """Carries out one command at a time; its `ok` or `error`."""
    command: list[str] = SHIMS[language]["command"]
    if not any((ROOT / part).exists() for part in command):
        pytest.fail(f"the {language} shim is not built: make test-corpus")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ARCP_")}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        commands, answers = process.stdin, process.stdout

        def ask(do: str, **arguments: object) -> dict[str, Any]:
            commands.write(json.dumps({"id": 1, "do": do, **arguments}) + "\n")
            commands.flush()
            answer: dict[str, Any] = json.loads(answers.readline())
            return answer

        yield ask
        commands.close()
        assert process.wait(10) == 0


@pytest.mark.parametrize("language", sorted(SHIMS))
def test_every_language_registers_and_discovers(
    language: str, serve: Callable[..., AbstractContextManager[Server]]
) -> None:
    """Rules: REG-033, REG-041, REG-047."""
    with serve() as server, shim(language) as ask:
        assert "registry" in ask("hello")["ok"]["capabilities"]
        assert ask("health", url=server.url)["ok"]["status"] in {"healthy", "degraded"}
        agent = {"agent_id": f"shim-{language}", **AGENT}
        registered = ask("register", url=server.url, agent=agent, agent_key=KEYS[0])
        assert registered["ok"]["status"] == "alive", registered
        again = ask("register", url=server.url, agent=agent, agent_key=KEYS[0])
        assert again["error"]["code"] == "duplicate-agent", again
        bad = ask("register", url=server.url, agent={**agent, "name": "x"}, agent_key=KEYS[0])
        assert bad["error"]["message"].startswith("Invalid registration data: name"), bad
        found = ask("discover", url=server.url, agent_type="testing", capabilities=["data-processing"], limit=5)
        assert [each["agent_id"] for each in found["ok"]["agents"]] == [f"shim-{language}"]
        assert ask("discover", url=server.url, agent_type="security")["ok"]["agents"] == []
        nobody = ask("health", url="http://127.0.0.1:9")
        assert nobody["error"]["message"].startswith("Health check failed: Connection failed: "), nobody
