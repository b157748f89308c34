"""Submits `source-report` under a lease on this repository, draws its progress and prints its report."""

import asyncio
import os
import sys
from pathlib import Path

from arcp import ARCPClient, ClientInfo, WebSocketTransport

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = Path(sys.executable).resolve()
BAR = 40


def draw(current: int, total: int) -> None:
    """A bar on a terminal, a line for every tenth elsewhere."""
    filled = BAR * current // total
    if sys.stdout.isatty():
        print(f"\r[{'#' * filled}{'.' * (BAR - filled)}] {current}/{total} files", end="", flush=True)
        if current == total:
            print()
    elif current == total or (10 * current) // total > (10 * (current - 1)) // total:
        print(f"{100 * current // total:3} % of {total} files", flush=True)


async def main() -> None:
    transport = await WebSocketTransport.connect(os.environ["ARCP_DEMO_URL"])
    client = ARCPClient(client=ClientInfo(name="demo-client", version="1.0.0"), token=os.environ["ARCP_DEMO_TOKEN"])
    await client.connect(transport)
    try:
        handle = await client.submit(
            agent="source-report",
            input={"root": str(ROOT), "outside": str(OUTSIDE)},
            lease_request={"fs.read": [f"{ROOT}/**"]},
        )
        print(f"job {handle.job_id}", flush=True)
        lines = 0
        async for event in handle.events():
            body = event["body"]
            if event["kind"] == "progress":
                draw(body["current"], body["total"])
            elif event["kind"] == "metric":
                lines += body["value"]
            elif event["kind"] == "tool_result":
                print(f"refused: {body['error']['code']}: {body['error']['message']}")
        report = (await handle.done).result
        print(f"{report['files']} files, {lines} lines")
        for language, count in report["lines"].items():
            print(f"  {language:<11} {count:>7}")
        assert sum(report["lines"].values()) == lines, "every metric arrived"
        assert report["refused"], "the file outside the lease was refused"
    finally:
        await client.close()


asyncio.run(main())
