"""Exceptions: what they carry, how they travel, and what they do not tell."""

import asyncio
import builtins
import copy
import pickle
from typing import Any

import pytest

import arcp
from arcp import errors
from arcp.runtime import JobContext, StaticBearerVerifier
from conftest import make_client, make_runtime, run, session

CLASSES = [errors.error_class_for(code) for code in errors.ERROR_CODES]


class Refused(arcp.PermissionDeniedError):
    """One of a program's own, with arguments of its own."""

    def __init__(self, path: str, *, reason: str) -> None:
        super().__init__(f"{path}: {reason}", details={"path": path})
        self.path = path


@pytest.mark.parametrize("cls", CLASSES)
def test_every_code_has_its_class(cls: type[arcp.ARCPError]) -> None:
    error = cls("it failed", details={"a": [1]})
    assert arcp.error_class_for(cls.code) is cls
    assert (error.code, error.message, str(error), error.details) == (cls.code, "it failed", "it failed", {"a": [1]})
    assert error.retryable is cls.default_retryable
    assert cls("x", retryable=not cls.default_retryable).retryable is not cls.default_retryable
    payload = error.to_payload()
    assert payload == {"code": cls.code, "message": "it failed", "retryable": error.retryable, "details": {"a": [1]}}
    read = arcp.error_from_payload(payload)
    assert type(read) is cls
    assert read.to_payload() == payload
    assert cls.__doc__


def test_only_failures_that_may_pass_are_retryable() -> None:
    retryable = {cls.code for cls in CLASSES if cls.default_retryable}
    assert retryable == {"TIMEOUT", "HEARTBEAT_LOST", "INTERNAL_ERROR"}


def test_an_unknown_code_keeps_its_text() -> None:
    """As R-12.5 has it."""
    error = arcp.error_from_payload({"code": "ACME_OUT_OF_INK", "message": "m", "retryable": False})
    assert type(error) is arcp.InternalError
    assert (error.code, error.retryable) == ("ACME_OUT_OF_INK", False)
    assert error.to_payload()["code"] == "ACME_OUT_OF_INK"
    assert arcp.error_class_for("ACME_OUT_OF_INK") is arcp.InternalError
    assert arcp.InternalError.code == "INTERNAL_ERROR"


@pytest.mark.parametrize(
    "error",
    [
        *[cls("it failed", details={"a": 1}, retryable=True) for cls in CLASSES],
        arcp.ARCPError("m", code="ACME"),
        arcp.error_from_payload({"code": "ACME", "message": "m", "retryable": False}),
        arcp.ConnectionError("no route"),
        arcp.TransportClosed("gone", lost=True),
        Refused("/etc", reason="not yours"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_travel(error: Exception) -> None:
    error.add_note("seen by the worker")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert type(again) is type(error)
        assert vars(again) == vars(error)
        assert (str(again), again.args, again.__notes__) == (str(error), error.args, ["seen by the worker"])
    again = copy.copy(error)
    assert vars(again) == vars(error)
    if isinstance(error, arcp.ARCPError):
        assert again.to_payload() == error.to_payload()


def test_names_that_shadow_builtins_have_others() -> None:
    assert arcp.ARCPCancelledError is arcp.CancelledError
    assert arcp.ARCPTimeoutError is arcp.TimeoutError
    assert arcp.ARCPConnectionError is arcp.ConnectionError
    assert not issubclass(arcp.TimeoutError, builtins.TimeoutError)
    assert issubclass(arcp.ConnectionError, builtins.ConnectionError)
    assert not issubclass(arcp.TransportClosed, arcp.ARCPError)


def test_an_agents_error_arrives_whole() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        raise Refused("/etc", reason="not yours")

    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            with pytest.raises(arcp.PermissionDeniedError) as caught:
                await (await client.submit(agent="agent")).done
        assert caught.value.to_payload() == Refused("/etc", reason="not yours").to_payload()

    run(main)


def test_secrets_are_in_no_repr() -> None:
    secret = "s3cr3t-token-of-alice"

    async def agent(value: Any, ctx: JobContext) -> str:
        return " ".join(repr(each) for each in (ctx, ctx.job, ctx.job.session, ctx.job.session.state, ctx.runtime))

    async def main() -> None:
        runtime = make_runtime({"agent": agent}, bearer=StaticBearerVerifier({secret: "alice"}))
        async with session(runtime, token=secret) as client:
            handle = await client.submit(agent="agent")
            result = await handle.done
            welcome = client.welcome
            assert welcome is not None
            secrets = (secret, welcome.resume_token)
            resume = arcp.SessionResume(session_id=welcome.session_id, resume_token=welcome.resume_token)
            seen = [client, handle, result, welcome, resume, runtime, runtime.bearer, handle.accepted]
            shown = f"{seen!r} {result.result}"
            for hidden in secrets:
                assert hidden not in shown
            with pytest.raises(ExceptionGroup) as caught:
                await refused(runtime, f"{secret}-wrong")
            assert caught.group_contains(arcp.UnauthenticatedError)
            assert secret not in repr(caught.value.exceptions)

    run(main)


def test_a_token_that_cannot_be_sent_is_in_no_error() -> None:
    secret = "s3cr3t-token-of-alice"

    async def main() -> None:
        with pytest.raises(ValueError, match="token holds a lone surrogate") as caught:
            make_client(token=f"{secret}\ud800")
        assert secret not in repr(caught.value)
        with pytest.raises(ValueError, match="token holds a lone surrogate") as caught:
            StaticBearerVerifier({f"{secret}\ud800": "alice"})
        assert secret not in repr(caught.value)
        ours, theirs = arcp.pair_memory_transports()
        async with asyncio.TaskGroup() as tasks, make_client(token=lambda: f"{secret}\ud800") as client:
            tasks.create_task(make_runtime().accept(theirs))
            with pytest.raises(ValueError, match="token holds a lone surrogate") as caught:
                await client.connect(ours)
            assert secret not in repr(caught.value)

    run(main)


def test_a_token_nobody_waits_for_is_asked_for_no_longer() -> None:
    async def never(*_: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async def cancelled() -> str:
        raise asyncio.CancelledError

    class Silent:
        verify = never

    async def main() -> None:
        runtime = make_runtime(bearer=Silent())
        ours, theirs = arcp.pair_memory_transports()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(runtime.accept(theirs))
            connecting = tasks.create_task(make_client(token=never).connect(ours))
            await asyncio.sleep(0.01)
            connecting.cancel()
            await stopped.wait()
        stopped.clear()
        ours, theirs = arcp.pair_memory_transports()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(runtime.accept(theirs))
            with pytest.raises(TimeoutError):
                await make_client(handshake_timeout_sec=0.1).connect(ours)
            await runtime.close()
            await stopped.wait()
        with pytest.raises(arcp.InternalError, match="the token's callable was cancelled"):
            await make_client(token=cancelled).connect(arcp.pair_memory_transports()[0])

    stopped = asyncio.Event()
    run(main)


def test_a_token_is_not_logged_with_its_verifiers_failure(caplog: pytest.LogCaptureFixture) -> None:
    secret = "s3cr3t-token-of-alice"

    class Failing:
        async def verify(self, token: str) -> Any:
            raise LookupError(f"no row for {token}")

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            await refused(make_runtime(bearer=Failing()), secret)
        assert caught.group_contains(arcp.InternalError)

    run(main)
    assert "no row for ***" in caplog.text
    assert secret not in caplog.text


async def refused(runtime: arcp.ARCPRuntime, token: str) -> None:
    ours, theirs = arcp.pair_memory_transports()
    async with asyncio.TaskGroup() as tasks, make_client(token=token) as client:
        tasks.create_task(runtime.accept(theirs))
        await client.connect(ours)
