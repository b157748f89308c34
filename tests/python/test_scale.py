"""Much at once, and for long: nothing is lost, and nothing is left behind. `ARCP_FAULTS=long` takes the long form."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = str(Path(__file__).with_name("scale_program.py"))
LONG = os.environ.get("ARCP_FAULTS") == "long"
MIB = 1 << 20

# The first rounds bring what all later ones use.
WARM_UP = 2
ROUNDS = WARM_UP + (10 if LONG else 2)


@contextlib.contextmanager
def served() -> Iterator[tuple[str, int]]:
    with subprocess.Popen([sys.executable, PROGRAM, "serve", "{}"], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip(), server.pid
        finally:
            server.kill()


def ask(what: str, **arguments: Any) -> Any:
    patience = 600 if LONG else 60
    done = subprocess.run(
        [sys.executable, "-W", "error", PROGRAM, what, json.dumps(arguments)],
        capture_output=True, text=True, timeout=patience, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


def assert_plateau(held: list[dict[str, Any]]) -> None:
    """After the rounds no process holds more than after the warm-up, give or take a tenth."""
    for process in ("client", "server"):
        sizes = [step[process]["bytes"] for step in held]
        files = [step[process]["files"] for step in held]
        # A round may be looked at while its last sessions are still being freed; a leak stays.
        assert min(sizes[-2:]) <= 1.10 * sizes[WARM_UP - 1], f"{process}: {[size // 1024 for size in sizes]} KiB"
        assert min(files[-2:]) <= files[WARM_UP - 1], f"{process}: {files} open files"


def test_a_long_job_that_is_read_slowly_fills_neither_process() -> None:
    events = 1_000_000 if LONG else 100_000
    with served() as (url, server):
        seen = ask("read_slowly", url=url, server=server, events=events)
    assert seen["read"] == events
    assert seen["lagged"] >= 1, "the reader was not slow enough to see anything"
    # At most 100 000 events and 64 MiB wait for a connection, its emitter waits at half of that (D-20), and
    # a client holds what its runtime lets be unacknowledged.
    assert seen["grew"]["server"] < 96 * MIB, seen
    assert seen["grew"]["client"] < 96 * MIB, seen


def test_a_thousand_jobs_at_once_leave_nothing() -> None:
    with served() as (url, _):
        assert_plateau(ask("jobs_at_once", url=url, jobs=1000, count=ROUNDS))


def test_two_hundred_clients_of_several_principals_leave_nothing() -> None:
    with served() as (url, _):
        assert_plateau(ask("clients_at_once", url=url, clients=200, count=ROUNDS))
