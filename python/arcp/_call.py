"""The protocol's pure functions, which the core decides."""

import json
from typing import Any

from arcp import _native


def call(function: str, **arguments: Any) -> dict[str, Any]:
    """Calls one by name; members that are `None` are left out."""
    present = {name: value for name, value in arguments.items() if value is not None}
    answer: dict[str, Any] = json.loads(_native.call_function(function, _native.encode(present, function)))
    return answer
