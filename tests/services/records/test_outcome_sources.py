"""Where outcomes come from: which count to widen, and that a harm is never taken back."""

from dataclasses import replace

import polars as pl
import pytest

from rollout.core.policy.evidence_sources import NOT_NAMED, OWN_PREDICTION
from rollout.core.records.records import Case, Outcome, Prediction
from rollout.core.scope.commands import Actor
from rollout.services.engine.policy_application import apply_policy
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.services.engine.unit_counting import open_stored_history
from rollout.services.records.ingest import _Batch
from rollout.store.ledger.accounts import Accounts
from rollout.tally.case_placement import place_cases
from rollout.tally.outcome_units import resolve_outcome_units
from tests.factories import DAY, HOUR, NOON

POLICY = """
rollout: shop
timezone: UTC
levers: [{id: price, labels: [low, high]}]
sites: [kiosk]
stages: [{id: trial, share: 30%%}]
outcomes: [{id: profit, from: 0, to: 10, in: EUR, better: more, closes: 2h}]
evidence: {unit: case, sources: {%s}}
gates: [{to: trial, require: [{measure: agreement, at_least: 80%%}]}]
"""
TILL = "outcomes: [till, camera]"
CASE = Case(key="a", site="kiosk", window="always", occurred_at=NOON)
PREDICTION = Prediction(key="a", version="v1", answers={"price": "low"})


def outcome(revision=1, profit=None, harm=None):
    values = {} if profit is None else {"profit": profit}
    return Outcome(key="a", at=NOON + HOUR, values=values, harm=harm, revision=revision)


@pytest.fixture
def sent(database):
    """Return the stored records and profit of what accounts send, in order."""

    def send(*batches, sources=TILL, rules=None):
        apply_policy(database, POLICY % sources, Actor("zoe"), NOON - DAY, salt=bytes(32))
        with database.begin_write() as transaction:
            state = load_rollout_state(transaction, "shop")
            rules_state = state
            if rules is not None:
                rules_state = replace(state, scope=replace(state.scope, rules=rules))
            for sender, *records in batches:
                batch = _Batch(transaction, rules_state, records, NOON)
                batch.set_sources(sender)
                batch.store(Accounts(transaction).add_id(sender), permit_signer=None)
            frames = open_stored_history(transaction, state).load_records()
        placement = place_cases(frames, state.policy, state.rollout.salt)
        (profit,) = state.policy.outcomes
        return frames, resolve_outcome_units(frames, placement, state.policy, profit)

    return send


def read_unit(units):
    """Return the only unit's value and why it is no evidence."""
    (row,) = units.to_dicts()
    return row["value"], row["source_fault"]


FROM_CAMERA = ("camera", CASE, PREDICTION)


def test_an_account_of_its_own_counts(sent):
    _, units = sent(FROM_CAMERA, ("till", outcome(profit=4.0)))
    assert read_unit(units) == (4.0, None)
    (sources,) = units["sources"]
    assert sources.startswith("u-")


def test_an_account_that_is_not_named_counts_for_guards_alone(sent):
    _, units = sent(FROM_CAMERA, ("desk", outcome(profit=4.0)))
    assert read_unit(units) == (4.0, NOT_NAMED)


@pytest.mark.parametrize("sources", [TILL, ""])
def test_the_sender_of_the_prediction_counts_for_guards_alone_named_or_not(sent, sources):
    _, units = sent(FROM_CAMERA, ("camera", outcome(profit=4.0)), sources=sources)
    assert read_unit(units) == (4.0, OWN_PREDICTION)


def test_a_prediction_of_another_version_by_the_sender_is_enough(sent):
    other = replace(PREDICTION, version="v2")
    _, units = sent(("camera", CASE, other), ("door", PREDICTION), ("camera", outcome(profit=4.0)))
    assert set(units["source_fault"]) == {OWN_PREDICTION}


def test_on_rules_1_every_sender_counts(sent):
    _, units = sent(FROM_CAMERA, ("camera", outcome(profit=4.0)), rules=1)
    assert read_unit(units) == (4.0, None)


@pytest.mark.parametrize("first", ["till", "camera"])
def test_a_value_of_no_source_never_replaces_one_of_a_source(sent, first):
    second = "till" if first == "camera" else "camera"
    profits = {"till": 1.0, "camera": 9.0}
    batches = [(first, outcome(1, profits[first])), (second, outcome(2, profits[second]))]
    _, units = sent(FROM_CAMERA, *batches)
    assert read_unit(units) == (1.0, None)


@pytest.mark.parametrize(
    ("revisions", "harm"),
    [
        ([("camera", "burn")], "burn"),
        ([("till", "burn"), ("camera", None)], "burn"),
        ([("till", None), ("camera", "burn")], "burn"),
        ([("camera", "burn"), ("till", None)], None),
        ([("till", "burn"), ("till", None)], None),
    ],
)
def test_a_harm_counts_from_everyone_and_only_a_source_takes_it_back(sent, revisions, harm):
    batches = [(name, outcome(n, 1.0, harm)) for n, (name, harm) in enumerate(revisions, 1)]
    frames, _ = sent(FROM_CAMERA, *batches)
    assert frames.outcomes.select(pl.col("harm")).item() == harm
