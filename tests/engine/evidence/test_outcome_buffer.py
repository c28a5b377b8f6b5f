"""Counted outcomes as arms: by sampling value, unless the stored answer was another one."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from rollout.engine.evidence.guard_evidence import ArmReader
from rollout.engine.evidence.outcome_buffer import (
    DRAWN_MODEL,
    DRAWN_PEOPLE,
    NOT_ASKED,
    UNRECORDED,
    CountedOutcome,
    OutcomeBuffer,
    build_arms,
)
from rollout.engine.evidence.outcome_resolution import to_outcome_units
from rollout.engine.evidence.stage_history import (
    StageHistory,
    build_stage_shares,
    find_buckets,
)
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy.evidence_sources import OWN_PREDICTION
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.units import DECIDES, PROPOSES
from tests.engine.slots.pricing import POLICY

RULE = parse_policy(POLICY)  # trial: the model decides 10 %, of which 20 % are audited
PROPOSING = parse_policy(
    POLICY.replace("share: 10%, audit: 20%", "blind: 50%").replace(
        "require: [{measure: gain, of: profit, at_least: 0}]",
        "require: [{measure: agreement, at_least: 80%}]",
    )
)
(PROFIT,) = RULE.outcomes
CELL = Cell("shop", "always")
LINE = CountedOutcome(
    *(1, "v1", "profit", 1, 9, 5, "shop", "always", PROFIT.definition),
    *(0, None, 0.5, 1.0, b""),
)


def read_arms(value, drawn, policy=RULE, arm=DECIDES):
    """Return the arms of one unit at the stage `trial`, by its sampling value."""
    (bucket,) = find_buckets(build_stage_shares(policy), np.array([value])).tolist()
    buffer = OutcomeBuffer()
    buffer.add([LINE._replace(bucket=bucket, drawn=drawn)])
    rows = buffer.read_outcomes(CELL, "v1", PROFIT)
    return build_arms(rows, np.array([1]), build_stage_shares(policy), arm)


@pytest.mark.parametrize(
    ("value", "drawn", "arms"),
    [
        (0.5, None, [False]),  # no answer is stored: the sampling value decides
        (0.95, None, [True]),
        (0.95, "model blind None", [True]),  # of an imported file
        (0.5, "model blind None", []),
        (0.5, "human blind 0.9", [False]),
        (0.95, "model blind 0.1", [True]),
        (0.5, "human blind 1.0", [False]),  # a stop, a failure: no sampling
        (0.95, "human blind 1.0", [True]),
        (0.95, "human blind 0.9", []),  # drawn under another stage
        (0.5, "human blind 0.5", []),
        (0.95, "model blind 0.5", []),
    ],
)
def test_a_unit_is_in_an_arm_only_if_its_stage_alone_decided(value, drawn, arms):
    assert read_arms(value, drawn).is_model.tolist() == arms


def test_an_answer_that_a_human_confirms_is_of_the_models_arm():
    arms = read_arms(0.7, "human assisted 0.5", PROPOSING, PROPOSES)
    assert (arms.is_model.tolist(), arms.shares.tolist()) == ([True], [0.5])
    assert not len(read_arms(0.7, "human blind 0.5", PROPOSING, PROPOSES))


def test_units_grow_by_slot_and_another_definition_counts_apart():
    buffer = OutcomeBuffer()
    later = LINE._replace(unit=2, slot=10, score=0.75)
    assert buffer.add([LINE]) == {(CELL, "v1")}
    buffer.add([later, LINE._replace(unit=3, definition="0.0 1.0 more 60 s")])
    rows = buffer.read_outcomes(CELL, "v1", PROFIT)
    assert (rows.slot.tolist(), rows.score.tolist()) == ([9, 10], [0.5, 0.75])
    wider = replace(PROFIT, high=90.0)
    assert not len(buffer.read_outcomes(CELL, "v1", wider))
    assert replace(PROFIT, missing_at_most=0.5).definition == PROFIT.definition


def test_a_history_that_records_arms_has_no_others():
    names = ("slot", "occurred", "bucket", "score", "known_share")
    rows = pl.DataFrame({name: [1, 1, 1] for name in names})
    recorded = rows.with_columns(sampled_arm=pl.Series(["model", "human", None]))
    assert to_outcome_units(recorded).drawn_arm.tolist() == [DRAWN_MODEL, DRAWN_PEOPLE, NOT_ASKED]
    assert to_outcome_units(rows).drawn_arm.tolist() == [UNRECORDED] * 3


def test_a_value_of_no_source_is_missing_as_evidence_and_read_by_guards():
    buffer = OutcomeBuffer()
    buffer.add([LINE, LINE._replace(unit=2, sources="u-1", source_fault=OWN_PREDICTION)])
    rows = buffer.read_outcomes(CELL, "v1", PROFIT)
    assert rows.known_share.tolist() == [1, 1]
    evidence = rows.drop_unsourced_values()
    assert (evidence.score.tolist(), evidence.known_share.tolist()) == ([0.5, 0], [1, 0])
    history, shares = StageHistory().extend(1, 1, "v1"), build_stage_shares(RULE)
    reader = ArmReader(CELL, "v1", history, shares, buffer)
    assert reader.read_units(PROFIT, DECIDES, LINE.occurred).known_shares.tolist() == [1, 0]
    watched = reader.read_watched(PROFIT, LINE.occurred, LINE.slot - 1)
    assert watched.known_shares.tolist() == [1, 1]
    assert not len(reader.read_watched(PROFIT, LINE.occurred, LINE.slot))  # of before the alarm
    assert not len(reader.read_watched(PROFIT, LINE.occurred + 1, LINE.slot - 1))


def test_digests_cover_sources_and_lines_without_any_are_as_they_were():
    assert LINE.text == f"outcome {tuple(LINE)[:-2]!a}\n".encode()
    texts = {
        LINE._replace(sources=s, source_fault=f).text for s in (None, "u-1") for f in (None, "x")
    }
    assert len(texts) == 4
