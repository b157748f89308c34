"""The pure functions of the library, by name (see ../README.md)."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import arcp
from arcp.runtime import LeaseOpContext, assert_lease_subset, validate_lease_op


# The functions themselves raise ValueError; a refusal is told with the code of what they refused.
def parse_agent_ref(text: str) -> Any:
    try:
        name, version = arcp.parse_agent_ref(text)
    except ValueError as error:
        raise arcp.InvalidRequestError(str(error)) from None
    return {"name": name, "version": version}


def parse_budget_amount(text: str) -> Any:
    try:
        currency, amount = arcp.parse_budget_amount(text)
    except ValueError as error:
        raise arcp.InvalidRequestError(str(error)) from None
    return {"currency": currency, "amount": str(amount)}


def check_lease_op(lease: Any, namespace: str, target: str) -> Any:
    validate_lease_op(lease, LeaseOpContext(namespace, target))
    return {}


def is_lease_subset(
    child: Any,
    parent: Any,
    child_expires_at: str | None = None,
    parent_expires_at: str | None = None,
    parent_remaining: dict[str, str] | None = None,
) -> Any:
    remaining = None if parent_remaining is None else {key: Decimal(text) for key, text in parent_remaining.items()}
    try:
        assert_lease_subset(
            child,
            parent,
            parent_budget_remaining=remaining,
            child_constraints=arcp.LeaseConstraints(expires_at=child_expires_at),
            parent_constraints=arcp.LeaseConstraints(expires_at=parent_expires_at),
        )
    except arcp.LeaseSubsetViolationError as error:
        return {"subset": False, "code": error.code}
    return {"subset": True}


def intersect_features(client: list[str] | None, runtime: list[str] | None) -> Any:
    return {"features": list(arcp.intersect_features(client or (), runtime or ()))}


def error_from_payload(payload: Any) -> Any:
    error = arcp.error_from_payload(payload)
    return {"code": error.code, "message": error.message, "retryable": error.retryable, "details": error.details}


def envelope(text: str, receiver: Any = None) -> Any:
    from arcp._native import encode

    return {"text": encode(arcp.Envelope.from_json(text, receiver=receiver).to_wire())}


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "parse_agent_ref": parse_agent_ref,
    "parse_budget_amount": parse_budget_amount,
    "validate_lease_op": check_lease_op,
    "is_lease_subset": is_lease_subset,
    "intersect_features": intersect_features,
    "error_from_payload": error_from_payload,
    "envelope": envelope,
}
