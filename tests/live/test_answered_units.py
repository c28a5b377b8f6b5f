"""An edit of a question has its price once an answer can be looked at, though none counts yet."""

from dataclasses import replace

import pytest

from rollout.engine.events import AttemptsBegan, PolicyApplied
from rollout.features.records.record_import import import_records
from rollout.kernel.calendar.instants import to_instant
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.policy_application import apply_policy
from rollout.live.tick_passes import Ticker
from tests.engine.slots.stories import a_history
from tests.live.test_live import ANA, BY_CASE, STORY, replayed, scope_of, until

pytestmark = pytest.mark.slow

SLOW = BY_CASE.replace("grace: 1h", "grace: 10h")
ASKS_MORE = SLOW.replace(
    "require: [{measure: agreement",
    "require: [{measure: recall, label: fox, at_least: 50%}, {measure: agreement",
    1,
)


@pytest.mark.parametrize("is_decided", [True, False], ids=["decided", "predicted only"])
def test_an_edit_has_its_price_once_a_predicted_case_is_decided(database, is_decided):
    policy = parse_policy(SLOW)
    history = a_history(replace(STORY, slots=40), policy)
    slots, _ = replayed(history, policy, None)
    start = to_instant(slots[0], policy.tick)
    apply_policy(database, SLOW, ANA, start, salt=bytes(32), service_salt=bytes(32))
    at = start + 8 * policy.tick
    records = until(history, at)
    if not is_decided:
        records = replace(records, decisions=records.decisions.clear())
    import_records(database, "story", records, at)
    assert not any(isinstance(e, AttemptsBegan) for e in Ticker(database, "story", "one").tick(at))
    events = apply_policy(database, ASKS_MORE, ANA, at).events
    assert any(isinstance(event, PolicyApplied) for event in events)
    scope = scope_of(database)
    began = [key for event in events if isinstance(event, AttemptsBegan) for key in event.cells]
    assert bool(began) is is_decided
    assert all(scope.attempt_years[cell].count >= 1 for cell in began)
    restarted = {key for key, state in scope.cells.items() if state.attempt == 2}
    assert {cell for cell, _ in restarted} == set(began)
    assert all(scope.cells[key].attempt_since == at for key in restarted)
