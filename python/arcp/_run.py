"""An agent at work on one job."""

import asyncio
import contextlib
import inspect
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from arcp import _native
from arcp._secrets import hide, without_secrets
from arcp.context import JobContext
from arcp.credentials import UpstreamBudgetExhausted
from arcp.errors import ARCPError, ConnectionError
from arcp.result_stream import ResultStream

if TYPE_CHECKING:
    from arcp.runtime import ARCPRuntime

Agent = Callable[[Any, JobContext], Any]
"""`async def agent(input, ctx)`, or a plain function, which runs in a thread. What it returns is the job's result.

An async generator works too (D-6): each text or bytes it yields is a part of the job's result, which is then streamed,
and each dict of `kind` and `body` an event.
"""

_DECODER = json.JSONDecoder()


class Run:
    """One agent at work."""

    def __init__(self, runtime: "ARCPRuntime", invocation: _native.Invocation, context: JobContext) -> None:
        self._runtime = runtime
        self._invocation = invocation
        self._context = context
        self._task: asyncio.Task[None] | None = None
        self._in_thread = False
        self.number = invocation.id

    def start(self, agent: Agent, *, on_loop: bool) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(agent, on_loop))
        self._task.add_done_callback(self._ended)

    def cancel(self) -> None:
        self._context._give_way()
        # A thread cannot be interrupted: the function sees `ctx.cancelled`.
        if self._task is not None and not self._in_thread:
            self._task.cancel()

    def abandon(self) -> None:
        """Nothing the agent does counts any more."""
        self._context._give_way()
        if self._task is not None:
            self._task.cancel()

    async def _run(self, agent: Agent, on_loop: bool) -> None:
        context = self._context
        if (tracing := self._runtime._tracing) is not None:
            tracing.enter(self._invocation.trace_context)
        try:
            given, _ = _DECODER.raw_decode(self._invocation.input)
            value = await (agent(given, context) if on_loop else self._call(agent, given))
            result = _native.encode(value, "result")
        except asyncio.CancelledError:
            self._give_way()
        except ARCPError as error:
            self._fail_with(error)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | GeneratorExit) and not self._in_thread:
                # Ctrl-C of the whole program, and a loop that is thrown away.
                raise
            if (spent := _spent_upstream(error)) is not None:
                return self._fail_with(spent)
            self._log_failure(error)
            self._fail("INTERNAL_ERROR", f"{type(error).__name__}: {_text(error)}", True)
        else:
            if context._broken_result is not None:
                return self._fail("INTERNAL_ERROR", f"the result was left unfinished: {context._broken_result}", True)
            try:
                if self._invocation.complete(result):
                    self._runtime._port.flush_soon()
            except Exception as error:
                # Too large, or too deep: the core has ended the job as `INTERNAL_ERROR`.
                self._runtime.logger.warning("agent %s: %s", context.agent_ref, _text(error))
                return self._end("error")
            # A cancellation that was announced wins over what the agent returned.
            self._end("cancelled" if context.cancelled else "success")

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._runtime._running.pop(self.number, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The first answer counts, so this is one only where none went out.
            self._fail("INTERNAL_ERROR", f"the agent's answer could not be sent: {type(error).__name__}", True)
        elif self._context._state == "running":
            # Cancelled before its first step, or taken down with the program.
            self._give_way()

    def _give_way(self) -> None:
        task = self._task
        if self._context.cancelled:
            self._end("cancelled")
            self._invocation.cancelled()
        elif task is not None and not task.done() and not task.cancelling():
            self._fail("INTERNAL_ERROR", "the agent raised asyncio.CancelledError, but its job was not cancelled", True)
        else:
            self._fail("INTERNAL_ERROR", "the agent's event loop was stopped", True)

    async def _call(self, agent: Agent, value: Any) -> Any:
        self._in_thread = True
        result = await self._runtime._threads.run(lambda: agent(value, self._context))
        self._in_thread = False
        if isinstance(result, AsyncGenerator):
            return await _run_generator(cast(AsyncGenerator[Any, None], result), self._context)
        if inspect.isawaitable(result):
            if self._context.cancelled:
                # Asked for while the function ran, and not to be waited out by what it returned.
                asyncio.ensure_future(result).cancel()
                raise asyncio.CancelledError
            return await result
        return result

    def _fail_with(self, error: ARCPError) -> None:
        if isinstance(error, ConnectionError):
            # A failure of this side; its code is none of the protocol's.
            return self._fail("INTERNAL_ERROR", f"ConnectionError: {_text(error)}", True)
        details = None
        if error.details is not None:
            try:
                details = _native.encode(error.details, "details")
            except (TypeError, ValueError):
                self._runtime.logger.warning("the details of an agent's error are not JSON", exc_info=True)
        return self._fail(error.code, _text(error.message), error.retryable, details)

    def _log_failure(self, error: BaseException) -> None:
        self._runtime.logger.warning(
            "agent %s failed", self._context.agent_ref, exc_info=without_secrets(error, self._context._secrets())
        )

    def _fail(self, code: str, message: str, retryable: bool, details: str | None = None) -> None:
        message = hide(message, self._context._secrets())
        self._invocation.fail(code, message, retryable, details)
        self._end("error")

    def _end(self, state: str) -> None:
        self._context._state = state


def _spent_upstream(error: BaseException) -> UpstreamBudgetExhausted | None:
    """The one an exception was raised from, however many others are between."""
    cause = error.__cause__
    for _ in range(16):
        if cause is None or isinstance(cause, UpstreamBudgetExhausted):
            return cause
        cause = cause.__cause__
    return None


def _text(value: object) -> str:
    """What `str` says, as UTF-8 can carry it; an error's own text may fail or hold half characters."""
    try:
        text = str(value)
    except Exception:
        return "(its text cannot be had)"
    return text.encode("utf-8", "replace").decode()


def as_coroutine(agent: Agent) -> Agent:
    async def run(value: Any, context: JobContext) -> None:
        await _run_generator(agent(value, context), context)

    return run


async def _run_generator(agent: AsyncGenerator[Any, None], context: JobContext) -> None:
    """Runs an agent that yields its events and the parts of its result."""
    stream: ResultStream | None = None
    async with contextlib.AsyncExitStack() as ending:
        ending.push_async_callback(agent.aclose)
        async for part in agent:
            if isinstance(part, str | bytes):
                if stream is None:
                    stream = await ending.enter_async_context(context.stream_result())
                await stream.write(part)
            elif isinstance(part, Mapping) and {"kind", "body"} <= part.keys():
                event = cast(Mapping[str, Any], part)
                await context.emit_event(event["kind"], event["body"])
            else:
                raise TypeError(
                    "an agent that is a generator yields text or bytes, for its result, and dicts of kind and body, "
                    f"for events; got {type(part).__name__}"
                )


def is_generator(agent: Agent) -> bool:
    return inspect.isasyncgenfunction(agent) or inspect.isasyncgenfunction(getattr(agent, "__call__", None))  # noqa: B004


def is_async(agent: Agent) -> bool:
    return inspect.iscoroutinefunction(agent) or inspect.iscoroutinefunction(getattr(agent, "__call__", None))  # noqa: B004
