"""Children of a job: what its agent has other agents do (R-10)."""

import json
from collections.abc import Awaitable, Generator
from typing import TYPE_CHECKING, Any

from arcp._check import expect
from arcp.lease import Lease
from arcp.messages import JobAcceptedPayload, JobResultPayload

if TYPE_CHECKING:
    from arcp.context import JobContext

__all__ = ["ChildJob"]


class ChildJob:
    """A delegated job; `JobContext.delegate` makes it. It is cancelled with its parent, unless it is detached."""

    def __init__(self, context: "JobContext", accepted: str) -> None:
        """Made by `JobContext.delegate`."""
        self._context = context
        self.accepted = JobAcceptedPayload.model_validate_json(accepted)

    def __repr__(self) -> str:
        return f"<ChildJob job_id={self.job_id!r} agent={self.agent_ref!r}>"

    accepted: JobAcceptedPayload
    """What was granted."""

    @property
    def job_id(self) -> str:
        """The child's id."""
        return self.accepted.job_id

    @property
    def delegate_id(self) -> str | None:
        """What the parent's events call this delegation."""
        return self.accepted.delegate_id

    @property
    def agent_ref(self) -> str:
        """The resolved `name@version`, or the bare name of an agent without versions."""
        return self.accepted.agent or ""

    @property
    def lease(self) -> Lease:
        """What the child may do."""
        return self.accepted.lease

    @property
    def trace_id(self) -> str | None:
        """The parent's trace."""
        return self.accepted.trace_id

    async def result(self) -> Any:
        """Waits for what the child's agent returned, or raises the child's error: `arcp.CancelledError` if cancelled.

        A cancelled waiter does not cancel the child.
        """
        context = self._context
        return json.loads(await context._port.call(context._invocation.child_result, self.job_id))

    @property
    def done(self) -> Awaitable[JobResultPayload]:
        """As `JobHandle.done`: to be awaited for the end, by any number of tasks, any number of times."""
        return _Done(self)

    def cancel(self, *, reason: str = "parent.cancel") -> None:
        """Makes the child give way; nothing happens once it has ended."""
        self._context._invocation.cancel_child(self.job_id, expect("reason", reason, str))


class _Done:
    def __init__(self, child: ChildJob) -> None:
        self._child = child

    def __await__(self) -> Generator[Any, None, JobResultPayload]:
        return self._wait().__await__()

    async def _wait(self) -> JobResultPayload:
        return JobResultPayload(final_status="success", result=await self._child.result())
