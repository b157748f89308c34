"""Who a token belongs to."""

import hmac
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from arcp.errors import UnauthenticatedError
from arcp.messages import Identity

__all__ = ["BearerVerifier", "Identity", "StaticBearerVerifier"]


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
        for token, principal in tokens.items():
            if not (isinstance(token, str) and isinstance(principal, str) and token and principal):
                raise ValueError("tokens must be a dict of token to principal, both texts that are not empty")
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
