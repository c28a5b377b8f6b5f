"""The slots that a live demo's history runs are those in which a replay changes something."""

from datetime import UTC, datetime

import pytest

from rollout.features.demo.catalog import build_replay_request, list_examples
from rollout.features.demo.recorded_cases import select_records_until
from rollout.features.replay.replay import replay_records
from rollout.features.replay.requests import read_request_records
from rollout.kernel.policy_files.reader import load_policy

pytestmark = pytest.mark.simulation

EXAMPLES = {example.name: example for example in list_examples()}
EPOCH = datetime.fromtimestamp(0, UTC)


def find_event_slots(example):
    """Return the slots before the live part that begin with an event, or follow one.

    The second list has those after which others may decide, or other units count.
    """
    request, policy = build_replay_request(example), load_policy(example.policy_path)
    records = select_records_until(read_request_records(request, policy), example.serve_at)
    events = replay_records(request, policy, records).result.events
    slots, turning_slots = (
        {event.at + (EPOCH - event.at) % policy.tick for event in chosen}
        for chosen in (events, [event for event in events if not event.keeps_scope])
    )
    return tuple(
        sorted(slot for slot in found if slot < example.serve_at)
        for found in (slots, turning_slots)
    )


def print_slots(slots):
    return ", ".join(f"{slot:%Y-%m-%dT%H:%M:%SZ}" for slot in slots)


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_the_history_runs_each_slot_in_which_something_happens(example):
    slots, turning_slots = find_event_slots(example)
    assert list(example.history_slots) == slots, f"history_slots = [{print_slots(slots)}]"
    listed = print_slots(turning_slots)
    assert list(example.turning_slots) == turning_slots, f"turning_slots = [{listed}]"
