"""Each example is served with something to approve, and its traffic goes through the API."""

from datetime import timedelta

import pytest

from api.app import create_app
from rollout.features.demo.catalog import MAIL_ROOM, list_examples
from rollout.features.demo.player import CaseTraffic, DemoPlayer, build_account_request
from rollout.features.demo.recorded_cases import load_cases
from rollout.features.demo.stage import build_case_records, open_stage, prepare_history
from rollout.live.tick_passes import TickScheduler
from tests.api.conftest import Asking

pytestmark = pytest.mark.simulation

EXAMPLES = {example.name: example for example in list_examples() if example.name != MAIL_ROOM}
WITH_PICTURES = [
    name for name, example in EXAMPLES.items() if (example.records_folder / "pictures").is_dir()
]
PLAYED = timedelta(hours=2)


@pytest.fixture(scope="module", params=EXAMPLES)
def example(request):
    return EXAMPLES[request.param]


@pytest.fixture(scope="module")
def cases(example):
    return load_cases(example)


def test_cases_until_an_instant_are_the_first_ones_and_all_planted_ones(example, cases):
    expected = [case for case in cases if case.at <= example.serve_at or case.is_planted]
    assert list(load_cases(example, until=example.serve_at)) == expected
    assert len(expected) < len(cases)


@pytest.fixture
def demo(example, cases, tmp_path):
    records = build_case_records(example)
    history = prepare_history(tmp_path, example, records, cases, lambda: None)
    with open_stage(records.policy, example.serve_at) as stage:
        yield stage.open_history(history)


def open_client(demo, name):
    client = Asking(create_app(demo.service))
    client.headers["Authorization"] = f"Bearer {demo.keys[name]}"
    return client


def test_an_example_opens_with_something_to_approve_and_goes_on(demo, example, cases):
    rollout = f"/v1/rollouts/{demo.policy.rollout}"
    ana = open_client(demo, "ana")
    proposals = ana.get(f"{rollout}/proposals").json()["items"]
    (proposal, *_) = [item for item in proposals if item["approvals_missing"]]
    body = {"evidence_hash": proposal["evidence_hash"], "reason": "looked at it"}
    answer = ana.post(f"{rollout}/proposals/{proposal['id']}/approvals", json=body)
    assert answer.status_code in {200, 201}, answer.text

    records = build_case_records(example)
    clients = {name: open_client(demo, name) for name in records.find_clients("")}
    request = build_account_request(clients, demo.policy.rollout)
    traffic = CaseTraffic(records, request, example.training_cutoffs, list(demo.scheduled))
    player = DemoPlayer(traffic, demo.clock, cases[demo.next_case :])
    ticking, end = TickScheduler(demo.service.database, "test"), demo.clock.now() + PLAYED
    while demo.clock.now() < end:
        player.step()  # raises if the service refuses a record
        assert ticking.run_due_ticks(demo.clock.now()).errors == {}


@pytest.mark.parametrize("example", WITH_PICTURES, indirect=True)
def test_a_case_of_an_example_with_pictures_shows_one(example, cases):
    media = build_case_records(example).build_media(cases[0])
    assert media["picture"].startswith("data:image/png;base64,")
