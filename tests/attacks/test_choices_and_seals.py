"""Reports and choices change nothing that anything is decided by."""

from rollout.core.scope.permissions import Caller, Right
from rollout.services.engine.rollout_state import standing
from rollout.services.reports.archive import ask_report, report_of
from rollout.services.reports.builder import Asked
from rollout.services.training.cleaning import Wish, choose
from rollout.store.ledger.ledger import Ledger
from tests.factories import DAY, NOON
from tests.services.reports.test_builder import bears, tick

__all__ = ["bears"]
ANA = Caller("ana", rights=(Right("operator", "bears"), Right("viewer", "bears")))
NOTHING = {"revision", "at", "head"}


def stood(database):
    with database.reading() as transaction:
        return standing(transaction, "bears")


def ledger(database):
    with database.reading() as transaction:
        return [row.kind for row in Ledger(transaction, stood(database).rollout).rows()]


def decided(scope):
    own = {name: getattr(scope, name) for name in scope.__dataclass_fields__}
    return {name: value for name, value in own.items() if name not in NOTHING}


def test_a_choice_writes_nothing_into_the_ledger_and_a_report_its_seal_alone(bears):
    at = NOON + 2 * DAY
    tick(bears, at)
    before, kinds = stood(bears).scope, ledger(bears)
    (answer,) = choose(bears, ANA, "bears", [Wish(key="case-3", choice="drop")], at)
    assert answer.status == "saved"
    assert ledger(bears) == kinds
    made = ask_report(bears, ANA, "bears", "week", Asked(), at)
    report_of(bears, ANA, "bears", made.number, at)
    assert ledger(bears) == [*kinds, "ReportSealed"]
    assert decided(stood(bears).scope) == decided(before)
