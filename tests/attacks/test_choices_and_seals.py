"""Reports and choices change nothing that anything is decided by."""

import pytest

from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.records.reviews import CleaningChoiceRequest
from rollout.features.reports.archive import load_report, request_report
from rollout.features.reports.builder import ReportOptions
from rollout.features.training.cleaning import store_choices
from rollout.live.rollout_state import load_rollout_state
from tests.factories import DAY, NOON
from tests.features.reports.test_builder import bears, tick

pytestmark = pytest.mark.slow

__all__ = ["bears"]
ANA = Caller(
    "ana", role_assignments=(AssignedRole("operator", "bears"), AssignedRole("viewer", "bears"))
)
NOTHING = {"revision", "at", "head"}


def stood(database):
    with database.begin_read() as transaction:
        return load_rollout_state(transaction, "bears")


def ledger(database):
    with database.begin_read() as transaction:
        return [row.kind for row in Ledger(transaction, stood(database).rollout).list_rows()]


def decided(scope):
    own = {name: getattr(scope, name) for name in scope.__dataclass_fields__}
    return {name: value for name, value in own.items() if name not in NOTHING}


def test_a_choice_writes_nothing_into_the_ledger_and_a_report_its_seal_alone(bears):
    at = NOON + 2 * DAY
    tick(bears, at)
    before, kinds = stood(bears).scope, ledger(bears)
    (answer,) = store_choices(
        bears, ANA, "bears", [CleaningChoiceRequest(key="case-3", choice="drop")], at
    )
    assert answer.status == "saved"
    assert ledger(bears) == kinds
    made = request_report(bears, ANA, "bears", "week", ReportOptions(), at)
    load_report(bears, ANA, "bears", made.number, at)
    assert ledger(bears) == [*kinds, "ReportSealed"]
    assert decided(stood(bears).scope) == decided(before)
