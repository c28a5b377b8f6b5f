"""The live demo goes on when its service is busy: its clients retry, as real ones do."""

import json
from datetime import timedelta

import httpx2
import pytest

from rollout.features.demo import player
from rollout.features.demo.catalog import MAIL_ROOM, find_example
from rollout.features.demo.player import (
    MAX_SECONDS,
    MAX_TRIES,
    QUIET_SECONDS,
    CaseTraffic,
    DemoApprover,
    DemoColleague,
    DemoPlayer,
    build_account_request,
)
from rollout.features.demo.recorded_cases import load_cases
from rollout.features.demo.simulated_cases import get_prediction_time
from rollout.features.demo.stage import build_case_records
from rollout.live.clock import ManualClock

pytestmark = pytest.mark.slow

EXAMPLE = find_example(MAIL_ROOM)
ANSWER = {"decider": "human", "exposure": "blind", "permit": None}


class BusyService:
    """A transport of a service that fails its first requests to a resource."""

    def __init__(self, resource, *failures):
        self.resource, self.failures, self.stored = resource, list(failures), []

    def __call__(self, request):
        resource = request.url.path.rsplit("/", 1)[-1]
        if resource == self.resource and self.failures:
            failure = self.failures.pop(0)
            if isinstance(failure, Exception):
                raise failure
            return failure
        return httpx2.Response(200, json=self.answer(resource, request))

    def answer(self, resource, request):
        body = json.loads(request.content or b"{}")
        if resource == "assignments":
            return {"answers": [ANSWER for _ in body["questions"]]}
        if resource == "records":
            self.stored += body["items"]
            return {"items": [{"status": "accepted"} for _ in body["items"]]}
        if resource == "stops" and request.method == "POST":
            return {"stop": "S-1", "active_stops": [{"id": "S-1"}]}
        return {"items": []}

    def client(self):
        return httpx2.Client(base_url="http://demo", transport=httpx2.MockTransport(self))


@pytest.fixture
def waits(monkeypatch):
    seconds = []
    monkeypatch.setattr(player, "sleep", seconds.append)
    return seconds


@pytest.fixture(scope="module")
def records():
    return build_case_records(EXAMPLE)


@pytest.fixture(scope="module")
def cases():
    return load_cases(EXAMPLE)[:3]


def play(service, records, cases):
    """Play all cases and what follows from them within three hours."""
    clock = ManualClock(get_prediction_time(cases[0]) - timedelta(minutes=1))
    clients = dict.fromkeys(records.find_clients(""), service.client())
    request = build_account_request(clients, records.policy.rollout)
    player = DemoPlayer(CaseTraffic(records, request, EXAMPLE.training_cutoffs), clock, cases)
    for _ in range(90):
        player.step()
    return service.stored


def busy(status=503, seconds="2"):
    return httpx2.Response(status, headers={"Retry-After": seconds})


@pytest.mark.slow
@pytest.mark.parametrize("resource", ["assignments", "records"])
def test_a_busy_service_gets_the_same_records_after_two_retries(resource, records, cases, waits):
    expected = play(BusyService(""), records, cases)
    assert expected
    assert waits == []
    assert play(BusyService(resource, busy(), busy(429)), records, cases) == expected
    assert waits == [2.0, 2.0]
    lost = httpx2.ConnectError("refused"), busy(seconds="3600"), busy(seconds="")
    assert play(BusyService(resource, *lost), records, cases) == expected
    assert waits[2:] == [1.0, MAX_SECONDS, 1.0]


def test_humans_decide_what_gets_no_assignment(records, cases, waits):
    stored = play(BusyService("assignments", *[busy()] * MAX_TRIES), records, cases)
    assert {item["by"] for item in stored if item["kind"] == "action"} == {"person"}
    assert len(waits) == MAX_TRIES - 1


def test_records_that_a_busy_service_did_not_take_are_sent_at_the_next_step(records, cases, waits):
    def key(item):
        return item["kind"], item["key"], item.get("reviewer", "")

    expected = play(BusyService(""), records, cases)
    stored = play(BusyService("records", *[busy()] * MAX_TRIES), records, cases)
    assert sorted(stored, key=key) == sorted(expected, key=key)


def test_other_errors_end_the_demo(records, cases, waits):
    with pytest.raises(httpx2.HTTPStatusError, match="500"):
        play(BusyService("assignments", httpx2.Response(500)), records, cases)
    assert waits == []


@pytest.mark.slow
def test_colleagues_wait_for_a_busy_service_and_try_again_later(records, waits):
    service = BusyService("proposals", busy(), busy(), *[busy()] * MAX_TRIES)
    approver = DemoApprover(service.client(), "mail-room", timedelta(0))
    approver.approve_due(get_prediction_time(load_cases(EXAMPLE)[0]))
    assert len(waits) == 5
    approver.approve_due(get_prediction_time(load_cases(EXAMPLE)[0]))
    assert service.failures == []
    seconds = [0.0]
    resumes = BusyService("resume", *[busy()] * MAX_TRIES)
    maker = DemoColleague(resumes.client(), records.policy, lambda: seconds[0])
    for _ in range(2):
        maker.keep_something_to_approve()
        seconds[0] += QUIET_SECONDS
    assert resumes.failures == []
