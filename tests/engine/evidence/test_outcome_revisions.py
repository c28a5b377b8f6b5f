"""What a sender that is no source of evidence adds opens no gate and takes back no harm."""

from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.evidence.case_placement import place_cases
from rollout.engine.evidence.frames import (
    OUTCOME_SOURCE_SCHEMA,
    OWN_PREDICTION_SCHEMA,
    REMARK_SCHEMA,
    RecordFrames,
    build_cases_schema,
    build_decisions_schema,
    build_outcomes_schema,
    build_predictions_schema,
)
from rollout.engine.evidence.outcome_resolution import list_harms, resolve_outcome_units
from rollout.kernel.policy.evidence_sources import NOT_NAMED
from rollout.kernel.policy_files.reader import parse_policy
from tests.factories import HOUR, MINUTE, NOON
from tests.properties import examples

pytestmark = pytest.mark.slow

POLICY = parse_policy("""
rollout: shop
timezone: UTC
levers: [{id: price, labels: [low, high]}]
sites: [kiosk]
stages: [{id: trial, share: 30%}]
outcomes: [{id: profit, from: 0, to: 10, in: EUR, better: more, closes: 2h}]
evidence: {unit: episode}
gates: [{to: trial, require: [{measure: agreement, at_least: 80%}]}]
""")
(PROFIT,) = POLICY.outcomes
KEYS = ("a", "b", "c")  # one episode; `camera` predicted only `b`
CASES = pl.DataFrame(
    [("kiosk", NOON, NOON, "night", key) for key in KEYS],
    schema=["site", "occurred_at", "received_at", "episode", "case_key"],
    orient="row",
)
NO_REMARKS = pl.DataFrame(schema=REMARK_SCHEMA)
HARM_COLUMNS = ["case_key", "harm", "at"]


def contents(sources):
    """Return revisions of a case: source, profit, harm and instant."""
    return st.tuples(
        st.sampled_from(KEYS),
        sources,
        st.sampled_from([None, 0.0, 4.0, 10.0]),
        st.sampled_from([None, "burn", "scratch"]),
        st.integers(-60, 180).map(lambda minutes: NOON + minutes * MINUTE),
    )


def build_records(revisions):
    """Return the frames of a history with these revisions, in order."""
    schema = build_outcomes_schema(["price"], ["profit"]) | OUTCOME_SOURCE_SCHEMA
    rows = [
        {"case_key": key, "outcome:profit": profit, "harm": harm, "at": at, "source": source}
        | {"source_fault": NOT_NAMED if source == "desk" else None}
        for key, source, profit, harm, at in revisions
    ]
    frame = pl.DataFrame(rows, schema=schema).with_row_index("number")
    is_newest = pl.col("number") == pl.col("number").max().over("case_key")
    predictions = [{"case_key": key, "version": "v1", "value:price": "low"} for key in KEYS]
    return RecordFrames(
        cases=pl.DataFrame(CASES.to_dicts(), schema=build_cases_schema()),
        predictions=pl.DataFrame(predictions, schema=build_predictions_schema(["price"])),
        decisions=pl.DataFrame(schema=build_decisions_schema(["price"])),
        outcomes=frame.filter(is_newest).drop("number"),
        earlier_outcomes=frame.filter(~is_newest).drop("number"),
        own_predictions=pl.DataFrame([("b", "camera")], schema=OWN_PREDICTION_SCHEMA, orient="row"),
        rejected=NO_REMARKS,
        notes=NO_REMARKS,
        row_counts={},
    )


def read(revisions):
    """Return the harms, and the least and greatest score of the unit as evidence to widen."""
    records = build_records(revisions)
    placement = place_cases(records, POLICY, bytes(32))
    (unit,) = resolve_outcome_units(records, placement, POLICY, PROFIT).to_dicts()
    known = unit["known_share"] if unit["source_fault"] is None else 0.0
    harms = list_harms(records, placement.cases).select(HARM_COLUMNS).rows()
    return set(harms), known * unit["score"], known * unit["score"] + 1 - known


SOURCED = contents(st.sampled_from(["till", "imports"]))
UNSOURCED = contents(st.sampled_from(["camera", "desk"]))


@pytest.mark.slow
@examples(
    given(
        earlier=st.lists(SOURCED | UNSOURCED, max_size=6),
        added=st.lists(UNSOURCED, min_size=1, max_size=3),
    ),
    fast=10,
    whole=100,
)
def test_revisions_of_no_source_widen_nothing_and_take_back_no_harm(earlier, added):
    harms, least, greatest = read(earlier)
    harms_after, least_after, greatest_after = read([*earlier, *added])
    assert harms <= harms_after
    assert least_after <= least  # of the model's units, in which a missing value is the worst
    assert greatest_after >= greatest  # of the humans' units, in which it is the best


@given(earlier=st.lists(SOURCED, max_size=3), later=SOURCED)
def test_the_newest_revision_of_a_source_corrects(earlier, later):
    key, _, _, harm, at = later
    harms, _, _ = read([*earlier, later])
    same = []  # reports of this harm since a source last took one back
    for *_, other_harm, other_at in (r for r in earlier if r[0] == key):
        same = [*same, other_at] if other_harm == harm else same if other_harm else []
    expected = {(key, harm, min([*same, at]))} if harm else set()
    assert {row for row in harms if row[0] == key} == expected


def test_a_value_in_time_stays_beside_one_of_a_sender_that_predicted_the_unit():
    till, camera = ("a", "till", 4.0, None, NOON), ("a", "camera", 10.0, None, NOON)
    for revisions in ([till, camera], [camera, till]):
        assert read(revisions)[1:] == pytest.approx((0.4 / 3, 2.4 / 3))
    late = ("a", "till", 4.0, None, NOON + 3 * HOUR + timedelta(seconds=1))
    assert read([late, camera])[1:] == (0, 1)
