"""Assignments and stops while a user's comparison works: it takes no lock and no priority.

How long they take is no test: `benchmarks/what_if_beside.py` measures it.
"""

import os
import resource
import sys
import time
from datetime import timedelta

import pytest

from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.features.what_if.runs import WhatIfRequest, WhatIfRuns
from rollout.live.work.user_runs import MEMORY_LIMIT, NICENESS
from tests.api.assignments.test_assignments import ask
from tests.api.stops.test_stops import stop
from tests.factories import NOON
from tests.features import bear_field as field

ANA = Caller("ana", role_assignments=(AssignedRole("viewer"),))
WORK = """
from itertools import count
from rollout.engine.decide.permissions import Caller
from rollout.live.rollout_state import load_rollout_state
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.live.work.user_runs import answer_request, report_step
from rollout.features.what_if.runs import TIME_LIMIT
from rollout.data.database.session import Database

def read_for_ever(values):
    with Database(values["database"]).begin_read() as transaction:
        load_rollout_state(transaction, "bears")
        report_step("reading", 1, 2)
        for _ in count():  # the longest that a comparison could read and compute
            pass

answer_request(read_for_ever, TIME_LIMIT)
"""


@pytest.fixture
def run(database, monkeypatch):
    """Return a comparison that has read and goes on in its transaction."""
    monkeypatch.setattr(  # the clock of tests is set; a database's own is not
        "rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(0)
    )
    field.autonomous(database)
    runs = WhatIfRuns(database, (sys.executable, "-P", "-c", WORK))
    made = runs.compare(ANA, WhatIfRequest("bears", "", 30), at=NOON)
    give_up = time.monotonic() + 120
    while made.step != "reading" and made.is_running and time.monotonic() < give_up:
        time.sleep(0.05)
    assert made.step == "reading", made.error
    yield made
    runs.close()


@pytest.mark.slow
def test_requests_are_answered_and_stops_stored_while_a_comparison_works(client, run, database):
    process = run.process.pid
    assert os.getpriority(os.PRIO_PROCESS, process) == (
        min(os.getpriority(os.PRIO_PROCESS, 0) + NICENESS, 19)
    )
    assert resource.prlimit(process, resource.RLIMIT_DATA) == (MEMORY_LIMIT, MEMORY_LIMIT)
    assert ask(client).decider == "model"
    done = stop(client, all=True)
    assert done.status_code == 201
    assert [event["kind"] for event in done.json()["events"]] == ["Stopped"]
    assert ask(client, "c2").decider == "human"
    assert run.is_running
