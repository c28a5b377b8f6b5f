"""The first read of what guards use besides decisions: in batches, each of few sites."""

from datetime import timedelta

import numpy as np
import pytest

from rollout.engine.evidence.outcome_buffer import OutcomeBuffer
from rollout.features.records.record_import import import_records
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.evidence import evidence_feeds
from rollout.live.evidence.evidence_feeds import NO_OBSERVATIONS, LiveGuardFeeds
from rollout.live.evidence.guard_memory import GuardObservations
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from tests.engine.slots.stories import START, Story, a_history
from tests.live.test_live import ANA, BY_CASE

pytestmark = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
STORY = Story(
    seed=3, slots=60, busy=2.5, late=0.15, missing=0.03, quiet=True, versions=2, on_grid=False
)
POLICY = parse_policy(BY_CASE)
END = START + timedelta(hours=61)


@pytest.fixture
def stored_state(database):
    """Return the state of a rollout in which a story's records are stored."""
    apply_policy(database, BY_CASE, ANA, START, salt=bytes(32), service_salt=bytes(32))
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


def test_a_batch_is_split_into_cells_without_a_frame_of_each(database, stored_state, monkeypatch):
    """Frames of 400 cells and versions took a third of a read of 5,000 cases."""
    heights, from_frame = [], GuardObservations.from_frame

    def note(frame):
        heights.append(frame.height)
        return from_frame(frame)

    monkeypatch.setattr(GuardObservations, "from_frame", note)
    feeds, batches = read_first(database, stored_state, monkeypatch, 10_000)
    measures = {g.condition.measure.name for g in POLICY.guards if g.condition.measure.reads_more}
    assert len(batches) == 1
    assert len(heights) == len(measures - {"heartbeat"})
    latency = next(g for g in POLICY.guards if g.condition.measure.name == "latency_p95")
    cells = [Cell(site.id, window.id) for site in POLICY.sites for window in POLICY.windows]
    found = [
        len(feeds.read_answers(cell, version, latency)[0])
        for cell in cells
        for version in ("v1", "v2")
    ]
    assert sum(found) in heights
    assert sum(map(bool, found)) > len(heights)


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize("slots", [[5, 6], [4, 9], [3], [7]])
def test_observations_stay_in_the_order_of_slots_whenever_they_arrive(slots):
    def observe(slots, cases):
        columns = (np.array(column, dtype=np.int64) for column in (slots, slots, cases))
        return GuardObservations(*columns, np.ones(len(slots), dtype=bool))

    known, new = observe([3, 5, 5], [1, 2, 3]), observe(slots, [4, 5][: len(slots)])
    for joined in (known.join(new), NO_OBSERVATIONS.join(known).join(new)):
        rows = list(zip(joined.slots.tolist(), joined.case_ids.tolist(), strict=True))
        assert rows == sorted([(3, 1), (5, 2), (5, 3), *zip(slots, [4, 5], strict=False)])
        assert len(joined.drop_cases(np.array([4, 9]))) == len(joined) - 1
        assert len(joined.drop_cases(np.array([8, 9]))) == len(joined)


@pytest.mark.slow
def test_the_size_of_batches_changes_nothing(database, stored_state, monkeypatch):
    small, _ = read_first(database, stored_state, monkeypatch, 20)
    whole, batches = read_first(database, stored_state, monkeypatch, 10_000)
    assert len(batches) == 1
    failures, latency = (
        next(guard for guard in POLICY.guards if guard.condition.measure.name == measure)
        for measure in ("failures", "latency_p95")
    )
    read_answers = 0
    for site in POLICY.sites:
        for window in POLICY.windows:
            for version in ("v1", "v2"):
                for guard in (failures, latency):
                    key = (Cell(site.id, window.id), version, guard)
                    expected = whole.read_answers(*key)
                    read_answers += len(expected[0])
                    for column, other in zip(small.read_answers(*key), expected, strict=True):
                        assert sorted(column.tolist()) == sorted(other.tolist())
    assert read_answers > 100
