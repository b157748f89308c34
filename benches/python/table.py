"""What is measured and how it is shown."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

Measure = Callable[["str"], float | None]
"""Gives the figure of a package, `ours` or `theirs`; `None` for what a package has no form of."""

PACKAGES = ("ours", "theirs")


@dataclass
class Row:
    what: str
    unit: str
    measure: Measure
    wanted: str = ""
    once: bool = False
    """Whether it is the same every time."""
    taken: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in PACKAGES})
    faults: dict[str, str] = field(default_factory=dict)

    def take(self, package: str) -> None:
        """Adds a figure, unless there is none to be had."""
        if package in self.faults or (self.once and self.taken[package]):
            return
        try:
            figure = self.measure(package)
        except Exception as error:
            self.faults[package] = str(error).strip().splitlines()[-1]
            return
        if figure is not None:
            self.taken[package].append(figure)

    def median(self, package: str) -> float | None:
        """`None` where nothing was measured, or something failed."""
        figures = self.taken[package]
        return statistics.median(figures) if figures and package not in self.faults else None


def show(figure: float | None, unit: str) -> str:
    if figure is None:
        return ""
    if unit == "/s" and figure < 500:
        return f"{figure:.3g}/s"
    if unit == "/s":
        return f"{figure / 1000:.0f} k/s" if figure >= 10_000 else f"{figure / 1000:.2f} k/s"
    return (
        f"{figure:.2f} {unit}" if figure < 10 else f"{figure:.0f} {unit}" if figure >= 100 else f"{figure:.1f} {unit}"
    )


def ratio(ours: float | None, theirs: float | None) -> str:
    if ours is None or theirs is None or theirs == 0:
        return ""
    times = ours / theirs
    return f"{times:.0f}" if times >= 10 else f"{times:.1f}" if times >= 1 else f"{times:.2g}"


def markdown(rows: list[Row]) -> str:
    lines = ["| what | ours | published SDK | ours / theirs | wanted |", "| --- | ---: | ---: | ---: | --- |"]
    for row in rows:
        ours, theirs = (row.median(package) for package in PACKAGES)
        cells = [row.what, show(ours, row.unit), show(theirs, row.unit), ratio(ours, theirs), row.wanted]
        lines.append(f"| {' | '.join(cells)} |".replace("|  ", "| "))
    return "\n".join(lines)


def write_between(file: Path, marker: str, text: str) -> None:
    """Puts the text between `<!-- marker:begin -->` and its end."""
    begin, end = f"<!-- {marker}:begin -->\n", f"<!-- {marker}:end -->"
    before, rest = file.read_text().split(begin)
    _, after = rest.split(end)
    file.write_text(f"{before}{begin}{text}\n{end}{after}")
