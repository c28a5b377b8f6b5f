"""A process that begins with a snapshot of what guards observed observes what all records say."""

from datetime import timedelta
from weakref import WeakKeyDictionary

import numpy as np
import pytest
from sqlalchemy import update

from rollout.data.counting.count_queue import StoredArrivals
from rollout.data.ledger import ledger
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.scopes import EvidenceSnapshot, EvidenceSnapshots
from rollout.data.tables.tables import guard_snapshots
from rollout.engine.decide.commands import Actor
from rollout.engine.evidence.site_series import AnswerRecords
from rollout.engine.records.records import Decision, Heartbeat
from rollout.features.erasure.erasure import ErasureRequest, erase_case
from rollout.live import rollout_state
from rollout.live.consistency_check import rebuild_derived_tables
from rollout.live.evidence import evidence_feeds
from rollout.live.evidence.evidence_feeds import ARRIVAL_RETENTION
from rollout.live.evidence.guard_memory import FORM
from rollout.live.policy_application import apply_policy
from rollout.live.retention import purge_old_records
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.counted_work import noting_statements
from tests.factories import HOUR, MINUTE, NOON
from tests.live.guarded_shop import (
    ACCOUNTS,
    ADMIN,
    BY_CASE,
    BY_EPISODE,
    SITES,
    VERSIONS,
    Shop,
    _snapshots_of_few_cases,
    fill,
    list_all,
    note_loaded,
    write_policy,
)

pytestmark = pytest.mark.slow

__all__ = ["_snapshots_of_few_cases"]


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

    with noting_statements(database, note):
        shop.tick()
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
    shop.tick(ticker)
    shop.send_case("c0", "stall", 70 * MINUTE)
    shop.tick(ticker)  # the process that was there keeps the failure at both sites
    batches = note_loaded(monkeypatch)
    feeds = shop.begin()
    assert batches == [1]
    failures = shop.load_state().policy.guards[1]
    assert [len(feeds.read_votes(s, "v1", failures).slots) for s in SITES] == [3, 5, 4]
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


def test_doctor_finds_a_snapshot_of_other_records(database):
    shop = fill(Shop(database))
    shop.tick()
    row = shop.load_row()
    shop.predict("c1", "v2", answer=None)
    shop.tick()
    assert not rebuild_derived_tables(database, "shop")
    with database.begin_write() as transaction:  # as if nothing had arrived
        state = load_rollout_state(transaction, "shop")
        StoredArrivals(transaction, state.rollout).delete_before(shop.now)
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
