"""Reviewers who fail their checks: live and replay leave out the same decisions."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from rollout.core.policy.measures import MISSING
from rollout.core.scope.events import Widened
from rollout.core.scope.permissions import AssignedRole, Caller
from rollout.formats.policy.reader import parse_policy
from rollout.services.engine.reviewer_recount import compute_reviewer_checks
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.services.engine.ticks import Ticker
from rollout.services.engine.unit_counting import open_stored_history
from rollout.services.records.record_import import import_records
from rollout.services.reviews import reviews
from rollout.services.reviews.reviews import DecisionDraft
from rollout.tally.reviewer_checks import build_reviewer_checks, compute_reliability
from tests.chance import list_unsealed_events
from tests.replay.stories import a_history
from tests.services.engine.test_live import (
    BY_CASE,
    BY_EPISODE,
    STORY,
    all_at_first,
    live,
    replayed,
)
from tests.services.engine.test_live_interleaved import slot_by_slot
from tests.store.counted_units import load_unit_frame

pytestmark = pytest.mark.simulation

AFTER = timedelta(minutes=20)
CARELESS = "clerk"
ASKED = "outside: blind, second_verdict: 30%, min_reviewer_agreement: 70%"
CHECKED, CHECKED_EPISODES = (
    text.replace("outside: blind", ASKED) for text in (BY_CASE, BY_EPISODE)
)
STEADY = replace(STORY, seed=10, slots=48, busy=3, quiet=False)
DAN = Caller("dan", is_service_account=False, role_assignments=(AssignedRole("admin", "story"),))
SEEDED = "blind-1-0"  # a careful person, but not on known cases
CLERK = Caller(
    SEEDED, is_service_account=False, role_assignments=(AssignedRole("reviewer", "story"),)
)


def careless(history, name=CARELESS):
    """Return a history in which one person, of whose decisions most are second ones, guesses."""
    rng = np.random.default_rng(1)
    number = pl.col("case_key").str.slice(1).cast(pl.Int64)
    theirs = (pl.col("reviewer") == "blind-2-0") | ((pl.col("seat") == 1) & (number % 8 == 0))
    guess = pl.Series(rng.choice(["bear", "fox", "none"], history.decisions.height))
    said = pl.when(theirs & pl.col("value:alarm").is_not_null()).then(guess)
    return replace(
        history,
        decisions=history.decisions.with_columns(
            said.otherwise("value:alarm").alias("value:alarm"),
            reviewer=pl.when(theirs).then(pl.lit(name)).otherwise("reviewer"),
        ),
    )


def left_out(database):
    """Return who has units that were judged and count as not judged, by the marks that are kept."""
    with database.begin_read() as transaction:
        stood = load_rollout_state(transaction, "story")
        frame = load_unit_frame(transaction, stood.rollout, after=-1, until=2**40)
    gone = frame.filter((pl.col("track") == "gate") & (pl.col("decided") == MISSING))
    guard = frame.filter(pl.col("track") == "guard")
    seen = guard.select("unit", "version", who="reviewer", before="slot")
    both = gone.join(seen, on=["unit", "version"])
    return set(both.filter(pl.col("before") < pl.col("slot"))["who"])


@pytest.mark.parametrize(
    ("url", "text", "feed"),
    [
        ("sqlite", CHECKED, all_at_first),
        ("sqlite", CHECKED_EPISODES, all_at_first),
        ("sqlite", CHECKED, slot_by_slot),
        ("postgresql", CHECKED, all_at_first),
    ],
    ids=["sqlite-case", "sqlite-episode", "sqlite-slot-by-slot", "postgresql-case"],
    indirect=["url"],
)
def test_live_and_replay_leave_out_the_same_verdicts(database, text, feed):
    policy = parse_policy(text)
    history = careless(a_history(STEADY, policy))
    slots, expected = replayed(history, policy, AFTER)
    before = feed(database, history) if feed is slot_by_slot else feed(database, "story", history)
    found = live(database, text, slots, AFTER, before_slot=before)
    assert any(isinstance(event, Widened) for event in expected)
    assert list_unsealed_events(found) == list_unsealed_events(expected)
    assert CARELESS in left_out(database)
    nobody = parse_policy(text.replace("agreement: 70%", "agreement: 0%"))
    assert list_unsealed_events(expected) != list_unsealed_events(
        replayed(history, nobody, AFTER)[1]
    )


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_known_cases_judged_wrongly_leave_out_the_same_verdicts_as_a_replay_that_knows(database):
    policy = parse_policy(CHECKED)
    history = a_history(STEADY, policy)
    slots, _ = replayed(history, policy, AFTER)
    judged = history.decisions.filter(pl.col("reviewer") == SEEDED)["case_key"]
    others = history.cases.filter(~pl.col("case_key").is_in(judged.implode()))
    keys = others["case_key"].head(40).to_list()
    feed = all_at_first(database, "story", history)

    def before_slot(slot, at):
        ticker = feed(slot, at)
        if slot == slots[0] + 12:
            with database.begin_read() as transaction:
                stood = load_rollout_state(transaction, "story")
            for key in keys:
                reviews.seed_gold_case(
                    database, DAN, stood, key, {"alarm": "bear"}, reviewer_count=1, at=at
                )
                (task,) = reviews.claim_reviews(database, CLERK, stood, at).tasks
                wrong = DecisionDraft(answers={"alarm": "fox"}, started_at=at - AFTER)
                reviews.submit_decision(database, CLERK, stood, task.review, wrong, at)
        return ticker

    found = live(database, CHECKED, slots, AFTER, before_slot=before_slot)
    with database.begin_read() as transaction:
        stood = load_rollout_state(transaction, "story")
        known = open_stored_history(transaction, stood).load_records().gold_decisions
    assert known.height == len(keys)
    assert set(known["right:alarm"]) == {"bear"}
    assert (known["at"] - known["started_at"]).unique().to_list() == [AFTER]
    expected = replayed(replace(history, gold_decisions=known), policy, AFTER)[1]
    assert list_unsealed_events(found) == list_unsealed_events(expected)
    assert left_out(database) == {SEEDED}


def test_the_store_holds_people_as_a_replay_of_its_records_does(database):
    policy = parse_policy(CHECKED)
    history = careless(a_history(replace(STEADY, slots=30), policy))
    live(database, CHECKED, [480_000], AFTER, before_slot=all_at_first(database, "story", history))
    with database.begin_read() as transaction:
        stood = load_rollout_state(transaction, "story")
        found = compute_reviewer_checks(transaction, stood)
        unasked = replace(stood.policy.evidence, min_reviewer_agreement=None)
        nobody = replace(stood, policy=replace(stood.policy, evidence=unasked))
        assert compute_reviewer_checks(transaction, nobody) is None
    assert found.equals(compute_reliability(build_reviewer_checks(history, policy), 0.7))
    assert found.height > 3


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_when_a_verdict_was_begun_comes_back_from_the_store(database):
    policy = parse_policy(CHECKED)
    history = a_history(replace(STEADY, slots=5), policy)
    begun = history.decisions.with_columns(started_at=pl.col("at") - AFTER)
    timed = replace(history, decisions=begun)
    live(database, CHECKED, [480_000], AFTER, before_slot=all_at_first(database, "story", timed))
    with database.begin_read() as transaction:
        found = (
            open_stored_history(transaction, load_rollout_state(transaction, "story"))
            .load_records()
            .decisions
        )
    order = ["case_key", "reviewer"]
    assert found.sort(order)["started_at"].equals(begun.sort(order)["started_at"])


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_ticker_that_begins_again_counts_as_one_that_never_stopped(database):
    policy = parse_policy(CHECKED)
    history = careless(a_history(STEADY, policy))
    slots, expected = replayed(history, policy, AFTER)

    def before_slot(slot, at):
        if slot == slots[0]:
            import_records(database, "story", history, at)
        return Ticker(database, "story", f"one-{slot}") if (slot - slots[0]) % 7 == 0 else None

    assert list_unsealed_events(
        live(database, CHECKED, slots, AFTER, before_slot=before_slot)
    ) == list_unsealed_events(expected)
