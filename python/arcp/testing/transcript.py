"""Conversations as data.

A transcript is a list of steps in the order they happened. A step is a message and who sent it:

    {"from": "client", "message": {"type": "job.submit", ...}}

with `"connection": "A"` where there are several connections. In a message, `{"$any": kind, "like": value}` stands for
any value of that kind, `"as": name` keeps the value that came, and `{"$is": name}` is that value again. Kinds are
`message_id`, `session_id`, `job_id`, `trace_id`, `result_id`, `resume_token`, `nonce`, `time` and `text`. A step
`{"note": text}` is for people, and `{"connection": "A", "breaks": true}` cuts a connection.

A file holds `{"cases": [{"id": name, "steps": [...]}, ...]}`.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from arcp import _native
from arcp._json import loads_exact

if TYPE_CHECKING:
    from arcp.testing.player import Player

Side = Literal["client", "runtime"]
Step = dict[str, Any]

SIDES: tuple[Side, ...] = ("client", "runtime")

_KINDS = {
    "message_id": r".+",
    "session_id": r"sess_.+",
    "job_id": r"job_.+",
    "trace_id": r"[0-9a-f]{32}",
    "result_id": r".+",
    "resume_token": r".+",
    "nonce": r".+",
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
    "text": r".*",
}


@dataclass(frozen=True)
class Transcript:
    """A conversation on record."""

    id: str
    """Its name."""
    steps: tuple[Step, ...]
    """What happened, in order; see the module."""

    def __post_init__(self) -> None:
        named: set[str] = set()
        for number, step in enumerate(self.steps):
            _check_step(f"{self.id}, step {number}", step, named)

    def __repr__(self) -> str:
        return f"<Transcript {self.id!r} of {len(self.steps)} steps>"

    @classmethod
    def load(cls, path: str | os.PathLike[str], id: str | None = None) -> Self:
        """The only transcript of a file, or the one of this id. `ValueError` when there is none such."""
        found = [cls(name, steps) for name, steps in _cases(path) if id in (None, name)]
        if len(found) != 1:
            raise ValueError(f"{os.fspath(path)} holds {len(found)} transcripts" + (f" {id!r}" if id else "; name one"))
        return found[0]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it as the only one of a file, a step a line."""
        steps = ",\n".join(f"   {_native.encode(step, 'step')}" for step in self.steps)
        text = f'{{"cases": [\n  {{"id": {json.dumps(self.id)}, "steps": [\n{steps}\n  ]}}\n]}}\n'
        Path(path).write_text(text, encoding="utf-8")

    def play(self, side: Side, *, token: str | None = None, timeout: float = 10.0) -> "Player":
        """A peer that plays `side` of it and holds the other against it; see `Player`."""
        from arcp.testing.player import Player

        return Player(self, side, token=token, timeout=timeout)


def load_transcripts(path: str | os.PathLike[str]) -> dict[str, Transcript]:
    """The transcripts of a file, by id. `ValueError` for what is none."""
    return {name: Transcript(name, steps) for name, steps in _cases(path)}


def _cases(path: str | os.PathLike[str]) -> Iterable[tuple[str, tuple[Step, ...]]]:
    document = loads_exact(Path(path).read_text(encoding="utf-8"))
    cases = document.get("cases") if isinstance(document, dict) else None
    if not isinstance(cases, list):
        raise ValueError(f"{os.fspath(path)} holds no transcripts: it must be an object with a list `cases`")
    for case in cases:
        if not (isinstance(case, dict) and isinstance(case.get("id"), str) and isinstance(case.get("steps"), list)):
            raise ValueError(f"{os.fspath(path)}: every case must have a text `id` and a list `steps`")
        yield case["id"], tuple(case["steps"])


def _check_step(where: str, step: Any, named: set[str]) -> None:
    if not isinstance(step, Mapping):
        raise ValueError(f"{where}: must be an object, got {type(step).__name__}")
    if "message" in step:
        if step.get("from") not in SIDES:
            raise ValueError(f"{where}: `from` must be client or runtime, got {step.get('from')!r}")
        if not isinstance(step["message"], Mapping):
            raise ValueError(f"{where}: `message` must be an object, got {type(step['message']).__name__}")
        _check_pattern(where, step["message"], named)
    elif "note" not in step and not step.get("breaks"):
        raise ValueError(f"{where}: must have a `message`, a `note` or `breaks`")


def _check_pattern(where: str, pattern: Any, named: set[str]) -> None:
    match pattern:
        case {"$is": name}:
            if name not in named:
                raise ValueError(f"{where}: nothing before it is named {name!r}")
        case {"$any": kind}:
            if kind not in _KINDS:
                raise ValueError(f"{where}: {kind!r} is none of the kinds {', '.join(_KINDS)}")
            if "as" in pattern:
                named.add(pattern["as"])
        case Mapping():
            for value in pattern.values():
                _check_pattern(where, value, named)
        case list():
            for value in pattern:
                _check_pattern(where, value, named)


def fill(pattern: Any, names: dict[str, Any]) -> Any:
    """What is sent for a pattern; values under a name are kept in `names`."""
    match pattern:
        case {"$is": name}:
            return names[name]
        case {"$any": _}:
            value = pattern.get("like")
            if "as" in pattern:
                value = names.setdefault(pattern["as"], value)
            return value
        case Mapping():
            return {key: fill(value, names) for key, value in pattern.items()}
        case list():
            return [fill(value, names) for value in pattern]
    return pattern


def compare(pattern: Any, value: Any, names: dict[str, Any], where: str) -> str | None:
    """How a value differs from a pattern, `None` when it does not. Members the pattern lacks are passed over; a member
    that is `null` may be absent.
    """
    match pattern:
        case {"$is": name}:
            return None if value == names.get(name) else f"{where} must be the same as before ({name})"
        case {"$any": kind}:
            if not isinstance(value, str) or not re.fullmatch(_KINDS[kind], value, re.DOTALL):
                return f"{where} must be a {kind}, got {_shape(value)}"
            if "as" in pattern:
                names[pattern["as"]] = value
            return None
        case Mapping():
            if not isinstance(value, Mapping):
                return f"{where} must be an object, got {_shape(value)}"
            for key, inner in pattern.items():
                if key not in value and inner is None:
                    continue
                if key not in value:
                    return f"{where}.{key} is missing"
                if (difference := compare(inner, value[key], names, f"{where}.{key}")) is not None:
                    return difference
            return None
        case list():
            if not isinstance(value, list | tuple) or len(value) != len(pattern):
                return f"{where} must be a list of {len(pattern)}, got {_shape(value)}"
            pairs = enumerate(zip(pattern, value, strict=True))
            found = (compare(inner, one, names, f"{where}[{n}]") for n, (inner, one) in pairs)
            return next((difference for difference in found if difference is not None), None)
    return None if _equal(pattern, value) else f"{where} must be {pattern!r}, got {_shape(value)}"


def _equal(pattern: Any, value: Any) -> bool:
    if isinstance(pattern, bool) or isinstance(value, bool):
        return pattern is value
    if isinstance(pattern, int | float | Decimal) and isinstance(value, int | float | Decimal):
        return pattern == value
    return type(pattern) is type(value) and bool(pattern == value)


def _shape(value: Any) -> str:
    """A value for a message, without what may be a secret or long."""
    if isinstance(value, str):
        return f"{value[:40]!r}" if len(value) <= 40 else f"a text of {len(value)} characters"
    return repr(value) if value is None or isinstance(value, bool | int | float) else f"a {type(value).__name__}"
