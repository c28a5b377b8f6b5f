"""A campus shuttle: one harsh brake narrows its route, and its client doesn't wait for that.

All seeds from 0 to 9 were tried. In each of them three of the four cells become attended, the
station line in busy hours is never proposed, and the harsh brake narrows both cells of the lake
loop in one tick; in nine of ten the lake loop in quiet hours is unattended before it, between
19 April and 7 May. Seed 9 was chosen: its dates are middling ones. The tests allow what the ten
seeds show.
"""

import csv
import gzip
import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from rollout.engine.decide.projection import apply_events
from rollout.engine.events import (
    IncidentAcknowledged,
    IncidentOpened,
    Narrowed,
    ProposalRaised,
    ProposalVoided,
    Widened,
)
from rollout.features.demo.catalog import build_replay_request, find_example
from rollout.features.replay.replay import replay_files
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.statistics.evidence import compute_log_e
from rollout_client.client import EdgeClient
from rollout_client.leases import ClockReading
from tests.client.local_answers import build_body
from tests.docs.pages import ROOT, text_of

pytestmark = pytest.mark.simulation

DRIVING = ROOT / "examples/driving"
RECORDS = DRIVING / "records"
PAGE = text_of("examples/driving/README.md")
ZURICH = ZoneInfo("Europe/Zurich")
HELD = Cell("station-line", "busy-dry")
QUIET, BUSY = Cell("lake-loop", "quiet-dry"), Cell("lake-loop", "busy-dry")
FETCHED = datetime(2025, 5, 13, 5, 30, tzinfo=ZURICH)
BRAKE = datetime(2025, 5, 13, 10, 12, tzinfo=ZURICH)
RECEIVED = datetime(2025, 5, 13, 20, 31, tzinfo=ZURICH)
TICK = datetime(2025, 5, 13, 20, 45, tzinfo=ZURICH)
FIRST_ATTEMPT = 1 / 2.612  # of a year's risk


def read(name):
    text = gzip.decompress((RECORDS / f"{name}.csv.gz").read_bytes()).decode()
    return list(csv.DictReader(text.splitlines()))


@pytest.fixture(scope="module")
def replay():
    return replay_files(build_replay_request(find_example("driving")))


@pytest.fixture(scope="module")
def events(replay):
    return replay.result.events


def list_stages(events, kind, cell):
    return [(e.to_stage, e.at) for e in events if isinstance(e, kind) and e.cell == cell]


def test_the_station_line_in_busy_hours_is_never_proposed(events):
    raised = {e.cell for e in events if isinstance(e, ProposalRaised)}
    assert raised == {QUIET, BUSY, Cell("station-line", "quiet-dry")}


def test_brake_on_one_route_voids_proposal_for_the_other_until_it_is_acknowledged():
    request = build_replay_request(find_example("driving"))
    options = replace(request.options, approval_delay=timedelta(hours=12))
    events = replay_files(replace(request, options=options)).result.events
    (voided,) = (event for event in events if isinstance(event, ProposalVoided))
    assert (voided.proposal, voided.at, voided.incidents) == ("P-6", TICK, ("I-1",))
    assert voided.describe_closing(None) == "I-1 spoke against v1 after it was raised"
    raised = {e.proposal: e for e in events if isinstance(e, ProposalRaised)}
    assert raised["P-6"].cell == raised["P-7"].cell == Cell("station-line", "quiet-dry")
    assert raised["P-7"].incidents == ("I-1",)
    (read,) = (event for event in events if isinstance(event, IncidentAcknowledged))
    assert TICK < read.at <= raised["P-7"].at


def test_all_levers_together_meet_their_threshold_and_the_brake_alone_does_not(replay):
    view = replay.result.views[HELD, "v1"]
    found, counted = {}, {}
    for condition in view.policy.list_conditions(1, HELD):
        counted[str(condition)] = view.attempt_window.get_counts(condition)[-1].tolist()
        found[str(condition)] = compute_log_e(
            *counted[str(condition)], at_least=condition.threshold
        )
    needed = np.log(1 / (view.policy.gates[0].risk * FIRST_ATTEMPT))
    agreed, missed = counted["agreement (brake) at least 97 %"]
    assert round(100 * agreed / (agreed + missed)) == 96
    assert found["agreement (brake) at least 97 %"] < 0
    agreed, missed = counted["agreement at least 95 %"]
    assert agreed / (agreed + missed) >= 0.95
    (planted,) = (name for name in found if "planted" in name)
    assert found[planted] > needed


def test_quiet_hours_come_first_and_busy_hours_stay_attended(events):
    (attended, first), (unattended, second) = list_stages(events, Widened, QUIET)
    assert (attended, unattended) == ("attended", "unattended")
    assert datetime(2025, 3, 24, tzinfo=UTC) < first < datetime(2025, 5, 1, tzinfo=UTC)
    assert timedelta(days=15) < second - first
    assert second < BRAKE
    assert [stage for stage, _ in list_stages(events, Widened, BUSY)] == ["attended"]


def test_the_first_tick_after_the_record_narrows_the_whole_route_and_only_it(events):
    narrowed = [e for e in events if isinstance(e, Narrowed)]
    assert {(e.cell, e.to_stage, e.at) for e in narrowed} == {
        (QUIET, "shadow", TICK),
        (BUSY, "shadow", TICK),
    }
    (incident,) = [e for e in events if isinstance(e, IncidentOpened)]
    assert "harsh-brake" in incident.guard
    (outcome,) = read("outcomes")
    assert datetime.fromisoformat(outcome["outcome_at"]) == RECEIVED


class DayClocks:
    """Clocks of a shuttle, which a test sets."""

    def __init__(self, at):
        self.at = at

    def read(self):
        return ClockReading(self.at.timestamp(), self.at)

    def read_seconds(self):
        return self.at.timestamp(), self.at.timestamp()


def start_shuttle(replay, at):
    """Return a client of the route that has fetched the scope of an instant."""
    events = [event for event in replay.result.events if event.at <= at]
    client = EdgeClient("lake-loop", None, DayClocks(at))
    fetch_scope(client, replay, events, at)
    return client


def fetch_scope(client, replay, events, at):
    """Let a client read the scope after some events, at an instant."""
    leases = {site.id: site.lease or replay.policy.lease for site in replay.policy.sites}
    clocks, client.clocks = client.clocks, DayClocks(at)
    client.fetch_scope = lambda _: build_body(replay.policy, apply_events(events), at, leases)
    client.renew()
    client.clocks = clocks


def drive_on(replay, *, hands_over):
    """Return frames that the model decides on the route after the brake, by shuttle."""
    shuttles = {name: start_shuttle(replay, FETCHED) for name in ("s1", "s2", "s3")}
    planted = {row["case_key"] for row in read("planted")}
    decided = Counter()
    for row in read("cases"):
        at = datetime.fromisoformat(row["occurred_at"])
        if row["site"] != "lake-loop" or row["case_key"] in planted or at.date() != BRAKE.date():
            continue
        client = shuttles[row["shuttle"]]
        client.clocks.at = at
        decider = client.decide(
            row["site"],
            at,
            "v1",
            row["case_key"],
            episode=row["episode"],
            confidence=0.9,
            attributes={"weather": row["weather"]},
        ).decider
        if at == BRAKE:
            assert (row["shuttle"], decider) == ("s2", "model")
            if hands_over:
                client.hand_over()
        elif at > BRAKE:
            decided[row["shuttle"]] += decider == "model"
    return shuttles, decided


def test_the_shuttle_hands_over_at_once_and_the_others_drive_on_as_the_page_says(replay):
    shuttles, decided = drive_on(replay, hands_over=True)
    assert decided["s2"] == 0
    assert min(decided["s1"], decided["s3"]) > 0
    _, without = drive_on(replay, hands_over=False)
    told = re.search(r"decided (\d+) more frames.*?would have been (\d+)\.", PAGE, re.DOTALL)
    assert [int(number) for number in told.groups()] == [decided.total(), without.total()]
    fetch_scope(shuttles["s2"], replay, [e for e in replay.result.events if e.at <= FETCHED], TICK)
    assert "handed over" in ask_after(shuttles["s2"]).reason  # the same head lifts nothing


def ask_after(client):
    client.clocks.at = TICK + timedelta(hours=12)
    attributes = {"weather": "dry"}
    return client.decide("lake-loop", TICK, "v1", "k", attributes=attributes)


def test_the_narrowed_scope_lifts_the_latch_and_leaves_the_route_to_people(replay):
    client = start_shuttle(replay, FETCHED)
    client.hand_over()
    fetch_scope(client, replay, [e for e in replay.result.events if e.at <= TICK], TICK)
    answer = ask_after(client)
    assert (answer.decider, "handed over" in answer.reason) == ("human", False)


def test_the_page_tells_the_four_times(replay):
    told = re.findall(r"^\| (\d\d:\d\d) \|", PAGE, re.MULTILINE)
    lease = replay.policy.lease
    times = (BRAKE, RECEIVED, TICK, FETCHED + lease)
    assert told == [f"{time:%H:%M}" for time in times]
    client = start_shuttle(replay, FETCHED)
    client.clocks.at = FETCHED + lease
    at, attributes = FETCHED + lease, {"weather": "dry"}
    assert client.decide("lake-loop", at, "v1", "k", attributes=attributes).decider == "human"


def test_plain_rules_open_the_held_cell(replay):
    rows = {row["case_key"]: row for row in read("cases")}
    planted = {row["case_key"] for row in read("planted")}
    decisions = {row["case_key"]: row for row in read("decisions")}
    agrees, sure = [], []
    for row in read("predictions"):
        case = rows[row["case_key"]]
        local = datetime.fromisoformat(case["occurred_at"]).astimezone(ZURICH)
        hour = local.hour + local.minute / 60
        is_quiet = 9.5 <= hour < 11.5 or 13.5 <= hour < 16
        is_held = case["site"] == HELD.site and case["weather"] == "dry" and not is_quiet
        if row["case_key"] in planted or not is_held:
            continue
        done = decisions[row["case_key"]]
        agreed = (row["brake"], row["accelerate"]) == (done["brake"], done["accelerate"])
        agreed &= abs(float(row["steer"]) - float(done["steer"])) <= 2
        agrees.append(agreed)
        sure += [agreed] * (float(row["confidence"]) >= 0.9)
    rates = np.cumsum(agrees) / np.arange(1, len(agrees) + 1)
    assert (rates[99:] >= 0.95).any()
    windows = np.array(agrees[: len(agrees) // 50 * 50]).reshape(-1, 50).mean(axis=1) >= 0.95
    assert (windows[:-2] & windows[1:-1] & windows[2:]).any()
    assert np.mean(sure) >= 0.95
    assert sum(not agreed for agreed in sure) >= 20


def test_one_encounter_in_a_hundred_asks_for_a_hard_brake():
    planted = {row["case_key"] for row in read("planted")}
    brakes = {
        row["case_key"].rpartition("-")[0]: row["brake"]
        for row in read("decisions")
        if row["case_key"] not in planted
    }
    assert 0.007 < list(brakes.values()).count("hard") / len(brakes) < 0.013
