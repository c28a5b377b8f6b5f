"""What happened, in words and a page at a time; the cells as rows; what is done otherwise."""

from rollout.core.scope.commands import Narrow, Person, StopCells
from rollout.core.scope.permissions import Caller, Right
from rollout.reports.text.event_text import happening
from rollout.services.access.authentication import Door
from rollout.services.cells.cell_table import cell_rows, lately_of
from rollout.services.divergences.action_change import action_changes_of
from rollout.services.engine.command_handler import carry_out
from rollout.services.engine.evidence_reader import events_of
from rollout.services.engine.service import service_on
from rollout.services.ledger.activity import happened, telling
from rollout.services.support.clock import SetClock
from rollout.store.ledger.ledger import Ledger
from tests.api import bears
from tests.factories import CREEK, DAY, HOUR, NOON, TICK, autonomous, eventful
from tests.services.houses import chance

ANA = Caller("ana", rights=(Right("viewer"),))


def served(database, at=NOON):
    clock = SetClock(at)
    return service_on(database, Door(database, clock), clock, chance)


def told(service):
    stood = service.watch.confirmed("bears").standing
    with service.database.reading() as transaction:
        return events_of(service.database, stood), tuple(
            Ledger(transaction, stood.rollout).events()
        )


def test_what_is_kept_of_the_ledger_is_the_ledger(database):
    bears.founded(database, NOON)
    service = served(database)
    kept, stored = told(service)
    assert kept == stored
    bears.widened(database, NOON + HOUR)
    kept, stored = told(service)
    assert kept == stored
    assert len(kept) > 5


def test_a_page_of_what_happened_ends_where_the_next_begins(database):
    bears.founded(database, NOON)
    bears.widened(database, NOON)
    service = served(database)
    everything = happened(service, ANA, "bears", limit=1000)
    assert everything.before is None
    paged, before = [], None
    while True:
        some = happened(service, ANA, "bears", limit=2, before=before)
        paged += some.items
        before = some.before
        if before is None:
            break
    assert tuple(paged) == everything.items


def test_every_event_can_be_told(database):
    del database
    rollout = eventful()
    told_with = telling(rollout.policy, rollout.events)
    texts = [happening(n, event, told_with).text for n, event in enumerate(rollout.events, start=1)]
    assert all(texts)


def test_the_cells_of_then_are_those_of_the_ledger_then(database):
    bears.founded(database, NOON)
    bears.widened(database, NOON, bears.CREEK)
    down = Narrow(at=NOON + 2 * HOUR, by=Person("bo"), cells=(bears.CREEK,), to="shadow")
    carry_out(database, "bears", lambda _: down)
    service = served(database, NOON + DAY)
    stages = {
        when: cell_rows(service, ANA, "bears", at=NOON + DAY, when=NOON + when).rows[0].now.stage
        for when in (HOUR, 2 * HOUR, 3 * HOUR)
    }
    assert stages == {HOUR: "supervised", 2 * HOUR: "shadow", 3 * HOUR: "shadow"}
    assert cell_rows(service, ANA, "bears", at=NOON + DAY, when=NOON - HOUR) is None
    assert cell_rows(service, ANA, "bears", at=NOON + DAY).past is False


def test_reasons_are_kept_of_stops_that_hold_alone(database):
    bears.founded(database, NOON)
    for reason in ("first", "second"):
        said = StopCells(at=NOON, by=Person("bo"), cells=(bears.CREEK, bears.LAKE), reason=reason)
        carry_out(database, "bears", lambda _, said=said: said)
    found = cell_rows(served(database), ANA, "bears", at=NOON)
    assert list(found.lately.reasons.values()) == ["first"]


def test_what_happened_lately_is_no_older_than_seven_days():
    rollout = autonomous()
    rollout.narrow()
    at = rollout.at
    assert CREEK in lately_of(rollout.events, rollout.scope, at + 7 * DAY - TICK).narrowed
    assert CREEK not in lately_of(rollout.events, rollout.scope, at + 7 * DAY).narrowed


def test_without_evidence_nothing_is_said_of_actions(database):
    bears.founded(database, NOON)
    assert action_changes_of(served(database), ANA, "bears", ("v1",)) == ()
