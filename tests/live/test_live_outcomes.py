"""Gates and guards on gain on a database: what replay decides on the same records."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from sqlalchemy import text

from rollout.features.records.record_import import import_records
from rollout.features.replay.requests import ReplayRequest, read_request_records
from rollout.kernel.policy_files.reader import load_policy
from rollout.kernel.statistics.sampling import compute_sampling_values
from rollout.live.evidence import live_evidence
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.tick_passes import Ticker
from tests.chance import list_unsealed_events
from tests.engine.slots import pricing
from tests.live.test_evidence_check import attacking
from tests.live.test_live import live, replayed

pytestmark = pytest.mark.simulation
POLICY = (
    pricing.POLICY.replace("share: 10%", "share: 30%")
    .replace("{to: trial, ", "{to: trial, minimum: {units: 20, days: 1}, ")
    .replace("{to: half, ", "{to: half, minimum: {units: 20, days: 1}, ")
    .replace("tick: 1h", "tick: 4h")
)
APPROVED_AFTER = timedelta(minutes=20)


@pytest.fixture(autouse=True)
def _snapshots_of_few_units(monkeypatch):
    monkeypatch.setattr(live_evidence, "MIN_NEW_ROWS", 100)


def read_stream(folder, policy_text, **stream):
    """Return a policy and the records of a stream, which knows its outcomes within hours."""
    paths = pricing.write_stream(folder, **stream)
    (folder / "policy.yaml").write_text(policy_text)
    request = ReplayRequest(folder / "policy.yaml", paths)
    policy = load_policy(folder / "policy.yaml")
    records = read_request_records(request, policy)
    times = records.cases.select("case_key", at="occurred_at")
    predictions = records.predictions.drop("at").join(times, on="case_key")
    columns = records.predictions.columns
    return policy, replace(records, predictions=predictions.select(columns))


def select_between(history, after, until):
    """Return what was recorded after an instant and until another."""
    times = {"cases": "occurred_at", "predictions": "at", "decisions": "at", "outcomes": "at"}
    frames = {
        kind: getattr(history, kind).filter((pl.col(at) > after) & (pl.col(at) <= until))
        for kind, at in times.items()
    }
    return replace(history, **frames)


TRIAL = ((datetime(2027, 3, 1, 16, tzinfo=UTC), 0.3),)
BY_EPISODE = POLICY.replace("unit: case", "unit: episode, episode_span: 30m")
STREAMS = {
    "earns": (POLICY, {"gain": 12, "differs": 0.4, "days": 9}, {"trial": 1, "half": 1}, 0),
    "agrees": (BY_EPISODE, {"gain": 0, "differs": 0.02, "days": 6}, {"trial": 1}, 0),
    "loses": (POLICY, {"gain": -25, "differs": 0.02, "days": 6}, {"trial": 2}, 1),
    "hides": (POLICY, {"gain": 0, "differs": 0.4, "days": 9}, {"trial": 1}, 1),
}


def hide_losses(history):
    """Drop the predictions of cases in the trial's arm that bring little, as who knew it would."""
    values = compute_sampling_values(pricing.SALT, "stage", history.cases["case_key"])
    cases = history.cases.select("case_key", is_model=pl.Series(values) >= 0.7)
    bad = history.outcomes.filter(pl.col("outcome:profit") < 20).join(cases, on="case_key")
    hidden = bad.filter("is_model").join(
        history.cases.filter(pl.col("occurred_at") > TRIAL[0][0]), on="case_key", how="semi"
    )
    return replace(history, predictions=history.predictions.join(hidden, on="case_key", how="anti"))


@pytest.mark.parametrize(
    ("url", "stream"),
    [("sqlite", "earns"), ("sqlite", "agrees"), ("postgresql", "loses"), ("sqlite", "hides")],
    indirect=["url"],
)
def test_live_and_replay_read_the_same_gains(database, tmp_path, stream):
    text, numbers, stages, narrowed = STREAMS[stream]
    policy, history = read_stream(tmp_path, text, **numbers, a_day=60, shares=TRIAL, has_gain=True)
    if stream == "hides":
        history = hide_losses(history)
    slots, expected = replayed(history, policy, APPROVED_AFTER)

    def before_slot(slot, at):
        if (slot - slots[0]) % 4:
            return None
        before, now = at - policy.tick, at + 3 * policy.tick
        import_records(database, "pricing", select_between(history, before, now), at)
        return Ticker(database, "pricing", "one")

    found = live(database, text, slots, APPROVED_AFTER, before_slot=before_slot)
    changes = Counter((type(event).__name__, getattr(event, "to_stage", "")) for event in found)
    assert {stage: n for (kind, stage), n in changes.items() if kind == "Widened"} == stages
    assert changes["Narrowed", "shadow"] == narrowed
    assert list_unsealed_events(found) == list_unsealed_events(expected)
    report = EvidenceCheck(database, "pricing").check_all()
    assert report.units > len(history.cases)  # each case as a unit, and again with its outcome
    assert report.faults == []
    if database.engine.dialect.name == "sqlite" and stream != "hides":
        check_edits(database)


def check_edits(database):
    """Edit a value, then a counted score: each is found, the first by its hash and by the unit."""
    profit = '{"profit":59.0}'
    edits = {
        "outcomes": ("outcome_values = :new", profit, "is not what its hash says"),
        "counted_outcomes": ("score = :new", 0.99, "not those of the tick's digest"),
    }
    for table, (change, new, fault) in edits.items():
        chosen = "select min(case_id) from counted_outcomes where known_share = 1.0"
        statement = f"update {table} set {change} where case_id = ({chosen})"  # noqa: S608 - ours
        with attacking(database, table) as transaction:
            transaction.execute(text(statement), {"new": new})
        faults = EvidenceCheck(database, "pricing").check_all().faults
        assert any(fault in line for line in faults)
        assert any("counted with score" in line for line in faults)
