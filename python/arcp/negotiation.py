"""Features and agent references."""

from collections.abc import Iterable

from arcp._call import call
from arcp.errors import InvalidRequestError

__all__ = ["V1_1_FEATURES", "features_for_runtime", "intersect_features", "parse_agent_ref"]

V1_1_FEATURES: tuple[str, ...] = (
    "heartbeat",
    "ack",
    "list_jobs",
    "subscribe",
    "agent_versions",
    "lease_expires_at",
    "cost.budget",
    "progress",
    "result_chunk",
)
"""The nine features of version 1.1."""


def intersect_features(a: Iterable[str], b: Iterable[str]) -> tuple[str, ...]:
    """What both have, in the order of `a`: give the client's first (R-6.2.3).

    >>> intersect_features(("progress", "x-unknown", "ack"), V1_1_FEATURES)
    ('progress', 'ack')
    """
    return tuple(call("intersect_features", client=list(a), runtime=list(b))["features"])


def features_for_runtime(*, provisioner_configured: bool) -> tuple[str, ...]:
    """What a runtime offers: the nine and `model.use`, and `provisioned_credentials` with a credential provisioner."""
    return (*V1_1_FEATURES, "model.use", *(("provisioned_credentials",) if provisioner_configured else ()))


def parse_agent_ref(ref: str) -> tuple[str, str | None]:
    """Splits `name` or `name@version`; the version is `None` for a bare name. `ValueError` when malformed (R-7.5.1).

    >>> parse_agent_ref("report@1.0.0")
    ('report', '1.0.0')
    >>> parse_agent_ref("report")
    ('report', None)
    """
    try:
        read = call("parse_agent_ref", text=ref)
    except InvalidRequestError as error:
        raise ValueError(error.message) from None
    return read["name"], read["version"]
