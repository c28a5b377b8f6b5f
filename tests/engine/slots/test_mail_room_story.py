"""The mail room as the engine tells it: what mailroom.md found, on the shipped seed."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from rollout.engine.files.files import RecordPaths
from rollout.engine.slots.options import ReplayOptions
from rollout.features.replay.replay import replay_files, replay_records
from rollout.features.replay.requests import ReplayRequest
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.statistics.evidence import compute_log_e

ROOT = Path(__file__).parents[3]
RECORDS = ROOT / "examples" / "mail-room" / "records"
LISBON_DAY, LISBON_NIGHT = Cell("lisbon", "day"), Cell("lisbon", "night")
HALIFAX_NIGHT = Cell("halifax", "night")
FIRST = datetime(2025, 9, 28, 14, tzinfo=UTC)  # "day n" of mailroom.md counts from here
ORDER = ReplayRequest(
    policy=ROOT / "examples/mail-room/policy.yaml",
    sources=RecordPaths(
        predictions=RECORDS / "predictions.csv.gz",
        decisions=RECORDS / "decisions.csv.gz",
        cases=RECORDS / "cases.csv.gz",
        outcomes=RECORDS / "outcomes.csv.gz",
    ),
    trained_until={
        "v1": datetime(2025, 9, 26, 17, tzinfo=UTC),
        "v2": datetime(2025, 10, 23, 23, tzinfo=UTC),
    },
)


@pytest.fixture(scope="module")
def told():
    return replay_files(ORDER)


@pytest.fixture(scope="module")
def events(told):
    return told.result.events


def moves(events, cell=None, version=None):
    """Return (kind, to, day) of whatever changed a stage, in order."""
    kinds = {"Widened", "Narrowed", "TakenOver", "GrantExpired", "Suspended"}
    return [
        (
            type(event).__name__,
            getattr(event, "to_stage", ""),
            (event.at - FIRST) / timedelta(days=1),
        )
        for event in events
        if type(event).__name__ in kinds
        and cell in (None, event.cell)
        and version in (None, event.version)
    ]


@pytest.mark.slow
def test_lisbon_by_day_rises_twice_and_falls_twice_on_the_day_of_the_new_form(events):
    up, on, down, out = moves(events, LISBON_DAY, "v1")
    assert up[:2] == ("Widened", "supervised")
    assert on[:2] == ("Widened", "autonomous")
    assert (down[:2], out[:2]) == (("Narrowed", "supervised"), ("Narrowed", "shadow"))
    assert 7.5 <= up[2] <= 10
    assert 14.5 <= on[2] <= 17.5


def test_the_new_form_is_noticed_within_hours(events):
    lisbon = ZoneInfo("Europe/Lisbon")
    form = datetime(2025, 10, 20, 6, tzinfo=lisbon)
    narrowed = [e.at for e in events if type(e).__name__ == "Narrowed"]
    delays = [(at - form).total_seconds() / 3600 for at in narrowed]
    assert {at.astimezone(lisbon).date() for at in narrowed} == {date(2025, 10, 20)}
    assert 2.5 <= delays[0] <= 12
    assert 5 <= delays[1] <= 14


def test_nothing_else_is_ever_narrowed_suspended_or_lost(events):
    falls = [e for e in events if type(e).__name__ in {"Narrowed", "Suspended", "GrantExpired"}]
    assert {event.cell for event in falls} == {LISBON_DAY}
    assert {event.version for event in falls} == {"v1"}


def test_the_second_version_opens_lisbon_by_day_again(events):
    up, on = moves(events, LISBON_DAY, "v2")
    assert (up[:2], on[:2]) == (("Widened", "supervised"), ("Widened", "autonomous"))
    assert 32 <= up[2] <= 35
    assert 39 <= on[2] <= 42


def test_the_second_version_has_a_smaller_share_and_does_not_take_lisbon_by_night(told, events):
    """Its evidence would have been enough if each version had the whole risk."""
    assert not [event for event in events if type(event).__name__ == "TakenOver"]
    sight = told.result.views[LISBON_NIGHT, "v2"]
    state = told.result.scope.get_cell_state(LISBON_NIGHT, "v2")
    assert state.number == 2
    risk = sight.policy.gates[0].risk
    (line,) = sight.policy.list_conditions(1, LISBON_NIGHT)
    highest = max(
        compute_log_e(*pair, at_least=line.threshold)
        for pair in sight.attempt_window.get_counts(line).tolist()
    )
    assert np.log(1 / risk) <= highest < np.log(1 / (risk * state.risk_share))


def test_halifax_by_night_is_never_widened_nor_even_proposed(events):
    assert moves(events, HALIFAX_NIGHT) == []
    raised = [e for e in events if type(e).__name__ == "ProposalRaised"]
    assert HALIFAX_NIGHT not in {event.cell for event in raised}


def test_the_evidence_of_halifax_by_night_stays_far_below_its_line(told):
    sight = told.result.views[HALIFAX_NIGHT, "v1"]
    (line,) = {c for c in sight.conditions if c.measure.name == "agreement"}
    counts = sight.attempt_window.get_counts(line).tolist()
    highest = max(compute_log_e(*pair, at_least=line.threshold) for pair in counts)
    assert highest <= 1.5 < np.log(1 / 0.05)


def test_the_other_cells_open_at_the_dates_that_were_found(events):
    first = {}
    for event in events:
        if type(event).__name__ == "Widened":
            first.setdefault((event.cell.site, event.cell.window, event.to_stage), event.at)
    days = {key: (at - FIRST).total_seconds() / 86400 for key, at in first.items()}
    assert 8 <= days["lisbon", "night", "supervised"] <= 10.5
    assert 11 <= days["halifax", "day", "supervised"] <= 14
    assert 17.5 <= days["halifax", "day", "autonomous"] <= 23
    assert 11 <= days["nagoya", "day", "supervised"] <= 14
    assert 11 <= days["nagoya", "night", "supervised"] <= 18
    assert 11 <= days["hobart", "day", "supervised"] <= 23
    assert ("lisbon", "night", "autonomous") not in days
    assert 6 <= sum(to == "supervised" for _, _, to in days) <= 7


def test_every_approval_is_simulated_and_said_to_be(events):
    approved = [event for event in events if type(event).__name__ == "Approved"]
    assert {event.by for event in approved} == {"simulated-1", "simulated-2"}


@pytest.mark.slow
def test_two_replays_tell_one_story(told, events):
    again = replay_records(ORDER, told.policy, told.records)
    assert again.result.events == events
    assert again.result.stage_histories == told.result.stage_histories


@pytest.mark.simulation
def test_leaving_slots_out_changes_nothing_and_leaves_most_out(told, events):
    whole = replay_records(
        replace(ORDER, options=ReplayOptions(skip_idle_slots=False)), told.policy, told.records
    )
    assert whole.result.events == events
    assert told.result.ticks * 10 < whole.result.ticks


@pytest.mark.slow
def test_another_salt_tells_another_story_with_the_same_end_in_halifax(told, events):
    salted = replace(ORDER, options=ReplayOptions(salt=b"another"))
    other = replay_records(salted, told.policy, told.records).result.events
    assert other != events
    assert moves(other, HALIFAX_NIGHT) == []
    assert [step[:2] for step in moves(other, LISBON_DAY, "v1")] == [
        ("Widened", "supervised"),
        ("Widened", "autonomous"),
        ("Narrowed", "supervised"),
        ("Narrowed", "shadow"),
    ]


@pytest.mark.slow
def test_nobody_approving_widens_nothing(told):
    alone = replace(ORDER, options=ReplayOptions(approval_delay=None))
    events = replay_records(alone, told.policy, told.records).result.events
    assert moves(events) == []


# What naive rules would have done: verdicts as they come, each letter a record, missing dropped


@pytest.fixture(scope="module")
def halifax(told):
    """Return Halifax's letters by the order of their decisions."""
    lever = told.policy.levers[0]
    actions = dict(zip(lever.labels, lever.actions, strict=True))
    value = f"value:{lever.id}"
    said = told.records.predictions.filter(pl.col("version") == "v1")
    first = told.records.decisions.filter((pl.col("seat") == 1) & ~pl.col("unsure"))
    frame = (
        told.history.cases.filter(pl.col("site") == "halifax")
        .join(said.select("case_key", model=value), on="case_key")
        .join(first.select("case_key", "at", person=value), on="case_key")
        .join(told.records.outcomes.select("case_key", truth=value), on="case_key")
        .sort("at", "case_key")
    )
    truth = pl.col("truth").replace(actions)
    return frame.with_columns(
        agrees=pl.col("model") == pl.col("person"),
        model_wrong=pl.col("model").replace(actions) != truth,
        clerk_wrong=pl.col("person").replace(actions) != truth,
    )


def reaches_rate(frame):
    good = frame["agrees"].cum_sum().to_numpy()
    n = np.arange(1, len(good) + 1)
    return np.flatnonzero((n >= 100) & (good >= 0.95 * n))


def three_windows(frame):
    agrees = frame["agrees"].to_numpy()
    whole = len(agrees) // 50
    good = agrees[: whole * 50].reshape(whole, 50).mean(axis=1) >= 0.95
    return (np.flatnonzero(good[:-2] & good[1:-1] & good[2:]) + 3) * 50 - 1


@pytest.mark.parametrize(
    ("rule", "window", "day", "misrouted"),
    [
        (reaches_rate, "night", (1, 5), (302, 418)),
        (three_windows, "night", (3, 23), (166, 394)),
        (reaches_rate, None, (0.5, 3), (298, 418)),
    ],
    ids=["the cell's rate", "three windows", "the office's rate"],
)
def test_naive_rules_open_halifax_by_night_and_misroute(halifax, rule, window, day, misrouted):
    looked = halifax if window is None else halifax.filter(pl.col("window") == window)
    at = looked["at"][int(rule(looked)[0])]
    after = halifax.filter((pl.col("window") == "night") & (pl.col("occurred_at") > at))
    assert day[0] <= (at - FIRST).total_seconds() / 86400 <= day[1]
    assert misrouted[0] <= after["model_wrong"].sum() <= misrouted[1]
    assert after["clerk_wrong"].sum() * 8 < after["model_wrong"].sum()
