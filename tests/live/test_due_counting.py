"""Pages are read outside of writes, and stored in short ones only if nothing moved meanwhile."""

import gc
import logging
from contextlib import contextmanager
from datetime import timedelta

import pytest
from msgspec.structs import replace
from sqlalchemy import delete, select, text

from rollout import faults
from rollout.data.counting import counter
from rollout.data.counting.count_queue import CountQueue
from rollout.data.counting.counted_units import StoredUses
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.history import StoredHistory
from rollout.data.records.records import RecordStore
from rollout.data.records.versions import VersionStore, build_version_info
from rollout.data.tables.tables import counted_units, counts, outcomes, top_losses
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.evidence.version_uses import Use
from rollout.engine.records.records import Case, Decision, Outcome, Prediction
from rollout.features.erasure.erasure import ErasureRequest, erase_case, erase_name
from rollout.kernel.calendar.instants import find_slot_before
from rollout.kernel.statistics import sampling
from rollout.live.evidence import due_counting
from rollout.live.evidence.due_counting import DueCounter, PageSize, pause_collections
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.evidence.stage_history import RolloutHistory
from rollout.live.evidence.unit_counting import queue_new_cases
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.counted_work import noting_statements
from tests.factories import HOUR, MINUTE, NOON
from tests.live.test_races import run_once

TEXT = """
rollout: lake
timezone: UTC
levers: [{id: alarm, labels: [bear, none]}]
sites: [creek]
stages: [{id: supervised, blind: 50%}]
evidence: {unit: UNIT, grace: 1h}
gates: [{to: supervised, require: [{measure: agreement, at_least: 90%}]}]
tick: 1h
"""
DUE = NOON + 2 * HOUR
INSTANT = timedelta(microseconds=1)
ADMIN = Caller("ada", role_assignments=(AssignedRole("admin"),))


def apply_text(database, unit="case"):
    apply_policy(
        database,
        TEXT.replace("UNIT", unit),
        Actor("zoe"),
        NOON,
        salt=bytes(32),
        service_salt=bytes(32),
    )


def build_case(key, episode=None):
    return Case(key=key, site="creek", window="", occurred_at=NOON + MINUTE, episode=episode)


def predict(key, version="v1", label="bear"):
    return Prediction(key=key, version=version, answers={"alarm": label}, at=NOON + MINUTE)


def decide(key, reviewer, minutes):
    return Decision(
        key=key,
        reviewer=reviewer,
        answers={"alarm": "bear"},
        exposure="blind",
        submitted_at=NOON + minutes * MINUTE,
    )


def store(database, *records, at=NOON + MINUTE):
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, "lake")
        batch = RecordStore(transaction, state.rollout).store(records, received_at=at)
        assert {result.status for result in batch.results} == {"accepted"}
        queue_new_cases(transaction, state, batch, at)


def store_cases(database, *keys, episode=None):
    for key in keys:
        store(database, build_case(key, episode), predict(key), decide(key, "ana", 5))


def list_units(database):
    """Return version, track and reviewer of the counted units, in order."""
    columns = (counted_units.c.version, counted_units.c.track, counted_units.c.reviewer)
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "lake").rollout
        assert counter.find_differences(transaction, rollout).counts == {}
        assert CountQueue(transaction, rollout).count_waiting() == 0
        return sorted(map(tuple, transaction.execute(select(*columns))))


def tick_meanwhile(database, work):
    """Tick; something else happens after the first page was read and before it is stored."""
    with faults.install_action(run_once(work), "tick.read"):
        Ticker(database, "lake", "one").tick(DUE)


ANA = [("v1", "gate", "ana"), ("v1", "guard", "ana")]


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["case", "episode"])
def test_records_that_come_between_reading_and_storing_are_counted_with_the_others(database, unit):
    """Their queue entry exists already, and goes with the case."""
    apply_text(database, unit)
    store_cases(database, "a", episode="e")
    tick_meanwhile(database, lambda: store(database, predict("a", "v2"), at=DUE))
    with_v2 = [("v2", track, reviewer) for _, track, reviewer in ANA]
    assert list_units(database) == [*ANA, *with_v2]
    assert EvidenceCheck(database, "lake").check_all().faults == []


def test_pairs_that_differ_are_stored_with_the_first_units_of_their_class(database):
    """Their class got its number after the page was read."""
    apply_text(database)
    wrong = replace(predict("a"), answers={"alarm": "none"}, confidence=0.75)
    store(database, build_case("a"), wrong, decide("a", "ana", 5))
    Ticker(database, "lake", "one").tick(DUE)
    with database.begin_read() as transaction:
        assert [row.confidence for row in transaction.execute(select(top_losses))] == [0.75]


def test_other_cases_of_the_page_are_stored_at_once(database, monkeypatch):
    apply_text(database)
    store_cases(database, "a", "b")
    stored, store_units = [], counter.store_units

    def record(transaction, rollout, units, losses):
        stored.append(len(units))
        return store_units(transaction, rollout, units, losses)

    monkeypatch.setattr(counter, "store_units", record)
    tick_meanwhile(database, lambda: store(database, predict("a", "v2"), at=DUE))
    assert stored == [2, 4]
    assert len(list_units(database)) == 6


def test_a_case_that_joins_an_episode_between_reading_and_storing_is_in_its_unit(database):
    apply_text(database, "episode")
    store_cases(database, "a", episode="e")
    joined = (build_case("b", "e"), predict("b"), decide("b", "bo", 3))
    tick_meanwhile(database, lambda: store(database, *joined, at=DUE))
    assert ("v1", "guard", "ana") in list_units(database)  # of which the service knew first
    assert EvidenceCheck(database, "lake").check_all().faults == []


def test_a_name_that_is_erased_between_reading_and_storing_is_in_no_unit(database):
    apply_text(database)
    store_cases(database, "a")
    request = ErasureRequest(ADMIN, "lake", "they asked", DUE)
    tick_meanwhile(database, lambda: erase_name(database, request, "ana"))
    names = {reviewer for _, _, reviewer in list_units(database)}
    assert len(names) == 1
    assert "ana" not in names
    assert EvidenceCheck(database, "lake").check_all().faults == []


def test_a_case_that_is_erased_between_reading_and_storing_is_counted_once(database):
    apply_text(database)
    store_cases(database, "a")
    request = ErasureRequest(ADMIN, "lake", "they asked", DUE)
    tick_meanwhile(database, lambda: erase_case(database, request, "a"))
    assert list_units(database) == ANA
    assert EvidenceCheck(database, "lake").check_all().faults == []


def test_a_name_of_a_version_that_becomes_known_between_reading_and_storing_is_used(database):
    apply_text(database)
    name_version(database, "v1")
    store_cases(database, "a")
    store(database, predict("a", "v1b"))
    tick_meanwhile(database, lambda: name_version(database, "v1b"))
    assert list_units(database) == ANA


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_process_that_ticks_sees_what_is_stored_of_versions_without_an_entry(database):
    apply_text(database)
    name_version(database, "v1")
    ticker = Ticker(database, "lake", "one")
    ticker.tick(DUE - HOUR)
    ticker.tick(DUE)  # has the versions of the tick before
    name_version(database, "v1b")
    reads = []

    def note(_connection, _cursor, statement, *_):
        reads.extend([statement] * statement.startswith("SELECT versions.rollout"))

    with noting_statements(database, note):
        ticker.tick(DUE + HOUR)
        ticker.tick(DUE + 2 * HOUR)
    assert ticker._loaded_state.first_names == {"v1b": "v1"}
    with database.begin_read() as transaction:
        stored = load_rollout_state(transaction, "lake")
    assert ticker._loaded_state.versions == stored.versions
    assert len(reads) == 1, "they are read when one was stored, and no more"


def name_version(database, name):
    contents = dict.fromkeys(("v1", "v1b"), "ab" * 32)
    with database.begin_write() as transaction:
        versions = VersionStore(transaction, load_rollout_state(transaction, "lake").rollout)
        versions.record_info(build_version_info(name, "records", contents), at=NOON)


def test_what_another_process_counts_meanwhile_is_not_counted_twice(database):
    apply_text(database)
    store_cases(database, "a", "b")
    tick_meanwhile(database, lambda: count_due(database))
    assert list_units(database) == sorted(2 * ANA)


def count_due(database, page_size=due_counting.PAGE_SIZE, until=DUE):
    history = RolloutHistory()
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "lake")
        events = Ledger(transaction, state.rollout).list_events()
        history.add_events(tuple(events), lambda _: state.policy)
    DueCounter(database, state, history, page_size).count_until(
        find_slot_before(until, state.policy.tick)
    )


def test_a_tick_gives_up_on_cases_that_change_all_the_time(database, caplog):
    apply_text(database)
    store_cases(database, "a")
    numbers = iter(range(100))

    def change(_name):
        store(database, predict("a", f"w{next(numbers)}"), at=DUE)

    with faults.install_action(change, "tick.read"), caplog.at_level(logging.WARNING):
        count_due(database)
    assert "change all the time" in caplog.text
    count_due(database)
    assert len(list_units(database)) == 2 * (1 + next(numbers))


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_stop_waits_for_few_cases_and_no_reading(database, monkeypatch):
    """How long a transaction holds SQLite's writer follows from its cases, not from the page."""
    apply_text(database)
    store_cases(database, *(f"case-{number}" for number in range(20)))
    writes, open_writes, load_records = [], [], StoredHistory.load_records
    begin_write = Database.begin_write

    @contextmanager
    def begin_counted(self, **options):
        with begin_write(self, **options) as transaction:
            writes.append([])
            open_writes.append(transaction)
            yield transaction
            open_writes.pop()

    def load_unheld(self, *arguments, **options):
        assert open_writes == []
        return load_records(self, *arguments, **options)

    def note(_connection, _cursor, statement, *_others):
        if open_writes:
            writes[-1].append(statement)

    monkeypatch.setattr(Database, "begin_write", begin_counted)
    monkeypatch.setattr(StoredHistory, "load_records", load_unheld)
    with noting_statements(database, note):
        count_due(database, PageSize(entries=1_000, cases=5))
    _numbers, *parts = writes
    assert len(parts) == 4
    # the first one also says since when the version is in use
    assert len({len(statements) for statements in parts[1:]}) == 1
    assert len(parts[0]) <= 20
    assert not any("count_series" in statement for part in parts for statement in part)
    assert len(list_units(database)) == 40
    with database.begin_read() as transaction:
        assert len(transaction.execute(select(counts)).all()) == 4  # one a track and bucket


@pytest.mark.parametrize("site_count", [2, 9])
def test_first_uses_in_many_cells_cost_no_statement_each(database, site_count):
    """A version comes into use at all sites of a page, and is silent on a case at each."""
    sites = [f"creek-{number}" for number in range(site_count)]
    text = TEXT.replace("UNIT", "case").replace("[creek]", f"[{', '.join(sites)}]")
    apply_policy(database, text, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    for site in sites:
        for key in (f"{site}-a", f"{site}-b"):
            case = replace(build_case(key), site=site)
            both = (case, decide(key, "ana", 5)) if key.endswith("b") else (case, predict(key))
            store(database, *both, decide(key, "bo", 6))
    statements = []
    with noting_statements(database, lambda *sent: statements.append(sent[2])):
        count_due(database)
    about_uses = [text for text in statements if "version_uses" in text or "EXISTS" in text]
    assert len(about_uses) == 5  # read by each page and by the part, written, the silent cases
    assert len(list_units(database)) == 3 * site_count  # a gate's and a guard's, and the silent one


def test_a_page_looks_up_each_unit_and_case_once(database, monkeypatch):
    """A unit has a row for each version and track; its case was read with its number."""
    apply_text(database)
    store_cases(database, "a")
    store(database, predict("a", "v2"))
    Ticker(database, "lake", "one").tick(DUE)  # classes and series get their numbers
    for key in "efgh":
        both = predict(key), predict(key, "v2")
        store(database, build_case(key), *both, decide(key, "ana", 5))
    drawn, found = [], []
    compute_values, find_ids = sampling.compute_sampling_values, ExternalKeys.find_ids

    def compute(salt, purpose, keys):
        drawn.append(sorted(keys))
        return compute_values(salt, purpose, keys)

    def find(self, keys, **options):
        found.extend(keys)
        return find_ids(self, keys, **options)

    monkeypatch.setattr(sampling, "compute_sampling_values", compute)
    monkeypatch.setattr(ExternalKeys, "find_ids", find)
    Ticker(database, "lake", "one").tick(DUE + 2 * HOUR)
    assert drawn == [[*"efgh"]] * 2  # by the clients' salt, and by the service's
    assert found == []


def test_no_garbage_is_collected_within_a_page_and_again_after_it(database):
    """A third of the time of a page was spent on walking over its rows; none is garbage."""
    apply_text(database)
    store_cases(database, "a")
    seen = []

    def fail():
        seen.append(gc.isenabled())
        raise ConnectionError("torn off")

    with (
        pytest.raises(ConnectionError, match="torn off"),
        faults.install_action(run_once(fail), "tick.read"),
    ):
        Ticker(database, "lake", "one").tick(DUE)
    assert seen == [False]
    assert gc.isenabled()


def test_collections_go_on_after_pages_of_two_threads_that_overlap():
    one, other = pause_collections(), pause_collections()
    one.__enter__()
    assert not gc.isenabled()
    other.__enter__()
    one.__exit__(None, None, None)
    other.__exit__(None, None, None)
    assert gc.isenabled()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_slots_are_taken_back_from_the_first_on_and_none_before(database):
    apply_text(database)
    store_cases(database, "a")
    count_due(database)
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "lake").rollout
        slots = sorted(transaction.execute(select(counted_units.c.slot)).scalars())
    last, begun = slots[-1], slots[0]
    assert last > begun, "gates wait longer than guards"
    of_last = slots.count(last)
    for first, taken in ((last + 1, 0), (last, of_last), (begun, len(slots) - of_last)):
        with database.begin_write() as transaction:
            units = counter.take_back_slots(transaction, rollout, first=first, at=DUE)
        assert units == taken, first
    count_due(database)
    assert list_units(database) == ANA


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_units_whose_values_were_erased_are_not_taken_back(database):
    """What was counted of them can't be counted again."""
    text = TEXT.replace("UNIT", "episode").replace("stages:", "slices: [plate]\nstages:")
    apply_policy(database, text, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    for key, episode in (("a", "e"), ("b", "e"), ("c", "f")):
        case = replace(build_case(key, episode), attributes={"plate": f"HB-{key}"})
        store(database, case, predict(key), decide(key, "ana", 5))
    count_due(database)
    with database.begin_read() as transaction:
        query = select(counted_units.c.case_id, counted_units.c.slot)
        counted_cases, slots = zip(*transaction.execute(query), strict=True)
        rollout = load_rollout_state(transaction, "lake").rollout
        numbers = ExternalKeys(transaction, rollout).find_ids("ab")
    (other,) = (key for key, number in numbers.items() if number not in counted_cases)
    erase_case(database, ErasureRequest(ADMIN, "lake", "they asked", DUE), other)
    with database.begin_write() as transaction:
        counter.take_back_slots(transaction, rollout, first=min(slots), at=DUE)
        left = set(transaction.execute(query).scalars())
    assert left == set(counted_cases) & {*numbers.values()}


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_version_is_silent_from_the_instant_of_its_first_use_in_each_cell(database):
    """One that it is used elsewhere before is no use here."""
    text = TEXT.replace("UNIT", "case").replace("[creek]", "[creek, lake]")
    apply_policy(database, text, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    used_at = NOON + 3 * HOUR
    for key, occurred_at in (("before", used_at - INSTANT), ("at", used_at)):
        store(database, replace(build_case(key), occurred_at=occurred_at), at=occurred_at)
    uses = {}
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "lake")
        for site, begun in (("lake", NOON), ("creek", used_at)):
            slot = find_slot_before(begun, state.policy.tick)
            uses[site, "", "v1"] = Use(slot, slot)
        entries = list(due_counting._list_silent_entries(transaction, state, uses))
        numbers = ExternalKeys(transaction, state.rollout).find_ids(["at"])
    assert [entry.case_id for entry in entries] == [numbers["at"]]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_of_several_uses_in_one_page_the_earliest_is_the_first(database):
    text = TEXT.replace("UNIT", "case")
    apply_policy(database, text, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    for number in (2, 0, 1):
        at, key = NOON + number * HOUR, f"c-{number}"
        case = replace(build_case(key), occurred_at=at)
        decision = replace(decide(key, "ana", 5), submitted_at=at + MINUTE)
        store(database, case, replace(predict(key), at=at), decision, at=at + MINUTE)
    count_due(database, until=NOON + 4 * HOUR)
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "lake")
        uses = StoredUses(transaction, state.rollout).load_all()
    (use,) = uses.values()
    assert use.occurred == find_slot_before(NOON, state.policy.tick)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_an_outcome_of_before_the_prediction_accuses_nobody_when_it_is_told(database):
    apply_text(database)
    store(database, build_case("a"), predict("a"), at=NOON + 20 * MINUTE)
    store(database, decide("a", "ana", 25), at=NOON + 30 * MINUTE)
    count_due(database)
    seen = Outcome(key="a", at=NOON + 5 * MINUTE, answers={"alarm": "bear"})
    store(database, seen, at=DUE)
    count_due(database)
    assert list_units(database) == ANA
    assert EvidenceCheck(database, "lake").check_all().faults == []


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_unit_rests_on_the_outcome_that_made_it_missing(database):
    apply_text(database)
    store(database, build_case("a"), predict("a"), at=NOON + 20 * MINUTE)
    seen = Outcome(key="a", at=NOON + 5 * MINUTE, answers={"alarm": "bear"})
    store(database, decide("a", "ana", 25), seen, at=NOON + 30 * MINUTE)
    count_due(database)
    assert EvidenceCheck(database, "lake").check_all().faults == []
    with database.begin_write() as transaction:
        transaction.execute(text("drop trigger outcomes_refuses_delete"))
        transaction.execute(delete(outcomes))
    (fault, *_) = EvidenceCheck(database, "lake").check_all().faults
    assert "records changed or are missing" in fault


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_case_moved_to_an_episode_that_is_counted_later_accuses_neither(database):
    apply_text(database, unit="episode")
    store(database, build_case("a", "e1"), predict("a"), at=NOON + 90 * MINUTE)  # after its grace
    count_due(database)
    late = NOON + 4 * HOUR
    moved = replace(build_case("a", "e2"), revision=2)
    other = replace(build_case("b", "e2"), occurred_at=late - MINUTE)
    store(database, other, predict("b"), moved, at=late)
    count_due(database, until=late + 2 * HOUR)
    with database.begin_read() as transaction:
        units = transaction.execute(select(counted_units.c.unit, counted_units.c.track)).all()
    assert len({unit for unit, track in units if track == "gate"}) == 2
    assert EvidenceCheck(database, "lake").check_all().faults == []
