"""PostgreSQL frozen and killed under `rollout serve`: people decide, and it ends by itself."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import httpx2
import pytest

from rollout.features.stops.stops import ALSO_AFTER_RESTART
from tests.api.access.test_sign_in_queue import wait_until
from tests.api.test_serve import until_ready
from tests.faults.live_outage import list_stopped, prepare_field, serve_replica
from tests.faults.own_server import own_server

pytestmark = [pytest.mark.faults, pytest.mark.enable_socket]
ASSIGNMENTS = "/v1/rollouts/bears/assignments"
FLAG = "/ofrep/v1/evaluate/flags/gate.bears.decider"
SLACK = 1.0
"""Seconds beyond a limit that a busy machine may take."""


def decide(client):
    """Return who decides and the seconds until the answer; None for an error."""
    began = time.monotonic()
    question = {"site": "creek", "at": datetime.now(UTC).isoformat(), "key": "c1", "version": "v1"}
    answer = client.post(ASSIGNMENTS, json=question)
    decider = answer.json()["decider"] if answer.status_code == 200 else None
    return decider, time.monotonic() - began


def get(client, path):
    began = time.monotonic()
    return client.get(path), time.monotonic() - began


def until_decided(client, decider, seconds):
    """Wait until somebody decides; return the seconds that it took."""
    began = time.monotonic()
    while decide(client)[0] != decider:
        assert time.monotonic() - began < seconds, f"{decider} never decides"
        time.sleep(0.05)
    return time.monotonic() - began


def check_outage(client):
    """Ask in many ways during an outage; return the longest seconds of both kinds."""
    until_decided(client, "human", 3)
    with ThreadPoolExecutor(8) as threads:
        others = [threads.submit(get, client, path) for path in ("/v1/rollouts", "/metrics") * 2]
        scope = threads.submit(get, client, "/v1/rollouts/bears/scope")
        answers = [
            future.result() for future in [threads.submit(decide, client) for _ in range(60)]
        ]
        flag = client.post(FLAG, json={"context": {"targetingKey": "c1", "site": "creek"}}).json()
        replies = [scope.result(), *(future.result() for future in others)]
    assert {decider for decider, _ in answers} == {"human"}
    assert flag["value"] == "human"
    for reply, _ in replies:
        assert (reply.status_code, reply.headers.get("Retry-After")) == (503, "1"), reply.text
        assert reply.headers["Content-Type"] == "application/problem+json"
    assert max(seconds for _, seconds in answers) < 1 + SLACK
    assert replies[0][1] < 1 + SLACK, "a snapshot"
    assert max(seconds for _, seconds in replies) < 10 + SLACK
    return max(seconds for _, seconds in answers), max(seconds for _, seconds in replies)


def check_stop(client, key):
    """Stop a site during an outage, by a key that was never used; return the seconds it took."""
    began = time.monotonic()
    answer = client.post(
        "/v1/rollouts/bears/stops", json={"sites": ["dale"]}, headers=build_bearer(key)
    )
    assert (answer.status_code, answer.json()["code"]) == (503, "stop-not-stored"), answer.text
    assert answer.json()["detail"] == ALSO_AFTER_RESTART
    return time.monotonic() - began


def build_bearer(key):
    return {"Authorization": f"Bearer {key}"}


def check_log(log):
    """One line when the outage begins and one when it ends, whatever was asked meanwhile."""
    lines = log.read_text().splitlines()
    assert not [line for line in lines if "Traceback" in line or "Error:" in line], lines
    of_outages = [line for line in lines if "database outage" in line]
    assert ["began" in line or "ended" in line for line in of_outages] == [True, True], lines
    assert " transactions refused" in of_outages[1]
    assert len(lines) < 15, lines


@pytest.mark.parametrize("fault", ["frozen", "killed"])
def test_an_outage_of_postgresql_hands_cases_to_people_and_ends_by_itself(fault, tmp_path):
    with own_server() as server:
        key, operator_key = prepare_field(server.url)
        with (
            serve_replica(server.url, tmp_path) as address,
            httpx2.Client(base_url=address, headers=build_bearer(key), timeout=20) as client,
        ):
            until_ready(address)
            until_decided(client, "model", 30)
            server.freeze() if fault == "frozen" else server.kill()
            longest = check_outage(client)
            stop_seconds = check_stop(client, operator_key)
            server.thaw() if fault == "frozen" else server.start_again()
            recovery = until_decided(client, "model", 15)
            assert client.get("/v1/rollouts").status_code == 200
            wait_until(lambda: list_stopped(server.url) == [{"dale"}])
    check_log(tmp_path / "log")
    figures = f"{fault}: assignments {longest[0]:.2f} s, others {longest[1]:.2f} s"
    print(f"{figures}, stop {stop_seconds:.2f} s, recovery {recovery:.2f} s")  # noqa: T201 - seen with `pytest -s`
