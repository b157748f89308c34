"""For the tests of programs that use ARCP: runtimes and sessions in this process, and conversations on record.

    async with arcp.testing.session({"echo": echo}) as client:         # through memory
        ...
    async with arcp.testing.serve({"echo": echo}) as served:           # on a free port, at served.url
        ...
    with arcp.testing.serve_in_thread({"echo": echo}) as served:       # for tests without a loop
        ...

`Recorder` wraps a transport and keeps what went over it; `Transcript.play` gives a peer that plays one side of such a
record and holds the other against it. With pytest installed, the fixtures of `arcp.pytest_plugin` are there by
themselves: `arcp_runtime`, `arcp_session`, `arcp_served` and `arcp_token`.
"""

from arcp.testing.hosting import PRINCIPAL, TOKEN, Served, make_runtime, serve, serve_in_thread, session
from arcp.testing.player import Player, TranscriptMismatch
from arcp.testing.recorder import Recorder
from arcp.testing.transcript import Transcript, load_transcripts

__all__ = [
    "PRINCIPAL",
    "TOKEN",
    "Player",
    "Recorder",
    "Served",
    "Transcript",
    "TranscriptMismatch",
    "load_transcripts",
    "make_runtime",
    "serve",
    "serve_in_thread",
    "session",
]
