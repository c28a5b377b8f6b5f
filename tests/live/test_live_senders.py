"""However late a sender is, a service counts what a replay of the same records counts."""

from collections import Counter
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from sqlalchemy import func, select

from benchmarks.senders import (
    ADVERSE,
    LOSING,
    MINUTE,
    NORMAL,
    SAMPLED,
    START,
    Sending,
    SentCases,
    build_history,
    name_site,
    predict_agreeing_only,
    predict_drawn_only,
    write_policy,
)
from benchmarks.senders import DAYS as LAST_DAY
from rollout.data.ledger.ledger import Accounts
from rollout.data.tables.record_tables import GATE
from rollout.data.tables.tables import counted_units
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.events import VersionFirstUsed
from rollout.engine.evidence.case_placement import place_cases, resolve_natural_units
from rollout.engine.evidence.picks import vouch_for_files
from rollout.engine.evidence.version_uses import drop_undrawn
from rollout.engine.files.parse import PlacedDecision
from rollout.engine.records.records import Case, Decision, Prediction
from rollout.features.records.ingest import ingest_items
from rollout.kernel.calendar.instants import find_slot_before
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.clock import ManualClock
from rollout.live.evidence.due_counting import PageSize
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.evidence.unit_counting import WindowLookup, open_stored_history
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker
from tests.chance import list_unsealed_events
from tests.live.test_live import ANA, live, replayed

pytestmark = pytest.mark.simulation

DAYS, CELLS, AFTER = 5, 2, timedelta(hours=4)
ROLES = {"box": "ingest", "desk": "ingest-decisions", "camera": "ingest"}


def list_sent(cases, policy=None):
    """Return (instant of receipt, account, record) of all records, in the order of receipt.

    Cases are in the windows of a policy, else at any time in one.
    """
    rows = []
    lookup = None if policy is None else WindowLookup(policy)
    for number, cell in enumerate(cases.cell):
        is_yes = bool(cases.is_yes[number])
        key, answer = f"k{number:06}", "yes" if is_yes == cases.is_right[number] else "no"
        episode = None if cases.episode is None else f"e{cases.episode[number]}"
        occurred, decided = (_at(times[number]) for times in (cases.occurred, cases.decided))
        site, sent_time = name_site(cases.sent_cell[number]), _at(cases.sent_time[number])
        sent = (
            (
                cases.received,
                "box",
                Case(
                    key=key,
                    site=site,
                    occurred_at=sent_time,
                    window=lookup.find_window(site, sent_time, {}) if lookup else "always",
                    episode=episode,
                ),
            ),
            (cases.predicted, "box", Prediction(key=key, version="v1", answers={"answer": answer})),
            (
                cases.told,
                "desk",
                PlacedDecision(  # the desk doesn't know whether the case is stored
                    Decision(
                        key=key,
                        reviewer="ana",
                        answers={"answer": "yes" if is_yes else "no"},
                        exposure="blind",
                        claims="blind",
                        unsure=False,
                        started_at=None,
                        submitted_at=decided,
                        note=None,
                        revision=1,
                    ),
                    name_site(cell),
                    occurred,
                ),
            ),
        )
        has_case = cases.received[number] < LAST_DAY
        rows += [
            (_at(times[number]), account, record)
            for times, account, record in sent
            if (has_case or account == "desk") and times[number] < LAST_DAY
        ]
    return sorted(rows, key=lambda row: row[0])


def _at(day):
    return START + timedelta(microseconds=int(day * 86_400e6)) if np.isfinite(day) else None


def send_as_received(database, sent):
    """Return what sends before each slot all that is received by then, and makes the ticker."""
    service, tickers = build_service(database, None, ManualClock(START)), []
    callers = {
        name: Caller(name, is_service_account=True, role_assignments=(AssignedRole(role),))
        for name, role in ROLES.items()
    }
    waiting = sent[::-1]

    def before_slot(_slot, at):
        while waiting and waiting[-1][0] <= at:
            received, account, record = waiting.pop()
            (receipt,) = ingest_items(service, callers[account], "senders", [record], received)
            assert receipt.status.value == "accepted", receipt
        if not tickers:
            tickers.append(Ticker(database, "senders", "one"))
        return tickers[0]

    return before_slot


def predict_agreeing_episodes_only(cases):
    """Predict only where people will agree, of episodes of one case each."""
    cases.episode = np.arange(len(cases.cell))
    predict_agreeing_only(cases)


def predict_drawn_episodes_only(cases):
    """Predict the drawn ones of episodes of three cases; some wrong ones are not answered."""
    cases.episode = np.arange(len(cases.cell)) // 3
    cases.cell = cases.sent_cell = cases.episode % CELLS
    predict_drawn_only(cases)
    is_left_out = ~cases.is_right & (cases.rng.random(len(cases.cell)) < 0.5)
    cases.predicted = np.where(is_left_out, np.inf, cases.predicted)
    cases.told = np.where(is_left_out, np.inf, cases.told)


SAMPLED_EPISODES = Sending(
    "a half of episodes drawn", 0.90, predict_drawn_episodes_only, unit="episode", sample=0.5
)
EPISODES = Sending(
    "predicts agreeing episodes only", 0.60, predict_agreeing_episodes_only, unit="episode"
)


SENDINGS = (*NORMAL, *SAMPLED, *ADVERSE, *LOSING, EPISODES)


def count_stored_units(database):
    """Return by slot how many units gates have counted."""
    query = select(counted_units.c.slot, func.count()).where(counted_units.c.track == GATE)
    with database.begin_read() as transaction:
        return dict(map(tuple, transaction.execute(query.group_by(counted_units.c.slot))))


def count_replayed_units(history, policy, until):
    """Return by slot how many units a replay's gates count."""
    units = resolve_natural_units(place_cases(history, policy, bytes(32)), policy)
    gate_slots = units.filter((pl.col("track") == "gate") & (pl.col("slot") <= until))["slot"]
    return dict(Counter(gate_slots.to_list()))


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("sending", [*SENDINGS, SAMPLED_EPISODES], ids=lambda sending: sending.name)
def test_late_senders_have_the_same_evidence_live_and_replayed(database, sending):
    cases = SentCases.draw(1, sending.truth, cells=CELLS, days=DAYS, sample=sending.sample)
    sending.change(cases)
    if sending.then is not None:
        sending.then(cases, np.array([2.5, 3.0]))
    text = write_policy(sending, cells=CELLS, units=10, tick="3h")
    text = text.replace("at_least: 95%", "at_least: 70%").replace("days: 7", "days: 1")
    policy = parse_policy(text)
    history = drop_undrawn(build_history(cases))
    history = vouch_for_files(history, policy.evidence.sources.vouched)
    slots, expected = replayed(history, policy, AFTER)
    with database.begin_write() as transaction:
        for name in ROLES:
            Accounts(transaction).add_id(name)
    found = live(
        *(database, text, slots, AFTER),
        before_slot=send_as_received(database, list_sent(cases, policy)),
    )
    assert count_stored_units(database) == count_replayed_units(history, policy, slots[-1])
    kinds = {type(event).__name__ for event in expected}
    assert sending not in NORMAL or "Widened" in kinds
    # a replay of files takes the time of the first predicted case for the first use
    found, expected = (
        [event for event in list_unsealed_events(events) if event[0] != VersionFirstUsed.__name__]
        for events in (found, expected)
    )
    assert found == expected
    assert EvidenceCheck(database, "senders").check_all().faults == []


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "sending",
    [EPISODES, Sending("predicts agreeing only", 0.60, predict_agreeing_only)],
    ids=lambda sending: sending.name,
)
def test_one_tick_after_an_outage_counts_each_silent_case_in_its_slot(database, sending):
    cases = SentCases.draw(1, sending.truth, cells=CELLS, days=DAYS)
    sending.change(cases)
    cases.decide(np.where(cases.is_right, 0.9, MINUTE))  # the tick comes to silent cases first
    text = write_policy(sending, cells=CELLS, units=10, tick="3h")
    policy = parse_policy(text)
    with database.begin_write() as transaction:
        for name in ROLES:
            Accounts(transaction).add_id(name)
    apply_policy(database, text, ANA, START, salt=bytes(32), service_salt=bytes(32))
    end = START + timedelta(days=DAYS) + 2 * policy.evidence.grace
    send_as_received(database, list_sent(cases))(0, end)
    Ticker(database, "senders", "one", page_size=PageSize(10, 3)).tick(end)
    expected = count_replayed_units(
        build_history(cases), policy, find_slot_before(end, policy.tick)
    )
    assert count_stored_units(database) == expected
    assert sum(expected.values()) > 150


def register_by_camera(cases):
    """Return what is sent where a camera registers cases, and a box sends some, too."""
    sent = [
        (at, "camera" if isinstance(record, Case) else account, record)
        for at, account, record in list_sent(cases)
    ]
    for number, cell in enumerate(cases.cell):
        if number % 5:  # for some the box sends predictions alone
            at = cases.occurred[number] + (number % 7) * MINUTE / 2
            site = name_site(cell if number % 3 else 0)
            case = Case(
                key=f"k{number:06}",
                site=site,
                occurred_at=_at(cases.occurred[number] - (number % 2) * MINUTE),
                window="always",
            )
            sent += [(_at(at), "box", case)] if at < LAST_DAY else []
    return sorted(sent, key=lambda row: row[0])


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("unit", ["case", "episode"])
def test_cases_that_count_for_guards_alone_give_gates_what_a_replay_without_them_gives(
    database, unit
):
    cases = SentCases.draw(1, 0.9, cells=CELLS, days=DAYS)
    if unit == "episode":
        cases.episode = np.arange(len(cases.cell)) // 2 * 2
    draw = cases.rng.random(len(cases.cell))
    for limit, delay in ((0.06, 10 * MINUTE), (0.03, 1.5), (0.015, np.inf)):
        cases.received = np.where(draw < limit, cases.occurred + delay, cases.received)
    sending = Sending("two senders of cases", 0.9, lambda _: None, unit=unit)
    text = write_policy(sending, cells=CELLS, units=10, tick="3h")
    text = text.replace("at_least: 95%", "at_least: 60%").replace("days: 7", "days: 1")
    text = text.replace("sources: {", "sources: {cases: [camera], ")
    policy = parse_policy(text)
    assert policy.evidence.sources.cases == ("camera",)
    without = build_history(cases)
    slots, _ = replayed(without, policy, AFTER)
    with database.begin_write() as transaction:
        for name in ROLES:
            Accounts(transaction).add_id(name)
    sent = send_as_received(database, register_by_camera(cases))
    found = live(database, text, slots, AFTER, before_slot=sent)
    assert count_stored_units(database) == count_replayed_units(without, policy, slots[-1])
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "senders")
        history = open_stored_history(transaction, state).load_records()
    assert not history.guard_cases.is_empty()
    _, expected = replayed(history, policy, AFTER, until=slots[-1])
    found, expected = (
        [event for event in list_unsealed_events(events) if event[0] != VersionFirstUsed.__name__]
        for events in (found, expected)
    )
    assert {"Widened"} <= {event[0] for event in found}
    assert found == expected
    assert EvidenceCheck(database, "senders").check_all().faults == []
