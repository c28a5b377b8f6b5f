"""Who knows which cases will be audited answers only those well: nobody who predicts may know."""

import pytest

from rollout.data.records.external_keys import ExternalKeys
from rollout.data.reviews.reviews import ReviewTaskStore
from rollout.kernel.statistics.sampling import compute_sampling_value
from rollout.live.rollout_state import load_rollout_state
from rollout_client import EdgeClient
from tests.api.assignments.autonomous_bears import clocks_agree
from tests.api.field_box import BEARS, case, prediction, send
from tests.client.edge_clients import MovableClocks
from tests.factories import HOUR, NOON
from tests.features import bear_field as field

pytestmark = pytest.mark.slow

__all__ = ["clocks_agree"]

OWN = bytes(range(100, 132))
STAGES = "stages: [{id: supervised, blind: 50%}, {id: autonomous, audit: 30%}]"
POLICY = field.POLICY.replace("sites:", f"{STAGES}\nsites:")
KEYS = [f"k{number}" for number in range(60)]
ANSWERED = {"answers": {"alarm": "bear"}}


def is_audited(key):
    return compute_sampling_value(OWN, "audit", key) < 0.3


@pytest.fixture
def bears(database, monkeypatch):
    field.set_up_field(database, policy=POLICY, service_salt=OWN)
    field.widen(database, ("creek", "day"))


def list_asked(database):
    """Return the keys of cases about which humans are asked."""
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "bears").rollout
        ids = ExternalKeys(transaction, rollout).find_ids(KEYS)
        tasks = ReviewTaskStore(transaction, rollout).list_of_cases(ids.values())
    asked = {task.case_id for task in tasks}
    return {key for key, case_id in ids.items() if case_id in asked}


def test_audits_are_drawn_by_a_salt_that_clients_do_not_get(client, database, bears):
    send(client, *map(case, KEYS), *map(prediction, KEYS))
    audited = {key for key in KEYS if is_audited(key)}
    assert list_asked(database) == audited
    shared = client.by("ingest").get(f"{BEARS}/scope").json()["salt"]
    foretold = {
        key
        for key in KEYS
        for purpose in ("stage", "audit")
        if compute_sampling_value(bytes.fromhex(shared), purpose, key) < 0.3
    }
    assert audited - foretold
    assert foretold - audited


def test_no_answer_tells_audited_cases_from_others(client, bears):
    questions = [field.question(key, prediction=ANSWERED) for key in KEYS]
    for body in questions, [question | {"prediction": None} for question in questions]:
        answer = client.by("ingest").post(f"{BEARS}/assignments", json={"questions": body}).json()
        told = [{**each, "key": "", "permit": ""} for each in answer["answers"]]
        assert told == [told[0]] * len(KEYS)


def test_a_client_that_decides_by_itself_gets_one_answer_for_all(client, bears):
    body = client.by("ingest").get(f"{BEARS}/scope", params={"form": "table-1"}).json()
    edge = EdgeClient("creek", lambda _: body, MovableClocks(wall=NOON))
    edge.renew()
    answers = {edge.decide("creek", NOON, "v1", key)[:6] for key in KEYS}
    assert [(answer[0], answer[3]) for answer in answers] == [("model", 1.0)]


def test_who_predicts_learns_of_audits_when_the_case_has_closed(client, clock, bears):
    send(client, *map(case, KEYS), *map(prediction, KEYS))

    def read_asked(account):
        answers = [client.by(account).get(f"{BEARS}/cases/{key}").json() for key in KEYS]
        return [answer["asked"] for answer in answers]

    assert read_asked("viewer") == [is_audited(key) for key in KEYS]  # sends no predictions
    assert read_asked("ingest") == [None] * len(KEYS)
    clock.advance(30 * 24 * HOUR)
    assert read_asked("ingest") == [is_audited(key) for key in KEYS]
