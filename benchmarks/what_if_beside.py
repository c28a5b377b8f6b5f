"""Assignments and stops while users' comparisons work, beside the same without them.

SQLite. One replica's application answers in this process; as many comparisons of a draft as a
replica allows work on the same database, each in a process of its own. Turns alternate, so that
other load on the machine meets both.

Example:
    PYTHONPATH=. python benchmarks/what_if_beside.py
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from assignments import NAME, build_app, build_question
from assignments import fill as fill_assignments
from console_pages import END, history, policy_text
from reported_figures import report_figure
from starlette.testclient import TestClient

from rollout.data.database.session import Database
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.decide.stops import StopTarget
from rollout.features.records.record_import import import_records
from rollout.features.stops.stops import stop_cells
from rollout.features.what_if.runs import WhatIfRequest, WhatIfRun, WhatIfRuns
from rollout.live.policy_application import apply_policy
from rollout.live.tick_passes import Ticker
from rollout.live.work.user_runs import MAX_WORKING

SITES, EACH = 20, 40
TURNS, REQUESTS, STOPS = 4, 100, 5
STOP_SITES = (2 * TURNS + 1) * STOPS
ASKED_SITES = 10
OPERATOR = Caller("ana", role_assignments=(AssignedRole("operator"),))
TEXT = policy_text(SITES).replace("rollout: bench", "rollout: compared")
DRAFT = TEXT.replace("at_least: 95%", "at_least: 90%")
LONGEST_START = 300.0  # seconds until a comparison has read its records


def fill(url: str) -> list[str]:
    """Make a rollout whose model decides, and one that is compared; return the clients' keys."""
    keys = fill_assignments(url, STOP_SITES + ASKED_SITES)
    database = Database(url)
    apply_policy(database, TEXT, Actor("zoe"), END.replace(day=4, hour=0), salt=bytes(32))
    import_records(database, "compared", history(SITES, EACH), END)
    Ticker(database, "compared", "filling").tick(END)
    database.close()
    return keys


def start_comparisons(database: Database) -> WhatIfRuns:
    """Start as many comparisons as a replica allows, and wait until they work."""
    runs = WhatIfRuns(database)
    request = WhatIfRequest("compared", DRAFT, 30)
    for number in range(MAX_WORKING):
        viewer = Caller(f"user-{number}", role_assignments=(AssignedRole("viewer"),))
        runs.compare(viewer, request, at=END)
    give_up = time.monotonic() + LONGEST_START
    while time.monotonic() < give_up and not all(run.done for run in list_runs(runs)):
        time.sleep(0.1)
    return runs


def list_runs(runs: WhatIfRuns) -> Iterator[WhatIfRun]:
    """Yield the comparisons; raise if one has ended: then it is beside nothing."""
    for number in range(MAX_WORKING):
        run = runs.find_comparison(f"user-{number}", "compared", at=END)
        if run is None or not run.is_running:
            raise SystemExit(f"a comparison has ended: {run and run.error}; raise EACH")
        yield run


def measure_turn(
    client: TestClient, database: Database, keys: list[str], first_site: int
) -> tuple[list[float], list[float]]:
    """Return the milliseconds of each assignment and of each stored stop."""
    assignment_times, stop_times = [], []
    for number in range(REQUESTS):
        question = build_question(number)
        question["site"] = f"site-{STOP_SITES + number % ASKED_SITES}"
        headers = {"Authorization": f"Bearer {keys[number % len(keys)]}"}
        started = time.perf_counter()
        answer = client.post(f"/v1/rollouts/{NAME}/assignments", json=question, headers=headers)
        assignment_times.append((time.perf_counter() - started) * 1e3)
        answer.raise_for_status()
    for number in range(STOPS):
        target = StopTarget(sites=(f"site-{first_site + number}",))
        started = time.perf_counter()
        stop_cells(database, OPERATOR, NAME, target, at=datetime.now(UTC))
        stop_times.append((time.perf_counter() - started) * 1e3)
    return assignment_times, stop_times


def main() -> None:
    """Measure alone and beside in turns; print medians and the ratio of each pair of turns."""
    with TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'beside.db'}"
        keys = fill(url)
        database = Database(url)
        with TestClient(build_app(url)) as client:
            measure_turn(client, database, keys, 2 * TURNS * STOPS)  # the first one warms up
            turns = [measure_pair(client, database, keys, turn) for turn in range(TURNS)]
    for what, index in (("an assignment", 0), ("a stop", 1)):
        times_alone, times_beside = ([turn[which][index] for turn in turns] for which in (0, 1))
        ratios = [median(b) / median(a) for a, b in zip(times_alone, times_beside, strict=True)]
        print(report_figure(f"{what}, alone", "ms", list(chain.from_iterable(times_alone))))
        print(
            report_figure(
                f"{what}, beside {MAX_WORKING} comparisons",
                "ms",
                list(chain.from_iterable(times_beside)),
            )
        )
        print(report_figure(f"{what}, beside / alone", "ratio", ratios))


def measure_pair(
    client: TestClient, database: Database, keys: list[str], turn: int
) -> tuple[tuple[list[float], list[float]], tuple[list[float], list[float]]]:
    """Return a turn alone and one beside comparisons."""
    times_alone = measure_turn(client, database, keys, 2 * turn * STOPS)
    runs = start_comparisons(database)
    try:
        times_beside = measure_turn(client, database, keys, (2 * turn + 1) * STOPS)
        list(list_runs(runs))
    finally:
        runs.close()
    return times_alone, times_beside


if __name__ == "__main__":
    main()
