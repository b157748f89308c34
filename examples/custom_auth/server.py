"""Hosts `whoami` behind a verifier of one's own: tokens that are signed by a shared secret and expire.

For standard signed tokens there is `JWTVerifier`; this shows what any other scheme takes.
"""

import asyncio
import contextlib
import hashlib
import hmac
import os
import signal
import time
from typing import Any

from arcp import RuntimeInfo, UnauthenticatedError, serve_websocket
from arcp.runtime import ARCPRuntime, Identity, JobContext

PORT = int(os.environ.get("ARCP_DEMO_PORT", "7777"))
SECRET = os.environ.get("ARCP_DEMO_SECRET", "demo-secret").encode()


class SignedTokenVerifier:
    """Takes `principal:expiry:signature`. Any object with this one method is a `BearerVerifier`."""

    async def verify(self, token: str) -> Identity:
        """Says whose token it is, or raises `UnauthenticatedError`, which ends the handshake."""
        signed, _, signature = token.rpartition(":")
        expected = hmac.new(SECRET, signed.encode(), hashlib.sha256).hexdigest()
        # First the signature, in constant time: what is not signed is not looked at.
        if not hmac.compare_digest(signature.encode(), expected.encode()):
            raise UnauthenticatedError("the token's signature is wrong")
        principal, _, expiry = signed.rpartition(":")
        if float(expiry) < time.time():
            raise UnauthenticatedError("the token has expired")
        return Identity(principal=principal)


async def whoami(input: Any, ctx: JobContext) -> Any:
    return {"principal": ctx.job.submitter_principal}


async def main() -> None:
    runtime = ARCPRuntime(runtime=RuntimeInfo(name="custom-auth", version="1.0.0"), bearer=SignedTokenVerifier())
    runtime.register_agent("whoami", whoami)
    async with await serve_websocket(runtime.accept, port=PORT) as server:
        print(f"listening on {server.url}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
