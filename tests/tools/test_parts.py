"""Each test is in one part, and a run with more second tries than a busy machine has fails."""

from types import SimpleNamespace

import pytest

from tests.parts import SECOND_TRIES, Spent, mark_parts


def run_again(count):
    """Return what a run has spent in which so many tests were tried again."""
    spent = Spent(workers=2)
    for number in range(count):
        report = SimpleNamespace(
            outcome="rerun",
            nodeid=f"t{number}",
            user_properties=[("part", "slow")],
            duration=0.1,
            when="call",
            skipped=False,
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


class Step(pytest.Item):
    """A test that has nothing to run."""

    def runtest(self):
        """Pass."""


def test_a_marker_at_a_test_takes_it_out_of_the_part_of_its_module(request, tmp_path):
    module = pytest.Module.from_parent(request.session, path=tmp_path / "test_steps.py")
    module.add_marker("slow")
    steps = [Step.from_parent(module, name=name) for name in ("plain", "many")]
    steps[1].add_marker("simulation")
    assert list(mark_parts(steps).values()) == ["slow", "simulation"]
    left = [[mark.name for mark in step.iter_markers()] for step in steps]
    assert left == [["slow"], ["simulation"]]
    spent = Spent(workers=1)
    for step in steps:
        spent.pytest_runtest_logreport(
            SimpleNamespace(
                outcome="passed",
                nodeid=step.nodeid,
                user_properties=step.user_properties,
                duration=2.0,
                when="setup",
                skipped=False,
            )
        )
    assert spent.tests == {"slow": 1, "simulation": 1}
