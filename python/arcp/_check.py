"""Arguments are refused by name, before anything is sent."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

_KINDS: dict[type, str] = {str: "a text", int: "an int", Mapping: "a dict of lists of text"}

SECONDS_MOST = 3_153_600_000.0
"""A hundred years, beyond which the core takes no time."""


def expect(name: str, value: T, kind: type) -> T:
    """The value; `TypeError` when it is of another type. A `bool` is no number."""
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name} must be {_KINDS.get(kind) or f'an arcp.{kind.__name__}'}, got {type(value).__name__}")
    return value


def expect_optional(name: str, value: T, kind: type) -> T:
    """As `expect`; `None` is let through."""
    return value if value is None else expect(name, value, kind)


def expect_range(name: str, value: int | None, least: int, most: int) -> int | None:
    """An int within bounds, or `None`; else `TypeError` or `ValueError`."""
    if value is not None and not least <= expect(name, value, int) <= most:
        raise ValueError(f"{name} must be from {least} to {most}, got {value}")
    return value


def expect_seconds(name: str, value: float | None) -> float | None:
    """A number of seconds, or `None`; else `TypeError` or `ValueError`."""
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds, got {type(value).__name__}")
    if not 0 <= value <= SECONDS_MOST:
        raise ValueError(f"{name} must be from 0 to {SECONDS_MOST:.0f} seconds, got {value}")
    return value


def expect_timeout(value: float | None) -> None:
    """A number of seconds to wait, or `None`; one that is over already is no fault, and neither is infinity."""
    if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
        raise TypeError(f"timeout must be a number of seconds, got {type(value).__name__}")
    if value is not None and value != value:
        raise ValueError("timeout must be a number of seconds, got nan")


def expect_token(value: object) -> str:
    """A token; an error does not hold it, as one of encoding it would."""
    if not isinstance(value, str):
        raise TypeError(f"token must be a text, got {type(value).__name__}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("token holds a lone surrogate; read it as UTF-8")
    return value
