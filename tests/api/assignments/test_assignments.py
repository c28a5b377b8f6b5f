"""Who decides, over HTTP: people whenever anything is in doubt, and what was said is kept."""

import json
import sqlite3
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.exceptions import RequestValidationError

from api.app import create_app
from api.assignments.routes import AssignmentResult, _parse_body
from rollout.data.database.append_failures import DatabaseBusyError
from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.assignment import Permit
from rollout.engine.decide.assignment_table import IssuedHead, sign_head
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.events import Resumed
from rollout.live.clock import ManualClock
from rollout.live.rollout_state import load_rollout_state
from rollout.live.service import build_service
from rollout.live.state_cache import MAX_STALENESS
from tests.api.conftest import Asking
from tests.data.databases import on_sqlite
from tests.factories import DAY, MINUTE, NOON
from tests.features import bear_field as field
from tests.features.bear_field import keys, question

URL = "/v1/rollouts/bears/assignments"
OTHER, ALONE = keys(0.1)[0], keys(0.1, below=False)[0]


@pytest.fixture(autouse=True)
def _clocks_agree(monkeypatch):
    """The clock of tests is set; a database's own is not."""
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(0))


@pytest.fixture
def bears(database):
    field.autonomous(database)


def ask(client, key="c1", site="creek", by="ingest", **changed):
    answer = client.by(by).post(URL, json=question(key, site, **changed))
    assert answer.status_code == 200, answer.text
    return AssignmentResult.model_validate(answer.json(), extra="forbid")


def passed(clock, seconds=MAX_STALENESS):
    clock.advance(timedelta(seconds=seconds))


def head_of(database):
    with database.begin_read() as transaction:
        return Ledger(transaction, Rollouts(transaction).find("bears")).load_head()


def predicted(answer="bear", **more):
    return {"answers": {"alarm": answer}, "confidence": 0.9, "latency_ms": 84.0, **more}


def test_the_model_decides_where_it_was_allowed_to(client, service, database, bears):
    told = ask(client, ALONE)
    assert (told.decider, told.stage, told.share) == ("model", "autonomous", 1.0)
    assert (told.revision, told.hash) == (head_of(database).revision, head_of(database).hash)
    assert told.lease == 60.0
    assert (told.issued_at, told.fresh_until) == (NOON, NOON + MINUTE)


@on_sqlite
def test_a_question_that_contradicts_its_prediction_gets_a_human(client, bears):
    assert ask(client, ALONE, confidence=0.9, prediction=predicted()).decider == "model"
    told = ask(client, "other-case", confidence=0.95, prediction=predicted())
    assert told.decider == "human"
    assert "`confidence` is not that of `prediction`" in told.reason


def test_the_answer_says_what_is_done_if_nobody_answers(client, bears):
    (left,) = ask(client, site="dale").unanswered
    assert (left.lever, left.action, left.answer_within) == ("alarm", "siren", 120.0)


def test_at_supervised_a_person_confirms_or_decides_blind(client, bears):
    blind, shown = keys(0.5)[0], keys(0.5, below=False)[0]
    found = [ask(client, key, "dale") for key in (blind, shown)]
    assert [(a.decider, a.exposure) for a in found] == [("human", "blind"), ("human", "assisted")]


def test_the_permit_names_case_version_and_what_was_answered(client, service, bears):
    told = ask(client, ALONE)
    permit = Permit("model", told.revision, NOON, MINUTE)
    assert service.permit_signer.read_permit(told.permit, "bears", ALONE, "v1") == permit
    assert service.permit_signer.read_permit(told.permit, "bears", OTHER, "v1") is None


@on_sqlite
@pytest.mark.parametrize(
    ("changed", "because"),
    [
        ({"site": "moon"}, "unknown site"),
        ({"site": None}, "unknown site"),
        ({"key": None}, "key"),
        ({"version": "v9"}, "a human decides"),
        ({"version": None}, "version"),
        ({"at": None}, "no time"),
        ({"at": "2027-06-01T12:00:00"}, "no zone"),
        ({"at": (NOON + DAY).isoformat()}, "5 min"),
        ({"at": (NOON - DAY).isoformat()}, "5 min"),
    ],
)
def test_whatever_is_unknown_or_missing_is_a_persons(client, bears, changed, because):
    answer = client.by("ingest").post(URL, json=question(**changed))
    assert answer.status_code == 200
    told = AssignmentResult.model_validate(answer.json())
    assert told.decider == "human"
    assert because in told.reason


def test_a_rollout_that_is_not_there_is_peoples_to_who_may_see_it(client, door, bears):
    url = "/v1/rollouts/none/assignments"
    told = client.by("ingest").post(url, json=question()).json()
    assert (told["decider"], told["lease"], told["permit"]) == ("human", 0.0, None)
    door.let_in("box", AssignedRole("ingest", "bears"), machine=True)
    assert client.by("box").post(url, json=question()).status_code == 404


def test_each_site_is_asked_for_by_who_may(client, door, bears):
    door.let_in("box", AssignedRole("ingest", "bears", "creek"), machine=True)
    assert ask(client, by="box").decider == "model"
    both = {"questions": [question(), question(site="lake")]}
    refused = client.by("box").post(URL, json=both)
    assert (refused.status_code, refused.json()["code"]) == (403, "not-allowed")
    assert "lake" in refused.json()["detail"]
    assert client.by("viewer").post(URL, json=question()).status_code == 403


def test_many_are_answered_in_their_order_as_each_alone(client, bears):
    asked = [question(str(n), site) for n in range(40) for site in ("creek", "dale", "moon")]
    together = client.by("ingest").post(URL, json={"questions": asked}).json()["answers"]
    alone = [client.post(URL, json=one).json() for one in asked]
    assert together == alone
    assert {a["decider"] for a in together} == {"human", "model"}
    assert client.post(URL, json={"questions": []}).json() == {"answers": []}


def test_quotes_in_a_key_stay_quotes(client, bears):
    key = 'a"b\\c\u2028é'
    assert ask(client, key).key == key


@on_sqlite
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"questions": {}}',
        b'{"questions": null}',
        b'{"questions": [], "key": "c1"}',
        b'{"key": 5}',
        b'{"confidence": "sure"}',
        b'{"nonsense": 1}',
        b'{"at": "yesterday"}',
        b'{"key": "' + b"k" * 201 + b'"}',
        b'{"questions": [{"key": "a"}, {"ledger_head": {}}]}',
    ],
)
def test_a_body_of_another_form_is_a_problem(client, bears, body):
    answer = client.by("ingest").post(URL, content=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "malformed")
    assert answer.json()["faults"]


# Doubt about the replica itself


def test_a_stop_holds_for_the_first_question_past_half_a_second(client, database, clock, bears):
    assert ask(client, ALONE).decider == "model"
    field.stop(database, ("creek", "day"))
    passed(clock)
    assert ask(client, ALONE).decider == "human"


def test_without_the_database_people_decide(client, service, clock, monkeypatch, bears):
    assert ask(client, ALONE).decider == "model"

    @contextmanager
    def gone():
        raise DatabaseBusyError("no connection")
        yield

    monkeypatch.setattr(type(service.database), "begin_read", lambda _: gone())
    assert ask(client, ALONE).decider == "model"  # confirmed a moment ago
    passed(clock)
    told = ask(client, ALONE)
    assert (told.decider, told.permit) == ("human", None)
    assert "can't be asked" in told.reason


def test_a_replica_whose_clock_is_off_lets_people_decide(client, clock, monkeypatch, bears):
    assert ask(client, ALONE).decider == "model"
    off = timedelta(seconds=5, microseconds=1)
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: off)
    passed(clock, 6)
    told = ask(client, ALONE)
    assert told.decider == "human"
    assert "clock" in told.reason
    assert ask(client, ALONE).decider == "human"  # also from memory
    monkeypatch.setattr(
        "rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(seconds=5)
    )
    passed(clock, 6)
    assert ask(client, ALONE).decider == "model"


def test_clocks_are_compared_every_few_seconds_and_not_at_each_question(
    client, clock, monkeypatch, bears
):
    asked = []
    monkeypatch.setattr(
        "rollout.live.state_cache.measure_clock_skew",
        lambda *_: asked.append(1) or timedelta(0),
    )
    for _ in range(20):
        ask(client, ALONE)
        passed(clock)
    assert len(asked) == 2


def test_what_the_client_has_seen_is_no_doubt_while_the_chain_holds_it(client, bears):
    told = ask(client, ALONE)
    seen = {"revision": told.revision, "hash": told.hash}
    assert ask(client, ALONE, ledger_head=seen).decider == "model"
    assert ask(client, ALONE, ledger_head={"revision": 0, "hash": ""}).decider == "model"


def test_a_head_that_another_replica_showed_is_looked_up_before_anybody_doubts(
    client, database, bears
):
    ask(client, ALONE)
    field.widen(database, ("creek", "night"))
    head = head_of(database)
    told = ask(client, ALONE, ledger_head={"revision": head.revision, "hash": head.hash})
    assert (told.decider, told.revision) == ("model", head.revision)


def head_from(answer):
    return {"revision": answer.revision, "hash": answer.hash, "code": answer.head_code}


def lost_head(service, ahead=1, *, era=1, rollout="bears", row_hash="f" * 64):
    """Return a head with a code, as the service gave it out before rows were lost."""
    key = service.permit_signer.load_signing_key()
    revision = head_of(service.database).revision + ahead
    head = IssuedHead(rollout, era, revision, row_hash)
    code = sign_head(head, key.secret, key.number)
    return {"revision": revision, "hash": row_hash, "code": code}


@pytest.mark.parametrize("ahead", [0, 1], ids=["another hash", "a later row"])
def test_a_ledger_that_was_set_back_stops_everybody_once_one_client_brings_its_head(
    client, service, database, clock, bears, ahead
):
    lost = lost_head(service, ahead)
    rewound = ask(client, ALONE, ledger_head=lost)
    assert (rewound.decider, rewound.lease) == ("human", 0.0)
    assert "set back" in rewound.reason
    assert [ask(client, ALONE, site).decider for site in ("creek", "lake")] == ["human"] * 2
    assert (ask(client, ALONE).era, ask(client, ALONE).stage) == (2, "shadow")
    ask(client, ALONE, ledger_head=lost)  # of a lost era now: nothing is found twice
    assert [(i.kind, i.about) for i in incidents(database)] == [("ledger_rolled_back", "ingest")]


@pytest.mark.parametrize(
    "forge",
    [
        lambda head: {name: part for name, part in head.items() if name != "code"},
        lambda head: head | {"code": ""},
        lambda head: head | {"revision": head["revision"] + 1},
        lambda head: head | {"code": head["code"].replace("1.1.", "1.2.")},
        lambda head: head | {"code": "1.1." + "0" * 32},
    ],
    ids=["none sent", "no code", "another row's code", "another era's", "made up"],
)
@on_sqlite
def test_a_forged_head_stops_nobody_but_its_client(client, service, database, bears, forge):
    rewound = ask(client, ALONE, ledger_head=forge(lost_head(service)))
    assert (rewound.decider, rewound.lease) == ("human", 0.0)
    assert [(i.kind, i.about) for i in incidents(database)] == [("ledger_rolled_back", "ingest")]
    others = ask(client, ALONE)
    assert (others.decider, others.era) == ("model", 1)


@pytest.mark.slow
@on_sqlite
def test_forged_heads_beyond_the_open_incidents_are_counted(client, door, service, database, bears):
    """Seen: the incidents of all clients but the first 50 were dropped unsaid."""
    forged = lost_head(service) | {"code": ""}
    for n in range(53):
        door.let_in(f"box-{n}", AssignedRole("ingest"), machine=True)
        for _ in range(2):
            assert ask(client, ALONE, by=f"box-{n}", ledger_head=forged).decider == "human"
    found = client.by("viewer").get("/v1/rollouts/bears/incidents?limit=200").json()["items"]
    assert (len(found), {incident["unopened"] for incident in found}) == (50, {3})


@on_sqlite
def test_the_head_of_another_rollout_stops_nobody(client, service, bears):
    assert ask(client, ledger_head=lost_head(service, rollout="ramps")).decider == "human"
    assert ask(client, ALONE).era == 1


@on_sqlite
def test_a_client_goes_on_after_the_restore_with_the_head_that_it_has(
    client, service, database, clock, bears
):
    lost = lost_head(service)
    ask(client, ALONE, ledger_head=lost)
    with database.begin_read() as transaction:
        (stop,) = load_rollout_state(transaction, "bears").scope.stops
    field.append(database, Resumed(at=NOON, by="policy", stop=stop, proposal="P-9"))
    passed(clock)
    again = ask(client, ALONE, ledger_head=lost)
    assert (again.decider, again.era) == ("model", 2)
    assert ask(client, ALONE, ledger_head=head_from(again)).decider == "model"


@on_sqlite
def test_a_client_that_sends_no_code_goes_on_while_its_head_is_ours(client, database, clock, bears):
    told = ask(client, ALONE)
    field.widen(database, ("creek", "night"))
    passed(clock)
    plain = {"revision": told.revision, "hash": told.hash}
    assert ask(client, ALONE, ledger_head=plain).decider == "model"
    assert not incidents(database)


def copy_file(url):
    """Return a copy of an SQLite database as it is now."""
    file = Path(url.removeprefix("sqlite:///"))
    copy = file.with_name("copy.db")
    with closing(sqlite3.connect(file)) as live, closing(sqlite3.connect(copy)) as written:
        live.backup(written)
    return copy


def put_back(copy, url, database):
    file = Path(url.removeprefix("sqlite:///"))
    database.close()
    for part in file.parent.glob(f"{file.name}-*"):
        part.unlink()
    copy.replace(file)


@on_sqlite
def test_an_older_copy_put_back_under_a_running_service_stops_everybody(
    client, service, database, url, door, clock, bears
):
    """Row 3 of the attack: the copy forgets a stop, and one client alone remembers it."""
    copy = copy_file(url)
    field.stop(database, ("creek", "day"))
    passed(clock)
    box = head_from(ask(client, ALONE))
    assert ask(client, ALONE).decider == "human"
    put_back(copy, url, database)
    restarted = build_service(database, door, clock, entropy=bytes)
    with Asking(create_app(restarted)) as elsewhere:
        assert ask(elsewhere, ALONE).decider == "model"  # the lost stop is forgotten
        assert ask(elsewhere, ALONE, "lake", ledger_head=box).decider == "human"
        assert ask(elsewhere, ALONE).decider == "human"
    passed(clock)
    replica_that_ran = ask(client, ALONE)
    assert (replica_that_ran.decider, replica_that_ran.era) == ("human", 2)


@on_sqlite
def test_a_replica_that_read_the_lost_rows_stops_everybody_without_a_client(
    client, database, url, clock, bears
):
    copy = copy_file(url)
    field.stop(database, ("creek", "day"))
    passed(clock)
    assert ask(client, ALONE).decider == "human"
    put_back(copy, url, database)
    passed(clock)
    assert (ask(client, ALONE, "lake").decider, ask(client, ALONE).era) == ("human", 2)
    assert [i.about for i in incidents(database)] == [""]


def incidents(database):
    with database.begin_read() as transaction:
        return list(load_rollout_state(transaction, "bears").scope.open_incidents.values())


def test_the_answer_changes_within_a_second_of_a_change_on_every_replica(
    client, other, door, database, clock, bears
):
    second = ManualClock(NOON)
    with Asking(create_app(build_service(other, door, second, entropy=bytes))) as elsewhere:
        boxes = [client.by("ingest"), elsewhere.by("ingest")]
        night = question(ALONE, at=NOON.replace(hour=21).isoformat())
        clock.at = second.at = NOON.replace(hour=21)

        def deciders():
            return [box.post(URL, json=night).json()["decider"] for box in boxes]

        assert deciders() == ["human", "human"]
        field.widen(database, ("creek", "night"))
        passed(clock, 1)
        passed(second, 1)
        assert deciders() == ["model", "model"]
        field.stop(other, ("creek", "night"), at=NOON.replace(hour=22))
        passed(clock, 1)
        passed(second, 1)
        assert deciders() == ["human", "human"]


@pytest.mark.slow
def test_the_operation_has_examples_that_are_answered(client, bears):
    described = client.get("/openapi.json").json()["paths"]
    post = described["/v1/rollouts/{rollout}/assignments"]["post"]
    forms = post["requestBody"]["content"]["application/json"]["schema"]["anyOf"]
    for form in forms:
        sent = {name: part for name, part in form["example"].items() if name != "ledger_head"}
        assert client.by("ingest").post(URL, json=sent).status_code == 200
    assert "$ref" not in str(forms)


def test_many_wrong_answers_are_refused_before_each_is_described():
    question = {"site": "creek", "at": "2027-06-01T12:00Z", "key": "k", "version": "v1"}
    wrong = {**question, "prediction": {"answers": {f"a{n}": {} for n in range(100)}}}
    with pytest.raises(RequestValidationError) as refusal:
        _parse_body(json.dumps({"questions": [wrong] * 100}).encode())
    assert {fault["loc"][:2] for fault in refusal.value.errors()} == {("questions", 0)}
    wrong["prediction"]["answers"] = {f"a{n}": {} for n in range(1_001)}
    for body in (wrong, {"questions": [wrong]}):
        with pytest.raises(RequestValidationError, match="at most 1000 members; send fewer"):
            _parse_body(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("confidence", "name"), [("NaN", "a{}"), ("-Infinity", "a{}"), ("1e999", "a{}"), ("0.5", "a")]
)
def test_a_body_that_another_parser_reads_otherwise_is_refused_as_soon(confidence, name):
    answers = ",".join(f'"{name.format(n)}":{{}}' for n in range(1_001))
    body = f'{{"key":"k","confidence":{confidence},"prediction":{{"answers":{{{answers}}}}}}}'
    with pytest.raises(RequestValidationError, match="at most 1000 members; send fewer"):
        _parse_body(body.encode())
