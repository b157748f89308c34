"""What `docs/registry` says without running it is compared with a registry: frames, settings, endpoints, methods."""

import asyncio
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import arcp
import openapi_page
import registry_server
from conftest import run
from hosts import RawSocket

DOCS = Path(__file__).parents[2] / "docs" / "registry"
TEXT = {page.name: page.read_text(encoding="utf-8") for page in DOCS.glob("*.md")}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT[page], re.DOTALL | re.MULTILINE)


def shape(value: Any) -> Any:
    """Members and kinds of a value; of a list that of its first item, or nothing."""
    if isinstance(value, dict):
        return {name: shape(member) for name, member in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def differences(told: Any, real: Any, at: str) -> list[str]:
    """Where two shapes differ, save for lists that are empty on one side and entries with members to spare."""
    if isinstance(told, dict) and isinstance(real, dict):
        # What these hold is up to whoever wrote them; a log's entry has more by what it is about.
        free = at.endswith(("metadata", "agent_types", "details"))
        wrong = [] if free else [f"{at}.{name}: told only" for name in told.keys() - real.keys()]
        if not free and not at.endswith("logs[]"):
            wrong += [f"{at}.{name}: real only" for name in real.keys() - told.keys()]
        both = told.keys() & real.keys()
        return wrong + [found for name in both for found in differences(told[name], real[name], f"{at}.{name}")]
    if isinstance(told, list) and isinstance(real, list):
        return differences(told[0], real[0], f"{at}[]") if told and real else []
    return [] if told == real or at.endswith("agent_type") else [f"{at}: {told!r} told, {real!r} real"]


async def frames(port: int, path: str, *say: dict[str, Any], until: set[str]) -> dict[str, Any]:
    """The last frame of each type that came, until all of these came."""
    socket, head = await RawSocket.connect(port, path=path)
    assert head.startswith("HTTP/1.1 101 "), head
    heard: dict[str, Any] = {}
    try:
        for message in say:
            await socket.say(message)
        while not until <= heard.keys():
            opcode, data = await socket.frame()
            assert opcode in (1, 9), (opcode, data, heard.keys())
            if opcode == 1 and data != b"ping":
                message = json.loads(data)
                heard["array" if isinstance(message, list) else message["type"]] = message
    finally:
        socket.abort()
    return heard


def test_frames_are_as_told() -> None:
    """Rules: REG-310, REG-311, REG-313, REG-317, REG-330, REG-341, REG-343, REG-344, REG-345, REG-346, REG-347"""
    told = {frame["type"]: frame for frame in map(json.loads, blocks("websocket.md", "json"))}
    quick = {f"{name}_WS_INTERVAL": "1" for name in ("PUBLIC", "AGENT", "DASHBOARD")}
    with registry_server.served(environment=quick) as url, registry_server.word_counter(url):
        port = urlsplit(url).port
        assert port is not None
        token = registry_server.login(url)

        async def main() -> dict[str, Any]:
            public = asyncio.create_task(
                frames(
                    port,
                    "/public/ws",
                    {"type": "get_discovery"},
                    until={"welcome", "stats_update", "discovery_data", "agents_update"},
                )
            )
            agent = await frames(port, "/agents/ws", {"token": token}, until={"auth_required", "auth_success", "array"})
            dashboard = await frames(
                port,
                "/dashboard/ws",
                {"type": "auth", "token": token},
                {"type": "dashboard_alert", "data": {"title": "T", "message": "M", "severity": "warning", "type": "t"}},
                {"type": "pause_monitoring"},
                {"type": "resume_monitoring"},
                {"type": "refresh_request"},
                until={"monitoring", "health", "agents", "logs", "pause_ack", "resume_ack", "refresh_ack"},
            )
            # Alerts that are stored come first of all to the next one who watches.
            again = await frames(port, "/dashboard/ws", {"type": "auth", "token": token}, until={"alert"})
            # A change, so that the public socket tells of one.
            await asyncio.to_thread(second_agent, url, token)
            real = await public | agent | dashboard | {"alert": again["alert"]}
            agent_told = [told["agents_update"]["data"]["agents"]]
            wrong = differences(shape(agent_told), shape([real["array"]]), "array")
            assert not wrong, wrong
            return real

        real: dict[str, Any] = {}

        async def hear() -> None:
            real.update(await main())

        run(hear)
    for name, frame in told.items():
        wrong = differences(shape(frame), shape(real[name]), name)
        assert not wrong, wrong
    for plain in ("welcome", "auth_required", "auth_success"):
        assert told[plain] == real[plain]
    for ack in ("pause_ack", "resume_ack", "refresh_ack"):
        assert told[ack]["data"] == real[ack]["data"]


def second_agent(url: str, token: str) -> None:
    agent = registry_server.ask(f"{url}/public/agent/word-counter")
    names = ("name", "agent_type", "endpoint", "capabilities", "context_brief", "version", "owner", "public_key")
    registration = {name: agent[name] for name in (*names, "communication_mode", "metadata")}
    registry_server.ask(f"{url}/agents/register", registration | {"agent_id": "word-counter-2"}, token=token)


def test_the_file_of_settings_is_taken(tmp_path: Path) -> None:
    """Rules: REG-500"""
    (example,) = blocks("configuration.md", "toml")
    (tmp_path / "registry.toml").write_text(example)
    command = [sys.executable, "-m", "arcp", "registry", "config", "check", "--config", "registry.toml"]
    done = subprocess.run(command, cwd=tmp_path, env=registry_server.CLEAN, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "translation" in done.stdout
    assert "500" in done.stdout


def test_every_endpoint_is_told_of() -> None:
    """`ARCP_WRITE_DOCS=1` writes that part of the page anew. Rules: REG-103"""
    with registry_server.served() as url, registry_server.word_counter(url):
        document = registry_server.ask(f"{url}/openapi.json")
        token = registry_server.login(url)
        members: dict[str, list[str]] = {}
        for path, method, operation in openapi_page.operations(document):
            answer = operation["responses"]["200"]["content"].get("application/json", {}).get("schema", {})
            if method == "get" and answer == {"type": "object"}:
                real = registry_server.ask(url + path.replace("{agent_id}", "word-counter"), token=token)
                members[path] = list(real)
    wanted = openapi_page.endpoints(document, members)
    begin, end = "<!-- endpoints:begin -->\n", "<!-- endpoints:end -->"
    before, rest = TEXT["http.md"].split(begin)
    told, after = rest.split(end)
    if os.environ.get("ARCP_WRITE_DOCS"):
        (DOCS / "http.md").write_text(before + begin + wanted + end + after, encoding="utf-8")
    else:
        assert told == wanted


def test_every_field_of_a_registration_is_told_of() -> None:
    """Rules: REG-070"""
    with registry_server.served() as url:
        schema = registry_server.ask(f"{url}/openapi.json")["components"]["schemas"]["AgentRegistration"]
    section = TEXT["agents.md"].split("## What an agent says of itself\n")[1].split("\n## ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| (yes|no) \|", section, re.MULTILINE))
    assert told == {name: "yes" if name in schema["required"] else "no" for name in schema["properties"]}


def test_the_table_of_methods_is_whole() -> None:
    table = TEXT["client-guide.md"].split("## All methods\n")[1].split("\n## ")[0]
    told = re.findall(r"`(\w+)\(", table)
    methods = {name for name in dir(arcp.RegistryClient) if not name.startswith("_")}
    assert sorted(told) == sorted(name for name in methods if callable(getattr(arcp.RegistryClient, name)))
    for name, arguments in re.findall(r"`(\w+)\(([^)]*)\)", table):
        parameters = inspect.signature(getattr(arcp.RegistryClient, name)).parameters
        for argument in re.findall(r"(\w+)(?:=([^,]+))?", arguments):
            parameter = parameters[argument[0]]
            assert parameter.default in (inspect.Parameter.empty, None, ...) or argument[1] in (
                "",
                repr(parameter.default),
                repr(parameter.default).replace("'", '"'),
            ), (name, argument)


def test_the_readme_shows_what_is_run() -> None:
    readme = (DOCS.parent.parent / "README.md").read_text(encoding="utf-8")
    section = readme.split("\n## The registry\n")[1].split("\n## ")[0]
    (shown,) = re.findall(r"^```python\n.*?^```", section, re.DOTALL | re.MULTILINE)
    assert shown in TEXT["client-guide.md"]
