"""The parts of the test run, each with a marker and a budget: what runs when, what it may take.

Every test gets the marker of exactly one part: by its folder, by the database that it asks, or by a
marker of its own (`slow`, `simulation`, `exhaustive`, `faults`). `make test` runs `fast`,
`make test-all` every part. tests/README.md explains them.
"""

import tomllib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests import samples

BUDGETS: Final = {  # minutes on two idle cores
    "fast": 5.0,
    "slow": 18.0,
    "postgres": 6.0,
    "exhaustive": 4.0,
    "simulation": 7.0,
    "browser": 5.0,
    "faults": 5.0,
    "first_hour": 4.0,
    **(samples.BUDGETS if samples.COMMIT else {}),
}
LONG_RUNS: Final = Path(__file__).parents[1] / "docs" / "long-runs.toml"
TOLERATED: Final = 4.0
"""A part fails above this many budgets; a busy machine takes twice as long as an idle one."""
SECOND_TRIES: Final = 3
"""A run fails with more tests than this that pass only at a second try."""
FOLDERS: Final = {"tests/browser": "browser", "tests/first_hour": "first_hour"}
BY_HAND: Final = ("simulation", "exhaustive", "faults", "slow")  # of several marks the first counts
SQL_DIFFERS: Final = ("tests/data", "tests/migrations", "tests/worker")
"""Folders whose tests run on both engines in `fast`; elsewhere the first of each module does."""
WHOLE: Final = 500
"""Tests from which on a run is judged by its budgets: nobody needs the table of a few."""


def mark_parts(items: list[pytest.Item]) -> dict[str, str]:
    """Leave each test the marker of its part alone, and return the parts by the tests' names."""
    with_twin: set[str] = set()
    parts = {item.nodeid: part_of(item, with_twin) for item in items}
    for node in {node for item in items for node in item.listchain()}:
        node.own_markers[:] = [mark for mark in node.own_markers if mark.name not in BUDGETS]
    for item in items:
        item.add_marker(parts[item.nodeid])
        item.user_properties.append(("part", parts[item.nodeid]))
    return parts


def part_of(item: pytest.Item, with_twin: set[str]) -> str:
    """Return the part of a test; `with_twin` collects modules whose first twin was met."""
    module = item.nodeid.partition("::")[0]
    folders = [part for folder, part in FOLDERS.items() if module.startswith(f"{folder}/")]
    by_hand = [name for name in BY_HAND if item.get_closest_marker(name)]
    if folders or by_hand:
        return (folders + by_hand)[0]
    if not is_twin(item) or module.startswith(tuple(f"{folder}/" for folder in SQL_DIFFERS)):
        return "fast"
    if module not in with_twin:
        with_twin.add(module)
        return "fast"
    return "postgres"


def long_runs() -> list[dict[str, Any]]:
    """Return the last result of each long run, as docs/long-runs.toml has them."""
    return tomllib.loads(LONG_RUNS.read_text(encoding="utf-8"))["run"]


def is_twin(item: pytest.Item) -> bool:
    """Return whether a test runs on PostgreSQL what another one runs on SQLite."""
    values = getattr(item, "callspec", None) and item.callspec.params.values()
    if not any(isinstance(value, str) and value == "postgresql" for value in values or ()):
        return False
    chosen = [mark.args for mark in item.iter_markers("parametrize")]
    return ("url", ["postgresql"]) not in chosen  # else it has no twin on SQLite


@dataclass(eq=False)
class Spent:
    """Tests and seconds of each part, what of each was skipped, and what was tried again.

    Seconds are those of all workers, divided by their number.
    """

    workers: int
    tests: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    tried_again: list[str] = field(default_factory=list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count what a test took, with its fixtures."""
        if report.outcome == "rerun":
            self.tried_again.append(report.nodeid)
        part = dict(report.user_properties)["part"]
        self.seconds[part] += report.duration / self.workers
        self.tests[part] += report.when == "setup"
        self.skipped[part] += report.skipped

    def over(self, budgets: float = 1.0) -> list[str]:
        """Return the parts that took more than so many of their budgets."""
        return [part for part, most in BUDGETS.items() if self.seconds[part] > 60 * most * budgets]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run if a part took far too long, or too many tests needed a second try."""
        is_late = self.is_whole() and self.over(TOLERATED)
        if session.exitstatus == pytest.ExitCode.OK and (is_late or self.is_unsteady()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print what was tried again, the table of parts, and which long run is stale."""
        for name in self.tried_again:
            terminalreporter.line(f"TRIED AGAIN: {name}: it depends on time or order; mend it")
        if self.is_unsteady():
            terminalreporter.line(f"FAILED: more than {SECOND_TRIES} tests were tried again")
        if not self.is_whole():
            return
        terminalreporter.section(f"time by part, of {self.workers} workers together")
        terminalreporter.line(f"{'part':<12}{'tests':>7}{'skipped':>9}{'seconds':>9}{'budget':>8}")
        for part, most in BUDGETS.items():
            if self.tests[part]:
                numbers = f"{self.tests[part]:>7}{self.skipped[part]:>9}{self.seconds[part]:>9.0f}"
                terminalreporter.line(
                    f"{part:<12}{numbers}{60 * most:>8.0f}{self._describe_overrun(part)}"
                )

        for run in long_runs():
            if "stale" in run:
                terminalreporter.line(f"STALE: {run['name']} of {run['date']}: {run['stale']}")

    def is_unsteady(self) -> bool:
        """Return whether more tests were tried again than a busy machine explains."""
        return len(self.tried_again) > SECOND_TRIES

    def is_whole(self) -> bool:
        """Return whether enough tests ran to judge the parts by their budgets."""
        return self.tests.total() >= WHOLE

    def _describe_overrun(self, part: str) -> str:
        if part in self.over(TOLERATED):
            return f"  FAILED: more than {TOLERATED:g} budgets"
        return "  OVER BUDGET" if part in self.over() else ""
