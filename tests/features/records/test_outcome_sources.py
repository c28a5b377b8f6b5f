"""Where outcomes come from: which count to widen, and that a harm is never taken back."""

from typing import NamedTuple

import polars as pl
import pytest
from msgspec.structs import replace

from rollout.data.ledger.ledger import Accounts
from rollout.engine.decide.commands import Actor
from rollout.engine.evidence.case_placement import place_cases
from rollout.engine.evidence.outcome_resolution import list_harms, resolve_outcome_units
from rollout.engine.records.records import Case, Outcome, Prediction
from rollout.features.records.ingest import _Batch
from rollout.kernel.policy.evidence_sources import NOT_NAMED, OWN_EPISODE_PREDICTION, OWN_PREDICTION
from rollout.live.evidence.unit_counting import open_stored_history
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from tests.factories import DAY, HOUR, NOON

POLICY = """
rollout: shop
timezone: UTC
levers: [{id: price, labels: [low, high]}]
sites: [kiosk]
stages: [{id: trial, share: 30%%}]
outcomes: [{id: profit, from: 0, to: 10, in: EUR, better: more, closes: 2h}]
evidence: {unit: %s, sources: {%s}}
gates: [{to: trial, require: [{measure: agreement, at_least: 80%%}]}]
"""
TILL = "outcomes: [till, camera]"
CASE = Case(key="a", site="kiosk", window="always", occurred_at=NOON)
PREDICTION = Prediction(key="a", version="v1", answers={"price": "low"})


BY_EPISODE = ("episode", "episode, episode_span: 1h")  # named by the client, and of one hour


class Sent(NamedTuple):
    """The counted units with a profit, and the harms that hold: label and instant."""

    units: pl.DataFrame
    harms: list[tuple[str, object]]


def outcome(revision=1, profit=None, harm=None, at=NOON + HOUR):
    values = {} if profit is None else {"profit": profit}
    return Outcome(key="a", at=at, values=values, harm=harm, revision=revision)


@pytest.fixture
def sent(database):
    """Return units and harms of what accounts send, in order."""

    def send(*batches, sources=TILL, unit="case"):
        apply_policy(
            database,
            POLICY % (unit, sources),
            Actor("zoe"),
            NOON - DAY,
            salt=bytes(32),
            service_salt=bytes(32),
        )
        with database.begin_write() as transaction:
            state = load_rollout_state(transaction, "shop")
            for sender, *records in batches:
                batch = _Batch(transaction, state, records, NOON)
                batch.set_sources(sender)
                batch.store(Accounts(transaction).add_id(sender), permit_signer=None)
            frames = open_stored_history(transaction, state).load_records()
        placement = place_cases(frames, state.policy, state.rollout.salt)
        (profit,) = state.policy.outcomes
        units = resolve_outcome_units(frames, placement, state.policy, profit)
        harms = list_harms(frames, placement.cases)
        return Sent(units, harms.sort("at").select("harm", "at").rows())

    return send


def read_unit(units):
    """Return the only unit's value and why it is no evidence."""
    (row,) = units.to_dicts()
    return row["value"], row["source_fault"]


FROM_CAMERA = ("camera", CASE, PREDICTION)


def test_an_account_of_its_own_counts(sent):
    units, _ = sent(FROM_CAMERA, ("till", outcome(profit=4.0)))
    assert read_unit(units) == (4.0, None)
    (sources,) = units["sources"]
    assert sources.startswith("u-")


def test_an_account_that_is_not_named_counts_for_guards_alone(sent):
    units, _ = sent(FROM_CAMERA, ("desk", outcome(profit=4.0)))
    assert read_unit(units) == (4.0, NOT_NAMED)


@pytest.mark.parametrize("sources", [TILL, ""])
def test_the_sender_of_the_prediction_counts_for_guards_alone_named_or_not(sent, sources):
    units, _ = sent(FROM_CAMERA, ("camera", outcome(profit=4.0)), sources=sources)
    assert read_unit(units) == (4.0, OWN_PREDICTION)


def test_a_prediction_of_another_version_by_the_sender_is_enough(sent):
    other = replace(PREDICTION, version="v2")
    units, _ = sent(("camera", CASE, other), ("door", PREDICTION), ("camera", outcome(profit=4.0)))
    assert set(units["source_fault"]) == {OWN_PREDICTION}


@pytest.mark.parametrize("first", ["till", "camera"])
def test_a_value_of_no_source_never_replaces_one_of_a_source(sent, first):
    second = "till" if first == "camera" else "camera"
    profits = {"till": 1.0, "camera": 9.0}
    batches = [(first, outcome(1, profits[first])), (second, outcome(2, profits[second]))]
    units, _ = sent(FROM_CAMERA, *batches)
    assert read_unit(units) == (1.0, None)


def test_numbers_that_another_key_took_keep_no_source_from_counting(sent):
    taken = [("camera", outcome(1, 9.0)), ("camera", outcome(9, 9.0))]
    till = [("till", outcome(1, 1.0)), ("till", outcome(2, 1.0))]  # the first one is a conflict
    units, _ = sent(FROM_CAMERA, *taken, *till)
    assert read_unit(units) == (1.0, None)


def send_episode(sent, unit, *batches):
    """Send two cases of one episode: `door` predicts the first one, `camera` the second one."""
    episode = None if "span" in unit else "night"
    case, beside = replace(CASE, episode=episode), replace(CASE, key="b", episode=episode)
    beside = replace(beside, occurred_at=NOON + HOUR / 2)
    predicted = ("camera", beside, replace(PREDICTION, key="b"))
    return sent(("door", case, PREDICTION), predicted, *batches, unit=unit)


@pytest.mark.parametrize("unit", BY_EPISODE)
def test_the_sender_of_a_prediction_beside_counts_for_guards_alone(sent, unit):
    units, _ = send_episode(sent, unit, ("camera", outcome(profit=4.0)))
    assert read_unit(units) == (4.0, OWN_EPISODE_PREDICTION)


def test_a_value_of_the_sender_of_a_prediction_beside_replaces_none_of_a_source(sent):
    batches = [("till", outcome(1, 1.0)), ("camera", outcome(2, 9.0))]
    units, _ = send_episode(sent, "episode", *batches)
    assert read_unit(units) == (1.0, None)


def test_predictions_of_other_units_change_nothing(sent):
    other = replace(CASE, key="b", occurred_at=NOON + 5 * HOUR)
    batches = [("camera", other, replace(PREDICTION, key="b")), ("camera", outcome(profit=4.0))]
    units, _ = sent(("door", CASE, PREDICTION), *batches, unit="episode, episode_span: 1h")
    assert units.filter(case_key="a").select("value", "source_fault").row(0) == (4.0, None)


@pytest.mark.parametrize("unit", BY_EPISODE)
def test_the_sender_of_a_prediction_beside_takes_no_harm_back(sent, unit):
    batches = [("till", outcome(1, harm="burn")), ("camera", outcome(2))]
    _, harms = send_episode(sent, unit, *batches)
    assert harms == [("burn", NOON + HOUR)]


@pytest.mark.parametrize(
    ("revisions", "harms"),
    [
        ([("camera", "burn")], ["burn"]),
        ([("till", "burn"), ("camera", None)], ["burn"]),
        ([("till", "burn"), ("camera", "scratch")], ["burn", "scratch"]),
        ([("till", "burn"), ("desk", "scratch"), ("desk", None)], ["burn", "scratch"]),
        ([("till", None), ("camera", "burn")], ["burn"]),
        ([("camera", "burn"), ("till", None)], []),
        ([("camera", "burn"), ("till", "scratch"), ("camera", None)], ["scratch"]),
        ([("till", "burn"), ("till", None)], []),
        ([("till", "burn"), ("till", "scratch")], ["scratch"]),
    ],
)
def test_a_harm_counts_from_everyone_and_only_a_source_takes_it_back(sent, revisions, harms):
    batches = [(name, outcome(n, 1.0, harm)) for n, (name, harm) in enumerate(revisions, 1)]
    assert [harm for harm, _ in sent(FROM_CAMERA, *batches).harms] == harms


def test_an_instant_of_no_source_moves_no_harm(sent):
    batches = [("till", outcome(1, harm="burn")), ("camera", outcome(2, harm="burn", at=NOON))]
    harms = sent(FROM_CAMERA, *batches).harms
    assert harms == [("burn", NOON), ("burn", NOON + HOUR)]
