"""A job as its submitter or follower sees it: its end, its events, its result."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any, Generic, Literal, cast, overload

from pydantic import TypeAdapter
from typing_extensions import TypeVar

from arcp import _native
from arcp._inbox import Inbox
from arcp._json import loads_decimal
from arcp._port import port
from arcp.errors import ConnectionError, InvalidRequestError, TransportClosed
from arcp.events import Event, ResultChunkBody
from arcp.lease import Lease, budget_texts
from arcp.messages import CredentialPayload, JobAcceptedPayload, JobResultPayload, LeaseConstraints

T = TypeVar("T", default=Any)


class JobHandle(Generic[T]):
    """A submitted or followed job. `JobHandle[Report]` is one whose result was asked for as a `Report`."""

    def __init__(self, job: _native.Job, result_type: type[T] | None = None) -> None:
        """Made by `ARCPClient`."""
        self._job = job
        self._result_type = result_type

    @cached_property
    def _inbox(self) -> Inbox:
        return Inbox(self._job)

    def __repr__(self) -> str:
        return f"<JobHandle job_id={self.job_id!r}>"

    @property
    def job_id(self) -> str:
        """The job."""
        return self._job.job_id

    @cached_property
    def _opening(self) -> dict[str, Any]:
        # A job of a session that was taken up has none.
        return cast(dict[str, Any], loads_decimal(self._job.opening)) or {}

    @cached_property
    def accepted(self) -> JobAcceptedPayload:
        """What was granted; of a job of `ARCPClient.job` only its id is known."""
        return JobAcceptedPayload.model_validate({"job_id": self.job_id} | self._opening)

    @property
    def agent_ref(self) -> str:
        """The resolved `name@version`, or the bare name of an agent without versions."""
        return self._opening.get("agent") or ""

    @property
    def lease(self) -> Lease:
        """What the job may do."""
        return self._opening.get("lease") or {}

    @property
    def lease_constraints(self) -> LeaseConstraints | None:
        """When the lease ends."""
        return self.accepted.lease_constraints

    @property
    def budget(self) -> dict[str, str] | None:
        """What was granted, as `{"USD": "USD:1.00"}`; `None` without a budget. `budget_amounts` has the numbers."""
        amounts = self.budget_amounts
        return None if amounts is None else budget_texts(amounts, self.lease)

    @property
    def budget_amounts(self) -> dict[str, Decimal] | None:
        """What was granted, as currency to amount; `None` without a budget."""
        budget = self._opening.get("budget")
        return None if budget is None else {currency: Decimal(amount) for currency, amount in budget.items()}

    @property
    def credentials(self) -> tuple[CredentialPayload, ...]:
        """What was provisioned for the job."""
        return self.accepted.credentials or ()

    @property
    def trace_id(self) -> str | None:
        """The job's trace, 32 hex digits."""
        return self._opening.get("trace_id")

    @property
    def done(self) -> "Awaitable[JobResultPayload[T]]":
        """To be awaited for the end, by any number of tasks, any number of times.

        Gives the result, or raises the job's error: `arcp.CancelledError` for a cancelled job. `TransportClosed` when
        the session ends first. A cancelled waiter does not cancel the job.
        """
        return _Done(self._job, self._result_type)

    async def result(self) -> T:
        """Waits for the end; what the agent returned, or a streamed result read as JSON. Raises as `done` does.

        `InvalidRequestError` also for a streamed result that is no JSON, or longer than `max_result_bytes`.
        """
        end = await self.done
        if end.result_id is None:
            return end.result
        text = await self.collect_chunks()
        if self._result_type is not None:
            return TypeAdapter(self._result_type).validate_json(text)
        try:
            return cast(T, json.loads(text))
        except ValueError as error:
            raise InvalidRequestError(f"the streamed result is not JSON: {error}; use collect_chunks") from None

    @overload
    def events(self, *, batch: Literal[False] = False) -> AsyncIterator[Event]: ...
    @overload
    def events(self, *, batch: Literal[True]) -> AsyncIterator[list[Event]]: ...
    def events(self, *, batch: bool = False) -> AsyncIterator[Event] | AsyncIterator[list[Event]]:
        """The events from the job's beginning, until its end; a job's error does not show here.

        Each is a mapping of `kind`, `body` and `ts` and has these as attributes; `arcp.events` has their types. With
        `batch`, lists of those that are there, for loops that cannot wait for each.

        Iterators share the events: each event is given once, also to an iterator that is started later. While nobody
        iterates, only the newest events are kept (100 000, 16 MiB at most) and the job does not wait for this client; a
        loop that begins after some were dropped logs a warning. Chunks of a result come through `chunks`.
        """
        return self._inbox.batches() if batch else self._inbox.events()

    def chunks(self) -> AsyncIterator[ResultChunkBody]:
        """The chunks of a streamed result, as dicts of `result_id`, `chunk_seq`, `data`, `encoding` and `more`.

        For a result that is longer than memory, or wanted as it comes; from the first iteration on it is not put
        together any more. Begin before more chunks have come than are kept for a handle that nobody reads (100 000
        events or 16 MiB). Raises `InvalidRequestError` when a chunk is missing, and the job's error at its end.
        """
        return self._inbox.chunks()

    async def collect_chunks(self) -> bytes:
        """Waits for the end; the whole of a streamed result, or an inline result as JSON text (R-8.4.4).

        Raises the job's error; `InvalidRequestError` when chunks are missing, when the result is longer than
        `max_result_bytes`, and when `chunks` has taken it.
        """
        return cast(bytes, await ask(self._job.result_bytes))


@dataclass(frozen=True, slots=True)
class JobSubscription:
    """A followed job. `status` is the job's at that moment, `replayed` whether history precedes what is new."""

    job_id: str
    request_id: str | None
    subscribed_from: int
    replayed: int
    handle: JobHandle[Any]
    status: str = ""


class _Done:
    """Awaited, waits for a job's end."""

    def __init__(self, job: _native.Job, result_type: Any) -> None:
        self._job = job
        self._result_type = result_type

    def __await__(self) -> Generator[Any, None, JobResultPayload[Any]]:
        payload: Any = JobResultPayload
        if self._result_type is not None:
            payload = payload[self._result_type]
        try:
            text = self._job.result_now()
            if text is None:
                here = port()
                number, future = here.begin()
                try:
                    self._job.result(here.native, number)
                    text = yield from future.__await__()
                finally:
                    here.end(number)
        except ConnectionError as error:
            raise TransportClosed(error.message, lost=True) from None
        end: JobResultPayload[Any] = payload.model_validate_json(text)
        return end


class session_errors:  # noqa: N801
    """A link that was lost is `TransportClosed` for whoever uses the session."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, ConnectionError):
            raise TransportClosed(error.message, lost=True) from None


async def ask(start: Callable[..., bool | None], *arguments: Any) -> Any:
    # As `Port.call`, in one frame: every job passes here.
    here = port()
    number, future = here.begin()
    try:
        if start(here.native, number, *arguments):
            here.flush_soon()
        return await future
    except ConnectionError as error:
        raise TransportClosed(error.message, lost=True) from None
    finally:
        here.end(number)
