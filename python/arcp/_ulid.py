"""Ids as the protocol writes them (R-5.5), for messages made by hand. The core makes its own."""

import os
import time

__all__ = [
    "new_envelope_id",
    "new_job_id",
    "new_result_id",
    "new_resume_token",
    "new_session_id",
    "new_ulid",
]

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_ulid() -> str:
    """26 characters: milliseconds, so that later ones sort behind, and 80 random bits."""
    number = time.time_ns() // 1_000_000 << 80 | int.from_bytes(os.urandom(10))
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def new_envelope_id() -> str:
    """For a message: `msg_` and a ULID."""
    return f"msg_{new_ulid()}"


def new_session_id() -> str:
    """For a session: `sess_` and a ULID."""
    return f"sess_{new_ulid()}"


def new_job_id() -> str:
    """For a job: `job_` and a ULID."""
    return f"job_{new_ulid()}"


def new_result_id() -> str:
    """For a streamed result: `res_` and a ULID."""
    return f"res_{new_ulid()}"


def new_resume_token() -> str:
    """Secret: `rtk_` and two ULIDs, of which 160 bits are random."""
    return f"rtk_{new_ulid()}{new_ulid()}"
