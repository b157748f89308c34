"""How an answer is held against a recorded one: shape everywhere, values where they do not depend on the moment."""

import re
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

# Words for people: what they say may differ, not that they are there.
FREE = frozenset({"detail", "message", "error", "validation_errors", "next_steps", "next_step", "reason", "client_id"})
# Numbers of the moment.
VOLATILE = frozenset({"timestamp", "expires", "iat", "exp", "retry_after", "header_size", "max_header_size"})
# Objects whose keys are data.
MAPS = frozenset({"agent_types"})
TIMES = (
    ("zoned", re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+\d\d:\d\d$")),
    ("utc", re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")),
    ("local", re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?$")),
    ("blank", re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?$")),
)
LENGTH = re.compile(r"^<\d+ chars>$")
TOKEN = re.compile(r"^<(token\d+|jwt|[a-z-]*token[a-z0-9-]*)>$")
UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
HEADERS = {
    "date": re.compile(r"^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$"),
    "content-length": re.compile(r"^\d+$"),
    "server": re.compile(r"^ARCP/\d+\.\d+\.\d+\S*$"),
    "x-response-time": re.compile(r"^\d+\.\d{3}s$"),
    "x-request-id": UUID,
    "retry-after": re.compile(r"^\d+$"),
    "x-ratelimit-reset": re.compile(r"^\d+$"),
}


class Difference(NamedTuple):
    path: str
    recorded: Any
    answered: Any

    def __str__(self) -> str:
        return f"{self.path}: recorded {_short(self.recorded)}, answered {_short(self.answered)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 160 else text[:157] + "..."


def headers(recorded: dict[str, str], answered: dict[str, str]) -> Iterator[Difference]:
    for name, value in recorded.items():
        found = answered.get(name.lower())
        if found is None:
            yield Difference(f"headers.{name}", value, None)
        elif name in HEADERS:
            if not HEADERS[name].match(found):
                yield Difference(f"headers.{name}", value, found)
        elif {part.strip() for part in value.split(",")} != {part.strip() for part in found.split(",")}:
            yield Difference(f"headers.{name}", value, found)


def body(
    recorded: Any, answered: Any, path: str = "json", free: Collection[str] = FREE, numbers: bool = True
) -> Iterator[Difference]:
    key = re.split(r"[.\[]", path)[-1]
    if isinstance(recorded, dict) and isinstance(answered, dict):
        if key in MAPS:
            if {type(value) for value in answered.values()} - {int}:
                yield Difference(path, recorded, answered)
            return
        for name in recorded.keys() - answered.keys():
            yield Difference(f"{path}.{name}", recorded[name], None)
        for name in answered.keys() - recorded.keys():
            yield Difference(f"{path}.{name}", None, answered[name])
        for name in recorded.keys() & answered.keys():
            yield from body(recorded[name], answered[name], f"{path}.{name}", free, numbers)
    elif isinstance(recorded, list) and isinstance(answered, list):
        if numbers and len(recorded) != len(answered):
            yield Difference(f"{path}.length", len(recorded), len(answered))
        for at, (one, other) in enumerate(zip(recorded, answered, strict=False)):
            yield from body(one, other, f"{path}[{at}]", free, numbers)
    elif isinstance(recorded, bool) or isinstance(answered, bool) or recorded is None or answered is None:
        if recorded is not answered:
            yield Difference(path, recorded, answered)
    elif isinstance(recorded, int | float) and isinstance(answered, int | float):
        counted = numbers and isinstance(recorded, int) and isinstance(answered, int) and key not in VOLATILE
        if counted and recorded != answered:
            yield Difference(path, recorded, answered)
    elif isinstance(recorded, str) and isinstance(answered, str):
        if not same_text(key, recorded, answered, free):
            yield Difference(path, recorded, answered)
    elif type(recorded) is not type(answered):
        yield Difference(path, recorded, answered)


def same_text(key: str, recorded: str, answered: str, free: Collection[str]) -> bool:
    if recorded == answered:
        return True
    if key in free or key in VOLATILE or LENGTH.match(recorded):
        return bool(answered)
    if key == "version":
        return bool(re.match(r"^\d+\.\d+\.\d+", answered))
    if TOKEN.match(recorded):
        return answered.count(".") == 2
    for _, pattern in TIMES:
        if pattern.match(recorded):
            return bool(pattern.match(answered))
    return False
