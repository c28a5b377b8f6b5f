"""Evidence that somebody edits in the database is found, however it was edited."""

from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest
from sqlalchemy import Text, func, select, text, type_coerce, update

from rollout.data.counting.counted_units import read_unit_lines
from rollout.data.counting.purge import open_purge
from rollout.data.database.session import Database
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.record_check import _compute_hashes, _select_records
from rollout.data.records.record_rows import RECORD_SCHEMAS
from rollout.data.tables import tables
from rollout.data.tables.record_tables import build_triggers
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.events import IncidentOpened, ProposalRaised, RecordsCounted
from rollout.engine.records.records import Decision
from rollout.features.erasure.erasure import ErasureRequest, erase_case, erase_name
from rollout.kernel.calendar.instants import to_instant
from rollout.kernel.policy.policy import Retention
from rollout.live import rollout_state
from rollout.live.evidence import evidence_seals, live_evidence
from rollout.live.evidence.evidence_seals import SealedSpans
from rollout.live.evidence.live_evidence import EvidenceCheck, sample_evidence
from rollout.live.retention import purge_old_records
from rollout.live.rollout_state import load_rollout_state, parse_stored_policy
from tests.data.databases import ENGINES, fresh
from tests.data.snapshots import filled_once
from tests.live.test_consistency_check import HISTORY, SLOTS
from tests.live.test_live import begun, written

HOUR = timedelta(hours=1)
DECISIONS = RECORD_SCHEMAS[Decision]


@pytest.fixture(params=ENGINES)
def database(request, tmp_path):
    """Return a database whose rollout was ticked each few hours until it proposed."""
    with fresh(request.param, tmp_path) as url:
        made = Database(url)
        tick_often(made)
        yield made
        made.close()


@filled_once
def tick_often(database):
    ticker = begun(database, HISTORY, SLOTS[0])
    for slot in (*SLOTS[:: len(SLOTS) // 4], SLOTS[-1]):
        ticker.tick(to_instant(slot, HOUR))


@contextmanager
def attacking(database, *names):
    """Begin a transaction in which these tables may be changed; put their triggers back."""
    with database.begin_write() as transaction:
        triggers = {name: build_triggers(transaction.engine, name) for name in names}
        for name, statements in triggers.items():
            for trigger in statements:
                on = "" if transaction.engine == "sqlite" else f" on {name}"
                transaction.execute(text(f"drop trigger {trigger}{on}"))
        yield transaction
        for statements in triggers.values():
            for statement in statements.values():
                transaction.execute(text(statement))


def checked(database):
    return EvidenceCheck(database, "story").check_all()


def counted_decision(transaction):
    """Return the condition for one decision that was counted as evidence."""
    unit = tables.counted_units
    case_id = transaction.execute(
        select(func.min(unit.c.case_id)).where(unit.c.reviewer.is_not(None))
    ).scalar_one()
    decision = tables.decisions
    reviewer = (
        transaction.execute(
            select(unit.c.reviewer).where(unit.c.case_id == case_id, unit.c.reviewer.is_not(None))
        )
        .scalars()
        .first()
    )
    return (decision.c.case_id == case_id) & (decision.c.reviewer == reviewer)


def change_decision(database, **values):
    with attacking(database, "decisions") as transaction:
        condition = counted_decision(transaction)
        assert transaction.execute(
            update(tables.decisions).where(condition).values(**values)
        ).rowcount


@pytest.mark.slow
def test_an_untouched_rollout_has_no_difference(database):
    report = checked(database)
    assert report.fault_count == 0, report.faults
    assert (report.records > 0, report.units > 0, report.erased_units) == (True, True, 0)
    events = written(database)
    counted = [event for event in events if isinstance(event, RecordsCounted)]
    assert len(counted) > 1
    assert all(event.records and event.digest for event in counted)


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {"answers": {"alarm": "wolf"}},
        {"exposure": "revealed"},
        {"reviewer": "somebody"},
        {"received_at": to_instant(0, HOUR)},
        {"review": 7},
    ],
    ids=lambda values: next(iter(values)),
)
def test_an_edit_of_one_column_is_found(database, values):
    change_decision(database, **values)
    faults = checked(database).faults
    assert any("the decision of case" in fault and "its hash says" in fault for fault in faults)


def rehash(transaction, condition):
    """Give the edited decision the right hash, as somebody would who knows the program."""
    rollout = load_rollout_state(transaction, "story").rollout
    case_id = transaction.execute(select(tables.decisions.c.case_id).where(condition)).scalar_one()
    query = _select_records(transaction, rollout, DECISIONS, [case_id]).where(condition)
    rows = [row._asdict() for row in transaction.execute(query)]
    (record_hash,) = _compute_hashes(DECISIONS, rows)
    transaction.execute(update(tables.decisions).where(condition).values(record_hash=record_hash))


@pytest.mark.slow
def test_an_edit_with_the_right_hash_is_found_by_the_unit(database):
    with attacking(database, "decisions") as transaction:
        condition = counted_decision(transaction)
        transaction.execute(update(tables.decisions).where(condition).values(exposure="revealed"))
        rehash(transaction, condition)
    faults = checked(database).faults
    assert not any("not what its hash says" in fault for fault in faults)
    assert any("changed or are missing" in fault for fault in faults)


@pytest.mark.slow
def test_an_edit_with_the_right_hashes_everywhere_is_found_by_the_digest(database):
    with attacking(database, "decisions", "counted_units") as transaction:
        condition = counted_decision(transaction)
        query = select(tables.decisions).where(condition)
        before = transaction.execute(query).one()
        transaction.execute(update(tables.decisions).where(condition).values(note="edited"))
        rehash(transaction, condition)
        after = transaction.execute(query).one()
        units = tables.counted_units
        of_case = units.c.case_id == before.case_id
        for row in transaction.execute(select(units).where(of_case)).all():
            parts = [row.record_hashes[n : n + 32] for n in range(0, len(row.record_hashes), 32)]
            parts = sorted(after.record_hash if p == before.record_hash else p for p in parts)
            own = of_case & (units.c.track == row.track) & (units.c.version == row.version)
            transaction.execute(update(units).where(own).values(record_hashes=b"".join(parts)))
    faults = checked(database).faults
    assert not any("hash says" in fault or "missing" in fault for fault in faults)
    assert any("not those of the tick's digest" in fault for fault in faults)


def test_a_deleted_record_is_found(database):
    with database.begin_write() as transaction, open_purge(transaction):
        condition = counted_decision(transaction)
        assert transaction.execute(tables.decisions.delete().where(condition)).rowcount
    assert any("changed or are missing" in fault for fault in checked(database).faults)


@pytest.mark.slow
def test_a_unit_that_its_records_dont_give_is_found(database):
    with attacking(database, "counted_units") as transaction:
        units = tables.counted_units
        first, other = transaction.execute(
            select(type_coerce(units.c.class_ids, Text)).distinct().limit(2)
        ).scalars()
        transaction.execute(
            update(units)
            .where(type_coerce(units.c.class_ids, Text) == first)
            .values(class_ids=[int(part) for part in other.strip("[]").split(",")])
        )
    faults = checked(database).faults
    assert any("its records give" in fault for fault in faults)
    assert any("not those of the tick's digest" in fault for fault in faults)


@pytest.mark.slow
def test_a_unit_with_another_reviewer_than_its_decision_is_found(database):
    with attacking(database, "counted_units") as transaction:
        units = tables.counted_units
        is_judged = (units.c.track == "gate") & units.c.reviewer.is_not(None)
        statement = update(units).where(is_judged).values(reviewer="another")
        assert transaction.execute(statement).rowcount
    faults = checked(database).faults
    assert any("counted with reviewer another" in fault for fault in faults)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"definition": "of another policy"}, "no policy in force has the definition"),
        ({"version": "v9"}, "its series is of gate and v9"),
        ({"track": "guard", "definition": "another"}, "its series is of guard and v1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_series_that_is_not_that_of_its_units_is_found(database, values, said):
    with database.begin_write() as transaction:
        units, series = tables.counted_units, tables.count_series
        is_gate = (units.c.track == "gate") & (units.c.version == "v1")
        number = transaction.execute(select(func.min(units.c.series_id)).where(is_gate)).scalar()
        transaction.execute(update(series).where(series.c.id == number).values(**values))
    assert any(said in fault for fault in checked(database).faults)


def test_purged_content_is_no_difference_and_stands_in_its_event(database, monkeypatch):
    last = to_instant(SLOTS[-1], HOUR)
    keep_for_a_day(monkeypatch)
    assert purge_old_records(database, "story", last + timedelta(days=400))
    report = checked(database)
    assert (report.fault_count, report.units) == (0, 0), report.faults
    assert report.erased_units > 0
    assert f"events {written_revision(database)}" in report.summarize()


def test_hashes_of_a_purge_that_are_changed_are_found(database, monkeypatch):
    keep_for_a_day(monkeypatch)
    purge_old_records(database, "story", to_instant(SLOTS[-1], HOUR) + timedelta(days=400))
    with attacking(database, "erased_hashes") as transaction:
        transaction.execute(update(tables.erased_hashes).values(hashes=bytes(32)))
    faults = checked(database).faults
    assert any("not those of its digest" in fault for fault in faults)
    assert any("changed or are missing" in fault for fault in faults)


def written_revision(database):
    with database.begin_read() as transaction:
        return load_rollout_state(transaction, "story").scope.revision


def keep_for_a_day(monkeypatch):
    """Give the policy in force a retention of a day."""

    def load(transaction, name):
        state = load_rollout_state(transaction, name)
        return replace(state, policy=replace(state.policy, retention=Retention(timedelta(days=1))))

    monkeypatch.setattr(rollout_state, "load_rollout_state", load)


@pytest.mark.slow
def test_a_sample_finds_an_edit(database):
    chance = Random(1)  # noqa: S311 - a seeded test
    assert EvidenceCheck(database, "story").check_sample(99, chance).fault_count == 0
    change_decision(database, exposure="revealed")
    assert EvidenceCheck(database, "story").check_sample(99, chance).fault_count


def find_largest_tick(database):
    """Return how many units the largest tick counted, and the highest case that it alone has."""
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "story")
        (spans,) = SealedSpans(database, state).iterate_parts()
        lines = [
            list(read_unit_lines(transaction, state.rollout, after=span.after, until=span.until))
            for span in spans
        ]
    *others, largest = sorted(lines, key=len)
    other_cases = {unit.case_id for units in others for unit in units}
    return len(largest), max({unit.case_id for unit in largest} - other_cases)


def sample_ticks(database, seed):
    """Check each tick as a sample does, with a seed."""
    return EvidenceCheck(database, "story").check_sample(99, Random(seed))  # noqa: S311


@pytest.mark.slow
def test_a_sample_reads_runs_of_a_large_tick_and_finds_an_edit_of_its_highest_case(
    database, monkeypatch
):
    monkeypatch.setattr(live_evidence, "MAX_SAMPLED_LINES", 100)
    monkeypatch.setattr(live_evidence, "LINES_PER_RUN", 80)
    monkeypatch.setattr(live_evidence, "CASES_PER_READ", 8)
    case_counts, find_changed = [], live_evidence.find_changed_records

    def count_cases(transaction, rollout, schema, case_ids):
        case_counts.append(len(case_ids))
        return find_changed(transaction, rollout, schema, case_ids)

    monkeypatch.setattr(live_evidence, "find_changed_records", count_cases)
    unit_count, case_id = find_largest_tick(database)
    report = sample_ticks(database, 0)
    all_units = checked(database).units
    assert (report.large_ticks, report.fault_count) == (2, 0), report.faults
    assert unit_count > 200
    assert (report.units + report.unread_lines, report.units < all_units) == (all_units, True)
    assert f"{report.unread_lines} units, actions and outcomes of 2 large ticks" in (
        report.summarize()
    )
    assert max(case_counts[: -len(RECORD_SCHEMAS)]) <= 8
    with attacking(database, "cases") as transaction:
        is_highest = tables.cases.c.case_id == case_id
        values = {"received_at": to_instant(0, HOUR)}
        assert transaction.execute(update(tables.cases).where(is_highest).values(**values)).rowcount
    finds, seeds = set(), iter(range(20))
    while finds != {True, False}:  # as each sample reads another part
        finds.add(bool(sample_ticks(database, next(seeds)).faults))


@pytest.mark.parametrize(("size", "limit"), [(50, 7), (7, 7), (3, 7), (0, 7)])
def test_each_line_of_a_large_tick_is_as_likely_to_be_read(size, limit, monkeypatch):
    monkeypatch.setattr(live_evidence, "LINES_PER_RUN", limit)
    chance = Random(3)  # noqa: S311 - a seeded test
    runs = [live_evidence._draw_run(size, chance) for _ in range(8_000)]
    assert all(len(run) <= limit and set(run) <= set(range(size)) for run in runs)
    shares = [sum(position in run for run in runs) / len(runs) for position in range(size)]
    expected = 1 if size <= limit else limit / (size + limit - 1)
    assert all(abs(share - expected) < 0.02 for share in shares), shares


@pytest.mark.slow
def test_a_scheduled_sample_opens_one_incident(database):
    at = to_instant(SLOTS[-1], HOUR) + HOUR
    assert sample_evidence(database, at) == {}
    change_decision(database, exposure="revealed")
    while not sample_evidence(database, at):
        pass  # it takes 20 ticks of all, at random
    sample_evidence(database, at + HOUR)
    opened = [event for event in written(database) if isinstance(event, IncidentOpened)]
    assert [event.kind for event in opened] == ["evidence_changed"]


def test_readings_that_the_units_dont_give_are_found(database, monkeypatch):
    proposals = [event for event in written(database) if isinstance(event, ProposalRaised)]
    assert any(event.cell is not None and event.records_digest for event in proposals)
    monkeypatch.setattr(evidence_seals, "parse_stored_policy", parse_doubled)
    faults = checked(database).faults
    assert any("the counted units give" in fault for fault in faults)


def parse_doubled(text):
    """Return a policy that asks for more: its readings have other thresholds."""
    return parse_stored_policy(text.replace("at_least: 50%}], risk", "at_least: 51%}], risk"))


ADMIN = Caller("ada", role_assignments=(AssignedRole("admin"),))


def find_counted(database):
    """Return the key of a counted case, and its reviewer."""
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "story").rollout
        row = transaction.execute(
            select(tables.decisions).where(counted_decision(transaction))
        ).first()
        return ExternalKeys(transaction, rollout).find_keys({row.case_id})[
            row.case_id
        ], row.reviewer


@pytest.mark.slow
def test_an_erased_case_and_an_erased_name_are_no_difference(database):
    key, reviewer = find_counted(database)
    before = checked(database)
    at = to_instant(SLOTS[-1], HOUR) + HOUR
    request = ErasureRequest(ADMIN, "story", "they asked", at)
    erase_case(database, request, key)
    erase_name(database, request, reviewer)
    report = checked(database)
    assert report.fault_count == before.fault_count, report.faults
    assert report.erased_units > before.erased_units == 0
    assert report.units < before.units


def test_content_that_is_edited_under_cover_of_an_erasure_is_found(database):
    _, reviewer = find_counted(database)
    at = to_instant(SLOTS[-1], HOUR) + HOUR
    erase_name(database, ErasureRequest(ADMIN, "story", "they asked", at), reviewer)
    change_decision(database, answers={"alarm": "wolf"})
    assert any("its records give" in fault for fault in checked(database).faults)


def test_a_record_without_random_bytes_and_without_an_erasure_is_found(database):
    change_decision(database, salt=None)
    assert any("lost its random bytes" in fault for fault in checked(database).faults)
