"""Doctor reads in parts of any size, holds no more than one, and finds the same."""

import pytest
from sqlalchemy import update

from rollout.data.counting import top_losses
from rollout.data.ledger import ledger
from rollout.data.tables import tables
from rollout.engine.events import ProposalRaised
from rollout.live.consistency_check import rebuild_derived_tables
from rollout.live.evidence import evidence_reader, evidence_seals
from rollout.live.evidence.evidence_reader import RecountedEvidence
from rollout.live.evidence.evidence_seals import SealedSpans
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.rollout_state import load_rollout_state
from tests.live.test_evidence_check import attacking, database
from tests.live.test_live import written

pytestmark = pytest.mark.slow

__all__ = ["database"]


@pytest.mark.slow
def test_spans_are_the_same_in_parts_of_any_size(database, monkeypatch):
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "story")
    (spans,) = SealedSpans(database, state).iterate_parts()
    monkeypatch.setattr(evidence_seals, "SPANS_PER_PART", 2)
    monkeypatch.setattr(evidence_seals, "ROWS_PER_READ", 1)
    monkeypatch.setattr(ledger, "ROWS_PER_READ", 1)
    parts = list(SealedSpans(database, state).iterate_parts())
    assert [span for part in parts for span in part] == spans
    assert {len(part) for part in parts[:-1]} == {2}
    assert any(span.proposals for span in spans)


def test_one_cell_at_a_time_gives_the_same_readings(database, monkeypatch):
    cell_counts, load = [], RecountedEvidence.load

    def count_cells(evidence, *args):
        cell = load(evidence, *args)
        cell_counts.append(len(evidence._cells))
        return cell

    monkeypatch.setattr(RecountedEvidence, "load", count_cells)
    monkeypatch.setattr(evidence_reader, "MAX_HELD_ROWS", 0)
    assert EvidenceCheck(database, "story").check_all().faults == []
    raised = [e for e in written(database) if isinstance(e, ProposalRaised) and e.cell is not None]
    assert len(cell_counts) == len(raised) > 0
    assert set(cell_counts) == {1}


def test_losses_are_the_same_in_parts_of_any_size(database, monkeypatch):
    with attacking(database) as transaction:
        transaction.execute(update(tables.top_losses).values(confidence=0.015625))
    expected = list(rebuild_derived_tables(database, "story").describe())
    monkeypatch.setattr(top_losses, "CASES_PER_PART", 7)
    sizes, load_stored = [], top_losses.StoredLosses._load_stored

    def count_rows(losses, case_numbers):
        stored = load_stored(losses, case_numbers)
        sizes.append(len({case_id for case_id, _, _ in stored}))
        return stored

    monkeypatch.setattr(top_losses.StoredLosses, "_load_stored", count_rows)
    assert list(rebuild_derived_tables(database, "story").describe()) == expected
    assert (len(expected) > 1, len(sizes) > 9, max(sizes) <= 7) == (True, True, True)
