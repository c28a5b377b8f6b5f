"""Figures that a benchmark measured, for `bench.json` and for the lines that it prints.

A script of this folder calls `report_figure` for each thing that it measures. `run.py` sets the
file to which the rows are added; alone, a script only prints.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Final

FILE_VARIABLE: Final = "ROLLOUT_BENCH_FIGURES"
"""The environment variable with the file's path."""


@dataclass(frozen=True, slots=True)
class ReportedFigure:
    """What was measured several times, in one unit.

    Attributes:
        goal: the most that is wanted of the median; None if nothing is promised.
    """

    what: str
    unit: str
    min: float
    median: float
    max: float
    goal: float | None = None

    def __str__(self) -> str:
        """Return the figure as a line."""
        goal = "" if self.goal is None else f" (goal {self.goal:g})"
        spread = " / ".join(_format_value(value) for value in (self.min, self.median, self.max))
        return f"{self.what:48}{spread:>30} {self.unit}{goal}"


def report_figure(
    what: str, unit: str, values: Sequence[float], goal: float | None = None
) -> ReportedFigure:
    """Return least, median and most of what was measured; add it to the file of `run.py`."""
    figure = ReportedFigure(what, unit, min(values), median(values), max(values), goal)
    path = os.environ.get(FILE_VARIABLE)
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(figure)) + "\n")
    return figure


def list_figures(path: Path) -> Iterator[dict[str, object]]:
    """Yield the rows that a script added to a file; none if it added none."""
    if path.exists():
        yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())


def find_versions(peers: Sequence[str]) -> dict[str, str]:
    """Return the installed version of each peer; one that is missing is named as left out.

    >>> find_versions(["no-such-library"])
    {'no-such-library': 'not installed, left out'}
    """
    return {peer: _find_version(peer) for peer in peers}


def _find_version(peer: str) -> str:
    try:
        return version(peer)
    except PackageNotFoundError:
        return "not installed, left out"


def _format_value(value: float) -> str:
    """Return a value with three digits that mean something.

    >>> [_format_value(value) for value in (0.01234, 1.234, 123.4, 12345.6)]
    ['0.0123', '1.23', '123', '12,346']
    """
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
