"""The slots that a live demo's history runs are those in which a replay changes something."""

from datetime import UTC, datetime

import pytest

from rollout.formats.policy.reader import read_policy
from rollout.services.examples.catalog import build_replay_request, list_examples
from rollout.services.examples.recorded_cases import select_records_until
from rollout.services.replay.replay import read_request_records, replay_records

pytestmark = pytest.mark.simulation

EXAMPLES = {example.name: example for example in list_examples()}
EPOCH = datetime.fromtimestamp(0, UTC)


def find_event_slots(example):
    """Return the slots before the live part that begin with an event, or follow one."""
    request, policy = build_replay_request(example), read_policy(example.policy_path)
    records = select_records_until(read_request_records(request, policy), example.serve_at)
    events = replay_records(request, policy, records).result.events
    slots = {event.at + (EPOCH - event.at) % policy.tick for event in events}
    return sorted(slot for slot in slots if slot < example.serve_at)


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_the_history_runs_each_slot_in_which_something_happens(example):
    slots = find_event_slots(example)
    listed = ", ".join(f"{slot:%Y-%m-%dT%H:%M:%SZ}" for slot in slots)
    assert list(example.history_slots) == slots, f"history_slots = [{listed}]"
