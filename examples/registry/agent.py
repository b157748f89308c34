"""An agent over HTTP: it registers, sends heartbeats, reports its figures, and answers whoever the registry sends.

Needs `pip install fastapi uvicorn`.
"""

import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import BackgroundTasks, FastAPI
from pydantic import BaseModel

from arcp import ARCPClient

REGISTRY = os.environ.get("ARCP_DEMO_REGISTRY", "http://127.0.0.1:8001")
PORT = int(os.environ.get("ARCP_DEMO_PORT", "8010"))
AGENT_ID = os.environ.get("ARCP_DEMO_AGENT", "word-counter")
# One key for each agent; `arcp registry serve --dev` takes test-agent-001 to -003.
AGENT_KEY = os.environ.get("ARCP_AGENT_KEY", "test-agent-001")
# The registry takes an agent for dead that it has not heard of for a minute.
BEAT_SEC = float(os.environ.get("ARCP_DEMO_BEAT_SEC", "20"))

registry = ARCPClient(REGISTRY)
done, seconds = 0, 0.0


class Text(BaseModel):
    data: str


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with registry:
        await registry.register_agent(
            agent_id=AGENT_ID,
            name="Word Counter",
            agent_type="automation",
            endpoint=app.state.endpoint,
            capabilities=["word-count", "text-analysis"],
            context_brief="Counts the words of a text.",
            agent_key=AGENT_KEY,
        )
        # Registers again by itself if the registry has forgotten the agent.
        beats = await registry.start_heartbeat_task(AGENT_ID, interval=BEAT_SEC)
        print(f"{AGENT_ID} listens on {app.state.endpoint}", flush=True)
        yield
        beats.cancel()
        await registry.unregister_agent(AGENT_ID)
        print(f"{AGENT_ID} has left", flush=True)


app = FastAPI(lifespan=lifespan)


@app.post("/api/process")
async def process(text: Text, later: BackgroundTasks) -> dict[str, Any]:
    global done, seconds
    begun = time.perf_counter()
    words = len(text.data.split())
    done, seconds = done + 1, seconds + time.perf_counter() - begun
    later.add_task(report)
    return {"agent": AGENT_ID, "words": words}


async def report() -> None:
    figures = {"total_requests": done, "success_rate": 1.0, "avg_response_time": seconds / done}
    await registry.update_metrics(AGENT_ID, figures)


@app.post("/connection/request")
async def connection(request: dict[str, Any]) -> dict[str, Any]:
    """Somebody asked the registry for us. A status of 200 says yes; what we do next is up to us."""
    print(f"{request['user_display_name']} wants to connect from {request['user_endpoint']}", flush=True)
    return {"status": "accepted"}


@app.get("/ping")
async def ping() -> dict[str, str]:
    return {"status": "pong"}


@app.get("/health")
async def health() -> dict[str, Any]:
    return {"status": "healthy", "processed": done}


def main() -> None:
    # It listens before it registers: whoever finds it can call it.
    listening = socket.create_server(("127.0.0.1", PORT))
    app.state.endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        main()
