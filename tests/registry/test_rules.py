"""Every rule of the registry's contract is named by a test, or excused with a reason; never both."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from servers import ROOT

KNOWN = tomllib.loads((ROOT / "tests" / "corpus" / "registry" / "rules.toml").read_text())
# Where tests name rules, on lines `Rules: REG-...` that may go on; and what runs them.
SUITES = ("core", "node/test", "tests/faults", "tests/interop", "tests/python", "tests/registry", "tests/shims")
SUFFIXES = {".rs", ".py", ".ts", ".mjs", ".json"}
LABEL = re.compile(r"Rules: (REG-\d{3}(?:[,\s/#*]+REG-\d{3})*)")


def named() -> Iterator[tuple[str, Path]]:
    for suite in SUITES:
        for path in sorted((ROOT / suite).rglob("*")):
            hidden = {"node_modules", "target", "__pycache__"} & set(path.parts)
            if path.suffix in SUFFIXES and path.is_file() and not hidden:
                for label in LABEL.finditer(path.read_text(errors="replace")):
                    for rule in re.findall(r"REG-\d{3}", label.group(1)):
                        yield rule, path


def test_every_rule_is_shown_or_excused() -> None:
    rules = {rule for section in KNOWN.values() for rule in section}
    shown = {rule for rule, _ in named()}
    gaps = json.loads((ROOT / "tests" / "known-gaps.json").read_text()).get("registry", [])
    excused = {rule for gap in gaps for rule in gap["rules"]}
    assert all(gap["reason"].strip() for gap in gaps)
    assert sorted(rules - shown - excused) == [], "no test names these, and known-gaps.json does not excuse them"
    assert sorted(shown & excused) == [], "known-gaps.json excuses these, and a test names them: remove the entry"
    assert sorted((shown | excused) - rules) == [], "no such rules"
