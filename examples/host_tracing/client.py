"""Runs a job with OpenTelemetry, and prints a span for every message sent and received.

Needs `pip install opentelemetry-sdk`.
"""

import asyncio
import os
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from arcp import ARCPClient, ClientInfo, WebSocketTransport
from arcp.middleware.otel import with_tracing

URL = os.environ.get("ARCP_DEMO_URL", "ws://127.0.0.1:7777/arcp")
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def main() -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource.create({"service.name": "client"}))
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=one_line)))
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("host-tracing")

    client = ARCPClient(client=ClientInfo(name="host-tracing", version="1.0.0"), token=TOKEN)
    async with client:
        transport = await WebSocketTransport.connect(URL)
        await client.connect(with_tracing(transport, tracer=tracer))
        # All that is said about the job, on both sides, is in the trace of what the program does here.
        with tracer.start_as_current_span("ask for an echo"):
            handle = await client.submit(agent="echo", input={"hi": 1})
            result = await handle.done
        print(f"{result.final_status}: {result.result}")
        assert result.result == {"echoed": {"hi": 1}}

    spans = kept.get_finished_spans()
    (asked,) = (span for span in spans if span.name == "ask for an echo")
    names = [span.name for span in spans if span.context.trace_id == asked.context.trace_id]
    for name in ("arcp.send job.submit", "arcp.recv job.accepted", "arcp.recv job.event", "arcp.recv job.result"):
        assert name in names, f"{name} is not in the trace of the program"


def one_line(span: Any) -> str:
    return f"span {span.name} trace={span.context.trace_id:032x}\n"


if __name__ == "__main__":
    asyncio.run(main())
