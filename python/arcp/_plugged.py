"""Answers the core's questions to what a runtime was given: a policy, a provisioner, logs."""

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from arcp import _native
from arcp.credentials import Credential, CredentialProvisioner, JobCredentialContext, RevocationLog, to_wire
from arcp.errors import ARCPError, PermissionDeniedError
from arcp.event_log import EventLog
from arcp.messages import LeaseConstraints
from arcp.negotiation import parse_agent_ref
from arcp.policy import AuthorizationContext, JobAuthorizationPolicy, asked_about


class Plugged:
    """What a runtime was given, asked in the core's words."""

    def __init__(
        self,
        *,
        policy: JobAuthorizationPolicy,
        provisioner: CredentialProvisioner | None,
        revocations: RevocationLog | None,
        event_log: EventLog | None,
        logger: logging.Logger,
    ) -> None:
        self._policy = policy
        self._provisioner = provisioner
        self._revocations = revocations
        self._event_log = event_log
        self._logger = logger
        self._answers: dict[str, Callable[[Any], Awaitable[Any]]] = {
            "policy": self._decide,
            "issue": self._issue,
            "revoke": self._revoke,
            "record": self._record,
            "forget": self._forget,
            "outstanding": self._outstanding,
            "event_log": self._log,
        }

    async def answer(self, request: _native.HostRequest) -> None:
        """Answers one question; what goes wrong is logged and told, never raised."""
        about = request.about
        try:
            said = await self._answers[about](json.loads(request.arguments))
            request.answer(json.dumps(said))
        except Exception as error:
            # The core says once per outage that the event log fails.
            level = logging.DEBUG if about == "event_log" else logging.WARNING
            self._logger.log(level, "%s failed", _NAMES[about], exc_info=True)
            request.fail(f"{_NAMES[about]} failed: {_shown(error)}")

    async def _decide(self, question: Any) -> list[str]:
        # Side by side: a policy that looks something up answers about a page as fast as about one job.
        return await asyncio.gather(*(self._verdict(context) for context in asked_about(question)))

    async def _verdict(self, context: AuthorizationContext) -> str:
        try:
            allowed = self._policy(context)
            if inspect.isawaitable(allowed):
                allowed = await allowed
            if not isinstance(allowed, bool):
                raise TypeError(f"a policy must say True or False, got {type(allowed).__name__}")
        except PermissionDeniedError:
            return "known"
        except Exception:
            self._logger.exception("the policy failed, and %s of a job is refused", context.operation)
            return "hidden"
        return "allowed" if allowed else "hidden"

    async def _issue(self, asked: Any) -> list[dict[str, Any]]:
        assert self._provisioner is not None
        agent, version = parse_agent_ref(asked["agent"])
        expires_at = asked["expires_at"]
        context = JobCredentialContext(
            job_id=asked["job_id"],
            agent=agent,
            agent_version=version,
            submitter_principal=asked["principal"],
            parent_job_id=asked["parent_job_id"],
            lease=asked["lease"],
            lease_constraints=None if expires_at is None else LeaseConstraints(expires_at=expires_at),
            intent=asked["intent"],
        )
        issued = tuple(await self._provisioner.issue(dict(asked["lease"]), context))
        try:
            return [to_wire(credential) for credential in issued]
        except Exception:
            # Nobody gets the others either (R-9.8.2.2).
            for credential in issued:
                if isinstance(credential, Credential):
                    await self._provisioner.revoke(credential.id)
            raise

    async def _revoke(self, asked: Any) -> None:
        provisioner: Any = self._provisioner
        if "intent" in asked:
            if not hasattr(provisioner, "revoke_intent"):
                raise RuntimeError(
                    "an earlier process died while it asked for credentials, and a provisioner without revoke_intent "
                    "cannot take back what was issued then; look for it where it is issued"
                )
            await provisioner.revoke_intent(asked["intent"])
        elif "rotation" in inspect.signature(provisioner.revoke).parameters:
            await provisioner.revoke(asked["id"], rotation=asked["rotation"])
        else:
            await provisioner.revoke(asked["id"])

    async def _record(self, asked: Any) -> None:
        assert self._revocations is not None
        for credential_id in asked["ids"]:
            await self._revocations.record(asked["job_id"], credential_id)

    async def _forget(self, asked: Any) -> None:
        assert self._revocations is not None
        await self._revocations.forget(asked["job_id"], asked["id"])

    async def _outstanding(self, asked: Any) -> list[list[str]]:
        assert self._revocations is not None
        return [[str(job_id), str(credential_id)] for job_id, credential_id in await self._revocations.outstanding()]

    async def _log(self, entries: Any) -> None:
        log = self._event_log
        assert log is not None
        for entry in entries:
            if "append" in entry:
                await log.append(entry["append"], json.loads(entry["envelope"]))
            elif "release" in entry:
                await log.release_through(entry["release"], entry["through"])
            else:
                await log.drop_session(entry["drop"])


_NAMES = {
    "policy": "the policy",
    "issue": "the credential provisioner",
    "revoke": "revoking a credential",
    "record": "the revocation log",
    "forget": "the revocation log",
    "outstanding": "the revocation log",
    "event_log": "the event log",
}


def _shown(error: Exception) -> str:
    """What may be told: a text of the protocol's own errors, else only the type, since the rest may hold a secret."""
    return error.message if isinstance(error, ARCPError) else type(error).__name__
