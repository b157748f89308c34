"""The Python shim: one JSON command per line in, one JSON answer per line out (see ../README.md)."""

import asyncio
import itertools
import json
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import arcp
from agents import AGENTS
from arcp._json import loads_exact
from arcp._native import encode
from arcp.client import JobEvent, JobHandle
from arcp.runtime import StaticBearerVerifier
from arcp.transport import WebSocketServer
from functions import FUNCTIONS

CAPABILITIES = [
    *["client", "runtime", "subscribe", "submit.lease", "agent_versions"],
    *["heal", "resume", "listing", "result_chunk", "registry"],
    *[f"agent.{name}" for name in AGENTS],
    *[f"call.{name}" for name in FUNCTIONS],
]


class Refusal(Exception):
    """What the shim itself refuses."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class View:
    session: arcp.ARCPClient
    handle: JobHandle
    events: AsyncIterator[JobEvent]


@dataclass
class Served:
    runtime: arcp.ARCPRuntime
    server: WebSocketServer


class Shim:
    """Carries out commands; each method is one, its keyword arguments the command's."""

    def __init__(self) -> None:
        self._handles: dict[str, Any] = {}
        self._numbers = itertools.count(1)

    def _keep(self, letter: str, handle: Any) -> str:
        name = f"{letter}{next(self._numbers)}"
        self._handles[name] = handle
        return name

    def _get(self, name: str) -> Any:
        if name not in self._handles:
            raise Refusal("BAD_ARGUMENT", f"no handle {name!r}")
        return self._handles[name]

    async def hello(self) -> Any:
        return {"language": "python", "capabilities": CAPABILITIES}

    async def connect(
        self,
        url: str,
        token: str,
        features: list[str] | None = None,
        timeout_ms: int | None = None,
        reconnect: bool | None = None,
        resume: dict[str, Any] | None = None,
    ) -> Any:
        client = arcp.ARCPClient(
            client=arcp.ClientInfo(name="arcp-shim", version=arcp.IMPL_VERSION),
            token=token,
            features=features,
            handshake_timeout_sec=5.0 if timeout_ms is None else timeout_ms / 1000,
            reconnect=True if reconnect is None else reconnect,
        )
        transport = await arcp.WebSocketTransport.connect(url)
        if resume is None:
            welcome = await client.connect(transport)
        else:
            welcome = await client.resume(transport, resume=arcp.SessionResume(**resume))
        return {
            "session": self._keep("s", client),
            "session_id": client.session_id,
            "features": client.negotiated_features,
            "resume_token": welcome.resume_token,
        }

    async def attach(self, session: str, job_id: str) -> Any:
        client = self._get(session)
        return {"job": self._view(client, client.job(job_id))}

    async def list_jobs(
        self,
        session: str,
        status: list[str] | None = None,
        agent: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Any:
        wanted = {"status": status, "agent": agent}
        given = {name: value for name, value in wanted.items() if value is not None}
        filter = arcp.ListJobsFilter.model_validate(given) if given else None
        page = await self._get(session).list_jobs(filter=filter, limit=limit, cursor=cursor)
        jobs = [job.model_dump(exclude_unset=True) for job in page.jobs]
        return {"jobs": jobs, "next_cursor": page.next_cursor}

    async def submit(
        self,
        session: str,
        agent: str,
        input: Any = None,
        lease_request: Any = None,
        lease_constraints: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
        max_runtime_sec: int | None = None,
    ) -> Any:
        client = self._get(session)
        handle = await client.submit(
            agent=agent,
            input=input,
            lease_request=lease_request,
            lease_constraints=None if lease_constraints is None else arcp.LeaseConstraints(**lease_constraints),
            idempotency_key=idempotency_key,
            max_runtime_sec=max_runtime_sec,
        )
        answer = {"job": self._view(client, handle), "job_id": handle.job_id, "agent": handle.agent_ref}
        optional = {"lease": handle.lease, "budget": handle.budget_amounts}
        return answer | {name: value for name, value in optional.items() if value is not None}

    def _view(self, session: arcp.ARCPClient, handle: JobHandle) -> str:
        return self._keep("j", View(session, handle, handle.events()))

    async def events(self, job: str, max: int | None = None) -> Any:
        taken: list[Any] = []
        while max is None or len(taken) < max:
            try:
                event = await anext(self._get(job).events)
            except StopAsyncIteration:
                return {"events": taken, "ended": True}
            taken.append({"kind": event.kind, "body": event["body"]})
        return {"events": taken, "ended": False}

    async def result(self, job: str) -> Any:
        handle = self._get(job).handle
        result = await handle.done
        value = result.result if result.result_id is None else read(await handle.collect_chunks())
        answer = {"status": result.final_status, "result": value}
        return answer if result.summary is None else answer | {"summary": result.summary}

    async def cancel(self, session: str, job_id: str, reason: str | None = None) -> Any:
        await self._get(session).cancel_job(job_id, **({} if reason is None else {"reason": reason}))
        return {}

    async def subscribe(
        self, session: str, job_id: str, history: bool | None = None, from_event_seq: int | None = None
    ) -> Any:
        client = self._get(session)
        subscription = await client.subscribe(job_id, history=history or False, from_event_seq=from_event_seq)
        return {
            "job": self._view(client, subscription.handle),
            "status": subscription.status,
            "agent": subscription.handle.agent_ref,
            "replayed": subscription.replayed,
        }

    async def unsubscribe(self, job: str) -> Any:
        view = self._get(job)
        await view.session.unsubscribe(view.handle.job_id)
        return {}

    async def close(self, session: str) -> Any:
        await self._get(session).close()
        return {}

    async def serve(self, agents: list[str], tokens: dict[str, str]) -> Any:
        runtime = arcp.ARCPRuntime(
            runtime=arcp.RuntimeInfo(name="arcp-shim", version=arcp.IMPL_VERSION), bearer=StaticBearerVerifier(tokens)
        )
        for registration in agents:
            name, _, version = registration.partition("@")
            if name not in AGENTS:
                raise Refusal("BAD_ARGUMENT", f"no corpus agent {name!r}")
            if version:
                runtime.register_agent_version(name, version, AGENTS[name])
            else:
                runtime.register_agent(name, AGENTS[name])
        server = await arcp.serve_websocket(runtime.accept, port=0)
        return {"runtime": self._keep("r", Served(runtime, server)), "url": server.url}

    async def stop(self, runtime: str) -> Any:
        served = self._get(runtime)
        served.server.close()
        await served.runtime.close()
        return {}

    async def health(self, url: str) -> Any:
        async with arcp.ARCPClient(url) as client:
            return await client.health_check()

    async def register(self, url: str, agent: dict[str, Any], agent_key: str | None = None) -> Any:
        async with arcp.ARCPClient(url) as client:
            registered = await client.register_agent(**agent, agent_key=agent_key)
            return registered.model_dump(mode="json")

    async def discover(
        self, url: str, agent_type: str | None = None, capabilities: list[str] | None = None, limit: int = 50
    ) -> Any:
        async with arcp.ARCPClient(url) as client:
            found = await client.discover_agents(agent_type=agent_type, capabilities=capabilities, limit=limit)
            return {"agents": [agent.model_dump(mode="json") for agent in found]}

    async def call(self, function: str, args: dict[str, Any]) -> Any:
        if function not in FUNCTIONS:
            raise Refusal("UNSUPPORTED", f"no function {function!r}")
        return FUNCTIONS[function](**args)


def read(result: bytes) -> Any:
    try:
        return loads_exact(result.decode())
    except ValueError as error:
        raise arcp.InvalidRequestError(f"the streamed result is not JSON: {error}") from None


def refusal(error: Exception) -> dict[str, Any]:
    match error:
        case Refusal():
            code = error.code
        case arcp.ARCPError():
            return error.to_payload()
        case arcp.TransportClosed():
            code = "TRANSPORT" if error.lost else "CLOSED"
        case TimeoutError():
            code = "TIMEOUT_LOCAL"
        case TypeError() | ValueError() | KeyError():
            code = "BAD_ARGUMENT"
        case _:
            code = "PROTOCOL"
    return {"code": code, "message": str(error), "retryable": False}


async def answer(shim: Shim, command: dict[str, Any]) -> None:
    number, name = command.pop("id"), command.pop("do")
    try:
        if name.startswith("_") or not hasattr(shim, name):
            raise Refusal("UNSUPPORTED", f"no command {name!r}")
        outcome = {"ok": await getattr(shim, name)(**command)}
    except Exception as error:
        outcome = {"error": refusal(error)}
    print(encode({"id": number, **outcome}), flush=True)


async def main() -> None:
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str] = asyncio.Queue()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=read, daemon=True).start()
    shim = Shim()
    running = set()
    while line := await lines.get():
        command = json.loads(line)
        if command["do"] == "exit":
            print(encode({"id": command["id"], "ok": {}}), flush=True)
            return
        # Commands overlap: one that waits holds up no other.
        task = loop.create_task(answer(shim, command))
        running.add(task)
        task.add_done_callback(running.discard)


asyncio.run(main())
