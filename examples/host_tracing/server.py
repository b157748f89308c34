"""Hosts `echo` with OpenTelemetry: a span for every message, in the trace of whoever sent it.

Needs `pip install opentelemetry-sdk`.
"""

import asyncio
import contextlib
import os
import signal
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from arcp import RuntimeInfo, Transport, serve_websocket
from arcp.middleware.otel import with_tracing
from arcp.runtime import ARCPRuntime, JobContext, StaticBearerVerifier

PORT = int(os.environ.get("ARCP_DEMO_PORT", "7777"))
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def echo(input: Any, ctx: JobContext) -> Any:
    await ctx.log("info", "echo started")
    return {"echoed": input}


async def main() -> None:
    provider = TracerProvider(resource=Resource.create({"service.name": "server"}))
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=one_line)))
    trace.set_tracer_provider(provider)

    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="host-tracing", version="1.0.0"),
        bearer=StaticBearerVerifier({TOKEN: "demo@example.com"}),
    )
    runtime.register_agent("echo", echo)

    async def accept(transport: Transport) -> None:
        await runtime.accept(with_tracing(transport))

    async with await serve_websocket(accept, port=PORT) as server:
        print(f"listening on {server.url}", flush=True)
        await server.serve_forever()


def one_line(span: Any) -> str:
    return f"span {span.name} trace={span.context.trace_id:032x}\n"


if __name__ == "__main__":
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
