"""Alarms, and units of checked reviewers, are counted again; an edit of either is found."""

import pytest
from sqlalchemy import select, update

from rollout.core.calendar.instants import to_micros
from rollout.core.scope.events import IncidentOpened, Narrowed
from rollout.formats.policy.reader import parse_policy
from rollout.services.engine import reviewer_recount
from rollout.services.engine.evidence_check import EvidenceCheck
from rollout.services.engine.reviewer_recount import compute_reviewer_checks
from rollout.store.tables.append_only import APPEND_ONLY
from rollout.store.tables.tables import counted_units, ledger_texts
from rollout.tally.slots import to_instant
from tests.factories import HOUR
from tests.replay.stories import a_history
from tests.services.engine.test_evidence_check import attacking
from tests.services.engine.test_live import all_at_first, live, replayed, written
from tests.services.engine.test_live_checks import AFTER, CHECKED, STEADY, careless
from tests.store.conftest import database, url
from tests.store.databases import on_sqlite

__all__ = ["database", "url"]
pytestmark = pytest.mark.simulation


def tell_checked_story(database):
    """Tick through a history with alarms and a reviewer who fails; return its slots."""
    policy = parse_policy(CHECKED)
    history = careless(a_history(STEADY, policy))
    slots, _ = replayed(history, policy, AFTER)
    live(database, CHECKED, slots, AFTER, before_slot=all_at_first(database, "story", history))
    return slots


def check(database):
    return EvidenceCheck(database, "story").check_all()


def forget_failing(transaction, state, select_rows=None):
    """Return the checks; of all records, as if late ones had cleared each reviewer."""
    checks = compute_reviewer_checks(transaction, state, select_rows)
    return checks.clear() if select_rows is None else checks


@on_sqlite
def test_alarms_and_units_of_checked_reviewers_are_counted_again(database, monkeypatch):
    slots = tell_checked_story(database)
    report = check(database)
    assert (report.faults, report.unrepeatable_units, report.units > 99) == ([], 0, True)
    assert any(isinstance(event, Narrowed) and event.guard for event in written(database))

    with monkeypatch.context() as patch:
        patch.setattr(reviewer_recount, "compute_reviewer_checks", forget_failing)
        faults = check(database).faults
        assert "the gate unit of case " in faults[0]
        assert "its records give" in faults[0]
        late = to_micros(to_instant(slots[-1], HOUR) + 2 * HOUR)
        patch.setattr(reviewer_recount, "list_late_receipts", lambda *_: [late])
        assert check(database).faults == []  # a tick knew the checks of before
        patch.setattr(reviewer_recount, "list_late_receipts", lambda *_: [])
        erased = property(lambda _: True, lambda *_: None)
        patch.setattr(reviewer_recount.ReviewerRecount, "has_erasures", erased, raising=False)
        report = check(database)
        assert (report.faults, report.unrepeatable_units > 0) == ([], True)

    check_edited_alarm(database)
    edit_left_out_unit(database)
    assert any("the gate unit of case " in fault for fault in check(database).faults)


def check_edited_alarm(database):
    """Edit the counts in an alarm's reason; find it, and put the reason back."""
    alarms = [
        (revision, event)
        for revision, event in enumerate(written(database), 1)
        if isinstance(event, IncidentOpened) and event.guard.startswith("agreement")
    ]
    (revision, alarm), *_ = alarms
    for text in (alarm.reason.replace(" of ", "0 of "), alarm.reason):
        with attacking(database, *({"ledger_texts"} & APPEND_ONLY.keys())) as transaction:
            condition = (ledger_texts.c.revision == revision, ledger_texts.c.field == "reason")
            transaction.execute(update(ledger_texts).where(*condition).values(text=text))
        faults = check(database).faults
        assert (text == alarm.reason) == (faults == [])
        assert all(f.startswith("alarm of ") and "; the counted units give " in f for f in faults)


def edit_left_out_unit(database):
    """Let a gate unit that left out a decision have the class of its guard's unit."""
    gate, guard = counted_units.alias(), counted_units.alias()
    pairs = (
        select(gate.c.unit, gate.c.version, guard.c.class_ids)
        .join(guard, (guard.c.unit == gate.c.unit) & (guard.c.version == gate.c.version))
        .where(gate.c.track == "gate", gate.c.reviewer.is_(None), guard.c.track == "guard")
        .where(gate.c.exclusion_reason.is_(None), guard.c.slot < gate.c.slot)
    )
    with attacking(database, "counted_units") as transaction:
        row = transaction.execute(pairs.limit(1)).one()
        own = (counted_units.c.unit == row.unit, counted_units.c.version == row.version)
        statement = update(counted_units).where(*own, counted_units.c.track == "gate")
        assert transaction.execute(statement.values(class_ids=row.class_ids)).rowcount == 1
