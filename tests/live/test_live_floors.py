"""Confidence floors: live and replay open the same ones, and the records give them anew."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from sqlalchemy import func, select, text

from rollout.data.tables.record_tables import CLOSE_PURGE, OPEN_PURGE
from rollout.data.tables.tables import counted_units
from rollout.engine.events import Narrowed, Widened
from rollout.features.replay.requests import read_request_records
from rollout.live.evidence.live_evidence import EvidenceCheck
from tests.chance import list_unsealed_events
from tests.engine.slots.stories import Story, a_history
from tests.engine.slots.test_confidence_floors import BANDS, MAIL, write_rows
from tests.live.test_live import (
    BY_CASE,
    all_at_first,
    find_evidence_faults,
    live,
    parse_policy,
    replayed,
)

STORY = Story(
    seed=7, slots=100, busy=4, late=0.15, missing=0.03, quiet=True, versions=2, on_grid=False
)
CHANGES = {
    "waves: {stage: supervised, hold: 3h}\n": "",
    "evidence: {": "evidence: {confidence_floors: [0%, 50%, 70%, 90%], ",
    "agreement, at_least: 50%}]": "agreement, at_least: 70%}]",
    "agreement, at_least: 70%": "agreement, at_least: 75%",
    "agreement, at_least: 50%, false_alarm_every: 10": "agreement, at_least: 75%,"
    " false_alarm_every: 10",
}
FLOORED = BY_CASE
for old, new in CHANGES.items():
    assert old in FLOORED
    FLOORED = FLOORED.replace(old, new)
AFTER = timedelta(minutes=20)


def with_confidence(history):
    """Give each prediction a confidence that means something until half of the cases are over.

    Then the wrong answers have .75. Every fifth case has none.
    """
    number = pl.col("case_key").str.slice(1).cast(pl.Int64)
    answers = history.decisions.sort("at", maintain_order=True).unique("case_key", keep="first")
    right = answers.select("case_key", right="value:alarm")
    judged = history.predictions.join(right, on="case_key", how="left", maintain_order="left")
    is_right = (pl.col("value:alarm") == pl.col("right")).fill_null(value=False)
    is_late = number > pl.lit(len(history.cases) // 2)
    wrong = pl.when(is_late).then(0.75).otherwise((number % 7) / 10)
    sure = pl.when(is_right).then(0.5 + (number % 5) / 8).otherwise(wrong)
    sure = pl.when(number % 9 != 0).then(sure)
    return replace(history, predictions=judged.with_columns(confidence=sure).drop("right"))


def list_floors_opened(events):
    return [event.confidence_floors[0] for event in events if isinstance(event, Widened)]


@pytest.mark.simulation
@pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
def test_live_and_replay_open_the_same_floors(database):
    policy = parse_policy(FLOORED)
    history = with_confidence(a_history(STORY, policy))
    slots, expected = replayed(history, policy, AFTER)
    before_slot = all_at_first(database, "story", history)
    found = live(database, FLOORED, slots, AFTER, before_slot=before_slot)
    assert len(set(list_floors_opened(expected))) > 1
    assert list_unsealed_events(found) == list_unsealed_events(expected)
    assert find_evidence_faults(database) == []


MAIL_SLOTS, PER_SLOT = 140, 25


def build_mail(folder):
    """Return records that agree at .7 and above until half of them are over, then at .85."""
    rng = np.random.default_rng(3)
    count = MAIL_SLOTS * PER_SLOT
    bands = rng.choice(4, count, p=[0.2, 0.2, 0.3, 0.3])
    shares = np.array([(0.4, 0.82, 0.99, 1.0), (0.4, 0.3, 0.99, 1.0)])
    agrees = rng.random(count) < shares[(np.arange(count) * 2 >= count).astype(int), bands]
    rows = [
        (str(i), "claims" if agrees[i] else "sales", "claims", BANDS[bands[i]])
        for i in range(count)
    ]
    request = write_rows(folder, MAIL_POLICY, "v1", rows)
    return read_request_records(request, parse_policy(MAIL_POLICY))


MAIL_POLICY = MAIL.replace("false_alarm_every: 10000", "false_alarm_every: 1000")


@pytest.mark.simulation
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_an_alarm_raises_the_same_floor_live_and_forged_bands_are_found(database, tmp_path):
    policy, history = parse_policy(MAIL_POLICY), build_mail(tmp_path)
    slots, expected = replayed(history, policy, AFTER)
    before_slot = all_at_first(database, "mail", history)
    found = live(database, MAIL_POLICY, slots, AFTER, before_slot=before_slot)
    assert list_floors_opened(expected) == ["0.8", "0.6"]
    assert any(isinstance(event, Narrowed) and event.confidence_floor for event in expected)
    assert list_unsealed_events(found) == list_unsealed_events(expected)
    assert check_evidence(database) == []
    forge_bands(database)
    assert any("counted in confidence band" in fault for fault in check_evidence(database))


def check_evidence(database):
    return EvidenceCheck(database, "mail").check_all().faults


def forge_bands(database):
    """Put the units of one case of the lowest band into the highest; a check names few faults."""
    with database.begin_write() as transaction:
        transaction.execute(text(OPEN_PURGE))
        first = select(func.min(counted_units.c.case_id)).where(counted_units.c.band == 0)
        is_low = counted_units.c.case_id == first.scalar_subquery()
        assert transaction.execute(counted_units.update().where(is_low).values(band=3)).rowcount
        transaction.execute(text(CLOSE_PURGE))
