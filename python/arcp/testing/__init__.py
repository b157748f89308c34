"""For the tests of programs that use ARCP: runtimes, sessions and registries in this process, conversations on record.

    async with arcp.testing.session({"echo": echo}) as client:         # through memory
        ...
    async with arcp.testing.serve({"echo": echo}) as served:           # on a free port, at served.url
        ...
    with arcp.testing.serve_in_thread({"echo": echo}) as served:       # for tests without a loop
        ...
    async with arcp.testing.registry() as served:                      # a registry, also by a plain `with`
        ...

`Recorder` wraps a transport and keeps what went over it; `Transcript.play` gives a peer that plays one side of such a
record and holds the other against it. With pytest installed, the fixtures of `arcp.pytest_plugin` are there by
themselves: `arcp_runtime`, `arcp_session`, `arcp_served`, `arcp_token` and `arcp_registry`.
"""

from arcp.testing.hosting import PRINCIPAL, TOKEN, Served, make_runtime, serve, serve_in_thread, session
from arcp.testing.player import Player, TranscriptMismatch
from arcp.testing.recorder import Recorder
from arcp.testing.registry_hosting import ADMIN, AGENT_KEYS, RegistryHost, ServedRegistry, registry
from arcp.testing.transcript import Transcript, load_transcripts

__all__ = [
    "ADMIN",
    "AGENT_KEYS",
    "PRINCIPAL",
    "TOKEN",
    "Player",
    "Recorder",
    "RegistryHost",
    "Served",
    "ServedRegistry",
    "Transcript",
    "TranscriptMismatch",
    "load_transcripts",
    "make_runtime",
    "registry",
    "serve",
    "serve_in_thread",
    "session",
]
