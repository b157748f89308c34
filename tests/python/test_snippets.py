"""The documentation's snippets, letter by letter; only host, token and agent names are replaced."""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from conftest import BOUND_SEC

SNIPPETS = Path(__file__).parent / "snippets"
# An authority whose key is gone, and what it signed for localhost, for a hundred years.
TLS = Path(__file__).parent / "tls"


def python(source: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-X", "dev", "-u", "-W", "error", "-c", source]
    return subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | environment
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=BOUND_SEC)
    assert (process.returncode, errors) == (0, ""), errors
    return output


def test_quickstart() -> None:
    source = (SNIPPETS / "quickstart.py").read_text()
    assert finish(python(source)) == "{'echoed': {'hi': 1}}\n"


def test_running_the_runtime_and_writing_clients() -> None:
    # A free port, and a line that tells it.
    source = (SNIPPETS / "running_the_runtime.py").read_text().replace("port=7777", "port=0")
    source = source.replace("    async with server:\n", "    print(server.url)\n    async with server:\n")
    server = python(source)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        assert url.startswith("ws://127.0.0.1:"), url
        source = (SNIPPETS / "writing_clients.py").read_text()
        source = source.replace("wss://runtime.example.com/arcp", url).replace('agent="weekly-report"', 'agent="echo"')
        assert finish(python(source, TOKEN="tok")) == "{'echoed': {'week': '2026-W19'}}\n"
    finally:
        server.terminate()
        server.communicate(timeout=BOUND_SEC)


APP = """
from arcp import ARCPRuntime, RuntimeInfo
from arcp.runtime import StaticBearerVerifier

async def weekly_report(value, ctx):
    await ctx.log("info", "writing")
    return {"report of": value["week"], "reads": ctx.lease["net.fetch"]}

runtime = ARCPRuntime(
    runtime=RuntimeInfo(name="app", version="1.0"),
    bearer=StaticBearerVerifier({"tok": "me@example.com"}),
).register_agent("weekly-report", weekly_report)
"""


def test_writing_clients_over_tls(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    serve = ["serve", "--port", "0", "--output", "json", "--app", "app:runtime", "--db", "memory"]
    certificate = ["--tls-cert", str(TLS / "cert.pem"), "--tls-key", str(TLS / "key.pem")]
    server = subprocess.Popen(
        [sys.executable, "-m", "arcp", *serve, *certificate],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line, server.communicate(timeout=BOUND_SEC)
        address = urlsplit(json.loads(line)["listening"]["url"])
        assert address.scheme == "wss", line
        # The host, with its port, is all that is replaced: the certificate names localhost.
        source = (SNIPPETS / "writing_clients.py").read_text()
        source = source.replace("runtime.example.com", f"localhost:{address.port}")
        trusting = python(source, TOKEN="tok", SSL_CERT_FILE=str(TLS / "ca.pem"))
        assert finish(trusting) == "{'report of': '2026-W19', 'reads': ['s3://example/**']}\n"
        # Who does not know the authority does not talk to this server.
        _, errors = python(source, TOKEN="tok").communicate(timeout=BOUND_SEC)
        assert "certificate" in errors, errors
    finally:
        server.terminate()
        server.communicate(timeout=BOUND_SEC)
