"""Credentials made for one job, and taken back after it."""

import asyncio
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import arcp
from arcp.runtime import (
    Credential,
    CredentialConstraints,
    CredentialProvisioner,
    InMemoryCredentialProvisioner,
    InMemoryRevocationLog,
    JobContext,
    JobCredentialContext,
    RevocationLog,
    StaticBearerVerifier,
    UpstreamBudgetExhausted,
    features_for_runtime,
)
from conftest import ALICE, BOUND_SEC, TOKEN, make_client, make_runtime, run, session

ALL = features_for_runtime(provisioner_configured=True)
LEASE = {"model.use": ["tier-fast/*"], "cost.budget": ["USD:5.00"]}


class Recording(InMemoryCredentialProvisioner):
    """Says when something was taken back."""

    def __init__(self) -> None:
        super().__init__(endpoint="https://gate.example/v1", profile="openai")
        self.contexts: list[JobCredentialContext] = []
        self.rotations: list[tuple[str, int]] = []
        self.taken_back: asyncio.Queue[str] = asyncio.Queue()

    async def issue(self, lease: arcp.Lease, ctx: JobCredentialContext) -> tuple[Credential, ...]:
        self.contexts.append(ctx)
        return await super().issue(lease, ctx)

    async def revoke(self, credential_id: str, *, rotation: int = 0) -> None:
        self.rotations.append((credential_id, rotation))
        await super().revoke(credential_id)
        self.taken_back.put_nowait(credential_id)


async def presents(value: Any, ctx: JobContext) -> Any:
    (credential,) = ctx.credentials
    return {"id": credential.id, "same": credential.value == value, "repr": repr(credential)}


@pytest.mark.parametrize("link", ["memory", "websocket"])
@pytest.mark.parametrize("kept_in", ["log", "db"])
def test_a_job_has_credentials_for_as_long_as_it_lives(link: str, kept_in: str, tmp_path: Path) -> None:
    """Rules: R-9.8.2.1, R-9.8.2.4"""

    async def main() -> None:
        provisioner, log = Recording(), InMemoryRevocationLog()
        assert isinstance(provisioner, CredentialProvisioner)
        assert isinstance(log, RevocationLog)
        kept: dict[str, Any] = {"revocation_log": log} if kept_in == "log" else {"db": tmp_path / "arcp.db"}
        runtime = make_runtime({"presents": presents}, credential_provisioner=provisioner, **kept)
        assert runtime.credential_provisioner is provisioner

        async def use(client: arcp.ARCPClient) -> None:
            assert client.has_feature("provisioned_credentials")
            assert client.has_feature("model.use")
            handle = await client.submit(agent="presents", lease_request=LEASE)
            (told,) = handle.credentials
            (issued,) = provisioner.issued
            assert (told.id, told.value, told.endpoint) == (issued.id, issued.value, "https://gate.example/v1")
            assert told.constraints is not None
            assert told.constraints.cost_budget == ("USD:5.00",)
            result = (await handle.done).result
            assert (result["id"], issued.value in result["repr"]) == (issued.id, False)
            assert await provisioner.taken_back.get() == issued.id
            listed = (await client.list_jobs()).jobs
            assert issued.value not in repr(listed)

        if link == "memory":
            async with session(runtime, features=ALL) as client:
                await use(client)
        else:
            async with (
                await arcp.serve_websocket(runtime.accept, port=0) as server,
                make_client(features=ALL) as client,
            ):
                await client.connect(await arcp.WebSocketTransport.connect(server.url))
                await use(client)
        await runtime.close()
        (context,) = provisioner.contexts
        assert (context.agent, context.agent_version, context.submitter_principal) == ("presents", None, ALICE)
        assert (context.lease, context.parent_job_id, context.lease_constraints) == (LEASE, None, None)
        assert context.intent
        assert await log.outstanding() == ()
        for shown in (repr(provisioner), repr(log), repr(provisioner.issued)):
            assert provisioner.issued[0].value not in shown
        if kept_in == "db":
            assert provisioner.issued[0].value.encode() not in (tmp_path / "arcp.db").read_bytes()

    run(main)


def test_without_a_provisioner_nothing_is_offered() -> None:
    async def main() -> None:
        async with session(make_runtime(), features=ALL) as client:
            assert not client.has_feature("provisioned_credentials")
            # Models are bounded by leases whether or not there are credentials.
            assert client.has_feature("model.use")
        # A client that does not ask for credentials gets none.
        provisioner = Recording()
        runtime = make_runtime(
            {"echo": lambda value, ctx: value},
            credential_provisioner=provisioner,
            revocation_log=InMemoryRevocationLog(),
        )
        async with session(runtime) as client:
            handle = await client.submit(agent="echo", lease_request=LEASE)
            await handle.done
            assert (handle.credentials, provisioner.issued) == ((), [])
        await runtime.close()

    run(main)


def test_credentials_that_could_not_be_taken_back_later_are_not_made() -> None:
    """Rules: R-9.8.2.6"""
    with pytest.raises(arcp.InvalidRequestError, match="revocation_log"):
        make_runtime(credential_provisioner=InMemoryCredentialProvisioner())
    with pytest.raises(TypeError, match="issue"):
        make_runtime(credential_provisioner=object(), db="never.db")
    with pytest.raises(TypeError, match="outstanding"):
        make_runtime(revocation_log=object())


class Failing(Recording):
    async def issue(self, lease: arcp.Lease, ctx: JobCredentialContext) -> tuple[Credential, ...]:
        raise RuntimeError("no keys, and this is s3cret")


class Repeating(Recording):
    async def issue(self, lease: arcp.Lease, ctx: JobCredentialContext) -> tuple[Credential, ...]:
        return (Credential("cred_1", "bearer", "one value for all", "https://gate.example/"),)


class Wrong(Recording):
    async def issue(self, lease: arcp.Lease, ctx: JobCredentialContext) -> Any:
        (good,) = await super().issue(lease, ctx)
        return (good, {"id": "cred_1", "value": "s3cret"})


@pytest.mark.parametrize("provisioner", [Failing, Wrong])
def test_a_submit_without_its_credentials_is_refused(provisioner: type[Recording]) -> None:
    """Rules: R-9.8.2.2"""

    async def main() -> None:
        runtime = make_runtime(
            {"presents": presents}, credential_provisioner=provisioner(), revocation_log=InMemoryRevocationLog()
        )
        async with session(runtime, features=ALL) as client:
            with pytest.raises(arcp.InternalError, match="no credentials") as refused:
                await client.submit(agent="presents")
            assert "s3cret" not in str(refused.value)
            made = runtime.credential_provisioner
            assert isinstance(made, Recording)
            assert made.revoked == [credential.id for credential in made.issued]
            assert (await client.list_jobs()).jobs == ()
        await runtime.close()

    run(main)


def test_a_value_serves_one_job() -> None:
    """Rules: R-9.8.2.3"""

    async def main() -> None:
        provisioner = Repeating()
        runtime = make_runtime(
            {"presents": presents}, credential_provisioner=provisioner, revocation_log=InMemoryRevocationLog()
        )
        async with session(runtime, features=ALL) as client:
            await (await client.submit(agent="presents")).done
            with pytest.raises(arcp.InternalError, match="second time"):
                await client.submit(agent="presents")
        await runtime.close()

    run(main)


def test_what_the_log_cannot_write_down_does_not_leave() -> None:
    """Rules: R-9.8.2.6"""

    async def main() -> None:
        class Full(InMemoryRevocationLog):
            async def record(self, job_id: str, credential_id: str) -> None:
                raise OSError("the disk is full")

        provisioner = Recording()
        runtime = make_runtime({"presents": presents}, credential_provisioner=provisioner, revocation_log=Full())
        async with session(runtime, features=ALL) as client:
            with pytest.raises(arcp.InternalError, match="no credentials"):
                await client.submit(agent="presents")
            assert await provisioner.taken_back.get() == provisioner.issued[0].id
        await runtime.close()

    run(main)


def test_what_an_earlier_process_left_is_taken_back_first() -> None:
    """Rules: R-9.8.2.6"""

    async def main() -> None:
        provisioner, log = Recording(), InMemoryRevocationLog()
        await log.record("job_gone", "cred_left")
        reads = 0
        outstanding = log.outstanding

        async def sometimes() -> tuple[tuple[str, str], ...]:
            nonlocal reads
            reads += 1
            if reads == 1:
                raise OSError("not yet")
            return await outstanding()

        log.outstanding = sometimes  # type: ignore[method-assign]
        runtime = make_runtime({"presents": presents}, credential_provisioner=provisioner, revocation_log=log)
        async with session(runtime, features=ALL) as client:
            await (await client.submit(agent="presents")).done
            assert {await provisioner.taken_back.get() for _ in range(2)} == {"cred_left", provisioner.issued[0].id}
        await runtime.close()
        assert await outstanding() == ()

    run(main)


def test_a_failed_revocation_is_tried_again() -> None:
    """Rules: R-9.8.2.5"""

    async def main() -> None:
        class Stubborn(Recording):
            failures = 2

            async def revoke(self, credential_id: str, *, rotation: int = 0) -> None:
                if self.failures:
                    self.failures -= 1
                    raise OSError("not now")
                await super().revoke(credential_id, rotation=rotation)

        provisioner, log = Stubborn(), InMemoryRevocationLog()
        runtime = make_runtime({"presents": presents}, credential_provisioner=provisioner, revocation_log=log)
        async with session(runtime, features=ALL) as client:
            await (await client.submit(agent="presents")).done
            await provisioner.taken_back.get()
        assert provisioner.failures == 0
        await runtime.close()
        assert await log.outstanding() == ()

    run(main)


def test_credentials_reach_no_log_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    told = asyncio.Event()

    async def careless(value: Any, ctx: JobContext) -> Any:
        (credential,) = ctx.credentials
        seen.append(credential.value)
        await ctx.rotate_credential(credential.id, f"{credential.value}-again")
        seen.append(ctx.credentials[0].value)
        # A value is sent as long as it is good: not after its job's end.
        await told.wait()
        raise RuntimeError(f"HTTP 401 for key {seen[0]} and {seen[1]}")

    async def main() -> None:
        runtime = make_runtime(
            {"careless": careless}, credential_provisioner=Recording(), revocation_log=InMemoryRevocationLog()
        )
        async with session(runtime, features=ALL) as client:
            handle = await client.submit(agent="careless")
            async for event in handle.events():
                assert event.body["value"] == seen[1]
                assert seen[0] not in f"{event!r} {event.body!r}"
                told.set()
            with pytest.raises(arcp.InternalError, match=r"RuntimeError: HTTP 401 for key \*\*\* and \*\*\*"):
                await handle.done
        await runtime.close()

    run(main)
    assert "for key *** and ***" in caplog.text
    assert seen[0] not in caplog.text


def test_an_agent_rotates_a_credential() -> None:
    """Rules: R-9.8.2.7, R-9.8.2.8, R-7.6.11"""

    async def main() -> None:
        provisioner, log = Recording(), InMemoryRevocationLog()
        gone_on = asyncio.Event()

        async def rotates(value: Any, ctx: JobContext) -> Any:
            (credential,) = ctx.credentials
            with pytest.raises(arcp.JobNotFoundError):
                await ctx.rotate_credential("cred_other", "another value")
            with pytest.raises(arcp.InvalidRequestError):
                await ctx.rotate_credential(credential.id, credential.value)
            await ctx.rotate_credential(credential.id, "a fresh value")
            assert [one.value for one in ctx.credentials] == ["a fresh value"]
            assert await provisioner.taken_back.get() == credential.id
            # The id is still to be taken back: the new value has it.
            assert len(await log.outstanding()) == 1
            await gone_on.wait()

        runtime = make_runtime(
            {"rotates": rotates},
            bearer=StaticBearerVerifier({TOKEN: ALICE, "tok-bob": "bob"}),
            credential_provisioner=provisioner,
            revocation_log=log,
            job_authorization_policy=lambda context: True,
        )
        async with session(runtime, features=ALL) as client, session(runtime, features=ALL, token="tok-bob") as bob:
            handle = await client.submit(agent="rotates")
            event = await anext(handle.events())
            body = {"phase": "credential_rotated", "id": handle.credentials[0].id, "value": "a fresh value"}
            assert (event.kind, event.body) == ("status", body)
            others = await anext((await bob.subscribe(handle.job_id, history=True)).handle.events())
            assert (others.kind, "value" in others.body) == ("status", False)
            gone_on.set()
            await handle.done
            assert await provisioner.taken_back.get() == handle.credentials[0].id
        await runtime.close()
        assert [rotation for _, rotation in provisioner.rotations] == [0, 1]
        assert await log.outstanding() == ()

    run(main)


def test_a_plain_revoke_is_called_by_the_id() -> None:
    async def main() -> None:
        class Plain:
            revoked: asyncio.Queue[str]

            async def issue(self, lease: arcp.Lease, ctx: JobCredentialContext) -> tuple[Credential, ...]:
                limits = CredentialConstraints(model_use=("a", "b"), expires_at="2099-01-01T00:00:00Z")
                return (Credential("cred_1", "bearer", "secret of it", "https://gate.example/", None, limits),)

            async def revoke(self, credential_id: str) -> None:
                self.revoked.put_nowait(credential_id)

        provisioner = Plain()
        provisioner.revoked = asyncio.Queue()
        runtime = make_runtime(
            {"presents": presents}, credential_provisioner=provisioner, revocation_log=InMemoryRevocationLog()
        )
        async with session(runtime, features=ALL) as client:
            handle = await client.submit(agent="presents")
            limits = handle.credentials[0].constraints
            assert limits is not None
            assert (limits.model_use, limits.expires_at) == (("a", "b"), "2099-01-01T00:00:00Z")
            await handle.done
            assert await provisioner.revoked.get() == "cred_1"
        await runtime.close()

    run(main)


DYING = """
import asyncio, os, sys
import arcp
from arcp.runtime import InMemoryCredentialProvisioner, StaticBearerVerifier, features_for_runtime

class Dying(InMemoryCredentialProvisioner):
    async def issue(self, lease, ctx):
        if self.issued:
            print(self.issued[0].id, ctx.intent, flush=True)
            os._exit(9)
        return await super().issue(lease, ctx)

async def waits(value, ctx):
    await asyncio.Event().wait()

async def main():
    runtime = arcp.ARCPRuntime(
        runtime=arcp.RuntimeInfo(name="dying", version="1"),
        bearer=StaticBearerVerifier({"tok": "me"}),
        credential_provisioner=Dying(),
        db=sys.argv[1],
    ).register_agent("waits", waits)
    ours, theirs = arcp.pair_memory_transports()
    serving = asyncio.create_task(runtime.accept(theirs))
    features = features_for_runtime(provisioner_configured=True)
    client = arcp.ARCPClient(client=arcp.ClientInfo(name="c", version="1"), token="tok", features=features)
    await client.connect(ours)
    for _ in range(2):
        await client.submit(agent="waits")

asyncio.run(main())
"""


def test_the_next_process_takes_back_what_the_one_before_left(tmp_path: Path) -> None:
    """Rules: R-9.8.2.6"""
    db = tmp_path / "arcp.db"
    died = subprocess.run([sys.executable, "-c", DYING, str(db)], stdout=subprocess.PIPE, text=True, timeout=BOUND_SEC)
    assert died.returncode == 9
    issued, intent = died.stdout.split()

    async def main() -> None:
        class Successor(Recording):
            async def revoke_intent(self, intent: str) -> None:
                self.taken_back.put_nowait(intent)

        provisioner = Successor()
        runtime = make_runtime(credential_provisioner=provisioner, db=db)
        async with session(runtime):
            assert {await provisioner.taken_back.get() for _ in range(2)} == {issued, intent}
        await runtime.close()

    run(main)


def test_what_cannot_be_taken_back_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rules: R-9.8.2.5"""
    db = tmp_path / "arcp.db"
    died = subprocess.run([sys.executable, "-c", DYING, str(db)], stdout=subprocess.PIPE, text=True, timeout=BOUND_SEC)
    assert died.returncode == 9

    async def main() -> None:
        class Plain:
            def __init__(self) -> None:
                self.revoked: asyncio.Queue[str] = asyncio.Queue()

            async def issue(self, lease: arcp.Lease, ctx: JobCredentialContext) -> tuple[Credential, ...]:
                return ()

            async def revoke(self, credential_id: str) -> None:
                self.revoked.put_nowait(credential_id)

        provisioner = Plain()
        runtime = make_runtime(credential_provisioner=provisioner, db=db)
        async with session(runtime):
            assert await provisioner.revoked.get() == died.stdout.split()[0]
        await runtime.close()

    with caplog.at_level(logging.WARNING, "arcp"):
        run(main)
    assert "without revoke_intent" in caplog.text


@pytest.mark.parametrize("nested", [False, True])
def test_an_upstream_whose_money_is_spent_ends_the_job_so(nested: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Rules: R-9.6.16"""

    async def main() -> None:
        async def agent(value: Any, ctx: JobContext) -> None:
            if not nested:
                raise UpstreamBudgetExhausted
            try:
                try:
                    raise UpstreamBudgetExhausted("nothing left upstream")
                except UpstreamBudgetExhausted as spent:
                    raise OSError("the call failed") from spent
            except OSError as failed:
                raise RuntimeError("the tool failed") from failed

        async with session(make_runtime({"agent": agent})) as client:
            with pytest.raises(arcp.BudgetExhaustedError, match="upstream") as ended:
                await (await client.submit(agent="agent")).done
            assert (ended.value.code, ended.value.retryable) == ("BUDGET_EXHAUSTED", False)

    with caplog.at_level(logging.WARNING, "arcp"):
        run(main)
    assert not caplog.records
