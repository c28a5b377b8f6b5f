"""Edits of what places evidence: the last slot is found, an attempt's number decides nothing."""

import pytest
from sqlalchemy import update

from rollout.data.database.session import Database
from rollout.data.tables.tables import count_series, evidence_heads, tick_slots
from rollout.engine.events import ProposalRaised
from rollout.kernel.calendar.instants import to_instant
from rollout.live.evidence.evidence_reader import EvidenceReader
from rollout.live.evidence.live_evidence import EvidenceCheck, sample_evidence
from rollout.live.evidence.unit_counting import freeze_sources
from rollout.live.rollout_state import load_rollout_state
from tests.data.databases import ENGINES, fresh
from tests.live.test_consistency_check import HISTORY, SLOTS
from tests.live.test_evidence_check import HOUR, tick_often
from tests.live.test_live import begun, written

pytestmark = pytest.mark.slow


@pytest.fixture(params=ENGINES)
def database(request, tmp_path):
    """Return a database whose rollout was ticked each few hours until it proposed."""
    with fresh(request.param, tmp_path) as url:
        made = Database(url)
        tick_often(made)
        yield made
        made.close()


@pytest.mark.slow
@pytest.mark.parametrize("slots", [-1, 1, 10_000])
def test_another_last_slot_of_evidence_is_found(database, slots):
    assert EvidenceCheck(database, "story").check_all().faults == []
    with database.begin_write() as transaction:
        transaction.execute(update(evidence_heads).values(through=SLOTS[-1] + slots))
    (fault,) = EvidenceCheck(database, "story").check_all().faults
    assert fault == (
        f"evidence_heads: the last slot of evidence is {SLOTS[-1] + slots}; the ledger has a digest"
        f" through slot {SLOTS[-1]}, and the last tick began slot {SLOTS[-1]}"
    )
    assert sample_evidence(database, to_instant(SLOTS[-1], HOUR))["story"].faults == [fault]


def test_a_slot_that_is_claimed_before_it_begins_is_found(database):
    with database.begin_write() as transaction:
        last = tick_slots.c.slot == SLOTS[-1]
        transaction.execute(update(tick_slots).where(last).values(slot=SLOTS[-1] + 1))
    (fault,) = EvidenceCheck(database, "story").check_all().faults
    at = to_instant(SLOTS[-1], HOUR).isoformat()
    assert fault == (
        f"tick_slots: slot {SLOTS[-1] + 1} begins after {at}, when a tick claimed it; until then no"
        " tick runs"
    )


def test_an_empty_rollout_has_no_last_slot_of_evidence(tmp_path):
    with fresh("sqlite", tmp_path) as url:
        database = Database(url)
        begun(database, HISTORY, SLOTS[0])
        assert EvidenceCheck(database, "story").check_all().faults == []
        database.close()


def read_evidence(database):
    """Return the evidence of all versions in all cells, and what proposals would name of it."""
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "story")
        raised = tuple(e for e in written(database) if isinstance(e, ProposalRaised))
        sources = [event.sources for event in freeze_sources(transaction, state, raised)]
    views = EvidenceReader().load_views(database, state, state.policy.cells)
    counts = {key: view.attempt_window.count_at(SLOTS[-1]) for key, view in views.items()}
    return counts, sources


def test_an_edited_attempt_changes_no_evidence_and_nothing_that_approvers_read(database):
    counts, sources = read_evidence(database)
    assert any(count.closed for count in counts.values())
    assert any(sources)
    with database.begin_write() as transaction:
        edit = update(count_series).values(attempt=count_series.c.attempt + 6)
        assert transaction.execute(edit).rowcount > 0
    assert read_evidence(database) == (counts, sources)
    assert EvidenceCheck(database, "story").check_all().faults == [], "so no check asks for it"
