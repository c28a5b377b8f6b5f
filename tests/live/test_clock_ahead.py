"""A process started with its clock a year ahead, then set right: nothing it did holds."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Database
from rollout.data.ledger.scopes import TickSlots
from rollout.data.tables.tables import (
    confusion_matrices,
    count_classes,
    count_series,
    counted_outcomes,
    counted_records,
    counted_units,
    counts,
    external_keys,
    top_losses,
    version_uses,
)
from rollout.engine.decide.commands import AcknowledgeIncident, StopCells
from rollout.engine.events import ClockCorrected, IncidentOpened, ProposalRaised, Suspended
from rollout.kernel.calendar.instants import to_instant
from rollout.kernel.facts import CLOCK_BACK
from rollout.live.evidence.live_evidence import EvidenceCheck, sample_evidence
from rollout.live.rollout_state import execute_command
from rollout.live.tick_passes import Ticker
from tests.data.databases import ENGINES, fresh
from tests.data.snapshots import filled_once
from tests.live.test_live import ANA, BO, begun, count_waiting, scope_of, written
from tests.live.test_ticks import HISTORY, SLOTS, TICK, kinds

pytestmark = pytest.mark.slow  # half a story, twice
YEAR = timedelta(days=365)
HALF, LAST = to_instant(SLOTS[len(SLOTS) // 2], TICK), to_instant(SLOTS[-1], TICK)
COUNTED = (
    *(counted_units, counts, confusion_matrices, top_losses),
    *(counted_outcomes, version_uses),
)
on_both = pytest.mark.parametrize("url", ENGINES, indirect=True)


def tick(ticker, at, **options):
    return ticker.tick(at, get_time=lambda: at, **options)


@filled_once
def tick_until_half(database):
    ticker = begun(database, HISTORY, SLOTS[0])
    for slot in SLOTS[: len(SLOTS) // 2]:
        tick(ticker, to_instant(slot, TICK))


def start(database):
    """Tick through half of the slots, the last one by the process that is returned."""
    tick_until_half(database)
    ticker = Ticker(database, "story", "one")
    assert tick(ticker, HALF) is not None
    return ticker


def acknowledge(database, at, incident):
    command = AcknowledgeIncident(at=at, by=BO, incident=incident)
    execute_command(database, "story", lambda _: command)


RANDOM = {"rollout", "value_seal", "record_hash", "record_hashes"}  # differ by import


def read_counted(database):
    """Return the rows of all tables of what was counted, numbers by what they stand for."""
    with database.begin_read() as transaction:

        def read(table):
            return [row._asdict() for row in transaction.execute(select(table))]

        names = {
            (table.name, row["id"]): str([v for k, v in row.items() if k not in {"id", "rollout"}])
            for table in (count_series, count_classes)
            for row in read(table)
        }

        keys = {row["id"]: row["key"] for row in read(external_keys)}

        def name(column, value):
            if column in {"unit", "case_id"}:
                return keys[value]
            if column == "series_id":
                return names["count_series", value]
            if column == "class_id":
                return names["count_classes", value]
            return [names["count_classes", n] for n in value] if column == "class_ids" else value

        counted = {
            table.name: sorted(
                str([name(k, v) for k, v in row.items() if k not in RANDOM]) for row in read(table)
            )
            for table in COUNTED
        }
        # an outcome that was imported before its time counts at once
        counted["counted_records"] = {
            (keys[row["case_id"]], row["kind"]) for row in read(counted_records)
        }
        return counted


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return what is counted where no clock was ever ahead."""
    with fresh("sqlite", tmp_path_factory.mktemp("undisturbed")) as url:
        other = Database(url)
        go_on(start(other), HALF)
        yield read_counted(other)
        other.close()


def go_on(ticker, at):
    """Tick until the last slot, and return the events."""
    events = []
    while at < LAST:
        at += TICK
        events += tick(ticker, at)
    return events


@on_both
def test_set_right_and_acknowledged_all_is_counted_as_if_it_had_never_been(database, undisturbed):
    start(database)
    ahead = tick(Ticker(database, "story", "ahead"), HALF + YEAR)
    assert ahead
    assert scope_of(database).at == HALF + YEAR
    assert count_waiting(database) == 0  # it counted everything, also what was not due
    right = Ticker(database, "story", "right")
    (opened,) = tick(right, HALF + TICK)
    assert isinstance(opened, IncidentOpened)
    assert opened.kind == "clock"
    assert opened.trigger.kind == CLOCK_BACK
    assert tick(right, HALF + 2 * TICK) == ()  # it waits
    acknowledge(database, HALF + 2 * TICK, opened.incident)
    events = tick(right, HALF + 3 * TICK)
    (corrected,) = [event for event in events if isinstance(event, ClockCorrected)]
    assert (corrected.at, corrected.previous_time) == (HALF + 3 * TICK, HALF + YEAR)
    assert scope_of(database).proposals.keys() == {
        event.proposal for event in events if isinstance(event, ProposalRaised)
    }
    found = go_on(right, HALF + 3 * TICK)
    assert kinds((*events, *found)) & {ProposalRaised, Suspended}
    assert not [event for event in found if event.at > LAST]
    assert EvidenceCheck(database, "story").check_all().faults == []
    assert sample_evidence(database, LAST) == {}
    assert read_counted(database) == undisturbed


def test_a_ticker_that_read_what_was_ahead_forgets_it(database):
    """The process was set right while it ran."""
    ticker = start(database)
    tick(ticker, HALF + YEAR)
    (opened,) = tick(ticker, HALF + TICK)
    acknowledge(database, HALF + TICK, opened.incident)
    assert ClockCorrected in kinds(tick(ticker, HALF + 2 * TICK))
    go_on(ticker, HALF + 2 * TICK)
    assert ticker.check_evidence(LAST) == {}
    assert EvidenceCheck(database, "story").check_all().faults == []


def test_a_tick_that_wrote_nothing_ahead_is_found_and_taken_back_too(database):
    ticker = begun(database, HISTORY, SLOTS[0])
    with database.begin_write() as transaction:
        slots = TickSlots(transaction, Rollouts(transaction).find("story"))
        slots.claim(SLOTS[0] + 10_000, owner="dead", at=LAST + YEAR, stale_after=TICK)
    at = to_instant(SLOTS[0], TICK)
    (opened,) = tick(ticker, at)
    assert (opened.kind, opened.at) == ("clock", at)
    acknowledge(database, at, opened.incident)
    assert ClockCorrected in kinds(tick(ticker, at + TICK))
    assert tick(ticker, at + 2 * TICK) is not None


def test_a_further_jump_needs_another_acknowledgement(database):
    start(database)
    tick(Ticker(database, "story", "ahead"), HALF + YEAR)
    right = Ticker(database, "story", "right")
    (opened,) = tick(right, HALF + TICK)
    acknowledge(database, HALF + TICK, opened.incident)
    tick(Ticker(database, "story", "ahead"), HALF + 2 * YEAR)
    (again,) = tick(right, HALF + 2 * TICK)
    assert (again.kind, again.incident != opened.incident) == ("clock", True)


def test_where_clocks_disagree_nothing_is_taken_back(database):
    start(database)
    tick(Ticker(database, "story", "ahead"), HALF + YEAR)
    right = Ticker(database, "story", "right")
    (opened,) = tick(right, HALF + TICK)
    acknowledge(database, HALF + TICK, opened.incident)
    assert right.tick(HALF + 2 * TICK, narrow_only=True) is None
    assert ClockCorrected in kinds(tick(right, HALF + 3 * TICK))


def test_stops_hold_while_it_waits_and_after_it(database):
    start(database)
    tick(Ticker(database, "story", "ahead"), HALF + YEAR)
    right = Ticker(database, "story", "right")
    (opened,) = tick(right, HALF + TICK)
    cells = scope_of(database).cells
    stop = StopCells(at=HALF + TICK, by=ANA, cells=tuple({cell for cell, _ in cells}))
    execute_command(database, "story", lambda _: stop)
    acknowledge(database, HALF + TICK, opened.incident)
    tick(right, HALF + 2 * TICK)
    assert [stop.by for stop in scope_of(database).stops.values()] == ["ana"]
    assert written(database)[-1].at <= HALF + 2 * TICK


def test_a_tick_that_others_overtook_says_nothing_of_its_clock(database):
    """It has the time at which it began; a paused process, and `rollout tick --at`."""
    ticker = start(database)
    assert tick(Ticker(database, "story", "other"), LAST) is not None
    assert ticker.tick(HALF + TICK) is None
    assert IncidentOpened not in kinds(written(database))
