"""Leases: what a job may do, until when and at what cost. The core decides; these functions ask it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from arcp._call import call
from arcp._json import loads_decimal
from arcp.errors import BudgetExhaustedError, InvalidRequestError, error_class_for

if TYPE_CHECKING:
    from arcp.messages import LeaseConstraints

__all__ = [
    "Lease",
    "LeaseOpContext",
    "assert_lease_subset",
    "initial_budget_from_lease",
    "is_lease_subset",
    "parse_budget_amount",
    "validate_lease_constraints",
    "validate_lease_op",
    "validate_lease_shape",
]

Lease = dict[str, list[str]]
"""Capability to patterns: `{"fs.read": ["/data/**"], "cost.budget": ["USD:5.00"]}`."""


@dataclass(frozen=True, slots=True)
class LeaseOpContext:
    """One operation to be checked: a capability and its target.

    `cost` is what it is going to cost, as currency to amount; `now` the time to check at, the present when `None`.
    """

    capability: str
    target: str
    cost: Mapping[str, Decimal] | None = None
    now: datetime | None = None


def validate_lease_shape(lease: Mapping[str, Sequence[str]]) -> None:
    """`InvalidRequestError` unless every capability is known and every pattern well formed (R-9.1)."""
    call("validate_lease", lease=lease)


def validate_lease_constraints(constraints: "LeaseConstraints | None", *, now: datetime | None = None) -> None:
    """`InvalidRequestError` unless `expires_at` is a UTC time ahead of `now` (R-9.5.1)."""
    expires_at = None if constraints is None else constraints.expires_at
    if expires_at is None:
        return
    if now is None:
        call("validate_expires_at", text=expires_at)
    elif datetime.fromisoformat(expires_at) <= now:
        raise InvalidRequestError(f"lease_constraints.expires_at {expires_at} has passed")


def validate_lease_op(
    lease: Mapping[str, Sequence[str]],
    ctx: LeaseOpContext,
    *,
    constraints: "LeaseConstraints | None" = None,
    budget: Mapping[str, Decimal] | None = None,
) -> None:
    """Checks one operation against a lease (R-9.3).

    `budget` is what remains per currency. Raises `LeaseExpiredError`, `PermissionDeniedError`, `BudgetExhaustedError`,
    or `InvalidRequestError` for a lease or target that cannot be read.

    >>> validate_lease_op({"fs.read": ["/data/**"]}, LeaseOpContext("fs.read", "/data/a.txt"))
    >>> validate_lease_op({"fs.read": ["/data/**"]}, LeaseOpContext("fs.read", "/data/../etc/passwd"))
    Traceback (most recent call last):
    arcp.errors.PermissionDeniedError: the lease does not cover fs.read "/etc/passwd"
    """
    call(
        "validate_lease_op",
        lease=lease,
        namespace=ctx.capability,
        target=ctx.target,
        expires_at=None if constraints is None else constraints.expires_at,
        now=None if ctx.now is None else instant(ctx.now),
        budget=None if budget is None else amounts(budget),
    )
    if ctx.cost and budget is not None:
        check_cost(ctx.cost, budget)


def check_cost(cost: Mapping[str, Decimal], budget: Mapping[str, Decimal]) -> None:
    """`BudgetExhaustedError` when an amount is more than remains of its currency; other currencies are not limited."""
    if not isinstance(cost, Mapping):
        raise TypeError(f"cost must be a dict of currency to amount, got {type(cost).__name__}")
    for currency, amount in cost.items():
        if not isinstance(amount, Decimal | int | float) or isinstance(amount, bool):
            raise TypeError(f"cost[{currency!r}] must be a Decimal, an int or a float, got {type(amount).__name__}")
        if math.isnan(amount):
            raise ValueError(f"cost[{currency!r}] must be an amount, got NaN")
        remaining = budget.get(currency)
        if remaining is not None and amount > remaining:
            raise BudgetExhaustedError(f"{currency}:{amount} is more than the {currency}:{remaining} that remain")


def initial_budget_from_lease(lease: Mapping[str, Sequence[str]]) -> dict[str, Decimal]:
    """The amounts of `cost.budget`, added up per currency (R-9.6.1).

    >>> initial_budget_from_lease({"cost.budget": ["USD:1.50", "USD:0.50", "EUR:1"]})
    {'EUR': Decimal('1'), 'USD': Decimal('2')}
    """
    budget = call("initial_budget_from_lease", lease=lease)["budget"]
    return {currency: Decimal(amount) for currency, amount in budget.items()}


def is_lease_subset(
    child: Mapping[str, Sequence[str]],
    parent: Mapping[str, Sequence[str]],
    *,
    parent_budget_remaining: Mapping[str, Decimal] | None = None,
    parent_constraints: "LeaseConstraints | None" = None,
    child_constraints: "LeaseConstraints | None" = None,
) -> bool:
    """Whether every target the child's lease covers is covered by the parent's (R-9.4.1).

    >>> is_lease_subset({"fs.read": ["/data/a/*"]}, {"fs.read": ["/data/**"]})
    True
    >>> is_lease_subset({"fs.read": ["/data/**"]}, {"fs.read": ["/data/*"]})
    False
    """
    answer = _subset(child, parent, parent_budget_remaining, parent_constraints, child_constraints)
    return bool(answer["subset"])


def assert_lease_subset(
    child: Mapping[str, Sequence[str]],
    parent: Mapping[str, Sequence[str]],
    *,
    parent_budget_remaining: Mapping[str, Decimal] | None = None,
    parent_constraints: "LeaseConstraints | None" = None,
    child_constraints: "LeaseConstraints | None" = None,
) -> None:
    """`LeaseSubsetViolationError`, which names the difference, unless the child is within the parent (R-9.4.4).

    `InvalidRequestError` for a lease that cannot be read.
    """
    answer = _subset(child, parent, parent_budget_remaining, parent_constraints, child_constraints)
    if not answer["subset"]:
        raise error_class_for(answer["code"])(answer["message"])


def parse_budget_amount(amount: str) -> tuple[str, Decimal]:
    """Splits `USD:5.00` into currency and amount. `ValueError` when malformed (R-9.6.1).

    >>> parse_budget_amount("USD:5.00")
    ('USD', Decimal('5'))
    """
    try:
        read = call("parse_budget_amount", text=amount)
    except InvalidRequestError as error:
        raise ValueError(error.message) from None
    return read["currency"], Decimal(read["amount"])


def budget_from_json(text: str | None) -> dict[str, Decimal]:
    """Counters as the core writes them."""
    counters: dict[str, Any] = {} if text is None else loads_decimal(text)
    return {currency: Decimal(amount) for currency, amount in counters.items()}


def amounts(budget: Mapping[str, Decimal]) -> dict[str, str]:
    """Counters as the core reads them."""
    return {currency: str(amount) for currency, amount in budget.items()}


def budget_texts(budget: Mapping[str, Decimal], lease: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Counters as a lease writes them, `{"USD": "USD:1.00"}`, with as many decimals as the lease has."""
    digits = dict.fromkeys(budget, 0)
    for pattern in lease.get("cost.budget", ()):
        currency, _, amount = pattern.partition(":")
        digits[currency] = max(digits.get(currency, 0), len(amount.partition(".")[2]))
    texts: dict[str, str] = {}
    for currency, counter in budget.items():
        exact = f"{counter:f}"
        missing = digits[currency] - len(exact.partition(".")[2])
        point = "." if missing > 0 and "." not in exact else ""
        texts[currency] = f"{currency}:{exact}{point}{'0' * missing}"
    return texts


def instant(now: datetime) -> str:
    """RFC 3339 in UTC; a naive time is taken to be UTC."""
    if not isinstance(now, datetime):
        raise TypeError(f"now must be a datetime, got {type(now).__name__}")
    aware = now.replace(tzinfo=UTC) if now.tzinfo is None else now.astimezone(UTC)
    return aware.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _subset(
    child: Mapping[str, Sequence[str]],
    parent: Mapping[str, Sequence[str]],
    remaining: Mapping[str, Decimal] | None,
    parent_constraints: "LeaseConstraints | None",
    child_constraints: "LeaseConstraints | None",
) -> dict[str, Any]:
    return call(
        "is_lease_subset",
        child=child,
        parent=parent,
        child_expires_at=None if child_constraints is None else child_constraints.expires_at,
        parent_expires_at=None if parent_constraints is None else parent_constraints.expires_at,
        parent_remaining=None if remaining is None else amounts(remaining),
    )
