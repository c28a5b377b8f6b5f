"""A run names what passed only at a second try, and fails when that is more than a busy machine."""

from types import SimpleNamespace

import pytest

from tests.parts import SECOND_TRIES, Spent


def run_again(count):
    """Return what a run has spent in which so many tests were tried again."""
    spent = Spent(workers=2)
    for number in range(count):
        report = SimpleNamespace(
            outcome="rerun", nodeid=f"t{number}", keywords=(), duration=0.1, skipped=False
        )
        spent.pytest_runtest_logreport(report)
    return spent


@pytest.mark.parametrize(
    ("count", "status"),
    [
        (0, pytest.ExitCode.OK),
        (SECOND_TRIES, pytest.ExitCode.OK),
        (SECOND_TRIES + 1, pytest.ExitCode.TESTS_FAILED),
    ],
)
def test_few_second_tries_are_named_and_many_fail(count, status):
    spent, lines = run_again(count), []
    session = SimpleNamespace(exitstatus=pytest.ExitCode.OK)
    spent.pytest_sessionfinish(session)
    assert session.exitstatus == status
    spent.pytest_terminal_summary(SimpleNamespace(line=lines.append))
    assert sum(line.startswith("TRIED AGAIN: t") for line in lines) == count
    assert any("FAILED" in line for line in lines) == (count > SECOND_TRIES)
