"""Alarms are counted again; an edit of one is found."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from sqlalchemy import update

from rollout.data.tables.record_tables import APPEND_ONLY
from rollout.data.tables.tables import ledger
from rollout.engine.events import IncidentOpened, Narrowed
from rollout.engine.ledger.ledger import list_fields
from rollout.kernel.facts import to_facts
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.evidence.live_evidence import EvidenceCheck
from tests.data.conftest import database, url
from tests.data.databases import on_sqlite
from tests.engine.slots.stories import a_history
from tests.live.test_evidence_check import attacking
from tests.live.test_live import all_at_first, live, replayed, written
from tests.live.test_live_checks import AFTER, SECOND, STEADY

__all__ = ["database", "url"]
pytestmark = pytest.mark.simulation


def guess(history):
    """Return a history in which people say anything from the middle on."""
    number = pl.col("case_key").str.slice(1).cast(pl.Int64)
    draws = np.random.default_rng(1).choice(["bear", "fox", "none"], history.decisions.height)
    theirs = (number > number.max() // 2) & pl.col("value:alarm").is_not_null()
    label = pl.when(theirs).then(pl.Series(draws)).otherwise("value:alarm")
    return replace(history, decisions=history.decisions.with_columns(label.alias("value:alarm")))


def tell_story(database):
    """Tick through a history with alarms."""
    policy = parse_policy(SECOND)
    history = guess(a_history(STEADY, policy))
    slots, _ = replayed(history, policy, AFTER)
    live(database, SECOND, slots, AFTER, before_slot=all_at_first(database, "story", history))


def check(database):
    return EvidenceCheck(database, "story").check_all()


@on_sqlite
def test_alarms_are_counted_again(database):
    tell_story(database)
    report = check(database)
    assert (report.faults, report.units > 99) == ([], True)
    assert any(isinstance(event, Narrowed) and event.guard for event in written(database))
    check_edited_alarm(database)


def check_edited_alarm(database):
    """Edit the counts of an alarm; find it, and put them back."""
    alarms = [
        (revision, event)
        for revision, event in enumerate(written(database), 1)
        if isinstance(event, IncidentOpened) and event.guard.startswith("agreement")
    ]
    (revision, alarm), *_ = alarms
    (reading,) = alarm.alarms
    body = list_fields(alarm)
    edited = body | {"alarms": [to_facts(replace(reading, against=reading.against + 1))]}
    for stored in (edited, body):
        with attacking(database, *({"ledger"} & APPEND_ONLY.keys())) as transaction:
            is_row = ledger.c.revision == revision
            transaction.execute(update(ledger).where(is_row).values(body=json.dumps(stored)))
        faults = check(database).faults
        assert (stored == body) == (faults == [])
        assert all(f.startswith("alarm of ") and "; the counted units give " in f for f in faults)
