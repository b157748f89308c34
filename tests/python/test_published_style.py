"""Programs as they are written for the published SDK: each of its examples' behaviours, in its own spellings.

A user who changes nothing but the package runs code like this. Where ours asks more of a program than the published
one, a comment says so.
"""

import asyncio
import contextlib
import hashlib
import hmac
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from arcp import (
    AgentVersionNotAvailableError,
    Capabilities,
    ClientInfo,
    DuplicateKeyError,
    JobNotFoundError,
    LeaseConstraints,
    LeaseExpiredError,
    ListJobsFilter,
    PermissionDeniedError,
    RuntimeInfo,
    SessionResume,
    StdioTransport,
    UnauthenticatedError,
    WebSocketTransport,
    serve_websocket,
)
from arcp._messages.session import AgentInventoryEntry
from arcp.client import ARCPClient, AutoAckOptions
from arcp.runtime import ARCPRuntime, Identity, StaticBearerVerifier
from conftest import run

TOKEN = "demo-token"
PRINCIPALS = {TOKEN: "demo@example.com", "token-b": "other@example.com"}


def a_runtime(agents: dict[str, Any], **options: Any) -> ARCPRuntime:
    options.setdefault("bearer", StaticBearerVerifier(PRINCIPALS))
    runtime = ARCPRuntime(runtime=RuntimeInfo(name="demo", version="1.0.0"), **options)
    for name, agent in agents.items():
        runtime.register_agent(name, agent)
    return runtime


@contextlib.asynccontextmanager
async def serving(runtime: ARCPRuntime) -> AsyncIterator[str]:
    server = await serve_websocket(runtime.accept, host="127.0.0.1", port=0, path="/arcp")
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}/arcp"
        await runtime.close()


@contextlib.asynccontextmanager
async def connected(url: str, *, token: str = TOKEN, **options: Any) -> AsyncIterator[ARCPClient]:
    transport = await WebSocketTransport.connect(url)
    client = ARCPClient(client=ClientInfo(name="demo-client", version="1.0.0"), token=token, **options)
    async with contextlib.aclosing(client):
        await client.connect(transport)
        yield client


def example(agents: dict[str, Any], **options: Any) -> Callable[[Callable[[ARCPClient, str], Any]], Callable[[], None]]:
    """A test of one client at a runtime with these agents; `client_options` are the client's, others the runtime's."""
    client_options = options.pop("client_options", {})

    def decorate(body: Callable[[ARCPClient, str], Any]) -> Callable[[], None]:
        def test() -> None:
            async def main() -> None:
                async with serving(a_runtime(agents, **options)) as url, connected(url, **client_options) as client:
                    await body(client, url)

            run(main)

        return test

    return decorate


# submit-and-stream


async def streamer(input_value: Any, ctx: Any) -> Any:
    await ctx.status("started")
    await ctx.log("info", "working", {"step": 1})
    await ctx.thought("this needs a tool")
    await ctx.tool_call({"tool_call_id": "tc_1", "name": "search", "arguments": {"q": "arcp"}})
    await ctx.tool_result({"tool_call_id": "tc_1", "output": {"hits": 3}})
    await ctx.metric({"name": "tokens", "value": 12, "unit": "count", "attributes": {"model": "small"}})
    await ctx.job.emit_event(
        "artifact_ref", {"artifact_id": "art_1", "media_type": "text/plain", "size_bytes": 5, "summary": "notes"}
    )
    await ctx.status("done", "all of it")
    return {"echoed": input_value}


@example({"streamer": streamer}, client_options={"capabilities": Capabilities(features=())})
async def test_submit_and_stream(client: ARCPClient, url: str) -> None:
    # The published runtime does not hold announced calls to the lease.
    handle = await client.submit(agent="streamer", input={"hi": 1}, lease_request={"tool.call": ["search"]})
    events = [ev async for ev in handle.events()]
    kinds = ["status", "log", "thought", "tool_call", "tool_result", "metric", "artifact_ref", "status"]
    assert [ev["kind"] for ev in events] == kinds
    assert all(sorted(ev) == ["body", "kind", "ts"] for ev in events)
    bodies = [ev["body"] for ev in events]
    assert bodies[1] == {"level": "info", "message": "working", "attributes": {"step": 1}}
    assert bodies[3]["tool_call_id"] == bodies[4]["tool_call_id"] == "tc_1"
    assert (bodies[3]["name"], bodies[3]["arguments"]) == ("search", {"q": "arcp"})
    assert bodies[4]["output"] == {"hits": 3}
    assert bodies[5]["attributes"] == {"model": "small"}
    assert (bodies[6]["artifact_id"], bodies[6]["media_type"], bodies[6]["size_bytes"]) == ("art_1", "text/plain", 5)
    # And in the protocol's own words, for every other client.
    assert (bodies[3]["tool"], bodies[3]["args"], bodies[3]["call_id"]) == ("search", {"q": "arcp"}, "tc_1")
    assert (bodies[4]["call_id"], bodies[4]["result"]) == ("tc_1", {"hits": 3})
    assert (bodies[6]["uri"], bodies[6]["content_type"], bodies[6]["byte_size"]) == ("artifact:art_1", "text/plain", 5)
    result = await handle.done
    assert result.final_status == "success"
    assert result.result == {"echoed": {"hi": 1}}
    assert client.negotiated_features == ()


# delegate: by hand, over a session of the agent's own


def test_delegate() -> None:
    async def child(input_value: Any, ctx: Any) -> Any:
        return {"child_trace_id": ctx.trace_id}

    async def main() -> None:
        urls: list[str] = []

        async def parent(input_value: Any, ctx: Any) -> Any:
            async with connected(urls[0]) as loopback:
                # The published runtime takes any job for a parent; ours those of the same session (R-10.9), and has
                # `ctx.delegate` for this.
                with pytest.raises(JobNotFoundError, match="parent_job_id"):
                    await loopback.submit(agent="child", parent_job_id=ctx.job_id)
                sub = await loopback.submit(agent="child", input=input_value, trace_id=ctx.trace_id)
                await ctx.job.emit_event("delegate", {"child_job_id": sub.job_id, "agent": "child"})
                result = await sub.done
                return {"child_job_id": sub.job_id, "trace_id": ctx.trace_id, **result.result}

        async with serving(a_runtime({"parent": parent, "child": child})) as url, connected(url) as client:
            urls.append(url)
            handle = await client.submit(agent="parent", input={})
            (delegated,) = [ev["body"] async for ev in handle.events() if ev["kind"] == "delegate"]
            result = (await handle.done).result
            assert delegated == {"child_job_id": result["child_job_id"], "agent": "child"}
            assert result["trace_id"] == result["child_trace_id"] == handle.trace_id
            assert result["trace_id"] is not None

    run(main)


# resume


def test_resume() -> None:
    async def stepper(input_value: Any, ctx: Any) -> Any:
        for i in range(10):
            await ctx.log("info", f"step {i}")
            await asyncio.sleep(0.05)
        return {"steps": 10}

    async def main() -> None:
        async with serving(a_runtime({"stepper": stepper})) as url:
            transport = await WebSocketTransport.connect(url)
            client = ARCPClient(client=ClientInfo(name="demo-client", version="1.0.0"), token=TOKEN)
            welcome = await client.connect(transport)
            handle = await client.submit(agent="stepper")
            seen = 0
            async for _ in handle.events():
                seen += 1
                if seen == 2:
                    break
            checkpoint = client.latest_event_seq
            await transport.close()

            again = ARCPClient(client=ClientInfo(name="demo-client", version="1.0.0"), token=TOKEN)
            async with contextlib.aclosing(again):
                resumed = await again.resume(
                    await WebSocketTransport.connect(url),
                    resume=SessionResume(
                        session_id=welcome.session_id, resume_token=welcome.resume_token, last_event_seq=checkpoint
                    ),
                )
                assert resumed.session_id == welcome.session_id
                assert resumed.resume_token != welcome.resume_token
                # The published program waits for the number to move; it has no handle.
                while again.latest_event_seq < 11:
                    await asyncio.sleep(0.01)
            await client.close()

    run(main)


# idempotent-retry


@example({"echo": lambda input_value, ctx: input_value, "other": lambda input_value, ctx: None})
async def test_idempotent_retry(client: ARCPClient, url: str) -> None:
    first = await client.submit(agent="echo", input={"n": 1}, idempotency_key="key-1")
    second = await client.submit(agent="echo", input={"n": 1}, idempotency_key="key-1")
    assert first.job_id == second.job_id
    assert (await first.done).result == (await second.done).result == {"n": 1}
    with pytest.raises(DuplicateKeyError) as refused:
        await client.submit(agent="other", input={"n": 1}, idempotency_key="key-1")
    assert refused.value.code == "DUPLICATE_KEY"


# lease-violation


async def violator(input_value: Any, ctx: Any) -> Any:
    ctx.authorize("fs.read", "/workspace/notes.txt")
    try:
        ctx.authorize("fs.write", "/etc/passwd")
    except PermissionDeniedError as exc:
        await ctx.tool_result({"tool_call_id": "tc_1", "error": {"code": exc.code, "message": exc.message}})
    return "carried on"


@example({"violator": violator})
async def test_lease_violation(client: ARCPClient, url: str) -> None:
    handle = await client.submit(agent="violator", lease_request={"fs.read": ["/workspace/**"]})
    assert handle.lease == {"fs.read": ["/workspace/**"]}
    (body,) = [ev["body"] async for ev in handle.events() if ev["kind"] == "tool_result"]
    assert body["tool_call_id"] == "tc_1"
    assert body["error"]["code"] == "PERMISSION_DENIED"
    result = await handle.done
    assert (result.final_status, result.result) == ("success", "carried on")


# cancel


async def ticker(input_value: Any, ctx: Any) -> Any:
    for i in range(60):
        await ctx.status("tick", f"tick {i}")
        await asyncio.sleep(0.05)


@example({"ticker": ticker})
async def test_cancel(client: ARCPClient, url: str) -> None:
    import arcp

    handle = await client.submit(agent="ticker")
    events = handle.events()
    assert (await anext(events))["body"]["message"] == "tick 0"
    await client.cancel_job(handle.job_id, reason="changed my mind")
    assert all([ev["kind"] == "status" async for ev in events])
    # Newer than 1.1.3, where `done` returned a result with final_status "cancelled" (D-5).
    with pytest.raises(arcp.CancelledError) as ended:
        await handle.done
    assert ended.value.code == "CANCELLED"
    assert isinstance(ended.value, arcp.ARCPCancelledError)


# stdio


def test_stdio() -> None:
    child = f"""
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from arcp import StdioTransport
from test_published_style import a_runtime
async def echo(input_value, ctx):
    await ctx.log("info", "over stdio")
    return {{"echoed": input_value}}
async def main():
    print("diagnostics", file=sys.stderr)
    await a_runtime({{"echo": echo}}).accept(await StdioTransport.from_std_streams())
asyncio.run(main())
"""

    async def main() -> None:
        pipe = asyncio.subprocess.PIPE
        proc = await asyncio.create_subprocess_exec(sys.executable, "-c", child, stdin=pipe, stdout=pipe, stderr=pipe)
        transport = await StdioTransport.from_process_pipes(proc)
        client = ARCPClient(client=ClientInfo(name="demo-client", version="1.0.0"), token=TOKEN)
        async with contextlib.aclosing(client):
            await client.connect(transport)
            # Longer than the lines asyncio's streams take by themselves.
            handle = await client.submit(agent="echo", input="x" * 200_000)
            assert [ev["body"]["message"] async for ev in handle.events()] == ["over stdio"]
            assert len((await handle.done).result["echoed"]) == 200_000
        assert await proc.wait() == 0
        assert proc.stderr is not None
        assert await proc.stderr.read() == b"diagnostics\n"

    run(main)


# vendor-extensions


async def vendor(input_value: Any, ctx: Any) -> Any:
    await ctx.status("started")
    for i in range(3):
        await ctx.job.emit_event("x-vendor.acme.progress", {"step": i}, ts="2026-01-01T00:00:00Z")
    await ctx.status("finished")


@example({"vendor": vendor})
async def test_vendor_extensions(client: ARCPClient, url: str) -> None:
    handle = await client.submit(agent="vendor", lease_request={"x-vendor.acme.metrics": ["*"]})
    events = [ev async for ev in handle.events()]
    assert [ev["body"]["phase"] for ev in events if ev["kind"] == "status"] == ["started", "finished"]
    assert [ev["body"] for ev in events[1:-1]] == [{"step": 0}, {"step": 1}, {"step": 2}]
    assert (await handle.done).final_status == "success"


# custom-auth


class HmacVerifier:
    async def verify(self, token: str) -> Identity:
        try:
            principal, expires, signature = token.split("|")
        except ValueError:
            raise UnauthenticatedError("malformed token") from None
        expected = hmac.new(b"secret", f"{principal}|{expires}".encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(signature, expected) or int(expires) < time.time():
            raise UnauthenticatedError("bad token")
        return Identity(principal=principal)


def test_custom_auth() -> None:
    async def whoami(input_value: Any, ctx: Any) -> Any:
        return {"principal": ctx.job.submitter_principal, "session": ctx.job.session.principal}

    async def main() -> None:
        async with serving(a_runtime({"whoami": whoami}, bearer=HmacVerifier())) as url:
            signed = f"ada@example.com|{int(time.time()) + 60}"
            token = f"{signed}|{hmac.new(b'secret', signed.encode(), hashlib.sha256).hexdigest()}"
            async with connected(url, token=token) as client:
                result = (await (await client.submit(agent="whoami")).done).result
                assert result == {"principal": "ada@example.com", "session": "ada@example.com"}
            with pytest.raises(UnauthenticatedError):
                async with connected(url, token="garbage"):
                    pass

    run(main)


# heartbeat


async def silent(input_value: Any, ctx: Any) -> Any:
    await asyncio.sleep(2.5)
    return "awake"


@example({"silent": silent}, heartbeat_interval_sec=1, client_options={"features": ("heartbeat",)})
async def test_heartbeat(client: ARCPClient, url: str) -> None:
    assert client.negotiated_features == ("heartbeat",)
    assert client.has_feature("heartbeat")
    assert not client.has_feature("ack")
    assert client.welcome is not None
    assert client.welcome.heartbeat_interval_sec == 1
    handle = await client.submit(agent="silent")
    assert (await handle.done).result == "awake"


# ack-backpressure


async def chatty(input_value: Any, ctx: Any) -> Any:
    session = ctx.job.session
    for i in range(200):
        await ctx.log("info", f"event {i}")
        if session.latest_event_seq - session.state.last_acked_seq > 50:
            await ctx.status("back_pressure", "slow consumer")
            break


@example({"chatty": chatty}, client_options={"auto_ack": False})
async def test_ack_backpressure(client: ARCPClient, url: str) -> None:
    handle = await client.submit(agent="chatty")
    events = [ev async for ev in handle.events()]
    assert events[-1]["kind"] == "status"
    assert events[-1]["body"]["phase"] == "back_pressure"
    await client.ack(client.latest_event_seq)
    assert (await handle.done).final_status == "success"


async def acked(input_value: Any, ctx: Any) -> Any:
    await ctx.log("info", "one")
    session = ctx.job.session
    while session.state.last_acked_seq < session.latest_event_seq:
        await asyncio.sleep(0.01)
    return session.state.last_acked_seq


@example({"acked": acked}, client_options={"auto_ack": AutoAckOptions(every_n=1, interval_sec=0.05)})
async def test_auto_ack(client: ARCPClient, url: str) -> None:
    handle = await client.submit(agent="acked")
    assert [ev["body"]["message"] async for ev in handle.events()] == ["one"]
    assert (await handle.done).result >= 1


# list-jobs


async def waiting(input_value: Any, ctx: Any) -> Any:
    await asyncio.sleep(60)


@example({"waiting": waiting})
async def test_list_jobs(client: ARCPClient, url: str) -> None:
    handles = [await client.submit(agent="waiting") for _ in range(3)]
    running = ListJobsFilter(status=("running",))
    while len((await client.list_jobs(filter=running)).jobs) < 3:
        await asyncio.sleep(0.01)
    page1 = await client.list_jobs(filter=running, limit=2)
    assert len(page1.jobs) == 2
    assert page1.next_cursor is not None
    page2 = await client.list_jobs(filter=running, limit=2, cursor=page1.next_cursor)
    assert len(page2.jobs) == 1
    assert page2.next_cursor is None
    assert {job.job_id for job in page1.jobs + page2.jobs} == {handle.job_id for handle in handles}
    assert all(job.status == "running" and job.submitted_at for job in page1.jobs)


# subscribe


async def watched(input_value: Any, ctx: Any) -> Any:
    for i in range(6):
        await ctx.log("info", f"step {i}")
        await asyncio.sleep(0.05)
    return "done"


@example({"watched": watched}, job_authorization_policy=lambda ctx: True)
async def test_subscribe(client: ARCPClient, url: str) -> None:
    handle = await client.submit(agent="watched")
    events = handle.events()
    await anext(events)
    async with connected(url, token="token-b") as other:
        jobs = (await other.list_jobs()).jobs
        assert [job.job_id for job in jobs] == [handle.job_id]
        sub = await other.subscribe(jobs[0].job_id, history=True)
        assert sub.replayed > 0
        await other.cancel_job(sub.job_id)
        steps = [ev["body"]["message"] async for ev in sub.handle.events()]
        assert steps == [f"step {i}" for i in range(6)]
    assert (await handle.done).result == "done"


# agent-versions


def test_agent_versions() -> None:
    def versioned(number: str) -> Any:
        async def agent(input_value: Any, ctx: Any) -> Any:
            return {"version": number, "ref": ctx.agent_ref, "agent_version": ctx.agent_version}

        return agent

    async def main() -> None:
        runtime = a_runtime({})
        for number in ("1.0.0", "1.2.3", "2.0.0"):
            runtime.register_agent_version("summarise", number, versioned(number))
        runtime.set_default_agent_version("summarise", "1.2.3")
        async with serving(runtime) as url, connected(url) as client:
            assert client.welcome is not None
            (entry,) = client.welcome.capabilities.agents
            assert isinstance(entry, AgentInventoryEntry)
            assert (entry.name, entry.default) == ("summarise", "1.2.3")
            assert set(entry.versions) == {"1.0.0", "1.2.3", "2.0.0"}
            handle = await client.submit(agent="summarise")
            assert handle.agent_ref == "summarise@1.2.3"
            expected = {"version": "1.2.3", "ref": "summarise@1.2.3", "agent_version": "1.2.3"}
            assert (await handle.done).result == expected
            handle = await client.submit(agent="summarise@2.0.0")
            assert (await handle.done).result["version"] == "2.0.0"
            with pytest.raises(AgentVersionNotAvailableError):
                await client.submit(agent="summarise@9.9.9")

    run(main)


# lease-expires-at


async def sleeper(input_value: Any, ctx: Any) -> Any:
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        await ctx.log("warn", "lease ran out")
        raise


@example({"sleeper": sleeper})
async def test_lease_expires_at(client: ARCPClient, url: str) -> None:
    begun = time.monotonic()
    expires_at = (datetime.now(UTC) + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    handle = await client.submit(agent="sleeper", lease_constraints=LeaseConstraints(expires_at=expires_at))
    assert handle.lease_constraints is not None
    assert [ev["body"]["message"] async for ev in handle.events()] == ["lease ran out"]
    with pytest.raises(LeaseExpiredError):
        await handle.done
    assert 0.5 < time.monotonic() - begun < 5


# cost-budget


async def spender(input_value: Any, ctx: Any) -> Any:
    from arcp import BudgetExhaustedError

    calls = 0
    while True:
        try:
            ctx.authorize("tool.call", "llm")
        except BudgetExhaustedError as exc:
            await ctx.tool_result({"tool_call_id": f"tc_{calls}", "error": exc.to_payload()})
            return {"calls": calls, "left": str(ctx.budget["USD"])}
        calls += 1
        await ctx.metric({"name": "cost.llm", "value": 0.30, "unit": "USD"})


@example({"spender": spender})
async def test_cost_budget(client: ARCPClient, url: str) -> None:
    lease = {"cost.budget": ["USD:1.00"], "tool.call": ["*"]}
    handle = await client.submit(agent="spender", lease_request=lease)
    remaining, errors = [], []
    async for ev in handle.events():
        if ev["kind"] == "metric" and ev["body"]["name"] == "cost.budget.remaining":
            remaining.append(Decimal(str(ev["body"]["value"])))
        elif ev["kind"] == "tool_result":
            errors.append(ev["body"]["error"]["code"])
    assert remaining == [Decimal("0.7"), Decimal("0.4"), Decimal("0.1"), Decimal("-0.2")]
    assert errors == ["BUDGET_EXHAUSTED"]
    result = await handle.done
    assert result.final_status == "success"
    assert result.result["calls"] == 4


# progress


async def progressing(input_value: Any, ctx: Any) -> Any:
    for i in range(1, 11):
        await ctx.progress(i, total=10, units="steps", message=f"step {i}")


@example({"progressing": progressing})
async def test_progress(client: ARCPClient, url: str) -> None:
    handle = await client.submit(agent="progressing")
    bodies = [ev["body"] async for ev in handle.events() if ev["kind"] == "progress"]
    assert [(body["current"], body["total"], body["units"]) for body in bodies] == [
        (i, 10, "steps") for i in range(1, 11)
    ]
    assert (await handle.done).final_status == "success"


# result-chunk


async def chunky(input_value: Any, ctx: Any) -> Any:
    async with ctx.stream_result() as stream:
        for i in range(30):
            await stream.write(f"chunk {i}\n")
        await stream.close(summary="30 chunks")


@example({"chunky": chunky})
async def test_result_chunk(client: ARCPClient, url: str) -> None:
    handle = await client.submit(agent="chunky")
    data = await handle.collect_chunks()
    result = await handle.done
    assert len(data) == result.result_size
    assert data == "".join(f"chunk {i}\n" for i in range(30)).encode()
    assert result.result_id is not None
    assert result.result is None
    assert result.summary == "30 chunks"


# host-tracing, host-asgi, host-aiohttp


async def echo(input_value: Any, ctx: Any) -> Any:
    await ctx.log("info", "echo started")
    return {"echoed": input_value}


async def one_job(client: ARCPClient) -> None:
    handle = await client.submit(agent="echo", input=1)
    assert [ev["body"]["message"] async for ev in handle.events()] == ["echo started"]
    assert (await handle.done).result == {"echoed": 1}


def test_host_tracing() -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from arcp.middleware.otel import with_tracing

    async def main() -> None:
        spans = {"client": InMemorySpanExporter(), "server": InMemorySpanExporter()}
        tracers = {}
        for side, exporter in spans.items():
            provider = TracerProvider()
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            tracers[side] = provider.get_tracer(f"demo.{side}")
        runtime = a_runtime({"echo": echo})

        async def on_transport(transport: Any) -> None:
            await runtime.accept(with_tracing(transport, tracer=tracers["server"]))

        server = await serve_websocket(on_transport, host="127.0.0.1", port=0, path="/arcp")
        async with server:
            port = server.sockets[0].getsockname()[1]
            transport = await WebSocketTransport.connect(f"ws://127.0.0.1:{port}/arcp")
            client = ARCPClient(client=ClientInfo(name="demo-client", version="1.0.0"), token=TOKEN)
            async with contextlib.aclosing(client):
                await client.connect(with_tracing(transport, tracer=tracers["client"]))
                await one_job(client)
            await runtime.close()

        def traces(side: str, name: str) -> set[int]:
            return {span.context.trace_id for span in spans[side].get_finished_spans() if span.name == name}

        assert traces("client", "arcp.send job.submit") == traces("server", "arcp.recv job.submit") != set()
        assert traces("server", "arcp.send job.result") == traces("client", "arcp.recv job.result") != set()

    run(main)


def test_host_asgi() -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute

    from arcp.middleware.asgi import arcp_asgi_app

    async def main() -> None:
        mounted = arcp_asgi_app(a_runtime({"echo": echo}), allowed_hosts=["127.0.0.1", "localhost"])
        app = Starlette(routes=[WebSocketRoute("/arcp", endpoint=mounted)])
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
        serving_ = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with connected(f"ws://127.0.0.1:{port}/arcp") as client:
            await one_job(client)
        server.should_exit = True
        await serving_

    run(main)


def test_host_aiohttp() -> None:
    from aiohttp import web

    from arcp.middleware.aiohttp import arcp_aiohttp_handler

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/arcp", arcp_aiohttp_handler(a_runtime({"echo": echo})))
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with connected(f"ws://127.0.0.1:{runner.addresses[0][1]}/arcp") as client:
            await one_job(client)
        await runner.cleanup()

    run(main)
