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
from arcp._json import as_array, as_object, loads_exact

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
    document = as_object(loads_exact(Path(path).read_text(encoding="utf-8"))) or {}
    cases = as_array(document.get("cases"))
    if cases is None:
        raise ValueError(f"{os.fspath(path)} holds no transcripts: it must be an object with a list `cases`")
    for case in cases:
        members = as_object(case) or {}
        name, steps = members.get("id"), as_array(members.get("steps"))
        if not isinstance(name, str) or steps is None:
            raise ValueError(f"{os.fspath(path)}: every case must have a text `id` and a list `steps`")
        yield name, tuple(steps)


def _check_step(where: str, step: Any, named: set[str]) -> None:
    members = as_object(step)
    if members is None:
        raise ValueError(f"{where}: must be an object, got {type(step).__name__}")
    if "message" in members:
        if members.get("from") not in SIDES:
            raise ValueError(f"{where}: `from` must be client or runtime, got {members.get('from')!r}")
        message = members["message"]
        if as_object(message) is None:
            raise ValueError(f"{where}: `message` must be an object, got {type(message).__name__}")
        _check_pattern(where, message, named)
    elif "note" not in members and not members.get("breaks"):
        raise ValueError(f"{where}: must have a `message`, a `note` or `breaks`")


def _check_pattern(where: str, pattern: Any, named: set[str]) -> None:
    if (members := as_object(pattern)) is not None:
        if "$is" in members:
            if members["$is"] not in named:
                raise ValueError(f"{where}: nothing before it is named {members['$is']!r}")
        elif "$any" in members:
            if members["$any"] not in _KINDS:
                raise ValueError(f"{where}: {members['$any']!r} is none of the kinds {', '.join(_KINDS)}")
            if "as" in members:
                named.add(members["as"])
        else:
            for value in members.values():
                _check_pattern(where, value, named)
    for value in as_array(pattern) or ():
        _check_pattern(where, value, named)


def fill(pattern: Any, names: dict[str, Any]) -> Any:
    """What is sent for a pattern; values under a name are kept in `names`."""
    if (members := as_object(pattern)) is not None:
        if "$is" in members:
            return names[members["$is"]]
        if "$any" in members:
            value = members.get("like")
            return names.setdefault(members["as"], value) if "as" in members else value
        return {key: fill(value, names) for key, value in members.items()}
    if (items := as_array(pattern)) is not None:
        return [fill(value, names) for value in items]
    return pattern


def compare(pattern: Any, value: Any, names: dict[str, Any], where: str) -> str | None:
    """How a value differs from a pattern, `None` when it does not. Members the pattern lacks are passed over; a member
    that is `null` may be absent.
    """
    if (members := as_object(pattern)) is not None:
        return _compare_members(members, value, names, where)
    if (items := as_array(pattern)) is not None:
        values = as_array(value)
        if values is None or len(values) != len(items):
            return f"{where} must be a list of {len(items)}, got {_shape(value)}"
        pairs = enumerate(zip(items, values, strict=True))
        found = (compare(inner, one, names, f"{where}[{n}]") for n, (inner, one) in pairs)
        return next((difference for difference in found if difference is not None), None)
    return None if _equal(pattern, value) else f"{where} must be {pattern!r}, got {_shape(value)}"


def _compare_members(pattern: Mapping[str, Any], value: Any, names: dict[str, Any], where: str) -> str | None:
    if "$is" in pattern:
        name = pattern["$is"]
        return None if value == names.get(name) else f"{where} must be the same as before ({name})"
    if "$any" in pattern:
        kind = pattern["$any"]
        if not isinstance(value, str) or not re.fullmatch(_KINDS[kind], value, re.DOTALL):
            return f"{where} must be a {kind}, got {_shape(value)}"
        if "as" in pattern:
            names[pattern["as"]] = value
        return None
    members = as_object(value)
    if members is None:
        return f"{where} must be an object, got {_shape(value)}"
    for key, inner in pattern.items():
        if key not in members and inner is None:
            continue
        if key not in members:
            return f"{where}.{key} is missing"
        if (difference := compare(inner, members[key], names, f"{where}.{key}")) is not None:
            return difference
    return None


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
