"""Hosts `source-report`: counts the lines of a source tree, reading only what the job's lease covers."""

import asyncio
import contextlib
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from arcp import PermissionDeniedError, RuntimeInfo, serve_websocket
from arcp.runtime import ARCPRuntime, JobContext, StaticBearerVerifier

SOURCES = {
    ".rs": "Rust",
    ".py": "Python",
    ".ts": "TypeScript",
    ".c": "C",
    ".h": "C",
    ".md": "Markdown",
    ".json": "JSON",
}
SKIPPED = {"target", "node_modules", "__pycache__", "dist"}


def read(ctx: JobContext, path: Path) -> str:
    """Reads a file if the lease covers it. Links are resolved first: the lease is about the real file."""
    real = path.resolve()
    ctx.authorize("fs.read", str(real))
    return real.read_text(encoding="utf-8", errors="replace")


def sources(root: Path) -> list[Path]:
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED and not name.startswith("."))
        found += [Path(folder, name) for name in sorted(files) if Path(name).suffix in SOURCES]
    return found


async def source_report(job: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    files = sources(Path(job["root"]))
    await ctx.status("reading", f"{len(files)} files")
    lines: Counter[str] = Counter()
    for number, path in enumerate(files, start=1):
        count = read(ctx, path).count("\n")
        lines[SOURCES[path.suffix]] += count
        await ctx.metric({"name": "source.lines", "value": count, "unit": "lines", "dimensions": {"file": path.name}})
        await ctx.progress(number, total=len(files), units="files")

    refused = None
    try:
        read(ctx, Path(job["outside"]))
    except PermissionDeniedError as error:
        refused = error.message
        await ctx.tool_result({"call_id": "outside", "error": error.to_payload()})
    return {"files": len(files), "lines": dict(lines.most_common()), "refused": refused}


async def main() -> None:
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="demo-agent", version="1.0.0"),
        bearer=StaticBearerVerifier({os.environ["ARCP_DEMO_TOKEN"]: "demo@example.com"}),
    )
    runtime.register_agent("source-report", source_report)
    port = int(os.environ.get("ARCP_DEMO_PORT", "0"))
    server = await serve_websocket(runtime.accept, host="127.0.0.1", port=port, path="/arcp")
    async with server:
        port = server.sockets[0].getsockname()[1]
        print(f"listening on ws://127.0.0.1:{port}/arcp", file=sys.stderr, flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
