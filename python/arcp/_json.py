"""Reading JSON without losing a digit. Writing is `_native.encode`."""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, cast


class ExactFloat(float):
    """A float that remembers the digits it was read from, which `_native.encode` writes again (D-28)."""

    json_text: str


def _exact(text: str) -> float:
    value = float(text)
    if repr(value) == text:
        return value
    exact = ExactFloat(value)
    exact.json_text = text
    return exact


def loads_exact(text: str) -> Any:
    """Reads JSON whose numbers may have to be written again just as they are."""
    return json.loads(text, parse_float=_exact)


def loads_decimal(text: str) -> Any:
    """Reads JSON with amounts: a number with a point or an exponent becomes a `Decimal`."""
    return json.loads(text, parse_float=Decimal)


def as_object(value: Any) -> Mapping[str, Any] | None:
    """The value, if it is an object of JSON."""
    return cast(Mapping[str, Any], value) if isinstance(value, Mapping) else None


def as_array(value: Any) -> Sequence[Any] | None:
    """The value, if it is an array of JSON."""
    return cast(Sequence[Any], value) if isinstance(value, list | tuple) else None
