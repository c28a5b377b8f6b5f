"""A name that no database takes is one item's fault, whatever door it came in by."""

import pytest

from rollout.core.records.records import Action, Case, Decision, Prediction
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.store.records.records import RecordStatus, RecordStore
from tests.factories import NOON
from tests.services import bear_field as field


@pytest.mark.parametrize("name", ["v\0", "v\ud800"], ids=["nul", "half a letter"])
@pytest.mark.parametrize("kind", ["prediction", "decision", "action", "window"])
def test_a_name_in_a_key_that_can_not_be_stored_is_rejected_alone(database, kind, name):
    field.set_up_field(database)
    odd = {
        "prediction": Prediction(key="a", version=name, answers={"alarm": "bear"}),
        "decision": Decision(
            key="a", reviewer=name, answers={"alarm": "bear"}, claims="blind", exposure="blind"
        ),
        "action": Action(key="a", lever=name, action="x", by="person", at=NOON, permission=""),
        "window": Case(key="b", site="creek", occurred_at=NOON, window=name),
    }
    case = Case(key="a", site="creek", occurred_at=NOON, window="day")
    with database.begin_write() as transaction:
        store = RecordStore(transaction, load_rollout_state(transaction, field.NAME).rollout)
        kept = store.store([case, odd[kind]], received_at=NOON)
    assert [answer.status for answer in kept.results] == [
        RecordStatus.ACCEPTED,
        RecordStatus.REJECTED,
    ]
