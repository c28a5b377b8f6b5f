"""What `.ci/run` takes of the slow parts: a sample that the commit chooses, within its budgets.

ROLLOUT_TEST_SAMPLE holds the commit. Of `browser` a quarter of the pages runs, in one width and one
colour scheme, chosen by a hash of each page's name and the commit; of `first_hour` what README and
tutorial say; of `slow` half of the tests, by the same hash. The tests of the timed parts, `slow`
among them, come in an order that the commit draws, and start until the part's seconds are spent;
the rest is skipped. So a slow machine takes fewer of them, not longer: where little is left of the
15 minutes (ROLLOUT_TEST_SECONDS), timed parts get as much less, but half. `make test-all` runs
everything.
"""

import os
import tempfile
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final

import pytest

COMMIT: Final = os.environ.get("ROLLOUT_TEST_SAMPLE", "")
ONE_OF: Final = 4
TIMED: Final = ("slow", "exhaustive", "simulation", "faults")
MINUTES: Final = {  # on two idle cores
    "slow": 5.5,
    "browser": 1.5,
    "first_hour": 1.25,
    "exhaustive": 0.33,
    "simulation": 0.33,
    "faults": 0.67,
}
START: Final = 1.0
"""Minutes in which the workers start and collect."""
LEAST: Final = 0.5


def find_budgets(seconds: str) -> dict[str, float]:
    """Return the minutes of each part in a run that may take some seconds; "": as many as it needs.

    Parts that can't end early keep theirs, the timed ones share the rest.
    """
    timed = sum(MINUTES[part] for part in TIMED)
    rest = float(seconds or "inf") / 60 - START - (sum(MINUTES.values()) - timed)
    share = min(1.0, max(LEAST, rest / timed))
    return {part: spent * (share if part in TIMED else 1) for part, spent in MINUTES.items()}


BUDGETS: Final = find_budgets(os.environ.get("ROLLOUT_TEST_SECONDS", ""))
FIRST_HOUR: Final = ("tests/first_hour/test_readme.py", "tests/first_hour/test_tutorial.py")
LOOKS: Final = ("width", "scheme")
"""Parameters of browser tests of which the sample takes one value."""
SPENT: Final = "ROLLOUT_TEST_SPENT"
"""Names the file in which all workers write what a test of a timed part took."""


def draw(name: str, commit: str) -> int:
    """Return a number that a name has at a commit: the same everywhere, another at the next one."""
    return int.from_bytes(sha256(f"{commit}\n{name}".encode()).digest()[:8])


class Sample:
    """Chooses the tests of a run and ends each timed part when its seconds are spent."""

    def __init__(self, commit: str, part_of: dict[str, str], spent: Path, workers: int) -> None:
        """Take the commit, the part of each test, the file of seconds and how many write to it."""
        self.commit = commit
        self.part_of = part_of
        self.spent = spent
        self.workers = workers

    def choose(self, items: Iterable[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
        """Return the tests to run, those of timed parts last and shuffled, and those left out."""
        items = list(items)
        looks: dict[tuple[object, ...], str] = {}
        for item in items:
            if self.part_of[item.nodeid] == "browser":
                page = page_of(item)
                best = min(looks.get(page, item.nodeid), item.nodeid, key=self._draw)
                looks[page] = best
        one_look = set(looks.values())
        chosen = [item for item in items if self._is_chosen(item, one_look)]
        left_out = [item for item in items if not self._is_chosen(item, one_look)]
        chosen.sort(key=self._place)
        return chosen, left_out

    def _is_chosen(self, item: pytest.Item, one_look: set[str]) -> bool:
        part = self.part_of[item.nodeid]
        if part == "browser":
            return item.nodeid in one_look and self._draw(str(page_of(item))) % ONE_OF == 0
        if part == "slow":
            return self._draw(item.nodeid) % 2 == 0
        return part in TIMED or item.nodeid.startswith(FIRST_HOUR)

    def _place(self, item: pytest.Item) -> int:
        part = self.part_of[item.nodeid]
        if part == "slow":  # by module, which makes what its tests share: shuffled they take twice
            return self._draw(item.nodeid.partition("::")[0])
        return self._draw(item.nodeid) if part in TIMED else -1

    def _draw(self, name: str) -> int:
        return draw(name, self.commit)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Skip a test of a part whose seconds are spent."""
        part = self.part_of[item.nodeid]
        if part in TIMED and self.seconds(part) >= 60 * BUDGETS[part]:
            pytest.skip("left out of the sample: the part's seconds are spent")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write down what a test of a timed part took, for all workers."""
        part = self.part_of.get(report.nodeid)
        if part in TIMED:
            with self.spent.open("a", encoding="utf-8") as file:
                file.write(f"{part} {report.duration}\n")

    def seconds(self, part: str) -> float:
        """Return the seconds that a part has taken so far, as if all workers had shared it."""
        rows = [line.split() for line in self.spent.read_text(encoding="utf-8").splitlines()]
        return sum(float(taken) for name, taken in rows if name == part) / self.workers


def page_of(item: pytest.Item) -> tuple[object, ...]:
    """Return what a browser test looks at, without the width and the scheme."""
    callspec = getattr(item, "callspec", None)
    values = callspec.params.items() if callspec else ()
    rest = sorted((name, str(value)) for name, value in values if name not in LOOKS)
    return (item.nodeid.partition("[")[0], *rest)


def choose_look(looks: list[tuple[int, str]], name: str) -> list[tuple[int, str]]:
    """Return all looks of a page, in a sampled run the one that the commit draws."""
    return [looks[draw(name, COMMIT) % len(looks)]] if COMMIT else looks


def count_workers(config: pytest.Config) -> int:
    """Return how many processes run the tests of this run, asked in any of them."""
    inherited = os.environ.get("PYTEST_XDIST_WORKER_COUNT")
    return int(inherited or config.getoption("numprocesses", None) or 1)


def file_of_seconds() -> Path:
    """Return the file of seconds; the first process makes it, workers inherit its name."""
    if SPENT not in os.environ:
        handle, name = tempfile.mkstemp(prefix="rollout-sample-")
        os.close(handle)
        os.environ[SPENT] = name
    return Path(os.environ[SPENT])
