"""What happened, in words and a page at a time; the cells as rows; what is done otherwise."""

from dataclasses import replace

from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.commands import Actor, NarrowCells, StopCells
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.events import Stopped
from rollout.engine.words.event_text import describe_event
from rollout.features.access.authentication import Authenticator
from rollout.features.cells.cell_table import find_recent_changes, load_cell_page
from rollout.features.cells.cells import load_cell
from rollout.features.divergences.closed_units import load_action_changes
from rollout.features.ledger.activity import build_describer, load_activity
from rollout.kernel.calendar.instants import Cell
from rollout.live.clock import ManualClock
from rollout.live.evidence.evidence_reader import load_events
from rollout.live.rollout_state import execute_command
from rollout.live.service import build_service
from tests.api import bears
from tests.factories import CREEK, DAY, HOUR, NOON, TICK, autonomous, eventful
from tests.features.houses import chance

ANA = Caller("ana", role_assignments=(AssignedRole("viewer"),))


def served(database, at=NOON):
    clock = ManualClock(at)
    return build_service(database, Authenticator(database, clock), clock, chance)


def told(service):
    stood = service.state_cache.reload_rollout("bears").state
    with service.database.begin_read() as transaction:
        return load_events(service.database, stood), tuple(
            Ledger(transaction, stood.rollout).list_events()
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
    everything = load_activity(service, ANA, "bears", limit=1000)
    assert everything.before is None
    paged, before = [], None
    while True:
        some = load_activity(service, ANA, "bears", limit=2, before=before)
        paged += some.items
        before = some.before
        if before is None:
            break
    assert tuple(paged) == everything.items


def test_every_event_can_be_told(database):
    del database
    rollout = eventful()
    told_with = build_describer(rollout.policy, rollout.events)
    texts = [
        describe_event(n, event, told_with).text for n, event in enumerate(rollout.events, start=1)
    ]
    assert all(texts)


def test_a_stop_names_its_cells_and_says_that_no_reason_was_given():
    rollout = eventful()
    describer = build_describer(rollout.policy, rollout.events)
    cells = tuple(Cell(f"s{n}", "day") for n in range(1, 6))

    def told_of(*cells, describer=describer, **fields):
        event = Stopped(at=NOON, by="ana", stop="S-1", cells=cells, **fields)
        return describe_event(1, event, describer).text

    assert told_of(cells[0]) == "ana stopped s1 · day: no reason given"
    assert (
        told_of(*cells[:2], drill=True, reason="camera")
        == "ana stopped s1 · day and s2 · day (a drill): camera"
    )
    assert told_of(*cells) == "ana stopped s1 · day, s2 · day, s3 · day and 2 more: no reason given"
    limited = replace(describer, is_readable=lambda site: site == "s5")
    assert told_of(*cells, describer=limited) == "ana stopped s5 · day and 4 more: no reason given"


def test_the_history_of_a_cell_has_its_stop_and_the_end(database):
    bears.founded(database, NOON)
    bears.widened(database, NOON, bears.CREEK)
    stop = StopCells(at=NOON + HOUR, by=Actor("bo"), cells=(bears.CREEK,))
    execute_command(database, "bears", lambda _: stop)
    history = load_cell(
        served(database, NOON + DAY), ANA, "bears", bears.CREEK, at=NOON + DAY
    ).history
    assert [line.text for line in history if line.kind == "Stopped"] == [
        "bo stopped creek · day: no reason given"
    ]
    other = Cell("lake", "day")
    assert not [
        line
        for line in load_cell(served(database), ANA, "bears", other, at=NOON + DAY).history
        if line.kind == "Stopped"
    ]


def test_the_cells_of_then_are_those_of_the_ledger_then(database):
    bears.founded(database, NOON)
    bears.widened(database, NOON, bears.CREEK)
    down = NarrowCells(at=NOON + 2 * HOUR, by=Actor("bo"), cells=(bears.CREEK,), to="shadow")
    execute_command(database, "bears", lambda _: down)
    service = served(database, NOON + DAY)
    stages = {
        when: load_cell_page(service, ANA, "bears", at=NOON + DAY, past_at=NOON + when)
        .rows[0]
        .status.stage
        for when in (HOUR, 2 * HOUR, 3 * HOUR)
    }
    assert stages == {HOUR: "supervised", 2 * HOUR: "shadow", 3 * HOUR: "shadow"}
    assert load_cell_page(service, ANA, "bears", at=NOON + DAY, past_at=NOON - HOUR) is None
    assert load_cell_page(service, ANA, "bears", at=NOON + DAY).is_past is False


def test_reasons_are_kept_of_stops_that_hold_alone(database):
    bears.founded(database, NOON)
    for reason in ("first", "second"):
        said = StopCells(at=NOON, by=Actor("bo"), cells=(bears.CREEK, bears.LAKE), reason=reason)
        execute_command(database, "bears", lambda _, said=said: said)
    found = load_cell_page(served(database), ANA, "bears", at=NOON)
    assert list(found.recent_changes.stop_reasons.values()) == ["first"]


def test_what_happened_lately_is_no_older_than_seven_days():
    rollout = autonomous()
    rollout.narrow()
    at = rollout.at
    assert (
        CREEK
        in find_recent_changes(rollout.events, rollout.scope, at + 7 * DAY - TICK).narrowed_cells
    )
    assert (
        CREEK not in find_recent_changes(rollout.events, rollout.scope, at + 7 * DAY).narrowed_cells
    )


def test_without_evidence_nothing_is_said_of_actions(database):
    bears.founded(database, NOON)
    assert load_action_changes(served(database), ANA, "bears", ("v1",)) == ()
