"""A second name for a version brings no second try, no second vote, and no way out of a stop."""

from datetime import timedelta

import pytest

from rollout import faults
from rollout.data.counting.counted_units import CountedUnits
from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.assignment import CaseQuestion
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.events import VersionFirstUsed, VersionRenamed
from rollout.kernel.facts import LATER_PREDICTION, OTHER_ANSWER, Trigger
from rollout.live.consistency_check import rebuild_derived_tables
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.api.field_box import action, permissions, send
from tests.api.field_box import case as case_of_field
from tests.api.field_box import prediction as prediction_of_field
from tests.api.records.test_acted_before import CASE_CAME_LATER
from tests.api.records.test_records import case, decision, prediction, sent, sent_apart
from tests.api.test_shell import POLICY
from tests.attacks.test_acts_that_nobody_asked_for import incidents
from tests.client.local_answers import decide_locally, read_scope
from tests.data.databases import on_sqlite
from tests.factories import DAY, HOUR, NOON
from tests.features import bear_field as field

CONTENT = "ab" * 32
BEARS = "/v1/rollouts/bears"


@pytest.fixture
def ramps(database):
    """Apply the policy; return a function that ticks an hour of a day later."""
    apply_policy(database, POLICY, Actor("zoe"), NOON - DAY)

    def tick(day):
        return Ticker(database, "ramps", "one").tick(NOON + day * DAY + HOUR)

    return tick


def predict(client, key, version, label="sound", content=CONTENT, **more):
    (answer,) = sent(client, prediction(key, version, label, content=content, **more))
    assert answer[0] == "accepted", answer


def list_units(database):
    """Return version, key and answers of the units counted on the gate track."""
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "ramps")
        units = CountedUnits(transaction, state.rollout).list_cases(range(1_000_000))
        return [(u.version, u.exclusion_reason) for u in units if u.track == "gate"]


@pytest.mark.slow
@pytest.mark.parametrize("names", [("v1", "v1b"), ("v1b", "v1")])
def test_of_two_names_that_answer_a_case_the_first_received_counts(
    client, clock, database, ramps, names
):
    sent(client, case("c0"))
    predict(client, "c0", "v1")
    ramps(0)
    sent(client, case("c1"))
    for name, label in zip(names, ("damaged", "sound"), strict=True):
        predict(client, "c1", name, label)
        clock.advance(timedelta(seconds=1))
    sent_apart(client, decision("c0"), decision("c1"))
    ramps(1)
    assert list_units(database) == [("v1", None), ("v1", None)], "one unit a case"
    matrix = client.by("viewer").get("/v1/rollouts/ramps/versions/v1b/matrix").json()
    (compared,) = matrix["items"]
    agreement = compared["agreement"]
    assert (matrix["version"], agreement["count"], agreement["n"]) == ("v1", 1, 2)
    (row,) = client.by("ana").get("/v1/rollouts/ramps/versions").json()["items"]
    assert (row["version"], row["other_names"], row["content"]) == ("v1", ["v1b"], CONTENT)
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "ramps")
        events = Ledger(transaction, state.rollout).list_events()
        kinds = [type(e) for e in events if isinstance(e, VersionFirstUsed | VersionRenamed)]
    assert kinds == [VersionFirstUsed, VersionRenamed]
    assert EvidenceCheck(database, "ramps").check_all().faults == []
    assert rebuild_derived_tables(database, "ramps").rows == ()


@pytest.mark.slow
def test_a_content_that_came_after_a_first_question_is_known_too(client, database, ramps):
    question = {"site": "creek", "at": NOON.isoformat(), "version": "v1", "key": "c0"}
    client.by("ingest").post("/v1/rollouts/ramps/assignments", json=question)
    ramps(0)
    sent(client, case("c0"), case("c1"))
    predict(client, "c0", "v1")
    ramps(1)
    predict(client, "c1", "v1b")
    ramps(2)
    scope = load_scope(database)
    assert (dict(scope.aliases), list(scope.versions)) == ({"v1b": "v1"}, ["v1"])


def load_scope(database):
    with database.begin_read() as transaction:
        return load_rollout_state(transaction, "ramps").scope


@on_sqlite
def test_an_earlier_time_in_a_record_makes_no_name_the_first(client, clock, database, ramps):
    """What was counted for v1 would be read by nobody if v1 became a name of v1b."""
    sent(client, case("c0"), case("c1"))
    predict(client, "c0", "v1", at="2027-06-01T12:00:00Z")
    clock.advance(timedelta(minutes=1))
    predict(client, "c1", "v1b", at="2027-06-01T11:00:00Z")
    sent_apart(client, decision("c0"), decision("c1"))
    ramps(1)
    assert (load_scope(database).aliases, list_units(database)) == (
        {"v1b": "v1"},
        [("v1", None), ("v1", None)],
    )


@on_sqlite
def test_a_name_that_comes_while_its_units_are_counted_counts_as_its_version(
    client, database, ramps
):
    sent(client, case("c0"), case("c1"))
    predict(client, "c0", "v1")
    ramps(0)
    sent_apart(client, decision("c0"), decision("c1"))
    with faults.install_action(lambda _: predict(client, "c1", "v1b"), "tick.claimed"):
        ramps(1)
    assert list_units(database) == [("v1", None), ("v1", None)]
    assert load_scope(database).aliases == {"v1b": "v1"}


@pytest.fixture
def bears(database, monkeypatch):
    """A rollout in which v1, of a known content, decides at creek by day."""
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(0))
    at = NOON - DAY
    apply_policy(database, field.POLICY, Actor("zoe"), at, salt=field.SALT)
    field.append(
        database,
        VersionFirstUsed(at=at, by="policy", version="v1", content=CONTENT),
        VersionRenamed(at=at, by="policy", version="v1b", continues="v1", content=CONTENT),
    )
    field.widen(database, ("creek", "day"))


def ask(client, version):
    body = field.question(version=version)
    return client.by("ingest").post(f"{BEARS}/assignments", json=body).json()


def act(client, version):
    """Send the case, a prediction and an action with the permit of a version's question."""
    sent_answer = {**prediction_of_field(), "version": version}
    permit = ask(client, version)["permit"]
    send(client, case_of_field(), sent_answer, {**action(permit), "version": version})


@pytest.mark.usefixtures("bears")
def test_the_grants_hold_under_both_names_and_end_under_both(client, database, door):
    answers = [ask(client, name) for name in ("v1", "v1b")]
    assert [answer["decider"] for answer in answers] == ["model", "model"]
    assert answers[0]["lease"] == answers[1]["lease"]
    snapshot = client.by("ingest").get(f"{BEARS}/scope").json()
    assert [version["other_names"] for version in snapshot["versions"]] == [["v1b"]]
    act(client, "v1b")
    assert permissions(client) == ["authorized"]
    door.let_in("eve", AssignedRole("operator"), AssignedRole("viewer"))
    retirement = client.by("eve").post(f"{BEARS}/versions/v1b/retirement", json={})
    assert [e["body"]["version"] for e in retirement.json()["events"]] == ["v1"]
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "bears")
    assert state.scope.versions["v1"].retired


@pytest.mark.usefixtures("bears")
def test_what_another_name_answered_is_not_acted_against(client):
    careful = prediction_of_field(answers={"alarm": "none"})
    send(client, case_of_field(), careful)
    act(client, "v1b")
    assert permissions(client) == ["unauthorized"], "the evidence is about the first answer"


@on_sqlite
@pytest.mark.usefixtures("bears")
def test_nor_is_an_answer_under_a_name_that_the_ledger_lacks_yet(client):
    ask(client, "v1")
    careful = prediction_of_field(version="v1c", content=CONTENT, answers={"alarm": "none"})
    send(client, case_of_field(), careful)
    act(client, "v1")
    assert permissions(client) == ["unauthorized"]


@on_sqlite
@pytest.mark.usefixtures("bears")
@pytest.mark.parametrize(("label", "found"), [("none", 1), ("bear", 0)])
def test_an_answer_under_another_name_is_judged_also_after_the_action(
    client, database, label, found
):
    act(client, "v1b")
    assert (permissions(client), incidents(database)) == (["authorized"], [])
    for _ in range(2):
        send(client, prediction_of_field(answers={"alarm": label}))
    send(client, prediction_of_field(version="v1b"))
    trigger = Trigger(OTHER_ANSWER, {"later": LATER_PREDICTION})
    assert incidents(database) == [("c1", trigger)] * found


@on_sqlite
@pytest.mark.usefixtures("bears")
@pytest.mark.parametrize(("site", "found"), [("creek", []), ("lake", [CASE_CAME_LATER])])
def test_an_action_under_a_later_name_is_judged_by_the_case_that_comes_later(
    client, database, site, found
):
    sent_answer = {**prediction_of_field(), "version": "v1b"}
    send(client, sent_answer, {**action(ask(client, "v1b")["permit"]), "version": "v1b"})
    send(client, case_of_field(site=site))
    assert [trigger for _, trigger in incidents(database)] == found
    assert permissions(client) == ["authorized"]


@pytest.mark.usefixtures("bears")
def test_a_client_that_decides_by_its_snapshot_knows_both_names(client):
    copied = read_scope(client.by("ingest"), "bears")
    left = timedelta(seconds=30)
    for version, decider in (("v1", "model"), ("v1b", "model"), ("v1c", "human")):
        question = CaseQuestion(site="creek", at=NOON, version=version, key="c1")
        answer = decide_locally(copied, question, now=NOON, time_left=left)
        assert answer.decider == decider, version


@pytest.mark.usefixtures("bears")
def test_a_stop_holds_under_a_new_name(client, database):
    field.stop(database, ("creek", "day"))
    assert ask(client, "v1b")["decider"] == "human"
