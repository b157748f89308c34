"""Who may list and follow the jobs of others."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["AuthorizationContext", "JobAuthorizationPolicy", "ObservedJob"]


@dataclass(frozen=True, slots=True)
class ObservedJob:
    """A job as a policy is told of it, at the moment of the question."""

    job_id: str
    session_id: str
    submitter_principal: str
    agent: str
    agent_version: str | None
    created_at: str
    """RFC 3339 in UTC."""
    parent_job_id: str | None
    state: str
    """`pending`, `running`, `success`, `error`, `cancelled` or `timed_out`."""

    @property
    def agent_ref(self) -> str:
        """`name@version`, or the bare name."""
        return self.agent if self.agent_version is None else f"{self.agent}@{self.agent_version}"


@dataclass(frozen=True, slots=True)
class AuthorizationContext:
    """What a policy decides: whether this principal may `list` or `subscribe` to this job."""

    requester_principal: str
    job: ObservedJob
    operation: Literal["list", "subscribe"]


JobAuthorizationPolicy = Callable[[AuthorizationContext], bool | Awaitable[bool]]
"""`def policy(context) -> bool`, or `async def`. Runs on the event loop of the runtime (R-7.6.12).

It is asked anew for each request, about every job but those of the asking session itself, and never about a cancel:
that is the submitter's. Where it says `False` the job does not exist for the asker; where it raises
`PermissionDeniedError` the asker may know that it does (R-7.6.13). Any other exception, and an answer that is no
`bool`, is logged and counts as `False`.
"""


def same_principal(context: AuthorizationContext) -> bool:
    """What holds without a policy: a principal sees its own jobs."""
    return context.requester_principal == context.job.submitter_principal


def asked_about(question: dict[str, Any]) -> list[AuthorizationContext]:
    """The contexts a question of the core stands for."""
    principal, operation = question["principal"], question["operation"]
    return [AuthorizationContext(principal, _observed(job), operation) for job in question["jobs"]]


def _observed(job: dict[str, Any]) -> ObservedJob:
    return ObservedJob(
        job_id=job["job_id"],
        session_id=job["session_id"],
        submitter_principal=job["principal"],
        agent=job["agent"],
        agent_version=job["version"],
        created_at=job["created_at"],
        parent_job_id=job["parent_job_id"],
        state=job["status"],
    )
