"""Arguments are refused by name, before anything is sent."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

_KINDS: dict[type, str] = {str: "a text", int: "an int", Mapping: "a dict of lists of text"}


def expect(name: str, value: T, kind: type) -> T:
    """The value; `TypeError` when it is of another type. A `bool` is no number."""
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name} must be {_KINDS[kind]}, got {type(value).__name__}")
    return value


def expect_optional(name: str, value: T, kind: type) -> T:
    """As `expect`; `None` is let through."""
    return value if value is None else expect(name, value, kind)


def expect_range(name: str, value: int | None, least: int, most: int) -> int | None:
    """An int within bounds, or `None`; else `TypeError` or `ValueError`."""
    if value is not None and not least <= expect(name, value, int) <= most:
        raise ValueError(f"{name} must be from {least} to {most}, got {value}")
    return value
