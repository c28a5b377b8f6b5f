"""The service draws a case for versions with a sample when it receives it, once, and says so."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from rollout.data.tables.tables import cases, counted_units, external_keys
from rollout.engine.decide.assignment import SAMPLE
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.files.files import RecordPaths
from rollout.engine.records.records import NAMED_BY_DECISION, Case, Prediction
from rollout.features.policies.drafting import (
    DraftRequest,
    read_draft_records,
    recognize_draft_files,
)
from rollout.features.records.ingest import build_reader, ingest_items
from rollout.features.records.record_import import import_records
from rollout.features.replay.requests import ReplayRequest, read_request_records
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.statistics.sampling import compute_sampling_value
from rollout.live.clock import ManualClock
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.evidence.unit_counting import open_stored_history
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker
from tests.factories import HOUR, NOON

POLICY = """
rollout: moles
timezone: UTC
levers: [{id: alarm, labels: [ship, none]}]
sites: [quay, hill]
evidence:
  unit: case
  grace: 2h
  sources: {accounts: [{account: desk, reviewers: ["*"]}]}
versions: [{id: v1, sample: 10%}]
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
tick: 1h
"""
EPISODES = POLICY.replace("unit: case", "unit: episode\n  episode_span: 1h")
WHOLE = POLICY.replace("versions: [{id: v1, sample: 10%}]\n", "")
OWN, SHARED = bytes(range(32)), bytes(32)
BOX, DESK = (
    Caller(name, is_service_account=True, role_assignments=(AssignedRole(role),))
    for name, role in (("box", "ingest"), ("desk", "ingest-decisions"))
)


def is_drawn(unit, share=0.1, version="v1"):
    return compute_sampling_value(OWN, SAMPLE, version, unit) < share


KEYS = [f"c{number}" for number in range(200)]
DRAWN = [key for key in KEYS if is_drawn(key)]
UNDRAWN = [key for key in KEYS if not is_drawn(key)]


class Box:
    """A service whose policy has a version with a sample, and accounts that send."""

    def __init__(self, database, policy=POLICY):
        self.database = database
        apply_policy(database, policy, Actor("zoe"), NOON, salt=SHARED, service_salt=OWN)
        self.service = build_service(database, None, ManualClock(NOON))

    def send(self, *items, at=NOON, by=BOX):
        return ingest_items(self.service, by, "moles", items, at)

    def decide(self, key, at, **place):
        body = {"kind": "decision", "key": key, "reviewer": "ana", "exposure": "blind"}
        body |= {"answers": {"alarm": "ship"}, **place}
        reader = build_reader(self.service, "moles", at)
        return self.send(*reader.read_body(json.dumps([body]).encode()), at=at, by=DESK)

    def list_draws(self):
        """Return by key and revision what was drawn for v1."""
        query = select(external_keys.c.key, cases.c.revision, cases.c.draws)
        query = query.where(external_keys.c.id == cases.c.case_id)
        with self.database.begin_read() as transaction:
            rows = transaction.execute(query).all()
        return {(key, n): None if draws is None else draws["v1"] for key, n, draws in rows}


def a_case(key, at=NOON, **more):
    return Case(key=key, occurred_at=at, window="always", **{"site": "quay", **more})


def a_prediction(key):
    return Prediction(key=key, version="v1", answers={"alarm": "ship"})


@pytest.fixture
def box(database):
    return Box(database)


def test_receipt_names_versions_that_run_on_the_case_also_when_it_is_sent_again(box):
    items = [a_case(DRAWN[0]), a_case(UNDRAWN[0])]
    first, again = box.send(*items), box.send(*items)
    assert [receipt.drawn for receipt in (*first, *again)] == [("v1",), (), ("v1",), ()]
    assert [receipt.status.value for receipt in again] == ["duplicate"] * 2
    assert box.list_draws() == {(DRAWN[0], 1): True, (UNDRAWN[0], 1): False}


def test_sample_has_its_share_of_cases_and_no_client_can_compute_it(box):
    receipts = box.send(*map(a_case, KEYS))
    assert [receipt.drawn == ("v1",) for receipt in receipts] == [*map(is_drawn, KEYS)]
    shared = [compute_sampling_value(SHARED, SAMPLE, "v1", key) < 0.1 for key in KEYS]
    assert shared != [*map(is_drawn, KEYS)]
    assert 8 < len(DRAWN) < 32


def test_first_revision_draws_whatever_the_policy_says_later(box, database):
    late = UNDRAWN[0]
    box.send(a_case(late))
    apply_policy(database, WHOLE, Actor("zoe"), NOON + HOUR)
    box.service = build_service(database, None, ManualClock(NOON + HOUR))
    (receipt,) = box.send(a_case(late, revision=2, site="hill"), at=NOON + HOUR)
    assert receipt.drawn is None  # the policy has no sample any more
    assert box.list_draws() == {(late, 1): False, (late, 2): None}
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "moles")
        history = open_stored_history(transaction, state).load_records()
    assert history.cases.select("site", "draws").rows() == [("hill", '{"v1":false}')]


@pytest.mark.slow
def test_cases_of_an_episode_share_a_draw(database):
    box = Box(database, EPISODES)
    for number in range(40):
        at, episode = NOON - number * HOUR, f"e{number}"
        own = box.send(a_case(f"a{number}", at, episode=episode), a_case(f"b{number}", at))
        again = box.send(a_case(f"c{number}", at, episode=episode), a_case(f"d{number}", at))
        assert [r.drawn for r in own] == [r.drawn for r in again]
    drawn = box.list_draws()
    for number in range(40):
        assert drawn[f"a{number}", 1] == is_drawn(f"e{number}")
    assert 0 < sum(drawn.values()) < 80


@pytest.mark.parametrize(
    ("policy", "rejected"), [(EPISODES, [True, True, False, False, False, False]), (POLICY, [])]
)
def test_nobody_joins_the_span_of_a_site_by_its_name(database, policy, rejected):
    names = ["hill@123", "hill@-5", "hill@", "hill@12a", "lake@123", "123"]
    cases = [a_case(f"c{number}", episode=name) for number, name in enumerate(names)]
    receipts = Box(database, policy).send(*cases)
    assert [r.status == "rejected" for r in receipts] == (rejected or [False] * len(names))
    assert [r.reason.partition(" ")[0] for r in receipts if r.reason] == names[: sum(rejected)]


def test_prediction_of_undrawn_case_is_kept_and_noted(box):
    box.send(a_case(UNDRAWN[0]), a_case(DRAWN[0]))
    undrawn, drawn = box.send(a_prediction(UNDRAWN[0]), a_prediction(DRAWN[0]))
    assert undrawn.reason == "v1 is not drawn for this case: kept, never evidence"
    assert (undrawn.status.value, drawn.reason) == ("accepted", "")


def test_policy_without_samples_answers_and_stores_no_draw(database):
    box = Box(database, WHOLE)
    (receipt,) = box.send(a_case("c1"))
    assert (receipt.drawn, box.list_draws()) == (None, {("c1", 1): None})


def test_case_that_only_a_decision_places_is_drawn(box):
    for key in (DRAWN[0], UNDRAWN[0]):
        box.decide(key, NOON, site="quay")
    assert box.list_draws() == {
        (DRAWN[0], NAMED_BY_DECISION): True,
        (UNDRAWN[0], NAMED_BY_DECISION): False,
    }


def count_units(database):
    query = select(external_keys.c.key, counted_units.c.track)
    query = query.where(external_keys.c.id == counted_units.c.case_id)
    with database.begin_read() as transaction:
        return sorted(map(tuple, transaction.execute(query)))


@pytest.mark.slow
def test_only_drawn_cases_are_counted_and_one_that_is_dropped_is_missing(box, database):
    (predicted, dropped, later), undrawn = DRAWN[:3], UNDRAWN[0]
    box.send(*map(a_case, (predicted, dropped, undrawn)), at=NOON)
    box.send(a_prediction(predicted), a_prediction(undrawn), at=NOON)
    box.decide(predicted, NOON + timedelta(minutes=1))
    box.decide(undrawn, NOON + timedelta(minutes=1))
    ticker = Ticker(database, "moles", "one")
    for hours in range(1, 5):
        ticker.tick(NOON + hours * HOUR)
    box.send(a_case(later, NOON + 4 * HOUR), at=NOON + 4 * HOUR)  # the version is in use
    for hours in range(5, 8):
        ticker.tick(NOON + hours * HOUR)
    units = [(predicted, "gate"), (predicted, "guard"), (dropped, "gate"), (later, "gate")]
    assert count_units(database) == sorted(units)
    assert EvidenceCheck(database, "moles").check_all().faults == []


COLUMNS = "case_key,site,occurred_at,received_at,draws\n"


def write_files(folder, *rows):
    (folder / "cases.csv").write_text(COLUMNS + "\n".join(rows), "utf-8")
    answers = "case_key,model_version,alarm\na,v1,ship\nb,v1,ship\n"
    (folder / "predictions.csv").write_text(answers, "utf-8")
    decided = "case_key,reviewer,alarm,exposure\na,ana,ship,blind\nb,ana,none,blind\n"
    (folder / "decisions.csv").write_text(decided, "utf-8")
    names = ("predictions.csv", "decisions.csv", "cases.csv")
    return RecordPaths(*(Path(folder) / name for name in names))


def test_a_draft_counts_the_drawn_cases(tmp_path):
    draws = ('"{""v1"": true}"', '"{""v1"": false}"')
    at = NOON.isoformat()
    rows = (f"{key},quay,{at},{at},{draw}" for key, draw in zip("ab", draws, strict=True))
    mapped = ("predictions.answer=alarm", "decisions.answer=alarm")
    request = DraftRequest(write_files(tmp_path, *rows), "moles", "UTC", column_mappings=mapped)
    records = read_draft_records(request, recognize_draft_files(request))
    assert records.predictions["case_key"].to_list() == ["a"]
    assert (records.labels.predicted, records.labels.missing) == (1, 0)


def test_files_carry_draws_into_the_service(box, tmp_path):
    at = NOON.strftime("%Y-%m-%dT%H:%M:%SZ")
    paths = write_files(
        tmp_path, f'a,quay,{at},{at},"{{""v1"": true}}"', f'b,quay,{at},{at},"{{""v1"": false}}"'
    )
    records = read_request_records(ReplayRequest(Path(), paths), parse_policy(POLICY))
    import_records(box.database, "moles", records, NOON)
    assert box.list_draws() == {("a", 1): True, ("b", 1): False}
    assert records.cases["draws"].to_list() == ['{"v1": true}', '{"v1": false}']
