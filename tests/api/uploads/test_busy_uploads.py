"""While runs over uploaded files take all they may, assignments and stops keep their times."""

import time

import pytest

from api.priority_threads import ASSIGNMENT_SECONDS
from rollout.features.uploads.upload_runs import (
    UploadFolder,
    UploadOptions,
    UploadRequest,
    UploadRuns,
)
from tests.api.assignments.test_assignments import _clocks_agree, ask, bears
from tests.factories import NOON
from tests.recorded import write_records

__all__ = ["_clocks_agree", "bears"]
pytestmark = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


@pytest.mark.slow
def test_assignments_and_stops_keep_their_times_while_two_runs_work(
    client, database, bears, tmp_path
):
    runs, started = UploadRuns(UploadFolder(tmp_path / "uploads")), []
    try:
        for user in ("ana", "bo"):
            with runs.receive(user) as folder:
                write_records(folder, cases=40_000)
                request = UploadRequest(folder, UploadOptions(rollout="ramps"))
                started.append(runs.run_files(user, request, at=NOON))
        until = time.monotonic() + 60
        while not all(run.done for run in started) and time.monotonic() < until:
            time.sleep(0.02)  # both have begun
        seconds = []
        for number in range(100):
            began = time.perf_counter()
            ask(client, f"c{number}")
            seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
        stop = {"all": True, "reason": "while busy"}
        answer = client.by("operator").post("/v1/rollouts/bears/stops", json=stop)
        seconds.append(time.perf_counter() - began)
        assert answer.status_code == 201, answer.text
        assert any(run.is_running for run in started), "the runs were not at work"
        assert max(seconds) < ASSIGNMENT_SECONDS
    finally:
        runs.close()
