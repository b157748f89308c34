"""Our Python package beside the published SDK, in one run.

Both are installed from their wheels into environments of their own; client and agent are a process each. Five rounds,
in each of which every row is taken for ours and for theirs; medians count. Words choose the rows they occur in.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from packages import Package, figure, hosted, install
from table import PACKAGES, Row, markdown, write_between

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"
ROUNDS = 5
RESULT = 64_000_000


class Bench:
    def __init__(self, packages: dict[str, Package]) -> None:
        self.packages = packages

    def script(
        self, name: str, package: str, *, durable: bool = False, server_as: str | None = None, **arguments: Any
    ) -> float:
        """Runs a client script against a fresh runtime of the same package."""
        python = self.packages[package].python
        with tempfile.TemporaryDirectory() as folder:
            database = [str(Path(folder) / "bench.db")] if durable else []
            with hosted(python, HERE / "hosted.py", *database) as (url, process):
                arguments["url"] = url
                if server_as is not None:
                    arguments[server_as] = process
                return figure(python, HERE / f"{name}.py", json.dumps(arguments))

    def events(self, package: str, *, durable: bool = False, batch: bool = False) -> float | None:
        if package == "theirs" and batch:
            return None
        # About as long for either.
        count = {"ours": 400_000, "theirs": 6_000 if durable else 30_000}[package]
        batched = {"batch": True} if batch else {}
        return self.script("events", package, durable=durable, count=count, **batched)

    def wheel(self, package: str) -> float:
        return self.packages[package].wheel.stat().st_size / 1e6

    def rows(self) -> list[Row]:
        def echoes(in_flight: int) -> Any:
            return lambda package: self.script("echo", package, in_flight=in_flight, seconds=2)

        def importing(statement: str) -> Any:
            return lambda package: figure(self.packages[package].python, HERE / "importing.py", statement)

        return [
            Row("events of one job into `async for`", "/s", self.events, "400 k/s"),
            Row("the same, `events(batch=True)`", "/s", lambda package: self.events(package, batch=True)),
            Row(
                "events of one job into `async for`, durable",
                "/s",
                lambda package: self.events(package, durable=True),
                "150 k/s",
            ),
            Row(
                "the same, durable, `events(batch=True)`",
                "/s",
                lambda package: self.events(package, durable=True, batch=True),
            ),
            Row("echo jobs, 64 in flight", "/s", echoes(64), "40 k/s"),
            Row("echo jobs, one at a time", "/s", echoes(1)),
            Row(
                "one `await ctx.log(...)`",
                "us",
                lambda package: self.script("emit", package, bursts=50),
                "at most 1 us",
            ),
            Row(
                "64 MB result in chunks, text",
                "MB/s",
                lambda package: self.script("chunks", package, bytes=RESULT, text=True),
                "400 MB/s",
            ),
            Row(
                "64 MB result in chunks, bytes",
                "MB/s",
                lambda package: self.script("chunks", package, bytes=RESULT, text=False),
                "400 MB/s",
            ),
            Row(
                "resume of 10 000 events",
                "ms",
                lambda package: self.script("resume", package, events=10_000),
                "at most 50 ms",
            ),
            Row("`import arcp`", "ms", importing("import arcp"), "at most 60 ms"),
            Row(
                "`from arcp.client import ARCPClient`",
                "ms",
                importing("from arcp.client import ARCPClient"),
            ),
            Row(
                "an idle session, server memory",
                "KiB",
                lambda package: self.script("idle", package, server_as="server", sessions=500),
                "at most 20 KiB",
            ),
            Row("wheel", "MB", self.wheel, "at most 12 MB", once=True),
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only rows with one of these words in their names")
    parser.add_argument("--wheel", type=Path, required=True, help="our package, as `make wheel` builds it")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", action="store_true", help="write the table into README.md too")
    parser.add_argument(
        "--environments", type=Path, help="a folder to make the environments in, or to find them in again"
    )
    options = parser.parse_args()
    if options.write and options.words:
        parser.error("--write wants all rows; leave the words out")
    with tempfile.TemporaryDirectory(prefix="arcp-bench-") as folder:
        rows = Bench(install(options.environments or Path(folder), options.wheel)).rows()
        chosen = [row for row in rows if not options.words or any(word in row.what for word in options.words)]
        for number in range(options.rounds):
            for row in chosen:
                for package in PACKAGES:
                    row.take(package)
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    table = markdown(chosen)
    print(table)
    faults = [(row, package, fault) for row in chosen for package, fault in row.faults.items()]
    for row, package, fault in faults:
        print(f"{row.what}, {package}: not measured: {fault}", file=sys.stderr)
    if options.write:
        write_between(README, "bench-python", table)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
