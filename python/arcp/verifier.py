"""Who a token belongs to."""

import hmac
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from arcp import _native, _port
from arcp._check import expect, expect_token
from arcp.errors import UnauthenticatedError
from arcp.messages import Identity

__all__ = ["BearerVerifier", "Identity", "JWTVerifier", "StaticBearerVerifier"]


@runtime_checkable
class BearerVerifier(Protocol):
    """Says who a token belongs to; runs on the event loop of the runtime."""

    async def verify(self, token: str) -> Identity:
        """Gives the identity, or raises `UnauthenticatedError`; any other error refuses without showing its text."""
        ...


class StaticBearerVerifier:
    """A fixed table of tokens, compared in constant time."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        """`tokens` is token to principal."""
        if not isinstance(tokens, Mapping):
            raise TypeError(f"tokens must be a dict of token to principal, got {type(tokens).__name__}")
        for token, principal in tokens.items():
            if not (isinstance(token, str) and isinstance(principal, str) and token and principal):
                raise ValueError("tokens must be a dict of token to principal, both texts that are not empty")
            expect_token(token)
        self._tokens = dict(tokens)

    def __repr__(self) -> str:
        return f"StaticBearerVerifier(principals={sorted(set(self._tokens.values()))})"

    async def verify(self, token: str) -> Identity:
        """Gives the identity, or raises `UnauthenticatedError`."""
        found = None
        for known, principal in self._tokens.items():
            # Without an early end, so that the time tells nothing.
            if hmac.compare_digest(known.encode(), token.encode()):
                found = principal
        if found is None:
            raise UnauthenticatedError("unknown token")
        return Identity(principal=found)


class JWTVerifier:
    """Signed tokens (R-6.1), verified by the core: by a shared secret, one public key, or a key set."""

    def __init__(
        self,
        *,
        secret: str | bytes | None = None,
        public_key: str | None = None,
        jwks: Mapping[str, Any] | None = None,
        jwks_url: str | None = None,
        ca_pem: str | None = None,
        algorithms: Iterable[str] | None = ("HS256",),
        audience: str | Iterable[str] | None = None,
        issuer: str | None = None,
        leeway_sec: float = 30.0,
        principal_claim: str = "sub",
        scopes_claim: str = "scope",
    ) -> None:
        """Takes exactly one of the keys.

        `secret` has at least 32 bytes, `public_key` is PEM. `jwks` is a key set that never changes, `{"keys": [...]}`
        or key id to key; it may hold secrets too (`kty` of `oct`). `jwks_url` is `https` or on this machine and may be
        vouched for by authorities of one's own, `ca_pem`. A token must not have expired, allowing for `leeway_sec`; its
        `aud` must be one of `audience`, and none where that is `None`; its `iss` the `issuer`, if one is given.
        `principal_claim` names the claim that says whose it is, `scopes_claim` the one that lists its scopes, with
        spaces between or as a list. `algorithms` narrow what the key allows: a secret signs with HS256 unless others
        are named, other keys with all they can, and `None` means all for a secret too. `ValueError` names what is
        wrong.
        """
        if algorithms == ("HS256",) and secret is None:
            # The default, which no public key can do.
            algorithms = None
        options = {
            "secret": secret.decode() if isinstance(secret, bytes) else secret,
            "public_key_pem": public_key,
            "jwks": None if jwks is None else _native.encode(_key_set(jwks), "jwks"),
            "jwks_url": jwks_url,
            "ca_pem": ca_pem,
            "algorithms": None if algorithms is None else list(algorithms),
            "audience": audience if audience is None or isinstance(audience, str) else list(audience),
            "issuer": issuer,
            "leeway_sec": leeway_sec,
            "principal_claim": principal_claim,
            "scopes_claim": scopes_claim,
        }
        self._options = _native.encode({name: value for name, value in options.items() if value is not None}, "options")
        self._native = _native.TokenVerifier(self._options)

    def __repr__(self) -> str:
        return "JWTVerifier()"

    async def verify(self, token: str) -> Identity:
        """Gives the identity, or raises `UnauthenticatedError`; `InternalError` when the keys cannot be had."""
        identity = await _port.port().call(self._native.verify, expect("token", token, str))
        return Identity.model_validate_json(identity)


def _key_set(jwks: Mapping[str, Any]) -> Mapping[str, Any]:
    """A key set as issuers write it, also from a dict of key id to key."""
    if "keys" in jwks or not all(isinstance(key, Mapping) for key in jwks.values()):
        return jwks
    return {"keys": [{"kid": kid, **key} for kid, key in jwks.items()]}
