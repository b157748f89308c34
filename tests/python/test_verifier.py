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
