"""Ticks of many rollouts, ticks that are overtaken, break off, or may only narrow."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from threading import Thread, current_thread

import pytest
from sqlalchemy import func, select

from rollout import faults
from rollout.data.counting import counter
from rollout.data.counting.count_queue import CountQueue
from rollout.data.counting.counted_units import CountedUnits
from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import CommitTimes, Ledger
from rollout.data.ledger.scopes import TickSlots
from rollout.data.records.records import RecordStore, RejectedRecords
from rollout.data.tables.tables import counts, tick_slots
from rollout.engine.decide.commands import Actor, ApproveProposal, OpenIncident, StopCells
from rollout.engine.decide.proposals import compute_gate_hash
from rollout.engine.events import (
    AttemptsBegan,
    FamiliarityChanged,
    GrantExpired,
    IncidentOpened,
    Narrowed,
    PolicyApplied,
    ProposalHeld,
    ProposalRaised,
    RecordsCounted,
    Suspended,
    SuspensionCleared,
    Widened,
)
from rollout.engine.evidence.unit_buffer import UnitBuffer
from rollout.engine.records.records import Heartbeat, RejectedItem
from rollout.features.records.record_import import import_records
from rollout.kernel.calendar.instants import find_slot_before, to_instant
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live import tick_passes
from rollout.live.evidence import evidence_seals
from rollout.live.evidence.due_counting import OTHER_TRACKS, PageSize
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command
from rollout.live.tick_passes import OPEN_ATTEMPTS, Ticker, TickScheduler
from tests.data.databases import fresh
from tests.data.snapshots import filled_once
from tests.engine.slots.stories import a_history
from tests.live.test_live import (
    ANA,
    BO,
    BY_CASE,
    STORY,
    People,
    begun,
    replayed,
    scope_of,
    until,
    written,
)

pytestmark = pytest.mark.slow

POLICY = parse_policy(BY_CASE)
TICK = POLICY.tick
HISTORY = a_history(replace(STORY, slots=40), POLICY)
SLOTS, _ = replayed(HISTORY, POLICY, None)
LAST = to_instant(SLOTS[-1], TICK)
COUNTED_STORY = (841, 24)  # units and series of counts
on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


def kinds(events):
    return {type(event) for event in events}


# Many rollouts


@filled_once
def fill_story(database):
    begun(database, HISTORY, SLOTS[0])


def begun_here(database):
    """Return a ticker of a new rollout that has the whole history."""
    fill_story(database)
    return Ticker(database, "story", "one")


def several(database, count):
    names = [f"r{number}" for number in range(count)]
    for name in names:
        apply_policy(database, BY_CASE.replace("rollout: story", f"rollout: {name}"), ANA, LAST)
    return names


@pytest.mark.slow
def test_two_processes_share_the_rollouts_and_each_slot_is_done_once(database):
    names = several(database, 6)
    ticking = [TickScheduler(database, owner) for owner in ("one", "two")]
    with ThreadPoolExecutor(2) as pool:
        for number in range(3):
            at = LAST + number * TICK
            looks = list(pool.map(lambda mine, at=at: mine.run_due_ticks(at), ticking))
            done = [name for look in looks for name in look.events_by_rollout]
            assert sorted(done) == names
            assert not any(look.errors for look in looks)


def test_looking_before_the_next_slot_does_nothing(database):
    several(database, 2)
    ticking = TickScheduler(database, "one")
    assert len(ticking.run_due_ticks(LAST).events_by_rollout) == 2
    assert ticking.run_due_ticks(LAST + TICK - timedelta(seconds=1)).events_by_rollout == {}
    assert len(ticking.run_due_ticks(LAST + TICK).events_by_rollout) == 2


def test_an_error_in_one_rollout_stops_no_other_and_is_told(database):
    names = several(database, 3)
    with database.begin_write() as transaction:
        Rollouts(transaction).create("broken", salt=b"x", at=LAST)  # it has no policy
    ticking = TickScheduler(database, "one")
    look = ticking.run_due_ticks(LAST)
    assert sorted(look.events_by_rollout) == names
    assert list(look.errors) == ["broken"]
    assert ticking.run_due_ticks(LAST + timedelta(seconds=59)).errors == {}
    assert list(ticking.run_due_ticks(LAST + timedelta(seconds=60)).errors) == ["broken"]


def test_a_tick_that_the_disk_failed_is_soon_repeated(database, monkeypatch):
    several(database, 1)
    ticking = TickScheduler(database, "one")
    with monkeypatch.context() as full:
        full.setattr(Ticker, "tick", lambda *_, **__: (_ for _ in ()).throw(OSError("full")))
        assert list(ticking.run_due_ticks(LAST).errors) == ["r0"]
    assert database.append_failures.failures  # humans decide
    assert ticking.run_due_ticks(LAST + timedelta(seconds=4)).events_by_rollout == {}
    assert list(ticking.run_due_ticks(LAST + timedelta(seconds=5)).events_by_rollout) == ["r0"]
    assert not database.append_failures.failures


def test_in_a_pass_over_many_each_is_ticked_at_its_own_time(database, monkeypatch):
    several(database, 3)
    asked, tick = [], Ticker.tick

    def noted(self, at, *, narrow_only, get_time, has_time):
        asked.append(at)
        return tick(self, at, narrow_only=narrow_only)

    monkeypatch.setattr(Ticker, "tick", noted)
    times = iter(LAST + n * timedelta(seconds=40) for n in range(9))
    assert (
        TickScheduler(database, "one").run_due_ticks(LAST, get_time=lambda: next(times)).errors
        == {}
    )
    assert asked == [LAST + n * timedelta(seconds=40) for n in range(3)]


@on_sqlite
@pytest.mark.slow
@pytest.mark.parametrize("counted_until", [LAST, to_instant(SLOTS[20], TICK)])
def test_units_counted_ahead_decide_nothing_before_their_slots(
    database, counted_in_time, counted_until
):
    """Sources of a proposal once named all counted units, also those of later slots."""
    assert tick_through(database, counted_until) == counted_in_time


@pytest.fixture(scope="module")
def counted_in_time(tmp_path_factory):
    """Return the events and counts of a story that is counted as it becomes due."""
    with fresh("sqlite", tmp_path_factory.mktemp("in_time")) as url:
        other = Database(url)
        events, rows_of_counts = tick_through(other, None)
        other.close()
    assert any(isinstance(event, ProposalRaised) and event.sources for event in events)
    return events, rows_of_counts


def tick_through(database, count_until):
    """Tick through all slots; return the events and counts without numbers and seals.

    Series and classes are numbered in the order of counting, and seals cover these numbers.
    """
    begun(database, HISTORY, SLOTS[0])
    ticker = Ticker(database, "story", "one")
    for slot in SLOTS:
        ticker.tick(to_instant(slot, TICK), count_until=count_until)
    assert EvidenceCheck(database, "story").check_all().faults == []
    with database.begin_read() as transaction:
        columns = (counts.c[name] for name in ("slot", "occurred", "bucket", "n"))
        counted = sorted(map(tuple, transaction.execute(select(*columns))))
    events = [event for event in written(database) if not isinstance(event, RecordsCounted)]
    return [
        replace(event, records_digest="") if isinstance(event, ProposalRaised) else event
        for event in events
    ], counted


@on_sqlite
def test_events_have_the_time_after_counting(database):
    decided_at = LAST + timedelta(minutes=7)
    events = begun_here(database).tick(LAST, get_time=lambda: decided_at)
    times = {(event.slot, event.at) for event in events if event.slot is not None}
    assert times == {(LAST, decided_at)}


def test_a_new_rollout_is_ticked_from_the_next_look_on(database):
    ticking = TickScheduler(database, "one")
    assert ticking.run_due_ticks(LAST).events_by_rollout == {}
    several(database, 1)
    assert list(ticking.run_due_ticks(LAST).events_by_rollout) == ["r0"]


def test_a_slot_left_behind_is_taken_up_by_another_after_a_tick(database):
    (name,) = several(database, 1)
    with database.begin_write() as transaction:
        rollout = Rollouts(transaction).find(name)
        TickSlots(transaction, rollout).claim(SLOTS[-1], owner="dead", at=LAST, stale_after=TICK)
    ticking = TickScheduler(database, "one")
    assert ticking.run_due_ticks(LAST).events_by_rollout == {}
    assert list(ticking.run_due_ticks(LAST + TICK).events_by_rollout) == [name]


@pytest.mark.slow
@on_sqlite
@pytest.mark.parametrize("size", [PageSize(60, 7), PageSize(100_000, 100_000)])
def test_pages_of_any_size_count_the_same(database, monkeypatch, size):
    """What prepares a database that nobody else uses need not leave stops a turn."""
    cases, lock = [], CountQueue.lock

    def lock_part(queue, entries):
        if {entry.track for entry in entries}.isdisjoint(OTHER_TRACKS):
            cases.append(len({entry.case_id for entry in entries}))
        return lock(queue, entries)

    monkeypatch.setattr(CountQueue, "lock", lock_part)
    fill_story(database)
    Ticker(database, "story", "one", page_size=size).tick(LAST)
    assert max(cases) <= size.cases
    again = 1  # a case on which a version was silent whose use began on this page
    assert (sum(cases[1:]) <= again) == (sum(cases) <= size.cases)
    with database.begin_read() as transaction:
        rollout = Rollouts(transaction).find("story")
        units = list(CountedUnits(transaction, rollout).list_cases(range(1_000_000)))
        assert counter.find_differences(transaction, rollout).counts == {}
    assert (len(units), len({unit.series_id for unit in units})) == COUNTED_STORY


# Breaking off and being overtaken


class BreakError(Exception):
    pass


@pytest.mark.parametrize(
    "point",
    ["tick.claimed", "tick.read", "tick.taken", "tick.counted", "tick.evidence", "tick.not-done"],
)
@on_sqlite
def test_who_broke_off_takes_up_their_slot_and_nothing_is_lost_or_doubled(database, point):
    def fail(_name):
        raise BreakError

    ticker = begun_here(database)
    with pytest.raises(BreakError), faults.install_action(fail, point):
        ticker.tick(LAST)
    before = written(database)
    events = ticker.tick(LAST)
    found = written(database)
    assert found == (*before, *events)
    assert len([e for e in found if isinstance(e, ProposalRaised)]) >= 2
    with database.begin_read() as transaction:
        rollout = Rollouts(transaction).find("story")
        assert CountQueue(transaction, rollout).count_waiting() == 0
        assert Ledger(transaction, rollout).verify().revision == len(found)


@pytest.mark.parametrize("point", ["", "tick.not-done"])
@on_sqlite
def test_commits_of_ticks_are_stored_also_of_one_that_broke_off(database, point):
    def fail(_name):
        raise BreakError

    ticker = begun_here(database)
    begun_at = len(written(database)) + 1
    at = LAST + timedelta(seconds=7)
    if point:
        with pytest.raises(BreakError), faults.install_action(fail, point):
            ticker.tick(at)
    ticker.tick(LAST + TICK)
    appended = len(written(database)) + 1 - begun_at
    assert appended >= 2
    with database.begin_read() as transaction:
        commits = CommitTimes(transaction, Rollouts(transaction).find("story"))
        assert commits.find(begun_at) == (at if point else LAST + TICK)


@pytest.mark.slow
@on_sqlite
def test_who_broke_off_while_reading_reads_nothing_twice(database, monkeypatch):
    def add_and_fail(self, frame):
        monkeypatch.undo()
        self.add(frame)
        raise BreakError

    undisturbed = begun_elsewhere(database)
    ticker = begun_here(database)
    monkeypatch.setattr(UnitBuffer, "add", add_and_fail)
    with pytest.raises(BreakError):
        ticker.tick(LAST)
    found = readings(ticker.tick(LAST))
    assert found
    assert found == readings(undisturbed)


def readings(events):
    return [(e.cell, e.version, e.readings) for e in events if isinstance(e, ProposalRaised)]


def overtaken(database, ticker, at, meanwhile):
    """Tick; between reading the standing and appending, once, something else happens."""
    done = []

    def come_first(_name):
        if scope_of(database).versions and not done:
            done.append(1)
            meanwhile()

    with faults.install_action(come_first, "command.decided"):
        return ticker.tick(at)


STRICTER = BY_CASE.replace("at_least: 50%}], risk", "at_least: 99.9%}], risk")


@pytest.mark.slow
def test_a_tick_overtaken_by_a_stricter_policy_decides_under_that_one(database):
    ticker = begun_here(database)
    ticker.tick(to_instant(SLOTS[0], TICK))
    begun_elsewhere(database)
    events = overtaken(database, ticker, LAST, lambda: apply_policy(database, STRICTER, ANA, LAST))
    assert PolicyApplied in kinds(written(database)[-3:])
    assert ProposalRaised not in kinds(events)


def begun_elsewhere(database):
    """Return what the same records come to when nothing comes between: something is raised."""
    text = BY_CASE.replace("rollout: story", "rollout: elsewhere")
    apply_policy(
        database, text, ANA, to_instant(SLOTS[0], TICK), salt=bytes(32), service_salt=bytes(32)
    )
    import_records(database, "elsewhere", HISTORY, to_instant(SLOTS[0], TICK))
    events = Ticker(database, "elsewhere", "one").tick(LAST)
    assert ProposalRaised in kinds(events)
    return events


@pytest.mark.slow
def test_a_tick_overtaken_by_a_stop_raises_nothing_where_it_holds(database):
    ticker = begun_here(database)
    ticker.tick(to_instant(SLOTS[0], TICK))
    begun_elsewhere(database)
    stop = StopCells(at=LAST, by=BO, cells=POLICY.cells)
    events = overtaken(
        database, ticker, LAST, lambda: execute_command(database, "story", lambda _: stop)
    )
    assert ProposalRaised not in kinds(events)


@pytest.mark.slow
def test_a_stream_of_commands_delays_a_tick_by_few_attempts(database, monkeypatch):
    """Another process appends before each append of the tick, unless the tick holds the ledger."""
    ticker = begun_here(database)
    ticker.tick(to_instant(SLOTS[0], TICK))
    undisturbed = begun_elsewhere(database)
    sealings, threads, ticking = [], [], current_thread()
    summarize = evidence_seals.summarize_counted

    def record_sealing(*lines):
        sealings.append(1)
        return summarize(*lines)

    def send_command(_name):
        if current_thread() is ticking:
            about = f"by client {len(threads)}"
            incident = OpenIncident(at=LAST, kind="unauthorized", reason=about)
            command = partial(execute_command, database, "story", lambda _: incident)
            threads.append(Thread(target=command))
            threads[-1].start()
            threads[-1].join(1)  # it waits for longer where the tick holds the ledger

    monkeypatch.setattr(evidence_seals, "summarize_counted", record_sealing)
    with faults.install_action(send_command, "command.decided"):
        events = ticker.tick(LAST)
    for thread in threads:
        thread.join(20)
    assert readings(events) == readings(undisturbed)
    kinds_written = [type(event) for event in written(database)]
    assert kinds_written.count(IncidentOpened) == len(threads)
    assert kinds_written[-1] is IncidentOpened  # the last command waited, and came after the tick
    assert len(threads) > OPEN_ATTEMPTS
    assert len(sealings) == 1


def test_proposals_name_the_gate_that_is_in_force(database):
    ticker = begun_here(database)
    raised = [e for e in ticker.tick(LAST) if isinstance(e, ProposalRaised)]
    assert {e.gate_hash for e in raised} <= {compute_gate_hash(POLICY, 1, e.cell) for e in raised}


# Ticks that take longer than their slot


def claim_later_slot(database, owner, slot):
    """Claim a slot, as another process does while a tick still counts."""
    with database.begin_write() as transaction:
        rollout = Rollouts(transaction).find("story")
        at = to_instant(slot, TICK)
        assert TickSlots(transaction, rollout).claim(slot, owner=owner, at=at, stale_after=TICK)


@pytest.mark.slow
@on_sqlite
def test_of_two_processes_that_each_overtake_the_other_every_one_narrows(database):
    """Where every tick takes longer than its slot, another process has always begun a later one."""
    _, at = widened(database)
    first_slot = find_slot_before(at, TICK) + 20
    events = []
    for number, owner in enumerate(("one", "two", "one")):
        slot, other = first_slot + number, {"one": "two", "two": "one"}[owner]
        begin_next = partial(claim_later_slot, database, other, slot + 1)
        run_next = lambda _name, begin=begin_next: begin()  # noqa: E731 - an action has a name
        with faults.install_action(run_next, "tick.evidence"):
            events += Ticker(database, "story", owner).tick(to_instant(slot, TICK)) or ()
    assert Suspended in kinds(events)
    assert not {Widened, ProposalRaised, SuspensionCleared} & kinds(events)


@on_sqlite
def test_a_tick_whose_later_slot_is_done_writes_nothing(database):
    _, at = widened(database)
    later = at + 20 * TICK
    slow, quick = (Ticker(database, "story", owner) for owner in ("one", "two"))

    def run_quick(_name):
        if not passed:
            passed.append(None)
            passed[0] = quick.tick(later + TICK)

    passed = []
    with faults.install_action(run_quick, "tick.evidence"):
        assert slow.tick(later) is None
    assert Suspended in kinds(passed[0])
    found = written(database)
    slots = [event.slot for event in found if event.slot is not None]
    assert slots == sorted(slots)


@on_sqlite
def test_missed_slots_are_one_tick_that_grants_from_its_own_time_on(database, monkeypatch):
    """One process whose ticks take longer than their slot: the same events as one late pass."""
    monkeypatch.setattr(tick_passes, "TURN_SECONDS", 60.0)  # a busy machine counts it in one turn
    ticking = TickScheduler(database, "one")
    fill_story(database)
    clock = [LAST]

    def take_long(_name):
        clock[0] = LAST + 3 * TICK + TICK / 2

    with faults.install_action(take_long, "tick.counted"):
        (events,) = ticking.run_due_ticks(
            LAST, get_time=lambda: clock[0]
        ).events_by_rollout.values()
    raised = [event for event in events if isinstance(event, ProposalRaised)]
    assert {(event.slot, event.at) for event in raised} == {(LAST, clock[0])}
    ticking.run_due_ticks(clock[0])
    with database.begin_read() as transaction:
        rollout = Rollouts(transaction).find("story")
        done = find_slot_before(clock[0], TICK)
        assert TickSlots(transaction, rollout).load_last_done() == done
        count = transaction.execute(select(func.count()).select_from(tick_slots)).scalar()
    assert (done - SLOTS[-1], count) == (3, 2)  # the slots between are part of the second tick


# Only narrowing


def approved(database, ticker, at):
    """Tick, and let people approve whatever is raised; return the next instant."""
    people = People(database, "story", TICK / 3)
    people.hear(ticker.tick(at))
    people.act(at + TICK / 2)
    return at + TICK


@pytest.mark.slow
@on_sqlite
def test_where_clocks_disagree_nothing_is_raised(database):
    ticker = begun_here(database)
    ticker.tick(to_instant(SLOTS[0] + 1, TICK))
    assert scope_of(database).versions
    assert kinds(ticker.tick(LAST, narrow_only=True)) == {AttemptsBegan}  # it opens nothing
    assert ProposalRaised in kinds(ticker.tick(LAST + TICK))


@pytest.mark.slow
@on_sqlite
def test_where_clocks_disagree_no_value_becomes_familiar(database):
    rule = "evidence: {familiar: {attributes: [form], at_least: 1, line: 10%}, "
    apply_policy(database, BY_CASE.replace("evidence: {", rule), ANA, to_instant(SLOTS[0], TICK))
    import_records(database, "story", HISTORY, to_instant(SLOTS[0], TICK))
    ticker = Ticker(database, "story", "one")
    ticker.tick(to_instant(SLOTS[0] + 1, TICK))
    before = scope_of(database).cell_values
    assert FamiliarityChanged not in kinds(ticker.tick(LAST, narrow_only=True))
    assert scope_of(database).cell_values == before
    assert FamiliarityChanged in kinds(ticker.tick(LAST + TICK))


@on_sqlite
def test_where_clocks_disagree_what_is_approved_is_not_applied(database):
    ticker = begun_here(database)
    at = approved(database, ticker, LAST)
    assert Widened not in kinds(ticker.tick(at, narrow_only=True))
    assert Widened in kinds(ticker.tick(at + TICK))


@on_sqlite
def test_decisions_without_a_place_hold_what_is_approved_for_a_week(database):
    ticker = begun_here(database)
    at = approved(database, ticker, LAST)
    rejected = [
        RejectedItem("decision", f"lost{n}", str(n), "", is_placeless=True) for n in range(10_000)
    ]
    with database.begin_write() as transaction:
        rollout = Rollouts(transaction).find("story")
        RejectedRecords(transaction, rollout).add(rejected, received_at=LAST)
    events = ticker.tick(at)
    (facts,) = {event.fresh_facts for event in events if isinstance(event, ProposalHeld)}
    assert [fact.kind for fact in facts] == ["unplaced"]
    assert Widened not in kinds(events)
    assert Widened in kinds(ticker.tick(LAST + timedelta(days=7) + TICK))


@on_sqlite
def test_where_clocks_disagree_an_approved_policy_waits(database):
    ticker = begun_here(database)
    ticker.tick(LAST)
    apply_policy(
        database, BY_CASE.replace("at_least: 50%}], risk", "at_least: 45%}], risk"), ANA, LAST
    )
    (waiting,) = [p for p in scope_of(database).proposals.values() if p.kind == "policy"]
    for person, group in zip(("bo", "cy"), waiting.needs, strict=True):
        approval = ApproveProposal(
            at=LAST,
            by=Actor(person, (group,)),
            proposal=waiting.id,
            evidence_hash=waiting.evidence_hash,
        )
        execute_command(database, "story", lambda _, command=approval: command)
    assert PolicyApplied not in kinds(ticker.tick(LAST + TICK, narrow_only=True))
    assert PolicyApplied in kinds(ticker.tick(LAST + 2 * TICK))


@filled_once
def fill_widened(database):
    """Let a first cell be widened at sites with hourly signs of life; return when it was."""
    heard = "guards:\n  - {measure: heartbeat, at_most: 3h, then: suspend}"
    first = to_instant(SLOTS[0], TICK)
    apply_policy(
        database,
        BY_CASE.replace("guards:", heard),
        ANA,
        first,
        salt=bytes(32),
        service_salt=bytes(32),
    )
    import_records(database, "story", until(HISTORY, first + 12 * TICK), first)
    for hours in range(13):
        beat(database, first + hours * TICK)
    ticker, people = Ticker(database, "story", "one"), People(database, "story", TICK / 3)
    for slot in SLOTS:
        at = to_instant(slot, TICK)
        people.act(at)
        events = ticker.tick(at)
        people.hear(events)
        if Widened in kinds(events):
            return at
    raise AssertionError("nothing was ever widened")


def widened(database):
    """Return a ticker of sites with hourly signs of life, and when a first cell was widened."""
    at = fill_widened(database)
    return Ticker(database, "story", "one"), at


@pytest.mark.parametrize("narrow_only", [False, True])
@on_sqlite
def test_where_clocks_disagree_what_narrows_goes_on(database, narrow_only):
    ticker, at = widened(database)
    later = ticker.tick(at + 20 * TICK, narrow_only=narrow_only)
    lapsed = ticker.tick(at + 100 * TICK, narrow_only=narrow_only)
    assert Suspended in kinds(later)
    assert GrantExpired in kinds(lapsed)
    assert not {Widened, SuspensionCleared} & kinds((*later, *lapsed))


def beat(database, at):
    """Let every site give a sign of life."""
    with database.begin_write() as transaction:
        rollout = Rollouts(transaction).find("story")
        for site in POLICY.sites:
            RecordStore(transaction, rollout).store_heartbeat(
                Heartbeat(site=site.id, at=at), received_at=at
            )


@on_sqlite
def test_a_sign_of_life_counts_as_heard(database):
    ticker, at = widened(database)
    beat(database, at + 19 * TICK)
    assert Suspended not in kinds(ticker.tick(at + 20 * TICK))
    assert Suspended in kinds(ticker.tick(at + 23 * TICK))


@on_sqlite
def test_what_a_sign_of_life_gives_back_waits_until_clocks_agree(database):
    ticker, at = widened(database)
    assert Suspended in kinds(ticker.tick(at + 16 * TICK))
    beat(database, at + 16.5 * TICK)
    assert SuspensionCleared not in kinds(ticker.tick(at + 18 * TICK, narrow_only=True))
    assert SuspensionCleared in kinds(ticker.tick(at + 19 * TICK))


@on_sqlite
def test_a_third_suspension_narrows_when_clocks_agree_again_and_once(database):
    ticker, at = widened(database)
    for hours in (16, 21, 26):
        assert Suspended in kinds(ticker.tick(at + hours * TICK))
        beat(database, at + (hours + 0.5) * TICK)
        if hours < 26:
            assert SuspensionCleared in kinds(ticker.tick(at + (hours + 2) * TICK))
    for hours in (28, 29):
        assert ticker.tick(at + hours * TICK, narrow_only=True) == ()
    beat(database, at + 29.5 * TICK)
    assert Narrowed in kinds(ticker.tick(at + 31 * TICK))
