"""Records of an import arrive when they are imported, however long ago somebody received them."""

from rollout.data.counting.count_queue import StoredArrivals
from rollout.engine.decide.commands import Actor
from rollout.features.records.record_import import import_records
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from tests.data.conftest import database, other, url
from tests.data.databases import on_sqlite
from tests.engine.evidence.histories import START, cases, decisions, hour, predictions, records
from tests.factories import DAY

__all__ = ["database", "other", "url"]

POLICY = """
rollout: story
timezone: UTC
levers: [{id: alarm, labels: [bear, none]}]
sites: [creek]
evidence: {unit: case, grace: 1h}
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
guards: [{measure: failures, at_most: 20%, over: 2h, then: suspend}]
"""


@on_sqlite
def test_tickers_extend_the_memory_of_their_guards_by_what_was_received_long_ago(database):
    apply_policy(database, POLICY, Actor("zoe"), START)
    frames = records(cases(("c1", 1)), predictions(("c1", "bear")), decisions(("c1", "bear")))
    import_records(database, "story", frames, hour(1) + 30 * DAY)
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "story")
        arrivals = StoredArrivals(transaction, state.rollout).list_since(hour(1) + 30 * DAY)
    assert len(arrivals) == 1
