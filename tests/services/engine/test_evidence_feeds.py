"""The first read of what guards use besides decisions: in batches, each of few sites."""

from datetime import timedelta

import numpy as np
import pytest

from rollout.core.calendar.sites import Cell
from rollout.formats.policy.reader import parse_policy
from rollout.services.engine import evidence_feeds
from rollout.services.engine.evidence_feeds import LiveGuardFeeds
from rollout.services.engine.policy_application import apply_policy
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.services.records.record_import import import_records
from rollout.tally.outcome_buffer import OutcomeBuffer
from tests.replay.stories import START, Story, a_history
from tests.services.engine.test_live import ANA, BY_CASE

pytestmark = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
STORY = Story(
    seed=3, slots=60, busy=2.5, late=0.15, missing=0.03, quiet=True, versions=2, on_grid=False
)
POLICY = parse_policy(BY_CASE)
END = START + timedelta(hours=61)


@pytest.fixture
def stored_state(database):
    """Return the state of a rollout in which a story's records are stored."""
    apply_policy(database, BY_CASE, ANA, START, salt=bytes(32))
    import_records(database, POLICY.rollout, a_history(STORY, POLICY), START)
    with database.begin_read() as transaction:
        return load_rollout_state(transaction, POLICY.rollout)


def read_first(database, state, monkeypatch, cases_per_read):
    """Return the feeds after their first read, and the sites of each batch."""
    batches = []
    load_feeds = LiveGuardFeeds._load_feeds

    def note(*arguments):
        batches.append(load_feeds(*arguments))
        return batches[-1]

    feeds = LiveGuardFeeds(OutcomeBuffer())
    with monkeypatch.context() as patch, database.begin_read() as transaction:
        patch.setattr(LiveGuardFeeds, "_load_feeds", note)
        patch.setattr(evidence_feeds, "CASES_PER_READ", cases_per_read)
        feeds.load_arrivals(transaction, state, END)
    return feeds, batches


def test_a_site_is_in_as_few_batches_as_it_can_be(database, stored_state, monkeypatch):
    _, batches = read_first(database, stored_state, monkeypatch, 20)
    assert len(batches) > 5
    assert sum(map(len, batches)) < len(batches) + len(POLICY.sites)


@pytest.mark.slow
def test_the_size_of_batches_changes_nothing(database, stored_state, monkeypatch):
    small, _ = read_first(database, stored_state, monkeypatch, 20)
    whole, batches = read_first(database, stored_state, monkeypatch, 10_000)
    assert len(batches) == 1
    failures, latency = (
        next(guard for guard in POLICY.guards if guard.condition.measure == measure)
        for measure in ("failures", "latency_p95")
    )
    read_answers = 0
    for site in POLICY.sites:
        assert np.array_equal(small.slots_with_records(site.id), whole.slots_with_records(site.id))
        for window in POLICY.windows:
            for version in ("v1", "v2"):
                for guard in (failures, latency):
                    key = (Cell(site.id, window.id), version, guard)
                    expected = whole.read_answers(*key)
                    read_answers += len(expected[0])
                    for column, other in zip(small.read_answers(*key), expected, strict=True):
                        assert sorted(column.tolist()) == sorted(other.tolist())
    assert read_answers > 100
