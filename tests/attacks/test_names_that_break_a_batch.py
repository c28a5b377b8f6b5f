"""A name that no database takes is one item's fault, whatever door it came in by."""

import pytest

from rollout.core.records.records import Action, Case, Decision, Prediction
from rollout.services.engine.rollout_state import standing
from rollout.store.records.records import Records, Verdict
from tests.factories import NOON
from tests.services import bear_field as field


@pytest.mark.parametrize("name", ["v\0", "v\ud800"], ids=["nul", "half a letter"])
@pytest.mark.parametrize("kind", ["prediction", "decision", "action", "window"])
def test_a_name_in_a_key_that_can_not_be_stored_is_rejected_alone(database, kind, name):
    field.found(database)
    odd = {
        "prediction": Prediction(key="a", version=name, answers={"alarm": "bear"}),
        "decision": Decision(
            key="a", reviewer=name, answers={"alarm": "bear"}, claims="blind", exposure="blind"
        ),
        "action": Action(key="a", lever=name, action="x", by="person", at=NOON, permission=""),
        "window": Case(key="b", site="creek", occurred_at=NOON, window=name),
    }
    case = Case(key="a", site="creek", occurred_at=NOON, window="day")
    with database.writing() as transaction:
        store = Records(transaction, standing(transaction, field.NAME).rollout)
        kept = store.keep([case, odd[kind]], received_at=NOON)
    assert [answer.verdict for answer in kept.answers] == [Verdict.ACCEPTED, Verdict.REJECTED]
