"""`differences.toml`: where our server answers otherwise than was recorded, and the rule that wants it."""

import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from compare import Difference

FILE = Path(__file__).with_name("differences.toml")


class Wanted(NamedTuple):
    exchanges: list[str]
    at: list[str]
    rule: str
    why: str


def load() -> list[Wanted]:
    read: dict[str, Any] = tomllib.loads(FILE.read_text())
    wanted = []
    for entry in read.get("difference", []):
        exchanges = entry["exchange"] if isinstance(entry["exchange"], list) else [entry["exchange"]]
        at = entry["at"] if isinstance(entry["at"], list) else [entry["at"]]
        wanted.append(Wanted(exchanges, at, entry["rule"], entry["why"]))
    return wanted


def matches(pattern: str, path: str) -> bool:
    """`*` stands for anything within a name or an index, `**` for anything; a path covers what lies under it."""
    parts = re.split(r"(\*\*|\*)", pattern)
    text = "".join(".*" if part == "**" else r"[^.\[\]]*" if part == "*" else re.escape(part) for part in parts)
    return bool(re.fullmatch(rf"{text}([.\[].*)?", path))


def judge(exchange: str, found: list[Difference], wanted: list[Wanted]) -> list[str]:
    """What is wrong: differences nobody wants, and wanted ones that are not there."""
    entries = [entry for entry in wanted if exchange in entry.exchanges]
    patterns = [(entry, pattern) for entry in entries for pattern in entry.at]
    used: set[int] = set()
    wrong = []
    for difference in found:
        fitting = [at for at, (_, pattern) in enumerate(patterns) if matches(pattern, difference.path)]
        if not fitting:
            wrong.append(str(difference))
        used.update(fitting)
    for entry in entries:
        if not any(patterns[at][0] is entry for at in used):
            wrong.append(
                f"differences.toml wants {', '.join(entry.at)} otherwise ({entry.rule}), and nothing differs: remove it"
            )
    return wrong
