"""Whatever fails, wherever: nothing answered is lost, nothing widens unasked, and all heals.

The short form of the campaign, in an interpreter of its own: forks must start without threads.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.databases import ENGINES, close_server, server
from tests.faults.campaign import sampled
from tests.samples import COMMIT

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _nothing_left_running():
    yield
    close_server()


def campaign(engine, *words):
    """Run the campaign on one engine and return what it printed, and whether all held."""
    env = dict(os.environ)
    if engine == "postgresql":
        env["ROLLOUT_TEST_PG_URL"] = server().url.render_as_string(hide_password=False)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.faults.campaign", "--engine", engine),
            *("--sample", COMMIT, *words),
        ],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{done.stdout}\n{done.stderr[-2000:]}", done.returncode == 0


def test_without_a_commit_every_planned_trial_is_tried():
    assert sampled((number for number in range(9)), commit="") == list(range(9))


@pytest.mark.faults
@pytest.mark.parametrize("engine", ENGINES)
def test_after_any_fault_all_oracles_hold(engine):
    said, held = campaign(engine, "--short")  # fails too when it tries nothing
    assert held, said
    assert " 0 failed" in said


@pytest.mark.faults
@pytest.mark.parametrize("engine", ENGINES)
def test_each_mutant_is_caught_by_its_oracle(engine):
    said, caught = campaign(engine, "--mutants")
    assert caught, said
