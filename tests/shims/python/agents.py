"""The corpus agents (see ../README.md)."""

import asyncio
from typing import Any

import arcp
from arcp.runtime import Agent, JobContext


async def echo(value: Any, ctx: JobContext) -> Any:
    await ctx.log("info", "echo started")
    return {"echoed": value}


async def events(value: Any, ctx: JobContext) -> Any:
    await ctx.status("working", "step one")
    await ctx.log("info", "hello")
    await ctx.thought("thinking")
    await ctx.tool_call(tool="clock", args={}, call_id="c1")
    await ctx.tool_result(call_id="c1", result="19:30")
    await ctx.metric("files.read", 2.5, "files")
    await ctx.progress(1, total=2, units="steps")
    await ctx.artifact_ref(uri="file:///report.txt", content_type="text/plain", byte_size=12)
    await ctx.emit_event("x-vendor.example.note", {"text": "a note"})
    return {"count": 9}


async def sleeper(value: Any, ctx: JobContext) -> Any:
    await ctx.status("running")
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        await ctx.log("info", "cleaned up")
        raise
    return {"slept": True}


def fails(value: Any, ctx: JobContext) -> Any:
    raise RuntimeError("boom")


def refuses(value: Any, ctx: JobContext) -> Any:
    raise arcp.PermissionDeniedError("policy says no", details={"why": "policy"})


def authorizes(value: Any, ctx: JobContext) -> Any:
    try:
        ctx.authorize("fs.read", value["path"])
    except arcp.ARCPError as error:
        refusal = {"code": error.code, "message": error.message, "retryable": error.retryable}
        ctx.tool_result(call_id="c1", error=refusal)
        return {"allowed": False}
    return {"allowed": True}


async def slow(value: Any, ctx: JobContext) -> Any:
    for i in range(1, value["n"] + 1):
        await ctx.progress(i, total=value["n"])
    return {"sent": value["n"]}


async def streams(value: Any, ctx: JobContext) -> Any:
    async with ctx.stream_result() as result:
        await result.write("[1,2")
        result.flush()
        await result.write(",3]")
        result.summary = "three numbers"


async def delegates(value: Any, ctx: JobContext) -> Any:
    child = await ctx.delegate("echo", value, delegate_id="d1")
    return {"child": await child.result()}


AGENTS: dict[str, Agent] = {
    agent.__name__: agent for agent in (echo, events, sleeper, fails, refuses, authorizes, slow, streams, delegates)
}
