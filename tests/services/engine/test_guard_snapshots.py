"""A process that begins with a snapshot of what guards observed observes what all records say."""

from datetime import timedelta
from types import SimpleNamespace
from weakref import WeakKeyDictionary

import numpy as np
import pytest
from sqlalchemy import event, select, update

from rollout.core.calendar.sites import Cell
from rollout.core.records.records import Case, Decision, Heartbeat, Outcome, Prediction
from rollout.core.scope.commands import Actor
from rollout.core.scope.permissions import AssignedRole, Caller
from rollout.services.engine import evidence_feeds, rollout_state
from rollout.services.engine.consistency_check import rebuild_derived_tables
from rollout.services.engine.evidence_feeds import ARRIVAL_RETENTION, LiveGuardFeeds
from rollout.services.engine.guard_snapshots import FORM
from rollout.services.engine.policy_application import apply_policy
from rollout.services.engine.retention import purge_old_records
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.services.engine.ticks import Ticker
from rollout.services.erasure.case_erasure import erase_case
from rollout.services.erasure.erasure import ErasureRequest
from rollout.services.records import record_import
from rollout.services.records.ingest import _Batch
from rollout.store.counting.count_queue import CountQueue
from rollout.store.ledger import ledger
from rollout.store.ledger.accounts import Accounts
from rollout.store.ledger.evidence_snapshots import EvidenceSnapshot, EvidenceSnapshots
from rollout.store.ledger.ledger import Ledger
from rollout.store.tables.tables import guard_snapshots
from rollout.tally.answer_records import AnswerRecords
from rollout.tally.outcome_buffer import OutcomeBuffer
from rollout.tally.slots import find_slot_before
from tests.factories import HOUR, MINUTE, NOON
from tests.promises.live_world import HOUR as TICK
from tests.tally import histories

POLICY = """
rollout: shop
timezone: UTC
levers: [{id: price, labels: [low, high]}]
sites: [kiosk, stall, barrow]
windows:
  - {id: vip, when: {guest: [vip]}}
  - {id: day, hours: "06:00-18:00"}
  - {id: night, hours: 24/7}
stages: [{id: trial, blind: 50%}]
evidence: {unit: UNIT, grace: 1h, outside: blind}
gates: [{to: trial, require: [{measure: agreement, at_least: 80%}]}]
guards:
  - {measure: agreement, at_least: LINE}
  - {measure: failures, at_most: 20%, over: 2h, then: suspend}
  - {measure: latency_p95, at_most: 1s, over: 2h, then: suspend}
  - {measure: harm, at_most: 0, over: 4h, then: shadow}
  - {measure: heartbeat, at_most: 6h, then: suspend}
tick: 1h
"""
SITES, WINDOWS, VERSIONS = ("kiosk", "stall", "barrow"), ("vip", "day", "night"), ("v1", "v2")
ADMIN = Caller("ada", role_assignments=(AssignedRole("admin"),))
ACCOUNTS = ("door", "till")


def write_policy(unit="case", line="60%"):
    return POLICY.replace("UNIT", unit).replace("LINE", line)


BY_CASE, BY_EPISODE = write_policy(), write_policy("episode, episode_span: 30m")


@pytest.fixture(autouse=True)
def _snapshots_of_few_cases(monkeypatch):
    monkeypatch.setattr(evidence_feeds, "MIN_NEW_CASES", 1)


class Shop:
    """A rollout whose records come in one by one; cases are known by number."""

    def __init__(self, database, policy=BY_CASE):
        self.database, self.now, self.cases = database, NOON, {}
        self.policy, self.revisions, self.compared = policy, {}, 0
        apply_policy(database, policy, Actor("zoe"), NOON, salt=bytes(32))

    def load_state(self):
        with self.database.begin_read() as transaction:
            return load_rollout_state(transaction, "shop")

    def send(self, *records, account="door"):
        self.now += timedelta(seconds=1)
        with self.database.begin_write() as transaction:
            state = load_rollout_state(transaction, "shop")
            batch = _Batch(transaction, state, records, self.now)
            batch.set_sources(account)
            batch.store(Accounts(transaction).add_id(account), permit_signer=None)

    def send_case(self, key=None, site="kiosk", ago=0 * MINUTE, guest="usual"):
        key = key or f"c{len(self.cases)}"
        revision = self.revisions[key] = self.revisions.get(key, 0) + 1
        at, episode = self.now - ago, f"e{int(key[1:]) // 3}" if int(key[1:]) % 2 else None
        self.cases[key] = Case(
            key=key,
            site=site,
            window="day",
            occurred_at=at,
            attributes={"guest": guest},
            episode=episode,
            revision=revision,
        )
        self.send(self.cases[key])
        return key

    def predict(self, key, version="v1", answer="low", latency=None, at=None):
        answers = {} if answer is None else {"price": answer}
        record = Prediction(key=key, version=version, answers=answers, latency_ms=latency, at=at)
        self.send(record)

    def harm(self, key, harm="burn", account="till"):
        revision = self.revisions["harm", key] = self.revisions.get(("harm", key), 0) + 1
        at = self.now - MINUTE
        self.send(Outcome(key=key, at=at, harm=harm, revision=revision), account=account)

    def tick(self, ticker=None):
        self.now = (
            NOON + (find_slot_before(self.now, TICK) + 1 - find_slot_before(NOON, TICK)) * TICK
        )
        return (ticker or Ticker(self.database, "shop", "one")).tick(self.now)

    def load_row(self):
        with self.database.begin_read() as transaction:
            return transaction.execute(select(guard_snapshots)).one_or_none()

    def begin(self, *, reads_all=False):
        """Return feeds as a process that starts now has them."""
        feeds = LiveGuardFeeds(OutcomeBuffer(), reads_all=reads_all)
        with self.database.begin_read() as transaction:
            state = load_rollout_state(transaction, "shop")
            feeds.load_arrivals(transaction, state, self.now)
            feeds.load_heartbeats(transaction, state, SITES)
        return feeds

    def assert_same(self, *, restores=True):
        """See that a process that starts now observes what the records say."""
        feeds, read = self.begin(), self.begin(reads_all=True)
        assert (feeds.snapshot_at is not None) == restores
        state = self.load_state()
        assert feeds.observes_same(read, state)
        # a case that moved after the snapshot is in its first cell, too, as in a process that ticks
        if not len(feeds._memory.find_moved_cases()):
            self.compared += 1
            assert list_all(feeds, state) == list_all(read, state)
        return feeds


def list_all(feeds, state):
    """Return all that guards can read, as lists; in one slot in any order."""
    values = []
    for guard in state.policy.guards[1:4]:
        for site in SITES:
            for version in VERSIONS:
                votes = feeds.read_votes(site, version, guard)
                values.append(list(zip(votes.slots.tolist(), votes.is_bad.tolist(), strict=True)))
                for window in WINDOWS:
                    columns = feeds.read_answers(Cell(site, window), version, guard)
                    values.append(sorted(zip(*(c.tolist() for c in columns), strict=True)))
    for site in SITES:
        signs = feeds.read_signs(site)
        values += [signs.cases.tolist(), signs.units.tolist(), signs.pings.tolist()]
        values.append(signs.known_since)
    return values


def fill(shop, cases=12):
    for number in range(cases):
        key = shop.send_case(site=SITES[number % 3], ago=number % 4 * 7 * MINUTE)
        shop.predict(key, answer=None if number % 5 == 0 else "low", latency=2000 * (number % 2))
    shop.send(Heartbeat(site="kiosk", at=shop.now))
    return shop


def note_loaded(monkeypatch):
    """Return a list that gets the number of cases of each batch that feeds read."""
    batches, load_feeds = [], LiveGuardFeeds._load_feeds

    def note(feeds, transaction, state, case_ids):
        batches.append(len(case_ids))
        return load_feeds(feeds, transaction, state, case_ids)

    monkeypatch.setattr(LiveGuardFeeds, "_load_feeds", note)
    return batches


def test_a_process_reads_only_cases_that_arrived_after_the_snapshot(database, monkeypatch):
    shop = fill(Shop(database))
    shop.tick()
    shop.assert_same()
    key = shop.send_case("c100")
    shop.predict(key, answer=None)
    batches = note_loaded(monkeypatch)
    feeds = shop.begin()
    assert batches == [1]
    assert feeds.observes_same(shop.begin(reads_all=True), shop.load_state())
    assert batches == [1, 13]
    assert any(list_all(feeds, shop.load_state()))


@pytest.mark.slow
@pytest.mark.parametrize("count", [30, 300])
def test_a_first_tick_reads_as_many_rows_after_any_history(database, monkeypatch, count):
    shop = fill(Shop(database), count)
    shop.now += 3 * HOUR
    shop.tick()  # counts all
    statements, batches = [], note_loaded(monkeypatch)

    def note(*args):
        statements.append(args[2])

    event.listen(database.engine, "before_cursor_execute", note)
    shop.tick()
    event.remove(database.engine, "before_cursor_execute", note)
    tables = ("predictions", "decisions", "outcomes")
    assert not [text for text in statements if any(f"FROM {table}" in text for table in tables)]
    assert not batches
    assert not [text for text in statements if "min(cases.occurred_at)" in text]


class Chance:
    """A seeded course of a shop: records, moves, withdrawn harms, erasures, edits and ticks."""

    def __init__(self, shop, seed):
        self.shop, self.rng = shop, np.random.default_rng(seed)
        self.tickers = [Ticker(shop.database, "shop", f"replica-{n}") for n in range(2)]
        self.restored = 0

    def pick(self, values):
        return values[int(self.rng.integers(len(values)))]

    def act(self):
        keys, shop = list(self.shop.cases), self.shop
        act = self.pick("cccccpppphhwmmtttedb") if keys else "c"
        ago = int(self.rng.integers(300)) * MINUTE
        if act == "c":
            key = shop.send_case(site=self.pick(SITES), ago=ago, guest=self.pick(["vip", "usual"]))
            shop.predict(key, answer=self.pick(["low", None]), latency=self.pick([None, 10.0, 9e3]))
        elif act == "p":
            at = self.pick([None, shop.now - ago])
            key, version = self.pick(keys), self.pick(VERSIONS)
            shop.predict(key, version, latency=5000.0, answer=self.pick(["low", None]), at=at)
        elif act in "hw":
            harm = "burn" if act == "h" else None
            shop.harm(self.pick(keys), harm, self.pick(ACCOUNTS))
        elif act == "m":
            site, guest = self.pick(SITES), self.pick(["vip", "usual"])
            shop.send_case(self.pick(keys), site, self.pick([ago, 0 * MINUTE]), guest)
        elif act == "d":
            answers = {"price": "low"}
            at = shop.now - MINUTE
            decision = Decision(
                key=self.pick(keys),
                reviewer="rae",
                answers=answers,
                exposure="blind",
                submitted_at=at,
            )
            shop.send(decision, Heartbeat(site=self.pick(SITES), at=shop.now))
        elif act == "e":
            key = self.pick(keys)
            erase_case(shop.database, ErasureRequest(ADMIN, "shop", "asked", shop.now), key)
            del shop.cases[key]
        elif act == "b":
            line = self.pick(["60%", "61%", "62%"])
            unit = "case" if "unit: case" in shop.policy else "episode, episode_span: 30m"
            apply_policy(shop.database, write_policy(unit, line), Actor("zoe"), shop.now)
        else:
            self.tick()

    def tick(self):
        shop = self.shop
        new = Ticker(shop.database, "shop", f"new-{shop.now}")
        shop.tick(self.pick([*self.tickers, new]))
        restores = shop.load_row() is not None
        self.restored += restores
        shop.assert_same(restores=restores)


def test_a_first_tick_reads_the_ledger_once(database, monkeypatch):
    shop = fill(Shop(database))
    shop.tick()
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "shop")
        first = next(Ledger(transaction, state.rollout).list_rows())
    monkeypatch.setattr(rollout_state, "_state_cache", WeakKeyDictionary())  # another process
    revisions, parse = [], ledger.parse_event
    monkeypatch.setattr(
        ledger, "parse_event", lambda row: revisions.append(row.revision) or parse(row)
    )
    shop.tick()
    assert revisions.count(first.revision) == 1
    assert revisions == sorted(set(revisions))


@pytest.mark.slow
@pytest.mark.parametrize("policy", [BY_CASE, BY_EPISODE], ids=["case", "episode"])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_process_that_restores_equals_one_that_reads_all(database, policy, seed):
    chance = Chance(Shop(database, policy), seed)
    for _ in range(90):
        chance.act()
    chance.tick()
    assert min(chance.restored, chance.shop.compared) > 5


@pytest.mark.simulation
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)  # the shorter courses run on PostgreSQL
@pytest.mark.parametrize("policy", [BY_CASE, BY_EPISODE], ids=["case", "episode"])
@pytest.mark.parametrize("seed", range(3, 15))
def test_many_courses_restore_what_all_records_say(database, policy, seed):
    chance = Chance(Shop(database, policy), seed)
    for _ in range(150):
        chance.act()
    chance.tick()


def test_two_guards_on_the_same_predictions_choose_the_answers_once(database, monkeypatch):
    shop = fill(Shop(database))
    shop.tick()
    feeds, chosen = shop.begin(), []
    find_votes = AnswerRecords.find_votes
    monkeypatch.setattr(
        AnswerRecords, "find_votes", lambda own: chosen.append(len(own.slots)) or find_votes(own)
    )
    failures, latency = shop.load_state().policy.guards[1:3]
    for site in SITES:
        first = feeds.read_votes(site, "v1", failures)
        second = feeds.read_votes(site, "v1", latency)
        assert first.slots.tolist() == second.slots.tolist()
        assert first.is_bad.tolist() != second.is_bad.tolist()
    assert chosen == [4, 4, 4]


def test_a_moved_case_is_read_anew(database, monkeypatch):
    shop = fill(Shop(database))
    ticker = Ticker(database, "shop", "one")
    shop.harm("c0")
    shop.tick(ticker)
    shop.send_case("c0", "stall", 20 * MINUTE)
    shop.tick(ticker)  # the process that was there keeps the harm in both cells
    batches = note_loaded(monkeypatch)
    feeds = shop.begin()
    assert batches == [1]
    harm = shop.load_state().policy.guards[3]
    assert [len(feeds.read_answers(Cell(s, "day"), "", harm)[0]) for s in SITES] == [0, 1, 0]
    shop.assert_same()


def test_a_snapshot_is_old_once_a_tick_may_have_deleted_arrivals(database, monkeypatch):
    shop = fill(Shop(database))
    ticker = Ticker(database, "shop", "one")
    shop.tick(ticker)
    monkeypatch.setattr(evidence_feeds, "MIN_NEW_CASES", 10**6)
    monkeypatch.setattr(evidence_feeds, "RENEWAL_AGE", ARRIVAL_RETENTION)
    slot = shop.load_row().slot
    for hours in (6, 6, 6):
        shop.now += hours * HOUR - MINUTE
        fill(shop, 1)
        shop.tick(ticker)
        assert shop.load_row().slot == slot
        shop.assert_same(restores=shop.now - NOON <= ARRIVAL_RETENTION / 2 + HOUR)


def test_a_service_that_ticks_renews_its_snapshot_in_time(database, monkeypatch):
    shop = fill(Shop(database))
    ticker = Ticker(database, "shop", "one")
    shop.tick(ticker)
    monkeypatch.setattr(evidence_feeds, "MIN_NEW_CASES", 10**6)
    for _ in range(5):
        shop.now += 5 * HOUR
        shop.tick(ticker)
        shop.assert_same()


def test_a_standstill_of_weeks_deletes_no_arrivals(database, monkeypatch):
    shop = fill(Shop(database))
    shop.tick()
    shop.now += timedelta(days=3)
    fill(shop, 2)
    shop.now += timedelta(days=20)
    batches = note_loaded(monkeypatch)
    shop.begin()
    assert batches == [2]
    shop.assert_same()


def test_another_process_that_just_stored_one_stores_for_all(database, monkeypatch):
    shop = fill(Shop(database))
    first, second = (Ticker(database, "shop", name) for name in ("one", "two"))
    shop.tick(first)
    shop.tick(second)
    monkeypatch.setattr(evidence_feeds, "MIN_NEW_CASES", 10**6)
    stored = []
    store = EvidenceSnapshots.store
    monkeypatch.setattr(
        EvidenceSnapshots, "store", lambda own, row: stored.append(row.slot) or store(own, row)
    )
    for ticker in (first, second, first):
        shop.now += 3 * HOUR
        shop.tick(ticker)
    assert len(stored) == 1


@pytest.mark.parametrize("column", ["body", "slot", "hash"])
def test_an_edited_snapshot_is_not_used(database, column):
    shop = fill(Shop(database))
    shop.tick()
    row = shop.load_row()
    values = {"body": row.body[:-1] + b"!", "slot": row.slot - 1, "hash": b"x"}
    with database.begin_write() as transaction:
        transaction.execute(update(guard_snapshots).values({column: values[column]}))
    shop.assert_same(restores=False)


@pytest.mark.parametrize("slot", [10**15, -(10**15)])
def test_an_impossible_slot_stops_neither_doctor_nor_the_next_snapshot(database, slot):
    shop = fill(Shop(database))
    ticker = Ticker(database, "shop", "one")
    shop.tick(ticker)
    with database.begin_write() as transaction:
        transaction.execute(update(guard_snapshots).values(slot=slot))
    assert not rebuild_derived_tables(database, "shop")
    shop.assert_same(restores=False)
    fill(shop, 3)
    shop.tick(ticker)
    shop.assert_same()


def store_body(shop, change):
    """Store the snapshot with another body, bound as if it were right."""
    row, state = shop.load_row(), shop.load_state()
    snapshot = EvidenceSnapshot(row.revision, row.slot, change(row.body))
    with shop.database.begin_write() as transaction:
        assert EvidenceSnapshots(transaction, state.rollout, guard_snapshots).store(snapshot)


@pytest.mark.parametrize("length", [0, 8, 12, 40, -9])
def test_unreadable_contents_or_those_of_another_form_are_not_used(database, length):
    shop = fill(Shop(database))
    shop.tick()
    store_body(shop, lambda body: body[:length])
    shop.assert_same(restores=False)
    store_body(shop, lambda body: bytes(len(FORM)) + body[len(FORM) :])
    shop.assert_same(restores=False)
    shop.tick()
    shop.assert_same()


def test_a_policy_and_an_erasure_end_a_snapshot_also_one_that_a_former_program_left(database):
    shop = fill(Shop(database))
    shop.tick()
    row = shop.load_row()
    erase_case(database, ErasureRequest(ADMIN, "shop", "asked", shop.now), "c3")
    assert shop.load_row() is None
    with database.begin_write() as transaction:
        transaction.execute(guard_snapshots.insert().values(row._asdict()))
    shop.assert_same(restores=False)
    shop.tick()
    shop.assert_same()
    apply_policy(database, write_policy(line="65%"), Actor("zoe"), shop.now)
    assert shop.load_row() is None


def test_short_retention_has_no_snapshot(database):
    shop = fill(Shop(database, BY_CASE + "retention: {cases: 30d}\n"))
    shop.tick()
    assert shop.load_row() is None
    shop.assert_same(restores=False)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("days", [100, 120])
def test_doctor_misses_no_records_that_a_retention_deleted(database, days):
    shop = Shop(database, BY_CASE + "retention: {cases: 80d}\n")
    ticker, start = Ticker(database, "shop", "one"), shop.now
    for number in range(60):
        shop.now = start + number * timedelta(hours=12)
        shop.predict(shop.send_case())  # the site is silent from then on
    for day in range(40, days + 1, 10):
        shop.now = start + timedelta(days=day)
        shop.send_case(site="stall")
        shop.tick(ticker)
    assert purge_old_records(database, "shop", shop.now)
    feeds, read = shop.begin(), shop.begin(reads_all=True)
    assert len(feeds.read_signs("kiosk").cases) > len(read.read_signs("kiosk").cases)
    assert not rebuild_derived_tables(database, "shop")


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_what_a_long_import_stores_is_read_by_processes_that_ticked_meanwhile(
    database, monkeypatch
):
    shop = fill(Shop(database))
    ticker = Ticker(database, "shop", "one")
    shop.tick(ticker)
    began_at, hours = shop.now, (shop.now - histories.START) // HOUR
    frames = histories.records(
        histories.cases(("i1", hours, {"site": "kiosk"}), attributes=("guest",)),
        histories.predictions(("i1", "low"), levers=("price",)),
        histories.decisions(levers=("price",)),
        histories.outcomes(levers=("price",)),
    )

    seconds = [0.0, 3600.0]  # it takes so long until it stores
    monkeypatch.setattr(record_import, "time", SimpleNamespace(monotonic=lambda: seconds.pop(0)))
    place_cases = record_import.place_cases

    def place_slowly(*args):
        shop.send_case(site="stall")
        shop.tick(ticker)
        return place_cases(*args)

    monkeypatch.setattr(record_import, "place_cases", place_slowly)
    record_import.import_records(database, "shop", frames, began_at)
    shop.send_case(site="stall")
    shop.tick(ticker)  # and renews the snapshot
    assert len(shop.assert_same().read_signs("kiosk").cases) == 5


def test_a_record_with_the_instant_of_one_that_was_read_is_read_too(database):
    shop = fill(Shop(database))
    ticker = Ticker(database, "shop", "one")
    shop.tick(ticker)  # what the first one reads of the last minutes is read again
    shop.now += 55 * MINUTE
    shop.send_case("c99")
    sent_at = shop.now
    shop.tick(ticker)  # between the parts of a large batch, which have one instant
    ticked_at, shop.now = shop.now, sent_at - timedelta(seconds=1)
    shop.predict("c99", answer=None)
    shop.now = ticked_at
    shop.tick(ticker)
    read = shop.begin(reads_all=True)
    assert ticker._evidence.feeds.observes_same(read, shop.load_state())
    shop.assert_same()


def stamp_late(shop, hours):
    """Send a case whose receipt a clock stamps some hours too early, as if it were set back."""
    shop.now -= hours * HOUR
    key = shop.send_case(ago=-hours * HOUR)
    shop.predict(key, answer=None)
    shop.now += hours * HOUR
    return key


@pytest.mark.parametrize("hours", [1, 11])
def test_an_arrival_stamped_late_is_found_before_the_next_snapshot(database, monkeypatch, hours):
    shop = fill(Shop(database))
    ticker = Ticker(database, "shop", "one")
    shop.now += 11 * HOUR
    shop.tick(ticker)
    stamp_late(shop, hours)
    fill(shop, 1)  # makes a snapshot due
    shop.tick(ticker)
    shop.assert_same()
    batches = note_loaded(monkeypatch)
    shop.tick(ticker)
    assert batches == []  # found once


def test_an_arrival_stamped_late_is_found_by_a_process_that_begins(database, monkeypatch):
    shop = fill(Shop(database))
    shop.tick()
    shop.now += 2 * HOUR
    stamp_late(shop, 3)
    batches = note_loaded(monkeypatch)
    shop.begin()
    assert sum(batches) > 0
    shop.assert_same()


def test_late_arrivals_are_searched_in_sums_alone(database, monkeypatch):
    shop = fill(Shop(database))
    ticker = Ticker(database, "shop", "one")
    shop.tick(ticker)
    listed, list_arrivals = [], CountQueue.list_arrivals
    monkeypatch.setattr(
        CountQueue,
        "list_arrivals",
        lambda own, **times: listed.append(times) or list_arrivals(own, **times),
    )
    for _ in range(8):
        shop.now += HOUR
        shop.tick(ticker)
    assert not [times for times in listed if "before" in times]
    stamp_late(shop, 2)
    for _ in range(2):  # the second search, too
        fill(shop, 1)
        shop.tick(ticker)
    assert [times["before"] - times["since"] for times in listed if "before" in times] == [
        10 * MINUTE
    ]


def test_doctor_finds_a_snapshot_of_other_records(database):
    shop = fill(Shop(database))
    shop.tick()
    row = shop.load_row()
    shop.predict("c1", "v2", answer=None)
    shop.tick()
    assert not rebuild_derived_tables(database, "shop")
    with database.begin_write() as transaction:  # as if nothing had arrived
        state = load_rollout_state(transaction, "shop")
        CountQueue(transaction, state.rollout).delete_arrivals(before=shop.now)
        snapshot = EvidenceSnapshot(row.revision, row.slot, row.body)
        EvidenceSnapshots(transaction, state.rollout, guard_snapshots).store(snapshot)
    differences = rebuild_derived_tables(database, "shop", repair=True)
    assert list(differences.describe()) == [
        "guard_snapshots: the snapshot does not match the records"
    ]
    assert shop.load_row() is None
    assert not rebuild_derived_tables(database, "shop")


def test_no_key_of_a_case_is_in_a_snapshot(database):
    shop = Shop(database, BY_EPISODE)
    for number in range(5):
        shop.predict(shop.send_case(f"c{number}11"), answer=None)
    shop.tick()
    feeds = shop.begin()
    assert feeds.snapshot_at
    cases = feeds._memory.signs.cases["kiosk"]
    assert len(cases.units) == len(set(cases.case_ids.tolist())) == 5
