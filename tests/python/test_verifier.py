"""Signed tokens."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest

import arcp
from arcp.runtime import BearerVerifier, Identity, JWTVerifier
from conftest import make_client, make_runtime, run, session

SECRET = "0123456789abcdef0123456789abcdef"


def signed(claims: dict[str, Any], secret: str = SECRET) -> str:
    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).decode().rstrip("=")

    text = ".".join(part(json.dumps(value).encode()) for value in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{text}.{part(hmac.digest(secret.encode(), text.encode(), hashlib.sha256))}"


def claims(**others: Any) -> dict[str, Any]:
    return {"sub": "alice", "exp": time.time() + 60} | others


def test_a_session_opens_with_a_signed_token() -> None:
    async def main() -> None:
        def who(value: Any, ctx: Any) -> str:
            return str(ctx.job.submitter_principal)

        runtime = make_runtime({"who": who}, bearer=JWTVerifier(secret=SECRET, audience=["arcp"], issuer="us"))
        good = claims(aud="arcp", iss="us")
        async with session(runtime, token=signed(good)) as client:
            handle = await client.submit(agent="who")
            assert (await handle.done).result == "alice"
        for bad in [
            signed(good, "another secret, which is long enough"),
            signed(good | {"aud": "others"}),
            signed(good | {"iss": "them"}),
            signed(good | {"exp": time.time() - 3600}),
            "nonsense",
        ]:
            ours, theirs = arcp.pair_memory_transports()
            serving = asyncio.create_task(runtime.accept(theirs))
            with pytest.raises(arcp.UnauthenticatedError):
                await make_client(token=bad).connect(ours)
            await serving

    run(main)


def test_a_verifier_of_ones_own_asks_it() -> None:
    async def main() -> None:
        inner = JWTVerifier(secret=SECRET.encode(), principal_claim="email", algorithms=["HS256"], leeway_sec=0)
        assert isinstance(inner, BearerVerifier)
        assert await inner.verify(signed(claims(email="a@b.c"))) == Identity(principal="a@b.c")
        with pytest.raises(arcp.UnauthenticatedError):
            await inner.verify(signed(claims()))

        class Outer:
            async def verify(self, token: str) -> Identity:
                return await inner.verify(token.removeprefix("prefix-"))

        async with session(make_runtime(bearer=Outer()), token="prefix-" + signed(claims(email="a@b.c"))) as client:
            assert client.session_id is not None

    run(main)


def test_what_a_verifier_of_signed_tokens_refuses() -> None:
    for options, named in [
        ({}, "secret"),
        ({"secret": "short and s3cret"}, "secret"),
        ({"secret": SECRET, "public_key": "x"}, "secret"),
        ({"jwks_url": "http://issuer.example/keys"}, "https"),
        ({"secret": SECRET, "algorithms": ["none"]}, "none"),
        ({"secret": SECRET, "leeway_sec": -1}, "leeway_sec"),
    ]:
        with pytest.raises(ValueError, match=named) as refused:
            JWTVerifier(**options)  # type: ignore[arg-type]
        assert "s3cret" not in str(refused.value)
    assert SECRET not in repr(JWTVerifier(secret=SECRET))


def b64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


@pytest.mark.parametrize("claim", ["jobs.read jobs.write", ["jobs.read", "jobs.write"]])
def test_scopes_of_a_signed_token_reach_the_agent(claim: Any) -> None:
    async def main() -> None:
        def scopes(value: Any, ctx: Any) -> list[str]:
            return list(ctx.job.session.identity.scopes)

        runtime = make_runtime({"scopes": scopes}, bearer=JWTVerifier(secret=SECRET))
        async with session(runtime, token=signed(claims(scope=claim))) as client:
            assert (await (await client.submit(agent="scopes")).done).result == ["jobs.read", "jobs.write"]
        elsewhere = JWTVerifier(secret=SECRET, scopes_claim="permissions")
        identity = await elsewhere.verify(signed(claims(scope="other", permissions=claim)))
        assert identity == Identity(principal="alice", scopes=("jobs.read", "jobs.write"))
        assert (await elsewhere.verify(signed(claims(scope="other")))).scopes == ()

    run(main)


@pytest.mark.parametrize("form", ["set", "by id"])
def test_a_key_set_that_never_changes(form: str) -> None:
    async def main() -> None:
        key = {"kty": "oct", "k": b64(SECRET.encode()), "alg": "HS256"}
        weak = {"kty": "oct", "k": b64(b"short")}
        both: dict[str, Any] = (
            {"keys": [key | {"kid": "one"}, weak | {"kid": "two"}]} if form == "set" else {"one": key, "two": weak}
        )
        verifier = JWTVerifier(jwks=both)
        assert await verifier.verify(signed(claims())) == Identity(principal="alice")
        for token in [signed(claims(), "another secret, which is long enough"), signed(claims(), "short")]:
            with pytest.raises(arcp.UnauthenticatedError):
                await verifier.verify(token)
        assert SECRET not in repr(verifier)

    run(main)


def test_a_secret_signs_as_it_was_named() -> None:
    token = signed(claims())
    for algorithms, taken in [(("HS256",), True), (None, True), (["HS512"], False)]:

        async def main(verifier: JWTVerifier, taken: bool) -> None:
            if taken:
                assert (await verifier.verify(token)).principal == "alice"
                return
            with pytest.raises(arcp.UnauthenticatedError):
                await verifier.verify(token)

        verifier = JWTVerifier(secret=SECRET, algorithms=algorithms)
        asyncio.run(main(verifier, taken))
    sets: list[dict[str, Any]] = [{"keys": []}, {"keys": "s3cret"}, {"keys": [{"kty": "s3cret"}]}]
    for wrong in sets:
        with pytest.raises(ValueError, match="jwks") as refused:
            JWTVerifier(jwks=wrong)
        assert "s3cret" not in str(refused.value)
    with pytest.raises(ValueError, match="exactly one"):
        JWTVerifier(jwks={"keys": []}, secret=SECRET)
