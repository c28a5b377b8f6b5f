"""One history with sets, values, planted cases, slices and names: doctor knows it whole."""

import pytest
import sqlalchemy
from msgspec.structs import replace
from sqlalchemy import text

from rollout.data.records.records import RecordStore
from rollout.data.records.versions import VersionStore, build_version_info
from rollout.data.tables.record_tables import APPEND_ONLY
from rollout.engine.decide.commands import Actor
from rollout.engine.records.records import Action, Case, Decision, Outcome, Prediction
from rollout.features.erasure.erasure import ErasureRequest, erase_case
from rollout.features.process.health_checks import run_health_checks
from rollout.features.records.planted_cases import (
    PlantingRequest,
    declare_planted_cases,
    find_planting_faults,
)
from rollout.live.consistency_check import rebuild_derived_tables
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.evidence.unit_counting import queue_new_cases
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker
from rollout.live.versions import record_training_cutoff
from tests.data.conftest import database, url
from tests.data.databases import on_sqlite
from tests.data.snapshots import filled_once
from tests.factories import HOUR, MINUTE, NOON
from tests.live.test_evidence_check import ADMIN, attacking

__all__ = ["database", "url"]
pytestmark = pytest.mark.simulation
POLICY = """
rollout: story
timezone: UTC
levers: [{id: logos, labels: [nike, puma, ikea], many: true, overlap: 50%}]
sites: [shop]
windows: [{id: day, hours: "06:00-14:00"}, {id: night, hours: 24/7}]
stages: [{id: trial, share: 40%, audit: 20%}, {id: half, share: 50%}]
outcomes: [{id: profit, from: -20, to: 60, in: EUR, better: more, closes: 2h}]
slices: [form]
evidence: {unit: case, grace: 1h, outside: blind}
gates:
  - to: trial
    require:
      - {measure: agreement, at_least: 40%}
      - {measure: agreement, slice: form, at_least: 40%}
      - {measure: recall, label: nike, of: planted, at_least: 40%}
  - to: half
    require:
      - {measure: gain, of: profit, at_least: 0}
      - {measure: agreement, at_least: 40%}
guards:
  - {measure: precision, label: puma, at_least: 50%, false_alarm_every: 200}
  - {measure: gain, of: profit, at_least: -1, false_alarm_every: 2000}
tick: 1h
"""
SETS = ("nike", "nike;puma", "(none of them)", "ikea;nike;puma")
CONTENTS = {"v1": "ab" * 32, "v1b": "ab" * 32}
PLANTED = frozenset(f"c{number}" for number in range(20, 26))
END = NOON + 9 * HOUR


def store(database, at, *records):
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, "story")
        batch = RecordStore(transaction, state.rollout).store(records, received_at=at)
        assert {result.status for result in batch.results} == {"accepted"}
        queue_new_cases(transaction, state, batch, at)


def list_records(number):
    """Return the records of a case: some asked about, some decided twice, some without a value."""
    key, at = f"c{number}", NOON + 8 * number * MINUTE
    version = "v1" if number < 12 else "v1b"
    said = SETS[(number + number // 5) % 4]
    window = "day" if at.hour < 14 else "night"
    form = {"form": "old" if number % 3 else "new"}
    asked = {"decider": "model", "exposure": "assisted", "share": 0.4} if number % 4 == 0 else {}
    yield Case(key=key, site="shop", window=window, occurred_at=at, attributes=form)
    yield Prediction(
        key=key, version=version, answers={"logos": said}, confidence=0.9, at=at, **asked
    )
    for reviewer in ("ana", "bo")[: 1 + (number % 5 == 0)]:
        answers, times = {"logos": SETS[number % 4]}, {"submitted_at": at + 5 * MINUTE}
        yield Decision(key=key, reviewer=reviewer, answers=answers, claims="blind",
                       exposure="blind", **times)  # fmt: skip
    if number % 7 != 3:
        yield Outcome(key=key, at=at + HOUR, values={"profit": 10.0 + number})


@filled_once
def tell_history(database, policy=POLICY):
    """Count the cases hour by hour; then let more come that belongs to them."""
    apply_policy(database, policy, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    declare_planted_cases(database, ADMIN, "story", PlantingRequest(PLANTED, "a test"), NOON)
    with database.begin_write() as transaction:
        versions = VersionStore(transaction, load_rollout_state(transaction, "story").rollout)
        for number, name in enumerate(CONTENTS):
            info = build_version_info(name, "records", CONTENTS)
            versions.record_info(info, at=NOON + number * MINUTE)
    ticker = Ticker(database, "story", "one")
    for hour in range(1, 10):
        for number in range(26):
            if NOON + (hour - 1) * HOUR <= NOON + 8 * number * MINUTE < NOON + hour * HOUR:
                store(database, NOON + 8 * number * MINUTE + 6 * MINUTE, *list_records(number))
        ticker.tick(NOON + hour * HOUR)
    add_later_records(database)
    ticker.tick(END + HOUR)


def add_later_records(database):
    """Add what changes no counted unit: a question, corrections, an end of training, an erasure."""
    answer = Prediction(key="c1", version="v1b", answers={"logos": "ikea"}, confidence=0.2, at=END)
    store(database, END, replace(answer, decider="human", exposure="blind", share=0.6))
    store(database, END, replace(answer, key="c2", version="v1", revision=2))
    store(database, END, Outcome(key="c9", at=END, values={"profit": 1.0}, revision=2))
    by_person = {"by": "person", "permission": "person"}
    store(database, END, Action(key="c4", lever="logos", action="nike", at=END, **by_person))
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, "story")
        assert state.first_names == {"v1b": "v1"}
    record_training_cutoff(database, ADMIN, "story", "v1", trained_until=NOON + HOUR, at=END)
    erase_case(database, ErasureRequest(ADMIN, "story", "they asked", END), "c5")


def find_faults(database):
    """Return what doctor finds about the rollout, in one text."""
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "story").rollout
        faults = list(find_planting_faults(transaction, rollout))
    faults += rebuild_derived_tables(database, "story").describe()
    return "\n".join([*faults, *EvidenceCheck(database, "story").check_all().faults])


ONE = "case_id = (select min(case_id) from counted_outcomes where drawn is not null)"
WITHOUT_CASE = {"planted_cases", "counts", "confusion_matrices", "top_losses"}
EDITS = {
    "a set": ("decisions", """answers = '{"logos":"ikea"}'""", "its hash says"),
    "a value": ("outcomes", """outcome_values = '{"profit":59.0}'""", "counted with score"),
    "an arm": ("predictions", "share = 0.9", "counted with drawn"),
    "a mark": ("cases", "planted = true", "is not what its hash says"),
    "a declaration": ("planted_cases", "revision = 1", "planted cases name revision 1"),
    "a class": ("counted_units", "class_ids = '[1,2]'", "counted as"),
    "a slice": ("counted_units", """slices = '{"form":"odd"}'""", "counted with"),
    "a score": ("counted_outcomes", "score = 0.99", "not those of the tick's digest"),
    "a drawn arm": ("counted_outcomes", "drawn = 'model blind 0.3'", "counted with drawn"),
    "a sum": ("counts", "n = n + 1", "by the counted units it is"),
    "a matrix": ("confusion_matrices", "n = n + 1", "by the counted units it is"),
    "a loss": ("top_losses", "confidence = 0.1", "by the counted units it is"),
}


def run(transaction, statement, **names):
    """Run SQL, in which a colon is no parameter."""
    return transaction.execute(text(statement.format(**names).replace(":", r"\:")))


@on_sqlite
def test_doctor_finds_no_fault_in_episodes(database):
    """An end of training that was recorded later takes away no unit of an episode."""
    tell_history(database, POLICY.replace("unit: case", "unit: episode, episode_span: 30m"))
    assert find_faults(database) == ""


@on_sqlite
def test_doctor_finds_no_fault_and_every_edit(database):
    tell_history(database)
    checks = [check for check in run_health_checks(database, rebuilds=True) if check.faults]
    assert [check for check in checks if check.title.startswith("story")] == []
    for name, (table, change, fault) in EDITS.items():
        tables = (table,) if table in APPEND_ONLY else ()
        names = {"table": table, "change": change}
        names["rows"] = "true" if table in WITHOUT_CASE else ONE
        with attacking(database, *tables) as transaction:
            rows = run(transaction, "select * from {table}", **names).mappings().all()
            edited = run(transaction, "update {table} set {change} where {rows}", **names)
            assert edited.rowcount, name
        assert fault in find_faults(database), name
        with attacking(database, *tables) as transaction:
            run(transaction, "delete from {table}", **names)
            # not by a temporary table, which only one of the pool's connections has
            columns = sqlalchemy.table(table, *map(sqlalchemy.column, rows[0]))
            transaction.execute(sqlalchemy.insert(columns), [dict(row) for row in rows])
    report = EvidenceCheck(database, "story").check_all()
    assert (report.faults, report.erased_units > 1, report.units > 60) == ([], True, True)
