"""Credentials made for one job: who issues them, takes them back, and remembers what is still to be (R-9.8)."""

import secrets
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from arcp.errors import BudgetExhaustedError
from arcp.lease import Lease
from arcp.messages import LeaseConstraints

__all__ = [
    "Credential",
    "CredentialConstraints",
    "CredentialProvisioner",
    "InMemoryCredentialProvisioner",
    "InMemoryRevocationLog",
    "JobCredentialContext",
    "RevocationLog",
    "UpstreamBudgetExhausted",
]


@dataclass(frozen=True, slots=True)
class CredentialConstraints:
    """What a credential is limited to, as its issuer says: `cost_budget` as `USD:5.00`, models as patterns."""

    cost_budget: tuple[str, ...] = ()
    model_use: tuple[str, ...] = ()
    expires_at: str | None = None


@dataclass(frozen=True, slots=True)
class Credential:
    """One credential. `value` is secret, not shown, and serves one job (R-9.8.2.3); `id` must not hold it.

    `scheme` is `bearer`; `endpoint` an absolute `https` URL, or `http` on this machine (R-9.8.1.3); `profile` the
    dialect spoken there, such as `openai`.
    """

    id: str
    scheme: str
    value: str = field(repr=False)
    endpoint: str
    profile: str | None = None
    constraints: CredentialConstraints | None = None


@dataclass(frozen=True, slots=True)
class JobCredentialContext:
    """The job credentials are made for. It is accepted only once they are there (R-9.8.2.1)."""

    job_id: str
    agent: str
    agent_version: str | None
    submitter_principal: str
    parent_job_id: str | None
    lease: Lease
    lease_constraints: LeaseConstraints | None
    intent: str = ""
    """Names this one request; a provisioner with `revoke_intent` finds by it what it issued before it could say so."""


@runtime_checkable
class CredentialProvisioner(Protocol):
    """Issues credentials and takes them back; runs on the event loop of the runtime.

    Two members are optional. A `revoke` that takes `rotation` is told which of the values an id has had is meant, from
    0; without it `revoke` is called by the id alone, also for a value that was rotated away, so what is keyed by the id
    must know the old value from the new (R-9.8.2.8). `async revoke_intent(intent)` takes back whatever was issued for a
    request that a process made just before it died.
    """

    async def issue(self, lease: Lease, ctx: JobCredentialContext) -> tuple[Credential, ...]:
        """Credentials for one job, none where its lease needs none. An exception refuses the submit (R-9.8.2.2)."""
        ...

    async def revoke(self, credential_id: str) -> None:
        """Takes one back; succeeds when it is taken back already. Tried 8 times, with growing pauses (R-9.8.2.5)."""
        ...


@runtime_checkable
class RevocationLog(Protocol):
    """Remembers what was issued and not taken back, for longer than the process lives (R-9.8.2.6)."""

    async def record(self, job_id: str, credential_id: str) -> None:
        """Returns once this is written down for good; the credential leaves the runtime after that."""
        ...

    async def forget(self, job_id: str, credential_id: str) -> None:
        """Returns once it is written down that this one is taken back."""
        ...

    async def outstanding(self) -> tuple[tuple[str, str], ...]:
        """What is recorded and not forgotten, as job id and credential id; read once, and then taken back."""
        ...


class InMemoryCredentialProvisioner:
    """Makes credentials that open nothing, for tests; `issued` and `revoked` say what happened."""

    def __init__(self, *, endpoint: str = "http://127.0.0.1/", profile: str | None = None) -> None:
        """Each job gets one credential for `endpoint`, limited as its lease is."""
        self.endpoint = endpoint
        self.profile = profile
        self.issued: list[Credential] = []
        self.revoked: list[str] = []

    def __repr__(self) -> str:
        return f"<InMemoryCredentialProvisioner issued={len(self.issued)} revoked={len(self.revoked)}>"

    async def issue(self, lease: Lease, ctx: JobCredentialContext) -> tuple[Credential, ...]:
        """One credential, with a fresh random value."""
        constraints = CredentialConstraints(
            cost_budget=tuple(lease.get("cost.budget", ())),
            model_use=tuple(lease.get("model.use", ())),
            expires_at=None if ctx.lease_constraints is None else ctx.lease_constraints.expires_at,
        )
        credential = Credential(
            id=f"cred_{secrets.token_hex(8)}",
            scheme="bearer",
            value=secrets.token_urlsafe(24),
            endpoint=self.endpoint,
            profile=self.profile,
            constraints=constraints,
        )
        self.issued.append(credential)
        return (credential,)

    async def revoke(self, credential_id: str, *, rotation: int = 0) -> None:
        """Notes it in `revoked`, once for each value."""
        self.revoked.append(credential_id)

    async def revoke_intent(self, intent: str) -> None:
        """Nothing survives the process, so there is nothing to take back."""


class InMemoryRevocationLog:
    """Remembers for as long as the process lives: for tests."""

    def __init__(self) -> None:
        self._outstanding: dict[tuple[str, str], None] = {}

    def __repr__(self) -> str:
        return f"<InMemoryRevocationLog outstanding={len(self._outstanding)}>"

    async def record(self, job_id: str, credential_id: str) -> None:
        """Remembers it."""
        self._outstanding[job_id, credential_id] = None

    async def forget(self, job_id: str, credential_id: str) -> None:
        """Forgets it."""
        self._outstanding.pop((job_id, credential_id), None)

    async def outstanding(self) -> tuple[tuple[str, str], ...]:
        """What is recorded and not forgotten."""
        return tuple(self._outstanding)


class UpstreamBudgetExhausted(BudgetExhaustedError):
    """Whoever serves a credential says that its money is spent: the agent's job ends in `BUDGET_EXHAUSTED` (R-9.6.16).

    Also where another exception was raised `from` it.
    """

    def __init__(
        self,
        message: str = "the upstream says that the budget of this credential is spent",
        *,
        retryable: bool | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, retryable=retryable, details=details)


def to_wire(credential: Credential) -> dict[str, Any]:
    """A credential as the core takes it."""
    if not isinstance(credential, Credential):
        raise TypeError(f"issue must give a tuple of Credential, got one of {type(credential).__name__}")
    wire: dict[str, Any] = {name: getattr(credential, name) for name in ("id", "scheme", "value", "endpoint")}
    if credential.profile is not None:
        wire["profile"] = credential.profile
    if (limits := credential.constraints) is not None:
        constraints: dict[str, Any] = {}
        if limits.cost_budget:
            constraints["cost.budget"] = list(limits.cost_budget)
        if limits.model_use:
            constraints["model.use"] = list(limits.model_use)
        if limits.expires_at is not None:
            constraints["expires_at"] = limits.expires_at
        wire["constraints"] = constraints
    return wire
