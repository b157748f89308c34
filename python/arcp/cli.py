"""The program `arcp`. The core runs it, save `serve --app`, which hosts a runtime written in Python."""

import asyncio
import contextlib
import importlib
import json
import os
import signal
import sys
import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, NoReturn

from arcp import _native

if TYPE_CHECKING:
    from arcp.runtime import ARCPRuntime

__all__ = ["main"]


def main() -> NoReturn:
    """Runs the program with this process's arguments and leaves with its status."""
    with _interruptible():
        status, app = _native.run_cli(["arcp", *sys.argv[1:]])
    if app is not None:
        status = _serve_app(*app)
    sys.exit(status)


@contextlib.contextmanager
def _interruptible() -> Generator[None]:
    """Ctrl-C does to the program what it does to any: Python's own handler would wait for Python code to run."""
    python_handles = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not python_handles:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _serve_app(app: str, options_json: str, output_json: bool) -> int:
    options = json.loads(options_json)
    db, synchronous, key_file = (options.pop(name, None) for name in ("db", "synchronous", "db_key_file"))
    metrics, audit = options.pop("metrics", None), options.pop("audit", None)
    try:
        runtime = _load(app)
        if db is not None:
            _keep_in(runtime, db, synchronous, key_file)
        if audit is not None:
            _audit_to(runtime, audit)
        asyncio.run(_serve(runtime, json.dumps(options), output_json, metrics))
    except _Unusable as error:
        return _native.report_failure(str(error), output_json)
    except (OSError, ValueError) as error:
        return _native.report_failure(f"cannot listen: {error}", output_json)
    except KeyboardInterrupt:
        return 0
    return 0


class _Unusable(Exception):
    """What `--app` names cannot be served; the text is one line."""


def _load(app: str) -> "ARCPRuntime":
    """The runtime `module:attribute` names, or the one its zero-argument factory gives."""
    from arcp.runtime import ARCPRuntime

    name, _, attribute = app.partition(":")
    # As `python -m` does, so that a module beside the caller is found.
    sys.path.insert(0, "")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise _Unusable(f"--app {app}: no module named {error.name!r} in the current folder or installed") from None
        raise _Unusable(f"--app {app}: importing {name} failed: {_line(error)}") from error
    except Exception as error:
        raise _Unusable(f"--app {app}: importing {name} failed: {_line(error)}") from error
    found = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise _Unusable(f"--app {app}: {name} has no {attribute!r}")
        found = getattr(found, part)
    if not isinstance(found, ARCPRuntime) and callable(found):
        try:
            found = found()
        except Exception as error:
            raise _Unusable(f"--app {app}: {attribute}() failed: {_line(error)}") from error
    if not isinstance(found, ARCPRuntime):
        kind = type(found).__name__
        raise _Unusable(f"--app {app}: {attribute} must be an ARCPRuntime or a function that gives one, got {kind}")
    return found


def _keep_in(runtime: "ARCPRuntime", db: str, synchronous: str | None, key_file: str | None) -> None:
    try:
        runtime.keep_in(db, synchronous, key_file)
    except ValueError as error:
        raise _Unusable(f"--db {db}: {error}") from None


def _audit_to(runtime: "ARCPRuntime", path: str) -> None:
    try:
        runtime.audit_to(path)
    except ValueError as error:
        raise _Unusable(f"--audit: {error}") from None


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


async def _serve(runtime: "ARCPRuntime", options: str, output_json: bool, metrics: str | None) -> None:
    from arcp.transport import serve_with

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not every platform's loop can; there Ctrl-C raises KeyboardInterrupt.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stopped.set)
    async with await serve_with(runtime.accept, options) as server:
        figures = None
        if metrics is not None:
            try:
                figures = await runtime.serve_metrics(metrics)
            except OSError as error:
                raise _Unusable(f"--metrics: {error}") from None
        db = None if runtime.db in (None, "memory") else os.path.abspath(runtime.db)
        if output_json:
            listening = {"url": server.url, "db": db} | ({} if figures is None else {"metrics": figures})
            print(json.dumps({"listening": listening}, separators=(",", ":")), flush=True)
        else:
            print(f"arcp serve listening on {server.url}", file=sys.stderr, flush=True)
            if figures is not None:
                print(f"arcp serve metrics on {figures}", file=sys.stderr, flush=True)
            if db is not None:
                print(f"arcp serve keeps sessions and jobs in {db}", file=sys.stderr, flush=True)
        await stopped.wait()
    # A second Ctrl-C does not wait for the agents.
    loop.remove_signal_handler(signal.SIGINT)
    await runtime.close(reason="the runtime is stopping", grace_sec=10.0)
