"""ARCP without `async`, for scripts and notebooks.

    from arcp.sync import Client, run

    print(run("echo", {"hi": 1}, url="ws://127.0.0.1:7777/arcp", token="tok"))

    with Client.connect("ws://127.0.0.1:7777/arcp", token="tok") as client:
        job = client.submit("echo", {"hi": 1})
        for event in job.events():
            print(event.kind, event.body)
        print(job.result())

`Registry` is the other half: `Registry("http://localhost:8001").discover_agents()`.

Connections live on an event loop in a thread of their own, so all of it also works where a loop runs already, as in a
notebook. A call blocks the thread it is made from: a runtime on that thread's loop cannot answer it.

Ctrl-C ends a wait at once. What it leaves: `run` has its job cancelled; a `submit` that was not answered has its job
cancelled too; `Job.result`, `Job.wait` and `Job.events` leave the job running.
"""

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from arcp._background import POLL_SEC, Background, background
from arcp._check import expect_timeout
from arcp._native import IMPL_VERSION
from arcp._sync_registry import Heartbeat, Registry
from arcp.client import ARCPClient, JobEvent, JobHandle, ReconnectOptions
from arcp.lease import Lease
from arcp.messages import ClientInfo, JobResultPayload, LeaseConstraints, ListJobsFilter, SessionJobsPayload
from arcp.transport import Transport, WebSocketTransport

if TYPE_CHECKING:
    import ssl as _ssl

__all__ = ["Client", "Heartbeat", "Job", "Registry", "run"]

MAX_WAITING = 1024
"""How many events wait for a loop over `Job.events` before the connection reads no more of them."""


class Client:
    """One session with a runtime; `connect` makes it. Leaving its `with` closes it."""

    def __init__(self, client: ARCPClient, home: Background) -> None:
        """Made by `connect`."""
        self._client = client
        self._home = home

    @classmethod
    def connect(
        cls,
        url: str | Transport,
        *,
        token: str | Callable[[], str | Awaitable[str]] | None = None,
        name: str = "arcp.sync",
        version: str = IMPL_VERSION,
        features: Sequence[str] | None = None,
        reconnect: ReconnectOptions | bool = True,
        additional_headers: Mapping[str, str] | None = None,
        ssl: "_ssl.SSLContext | None" = None,
        timeout: float | None = None,
    ) -> Self:
        """Connects and shakes hands.

        `url` is `ws://` or `wss://`, or a transport of your own; `token` a text or a callable that gives one, by
        default the environment variable `ARCP_TOKEN`. `name` and `version` are what the runtime is told of this
        program. `timeout` bounds the whole in seconds. Raises as `WebSocketTransport.connect` and `ARCPClient.connect`:
        `arcp.ConnectionError`, `UnauthenticatedError`, the builtin `TimeoutError`; `ValueError` without a token.
        """
        if token is None and (token := os.environ.get("ARCP_TOKEN")) is None:
            raise ValueError("no token: pass token=, or set the environment variable ARCP_TOKEN")
        home = background()
        client = ARCPClient(
            client=ClientInfo(name=name, version=version), token=token, features=features, reconnect=reconnect
        )

        async def open_session() -> None:
            if isinstance(url, str):
                transport: Transport = await WebSocketTransport.connect(
                    url, additional_headers=additional_headers, ssl=ssl
                )
            else:
                transport = url
            await client.connect(transport)

        home.call(open_session, timeout)
        return cls(client, home)

    def __repr__(self) -> str:
        return f"<arcp.sync.Client session_id={self.session_id!r}>"

    @property
    def session_id(self) -> str | None:
        """The session."""
        return self._client.session_id

    @property
    def negotiated_features(self) -> tuple[str, ...]:
        """What both sides have."""
        return self._client.negotiated_features

    def submit(
        self,
        agent: str,
        input: Any = None,
        *,
        lease_request: Lease | None = None,
        lease_constraints: LeaseConstraints | None = None,
        idempotency_key: str | None = None,
        max_runtime_sec: int | None = None,
        trace_id: str | None = None,
        parent_job_id: str | None = None,
        timeout: float | None = None,
    ) -> "Job":
        """Submits a job and returns once it is accepted. Arguments and errors are those of `ARCPClient.submit`.

        `timeout` bounds the wait in seconds; a job that nobody waited for is cancelled.
        """
        handle = self._home.call(
            lambda: self._client.submit(
                agent=agent,
                input=input,
                lease_request=lease_request,
                lease_constraints=lease_constraints,
                idempotency_key=idempotency_key,
                max_runtime_sec=max_runtime_sec,
                trace_id=trace_id,
                parent_job_id=parent_job_id,
            ),
            timeout,
        )
        return Job(self, handle)

    def subscribe(
        self,
        job_id: str,
        *,
        history: bool = False,
        from_event_seq: int | None = None,
        timeout: float | None = None,
    ) -> "Job":
        """Follows a job that was submitted elsewhere. Arguments and errors are those of `ARCPClient.subscribe`."""
        subscription = self._home.call(
            lambda: self._client.subscribe(job_id, history=history, from_event_seq=from_event_seq), timeout
        )
        return Job(self, subscription.handle)

    def list_jobs(
        self,
        *,
        filter: ListJobsFilter | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        timeout: float | None = None,
    ) -> SessionJobsPayload:
        """One page of the jobs this principal may see. Arguments and errors are those of `ARCPClient.list_jobs`."""
        return self._home.call(lambda: self._client.list_jobs(filter=filter, limit=limit, cursor=cursor), timeout)

    def cancel(self, job: "Job | str", *, reason: str = "client.cancel") -> None:
        """Asks to cancel a job, given as such or by its id, and returns at once; its end tells what came of that."""
        job_id = job.job_id if isinstance(job, Job) else job
        self._home.call(lambda: self._client.cancel_job(job_id, reason=reason))

    def close(self, *, reason: str = "client.close") -> None:
        """Ends the session, within bounded time. Jobs go on. Idempotent."""
        self._home.call(lambda: self._client.close(reason=reason))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Job:
    """A submitted or followed job."""

    def __init__(self, client: Client, handle: JobHandle) -> None:
        """Made by `Client.submit` and `Client.subscribe`."""
        self._client = client
        self._home = client._home
        self._feed = _Feed(client._home, handle)
        self.handle = handle
        """The handle of the async client, for what it knows of the job: `lease`, `budget`, `trace_id` and others."""

    def __repr__(self) -> str:
        return f"<arcp.sync.Job job_id={self.job_id!r}>"

    @property
    def job_id(self) -> str:
        """The job."""
        return self.handle.job_id

    def events(self, timeout: float | None = None) -> Iterator[JobEvent]:
        """The events from the job's beginning, until its end; a job's error does not show here.

        Each event is given once, also over several loops. A loop that is slow slows the job, as in the async client.
        After `timeout` seconds without the end, the builtin `TimeoutError` is raised.
        """
        return self._feed.read(timeout)

    def wait(self, timeout: float | None = None) -> JobResultPayload:
        """Waits for the end and gives the whole answer.

        Raises the job's error, `arcp.CancelledError` for a cancelled job; `TransportClosed` when the session ends
        first; the builtin `TimeoutError` after `timeout` seconds, and then the job goes on.
        """
        return self._home.call(self._done, timeout)

    def result(self, timeout: float | None = None) -> Any:
        """Waits for the end and gives what the agent returned; of a result that was streamed, its bytes.

        Raises as `wait`.
        """
        return self._home.call(self._value, timeout)

    def cancel(self, *, reason: str = "client.cancel") -> None:
        """Asks to cancel the job and returns at once."""
        self._client.cancel(self, reason=reason)

    async def _done(self) -> JobResultPayload:
        return await self.handle.done

    async def _value(self) -> Any:
        done = await self.handle.done
        return done.result if done.result_id is None else await self.handle.collect_chunks()


class _Feed:
    """Brings events from the loop to a thread, in batches and bounded."""

    def __init__(self, home: Background, handle: JobHandle) -> None:
        self._home = home
        self._handle = handle
        self._events: deque[JobEvent] = deque()
        self._changed = threading.Condition()
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Event | None = None
        self._ended = False

    def read(self, timeout: float | None) -> Iterator[JobEvent]:
        """Each event once, until the end. What was brought and not read stays for another loop."""
        expect_timeout(timeout)
        ends = None if timeout is None else time.monotonic() + timeout
        self._home.call(self._start, timeout)
        try:
            while self._wait(ends, timeout):
                # Another thread may read too.
                with suppress(IndexError):
                    for _ in range(MAX_WAITING):
                        yield self._events.popleft()
                self._home.soon(self._make_room)
        finally:
            self._home.soon(self._stop)

    def _wait(self, ends: float | None, timeout: float | None) -> bool:
        """Until there are events; `False` after the last."""
        with self._changed:
            while not self._events and not self._ended:
                left = POLL_SEC if ends is None else min(POLL_SEC, ends - time.monotonic())
                if left <= 0:
                    raise TimeoutError(f"no outcome within {timeout:.3g} s")
                self._changed.wait(left)
            return bool(self._events)

    async def _start(self) -> None:
        if self._task is None and not self._ended:
            self._room = asyncio.Event()
            self._task = asyncio.get_running_loop().create_task(self._bring())

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set()

    async def _bring(self) -> None:
        events: Any = self._handle.events()
        try:
            async for event in events:
                self._events.append(event)
                if len(self._events) == 1:
                    with self._changed:
                        self._changed.notify_all()
                while len(self._events) >= MAX_WAITING and self._room is not None:
                    self._room.clear()
                    if len(self._events) >= MAX_WAITING:
                        await self._room.wait()
            self._ended = True
        finally:
            # Else the job would wait for a loop that was left.
            await events.aclose()
            with self._changed:
                self._changed.notify_all()


def run(
    agent: str,
    input: Any = None,
    *,
    url: str | Transport,
    token: str | Callable[[], str | Awaitable[str]] | None = None,
    on_event: Callable[[JobEvent], object] | None = None,
    lease_request: Lease | None = None,
    lease_constraints: LeaseConstraints | None = None,
    idempotency_key: str | None = None,
    max_runtime_sec: int | None = None,
    timeout: float | None = None,
) -> Any:
    """Connects, runs one job and gives what its agent returned; of a result that was streamed, its bytes.

    `on_event` is called with every event, in this thread. `timeout` bounds the wait for the job's end in seconds. When
    the wait ends otherwise, by Ctrl-C, a timeout or an error of `on_event`, the job is cancelled. Other arguments and
    errors are those of `Client.connect` and `Client.submit`; the job's error is raised.
    """
    expect_timeout(timeout)
    with Client.connect(url, token=token) as client:
        job = client.submit(
            agent,
            input,
            lease_request=lease_request,
            lease_constraints=lease_constraints,
            idempotency_key=idempotency_key,
            max_runtime_sec=max_runtime_sec,
        )
        ends = None if timeout is None else time.monotonic() + timeout
        try:
            if on_event is not None:
                for event in job.events(timeout):
                    on_event(event)
            return job.result(None if ends is None else max(0.0, ends - time.monotonic()))
        except BaseException:
            # Changes nothing for a job that has ended; the session ends behind it.
            with suppress(Exception):
                job.cancel()
            raise
