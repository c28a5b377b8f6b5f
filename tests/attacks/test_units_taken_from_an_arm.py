"""A sender that knows arms and outcomes takes no case from its arm by what it sends."""

from datetime import timedelta

import numpy as np
import pytest

from rollout.data.counting.counts import CountedOutcomes
from rollout.engine.evidence.outcome_buffer import OutcomeBuffer, build_arms
from rollout.engine.evidence.stage_history import build_stage_shares
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.data.databases import on_sqlite
from tests.factories import HOUR, MINUTE, NOON
from tests.features import bear_field as field

URL, CELL = "/v1/rollouts/bears", Cell("creek", "day")
POLICY = (
    field.POLICY.replace(
        "evidence: {unit: case}",
        "stages: [{id: trial, share: 50%}]\n"
        "outcomes: [{id: profit, from: 0, to: 1, in: EUR, better: more, closes: 1h}]\n"
        "evidence: {unit: case, grace: 1h}",
    )
    .replace("to: supervised", "to: trial")
    .replace("  - {to: autonomous, require: [{measure: agreement, at_least: 97%}]}\n", "")
)
PEOPLES, MODELS = field.keys(0.5)[0], field.keys(0.5, below=False)[0]
SURE = {"answers": {"alarm": "bear"}, "confidence": 0.9}
UNSAMPLED = {"decider": "human", "exposure": "blind", "share": 1.0, "scope_revision": 0}


@pytest.fixture(autouse=True)
def _trial(database, monkeypatch, request):
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(0))
    field.set_up_field(database, policy=getattr(request, "param", POLICY))
    field.append(database, field.build_widening(("creek", "day"), "trial", at=NOON - HOUR))


def read_arms(database):
    """Return whether each unit is in the model's arm, once its deadline has passed."""
    Ticker(database, "bears", "one").tick(NOON + 2 * HOUR)
    buffer, policy = OutcomeBuffer(), parse_policy(POLICY)
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "bears").rollout
        lines = CountedOutcomes(transaction, rollout).read_lines(after=-1, until=2**62)
        buffer.add(lines)
    rows = buffer.read_outcomes(CELL, "v1", policy.outcomes[0])
    stages = np.ones(len(rows), dtype=np.int64)
    return sorted(build_arms(rows, stages, build_stage_shares(policy), "").is_model.tolist())


def ask(client, key, **more):
    told = client.by("ingest").post(f"{URL}/assignments", json=field.question(key, **more))
    assert told.json()["recorded"]["status"] == "accepted", told.text
    return told.json()["decider"]


@on_sqlite
@pytest.mark.parametrize(
    "more",
    [
        {"prediction": {"answers": {}, "error": "timeout"}},
        {"prediction": {"answers": {"alarm": "wolf"}}},
        {"prediction": SURE, "confidence": 0.95},
    ],
    ids=["failed", "unknown", "two confidences"],
)
def test_a_question_that_leaves_a_case_to_people_takes_it_from_no_arm(client, database, more):
    for key in (PEOPLES, MODELS):
        assert ask(client, key, **more) == "human"
    assert read_arms(database) == [False, True]


@on_sqlite
def test_a_claim_that_nothing_was_drawn_takes_a_case_from_no_arm(client, database, clock):
    case = {"kind": "case", "site": "creek", "occurred_at": NOON.isoformat()}
    said = {"kind": "prediction", "version": "v1", "answers": {"alarm": "bear"}}
    items = [row | {"key": key} for key in (PEOPLES, MODELS) for row in (case, said)]
    clock.advance(10 * MINUTE)
    later = said | UNSAMPLED | {"key": MODELS, "revision": 2, "at": NOON.isoformat()}
    for sent in (items, [later]):
        receipts = client.by("ingest").post(f"{URL}/records", json=sent)
        assert {row["status"] for row in receipts.json()["items"]} == {"accepted"}, receipts.text
    assert read_arms(database) == [False, True]


@on_sqlite
@pytest.mark.parametrize(
    "_trial", [POLICY.replace("unit: case", "unit: episode")], indirect=["_trial"]
)
@pytest.mark.parametrize(("site", "ago"), [("lake", MINUTE), ("creek", 5 * HOUR)])
def test_a_case_that_is_added_later_moves_no_episode(client, database, clock, site, ago):
    case = {"kind": "case", "key": "a", "site": "creek", "occurred_at": NOON.isoformat()}
    said = {"kind": "prediction", "key": "a", "version": "v1", "answers": {"alarm": "bear"}}
    bad = {"kind": "outcome", "key": "a", "at": NOON.isoformat(), "values": {"profit": 0}}
    added = case | {"key": "b", "site": site, "occurred_at": (NOON - ago).isoformat()}
    for sent in ([case | {"episode": MODELS}, said], [bad], [added | {"episode": MODELS}]):
        receipts = client.by("ingest").post(f"{URL}/records", json=sent)
        assert {row["status"] for row in receipts.json()["items"]} == {"accepted"}, receipts.text
        clock.advance(MINUTE)
    assert read_arms(database) == [True]
