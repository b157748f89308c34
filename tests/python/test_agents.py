"""Agents of every form, their contexts and how they end."""

import asyncio
import contextvars
import functools
import re
import threading
from decimal import Decimal
from typing import Any

import pytest

import arcp
from arcp.runtime import JobContext
from conftest import ALICE, make_runtime, run, session


class Unusual(BaseException):
    pass


def ask(agent: Any, input: Any = None, **submit: Any) -> Any:
    """The result of one job, and its events."""
    events: list[dict[str, Any]] = []
    results: list[Any] = []

    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent", input=input, **submit)
            try:
                results.append((await handle.done).result)
            finally:
                events.extend([{"kind": event.kind, "body": event.body} async for event in handle.events()])

    try:
        run(main)
    except BaseExceptionGroup as group:
        (error,) = group.exceptions
        raise error from None
    return results[0], events


async def coroutine(value: Any, ctx: JobContext) -> Any:
    await ctx.log("info", "started")
    return {"got": value}


def plain(value: Any, ctx: JobContext) -> Any:
    ctx.log("info", "started")
    return {"got": value}


class Callable:
    async def __call__(self, value: Any, ctx: JobContext) -> Any:
        return await coroutine(value, ctx)


def returns_awaitable(value: Any, ctx: JobContext) -> Any:
    return coroutine(value, ctx)


@pytest.mark.parametrize(
    "agent",
    [coroutine, plain, Callable(), functools.partial(coroutine), functools.partial(plain), returns_awaitable],
    ids=["coroutine", "plain", "callable", "partial", "partial-plain", "returns-awaitable"],
)
def test_every_form_of_agent(agent: Any) -> None:
    result, events = ask(agent, {"n": 1})
    assert result == {"got": {"n": 1}}
    assert events == [{"kind": "log", "body": {"level": "info", "message": "started"}}]


def test_a_lambda() -> None:
    assert ask(lambda inp, ctx: {"echoed": inp}, [1, None, "ä"])[0] == {"echoed": [1, None, "ä"]}


def test_numbers_and_texts_survive() -> None:
    big = 12345678901234567890123
    texts = ['quote " slash \\ line \n tab \t bell \x07 del \x7f', "\U0001f600", ""]
    value = {"big": big, "float": 0.1, "negative": -0.0, "deep": [[[1]]], "texts": texts, "none": None, "yes": True}
    assert ask(lambda inp, ctx: [inp["big"] + 1, inp], value)[0] == [big + 1, value]


def test_the_context_tells_about_the_job() -> None:
    seen: dict[str, Any] = {}

    async def agent(value: Any, ctx: JobContext) -> None:
        seen.update(
            ids=(ctx.job_id, ctx.session_id, ctx.job.job_id, ctx.job.session.session_id),
            agent=(ctx.agent, ctx.agent_version, ctx.agent_ref),
            who=(ctx.job.submitter_principal, ctx.job.session.principal),
            lease=ctx.lease,
            budget=ctx.budget,
            constraints=ctx.lease_constraints,
            trace=ctx.trace_id,
            state=ctx.job.state,
            cancelled=ctx.cancelled,
        )
        await ctx.metric("cost.llm", Decimal("0.1234567890123456789012345"), "USD")
        seen["left"] = ctx.budget["USD"]
        seen["seq"] = ctx.job.session.latest_event_seq
        seen["acked"] = ctx.job.session.state.last_acked_seq

    async def main() -> None:
        runtime = make_runtime()
        runtime.register_agent_version("agent", "1.2", agent)
        async with session(runtime) as client:
            handle = await client.submit(
                agent="agent",
                lease_request={"fs.read": ["/data/**"], "cost.budget": ["USD:1.00"]},
                lease_constraints=arcp.LeaseConstraints(expires_at="2099-01-01T00:00:00Z"),
                trace_id="0af7651916cd43dd8448eb211c80319c",
            )
            assert (await handle.done).result is None
            assert handle.agent_ref == "agent@1.2"
            assert handle.lease["fs.read"] == ["/data/**"]
            assert handle.budget == {"USD": "USD:1.00"}
            assert handle.budget_amounts == {"USD": Decimal("1.00")}
            assert handle.lease_constraints is not None
            assert handle.credentials == ()
            assert handle.trace_id == "0af7651916cd43dd8448eb211c80319c"
            assert seen["ids"] == (handle.job_id, client.session_id) * 2

    run(main)
    assert seen["agent"] == ("agent", "1.2", "agent@1.2")
    assert seen["who"] == (ALICE, ALICE)
    assert seen["lease"] == {"fs.read": ["/data/**"], "cost.budget": ["USD:1.00"]}
    assert seen["budget"] == {"USD": Decimal("1.00")}
    assert seen["left"] == Decimal("0.8765432109876543210987655")
    assert seen["constraints"].expires_at == "2099-01-01T00:00:00Z"
    assert seen["trace"] == "0af7651916cd43dd8448eb211c80319c"
    assert (seen["state"], seen["cancelled"]) == ("running", False)
    assert seen["seq"] >= 2
    assert seen["acked"] <= seen["seq"]


def test_every_emitter() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        await ctx.log("warn", "careful", {"n": 1})
        await ctx.thought("hm")
        await ctx.status("working", "step one")
        await ctx.metric("files", 3, dimensions={"kind": "py"})
        await ctx.metric({"name": "exact", "value": Decimal("1.10"), "unit": "s"})
        await ctx.tool_call(tool="clock", args={}, call_id="c1")
        await ctx.tool_result(call_id="c1", result="19:30")
        await ctx.tool_result({"call_id": "c2", "error": arcp.TimeoutError("slow").to_payload()})
        await ctx.tool_result(call_id="c3", error=arcp.PermissionDeniedError("no", details={"why": "policy"}))
        await ctx.progress(1, total=2.5, units="steps", message="half")
        await ctx.artifact_ref(uri="file:///a", content_type="text/plain", byte_size=12)
        await ctx.emit_event("x-vendor.acme.note", ["any", {"thing": None}])
        await ctx.job.emit_event("x-vendor.acme.note", "text")

    _, events = ask(agent, lease_request={"tool.call": ["clock"]})
    retryable = {"code": "TIMEOUT", "message": "slow", "retryable": True}
    denied = {"code": "PERMISSION_DENIED", "message": "no", "retryable": False, "details": {"why": "policy"}}
    assert events == [
        {"kind": "log", "body": {"level": "warn", "message": "careful", "attributes": {"n": 1}}},
        {"kind": "thought", "body": {"text": "hm"}},
        {"kind": "status", "body": {"phase": "working", "message": "step one"}},
        {"kind": "metric", "body": {"name": "files", "value": 3, "dimensions": {"kind": "py"}}},
        {"kind": "metric", "body": {"name": "exact", "value": 1.10, "unit": "s"}},
        {"kind": "tool_call", "body": {"tool": "clock", "args": {}, "call_id": "c1"}},
        {"kind": "tool_result", "body": {"call_id": "c1", "result": "19:30"}},
        {"kind": "tool_result", "body": {"call_id": "c2", "error": retryable}},
        {"kind": "tool_result", "body": {"call_id": "c3", "error": denied}},
        {"kind": "progress", "body": {"current": 1, "total": 2.5, "units": "steps", "message": "half"}},
        {
            "kind": "artifact_ref",
            "body": {"uri": "file:///a", "content_type": "text/plain", "byte_size": 12},
        },
        {"kind": "x-vendor.acme.note", "body": ["any", {"thing": None}]},
        {"kind": "x-vendor.acme.note", "body": "text"},
    ]


def test_wrong_arguments_of_emitters_are_named() -> None:
    refused: list[str] = []

    def attempt(emit: Any, *args: Any, **kwargs: Any) -> None:
        try:
            emit(*args, **kwargs)
        except (TypeError, ValueError, arcp.InvalidRequestError) as error:
            refused.append(f"{type(error).__name__}: {error}")
        else:
            refused.append("nothing")

    async def agent(value: Any, ctx: JobContext) -> None:
        attempt(ctx.log, "info", 3)
        attempt(ctx.log, "loud", "m")
        attempt(ctx.log, "info", "m", {"a": {1, 2}})
        attempt(ctx.log, "info", "\ud800")
        attempt(ctx.progress, True)
        attempt(ctx.progress, -1)
        attempt(ctx.metric, "m", float("nan"))
        attempt(ctx.metric, "m")
        attempt(ctx.metric, {"name": "m", "value": 1}, 2)
        attempt(ctx.tool_call, {"tool": "t"}, tool="t")
        attempt(ctx.tool_call, tool="t")
        attempt(ctx.emit_event, "nonsense", {})

    ask(agent)
    expected = [
        ("TypeError", "message must be text, got int"),
        ("InvalidRequestError", "level"),
        ("TypeError", "attributes.a: JSON has no form for set"),
        ("ValueError", "lone surrogate"),
        ("TypeError", "current must be a number, got bool"),
        ("InvalidRequestError", "current"),
        ("ValueError", "NaN"),
        ("TypeError", "value"),
        ("TypeError", "whole body"),
        ("TypeError", "whole body"),
        ("InvalidRequestError", "call_id"),
        ("InvalidRequestError", "x-vendor"),
    ]
    for got, (kind, text) in zip(refused, expected, strict=True):
        assert got.startswith(kind), got
        assert text in got, got


def test_wrong_costs_are_named() -> None:
    def agent(value: Any, ctx: JobContext) -> list[str]:
        told = []
        for options in ({"cost": 5}, {"cost": {"USD": "1"}}, {"cost": {"USD": float("nan")}}, {"now": "today"}):
            try:
                ctx.authorize("fs.read", "/data/a.txt", **options)
            except (TypeError, ValueError) as error:
                told.append(str(error))
        return told

    result, _ = ask(agent, lease_request={"fs.read": ["/data/**"], "cost.budget": ["USD:1.00"]})
    assert result == [
        "cost must be a dict of currency to amount, got int",
        "cost['USD'] must be a Decimal, an int or a float, got str",
        "cost['USD'] must be an amount, got NaN",
        "now must be a datetime, got str",
    ]


def test_authorize() -> None:
    def agent(value: Any, ctx: JobContext) -> list[str]:
        answers = []
        for capability, target, options in [
            ("fs.read", "/data/a.txt", {}),
            ("fs.read", "/data/../etc/passwd", {}),
            ("fs.write", "/data/a.txt", {}),
            ("fs.read", "/data/a.txt", {"cost": {"USD": Decimal("0.50")}}),
            ("fs.read", "/data/a.txt", {"cost": {"USD": Decimal("1.01")}}),
        ]:
            try:
                ctx.authorize(capability, target, **options)
                answers.append("allowed")
            except arcp.ARCPError as error:
                answers.append(error.code)
        return answers

    result, _ = ask(agent, lease_request={"fs.read": ["/data/**"], "cost.budget": ["USD:1.00"]})
    assert result == ["allowed", "PERMISSION_DENIED", "PERMISSION_DENIED", "allowed", "BUDGET_EXHAUSTED"]


def test_a_lease_is_not_the_agents_to_change() -> None:
    """Rules: R-9.1.2"""

    def agent(value: Any, ctx: JobContext) -> dict[str, Any]:
        seen = ctx.lease
        seen["fs.read"].append("/**")
        seen["fs.write"] = ["/**"]
        for capability in ("fs.read", "fs.write"):
            with pytest.raises(arcp.PermissionDeniedError):
                ctx.authorize(capability, "/etc/passwd")
        return dict(ctx.lease)

    result, _ = ask(agent, lease_request={"fs.read": ["/data/**"]})
    assert result == {"fs.read": ["/data/**"]}


def test_a_protocol_error_is_passed_on_whole() -> None:
    def agent(value: Any, ctx: JobContext) -> None:
        raise arcp.PermissionDeniedError("policy says no", details={"why": "policy"}, retryable=True)

    with pytest.raises(arcp.PermissionDeniedError) as caught:
        ask(agent)
    error = caught.value
    assert (error.code, error.message, error.details) == ("PERMISSION_DENIED", "policy says no", {"why": "policy"})


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (KeyError("boom"), "KeyError: 'boom'"),
        (SystemExit(3), "SystemExit: 3"),
        (arcp.ConnectionError("no route"), "ConnectionError: no route"),
        (StopIteration("x"), "StopIteration: x"),
        (KeyboardInterrupt("x"), "KeyboardInterrupt: x"),
        (Unusual("x"), "Unusual: x"),
        (asyncio.CancelledError(), "raised asyncio.CancelledError, but its job was not cancelled"),
    ],
)
def test_other_exceptions_are_internal_errors(failure: BaseException, message: str) -> None:
    def agent(value: Any, ctx: JobContext) -> None:
        raise failure

    with pytest.raises(arcp.InternalError) as caught:
        ask(agent)
    assert message in caught.value.message
    assert caught.value.retryable is True


def test_a_result_that_is_not_json_names_its_type() -> None:
    with pytest.raises(arcp.InternalError, match=r"result\.found\[0\]: JSON has no form for set"):
        ask(lambda inp, ctx: {"found": [{1}]})


def test_a_result_that_holds_itself() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(arcp.InternalError, match="holds itself"):
        ask(lambda inp, ctx: loop)


def test_context_variables_reach_agents() -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")
    seen: list[str] = []

    async def on_loop(value: Any, ctx: JobContext) -> None:
        seen.append(name.get())

    def in_thread(value: Any, ctx: JobContext) -> None:
        seen.append(name.get())

    async def main() -> None:
        name.set("alice")
        async with session(make_runtime({"a": on_loop, "b": in_thread})) as client:
            for agent in "ab":
                await (await client.submit(agent=agent)).done

    run(main)
    assert seen == ["alice", "alice"]


def test_plain_functions_run_beside_each_other_and_beyond_the_limit_in_turn() -> None:
    together = threading.Barrier(2, timeout=10)
    threads: set[str] = set()

    def agent(value: Any, ctx: JobContext) -> None:
        together.wait()
        threads.add(threading.current_thread().name)
        assert threading.current_thread().daemon

    async def main() -> None:
        async with session(make_runtime({"agent": agent}, max_concurrent_jobs=2)) as client:
            handles = [await client.submit(agent="agent") for _ in range(6)]
            await asyncio.gather(*[handle.done for handle in handles])

    run(main)
    assert threads == {"arcp-agent"}


def test_versions_and_inventory() -> None:
    runtime = make_runtime()
    assert runtime.register_agent("bare", coroutine) is runtime
    for version in ("1.0", "2.0"):
        runtime.register_agent_version("agent", version, lambda inp, ctx, version=version: version)
    assert runtime.set_default_agent_version("agent", "2.0") is runtime
    inventory = {entry.name: entry for entry in runtime.agent_inventory()}
    assert (inventory["agent"].versions, inventory["agent"].default) == (("1.0", "2.0"), "2.0")
    assert inventory["bare"].versions == ()
    with pytest.raises(arcp.AgentVersionNotAvailableError):
        runtime.set_default_agent_version("agent", "3.0")
    with pytest.raises(arcp.InvalidRequestError):
        runtime.register_agent("No Name", coroutine)
    with pytest.raises(TypeError, match="callable"):
        runtime.register_agent("agent", "not a function")  # type: ignore[arg-type]

    async def main() -> None:
        async with session(runtime) as client:
            assert (await (await client.submit(agent="agent")).done).result == "2.0"
            assert (await (await client.submit(agent="agent@1.0")).done).result == "1.0"
            with pytest.raises(arcp.AgentVersionNotAvailableError):
                await client.submit(agent="agent@9")
            with pytest.raises(arcp.AgentNotAvailableError):
                await client.submit(agent="nobody")

    run(main)


def test_an_error_whose_text_cannot_be_sent_as_it_is_still_ends_the_job() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    async def half(value: Any, ctx: JobContext) -> None:
        raise ValueError("bad \udcff")

    async def mute(value: Any, ctx: JobContext) -> None:
        raise Mute

    async def main() -> None:
        async with session(make_runtime({"half": half, "mute": mute})) as client:
            for agent, text in (("half", "ValueError: bad ?"), ("mute", "Mute: ")):
                handle = await client.submit(agent=agent)
                with pytest.raises(arcp.InternalError, match=re.escape(text)):
                    await handle.done

    run(main)


def test_a_swallowed_cancellation_shows_as_cancelled_on_both_sides() -> None:
    contexts: list[JobContext] = []

    async def stubborn(value: Any, ctx: JobContext) -> str:
        contexts.append(ctx)
        await ctx.status("running")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done all the same"

    async def main() -> None:
        async with session(make_runtime({"stubborn": stubborn})) as client:
            handle = await client.submit(agent="stubborn")
            async for _ in handle.events():
                await client.cancel_job(handle.job_id)
            with pytest.raises(arcp.CancelledError):
                await handle.done
            assert contexts[0].job.state == "cancelled"

    run(main)


def test_what_a_job_tells_about_its_session_and_itself() -> None:
    seen: dict[str, Any] = {}

    async def agent(value: Any, ctx: JobContext) -> None:
        job, session_context = ctx.job, ctx.job.session
        seen.update(
            features=session_context.negotiated_features,
            has=(session_context.has_feature("progress"), session_context.has_feature("ack")),
            identity=session_context.identity.principal,
            state=session_context.state,
            job=(job.agent, job.agent_version, job.agent_ref, job.parent_job_id, job.max_runtime_sec),
            same=(job.lease == ctx.lease, job.trace_id == ctx.trace_id, job.budget == ctx.budget),
            initial=job.initial_budget,
            cap=ctx.chunk_size_cap,
        )
        await ctx.metric("cost.llm", 0.25, "USD")
        seen["left"] = job.budget

    async def main() -> None:
        runtime = make_runtime(chunk_size_cap=1000, heartbeat_interval_sec=7)
        runtime.register_agent_version("agent", "1.0", agent)
        assert runtime.capabilities.features == (*arcp.V1_1_FEATURES, "model.use")
        async with session(runtime, features=("progress", "heartbeat", "cost.budget", "agent_versions")) as client:
            lease = {"cost.budget": ["USD:1.00"]}
            await (await client.submit(agent="agent", lease_request=lease, max_runtime_sec=60)).done
            assert seen["features"] == client.negotiated_features
            assert seen["features"] == ("progress", "heartbeat", "cost.budget", "agent_versions")
            assert seen["has"] == (True, False)
            assert seen["identity"] == ALICE
            assert (seen["state"].negotiated_features, seen["state"].heartbeat_interval_sec) == (seen["features"], 7)
            assert seen["job"] == ("agent", "1.0", "agent@1.0", None, 60)
            assert seen["same"] == (True, True, True)
            assert (seen["initial"], seen["left"]) == ({"USD": Decimal(1)}, {"USD": Decimal("0.75")})
            assert seen["cap"] == 1000

    run(main)


def test_the_cap_of_a_chunk_is_an_option() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        ctx.result_chunk({"result_id": "r", "chunk_seq": 0, "data": "x" * 101, "encoding": "utf8", "more": False})

    async def main() -> None:
        async with session(make_runtime({"agent": agent}, chunk_size_cap=100)) as client:
            with pytest.raises(arcp.InternalError):
                await (await client.submit(agent="agent")).done

    run(main)
    with pytest.raises(ValueError, match="chunk_size_cap"):
        make_runtime(chunk_size_cap=0)
    with pytest.raises(TypeError, match="features"):
        make_runtime(features="progress")


def test_features_of_a_runtime() -> None:
    async def main() -> None:
        async with session(make_runtime(features=["progress", "ack"])) as client:
            assert client.negotiated_features == ("ack", "progress")

    run(main)


def test_fields_of_a_log_are_attributes() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        await ctx.log("info", "m", step=1)
        await ctx.log("info", "m", {"step": 1, "of": 3}, step=2)
        await ctx.log("info", "m")
        for wrong in (lambda: ctx.log("info", "m", [1], step=1), lambda: ctx.log("info", "m", step={1})):
            with pytest.raises(TypeError, match="attributes"):
                wrong()

    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent")
            attributes = [event["body"].get("attributes") async for event in handle.events()]
            await handle.done
            assert attributes == [{"step": 1}, {"step": 2, "of": 3}, None]

    run(main)


def test_wrong_options_of_a_runtime_are_named() -> None:
    for options, error, text in [
        ({"resume_window_sec": "x"}, TypeError, "resume_window_sec must be a number of seconds, got str"),
        ({"retention_sec": float("nan")}, ValueError, "retention_sec must be from 0"),
        ({"max_concurrent_jobs": 1.5}, TypeError, "max_concurrent_jobs must be an int, got float"),
        ({"capabilities": {}}, TypeError, r"capabilities must be an arcp\.Capabilities, got dict"),
        ({"db": 5}, TypeError, "db must be a path as text, got int"),
    ]:
        with pytest.raises(error, match=text):
            make_runtime(**options)
    with pytest.raises(TypeError, match=r"runtime must be an arcp\.RuntimeInfo, got str"):
        arcp.ARCPRuntime(runtime="me", bearer=arcp.runtime.StaticBearerVerifier({"a": "b"}))  # type: ignore[arg-type]
