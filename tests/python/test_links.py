"""Every link and anchor of the README, the guides and the examples leads somewhere, and every guide is led to."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDES = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", *GUIDES, *sorted((ROOT / "examples").rglob("*.md"))]

# Paths that programs and other texts name.
PROMISED = ("docs/03-features/capability-negotiation.md", "docs/06-conformance.md", "docs/errors.md")

_BLOCK = re.compile(r"^```.*?^```[ \t]*$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?)[ \t]*$", re.MULTILINE)


def links(page: Path) -> list[str]:
    """Where a page leads to within this project. What stands in code is no link."""
    text = _CODE.sub("code", _BLOCK.sub("", page.read_text(encoding="utf-8")))
    targets = [link["target"] for link in _LINK.finditer(text)]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made where Markdown is shown."""
    times: dict[str, int] = {}
    found: set[str] = set()
    for title in _HEADING.findall(_BLOCK.sub("", page.read_text(encoding="utf-8"))):
        name = re.sub(r"[^\w\- ]", "", _LINK.sub(r"\1", title).lower()).replace(" ", "-")
        found.add(f"{name}-{times[name]}" if name in times else name)
        times[name] = times.get(name, 0) + 1
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken: list[str] = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


def test_every_guide_is_led_to() -> None:
    reached = {
        (page.parent / path).resolve() for page in PAGES for target in links(page) if (path := target.partition("#")[0])
    }
    assert [str(page.relative_to(ROOT)) for page in GUIDES if page not in reached] == []


@pytest.mark.parametrize("path", PROMISED)
def test_pages_that_are_named_elsewhere_are_there(path: str) -> None:
    assert (ROOT / path).is_file()


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One two\n\n## `a.b` (3)\n\n[x](other.md) [y](#one-two) `[z](no)` [w](https://a.test)\n")
    assert links(page) == ["other.md", "#one-two"]
    assert anchors(page) == {"one-two", "ab-3"}
