from dataclasses import replace
from math import log

import polars as pl
import pytest

from rollout.engine.evidence.frames import (
    PROBABILITY_SCHEMA,
    REMARK_SCHEMA,
    RecordFrames,
    build_cases_schema,
    build_decisions_schema,
    build_outcomes_schema,
    build_predictions_schema,
)
from rollout.engine.records.reviews import MAX_LISTED
from rollout.features.reports.inputs.losses import (
    CONFIDENT_DIFFERENT,
    NO_CONFIDENCES,
    REVIEWERS_SPLIT,
    SUSPECTED_HUMAN_ERROR,
    UNSURE,
    build_losses,
    classify_cases,
    compute_confidence_thresholds,
    compute_losses,
    rank_losses,
    sort_losses,
)
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.units import Lever

POLICY = parse_policy("""
rollout: bears
timezone: UTC
levers:
  - id: alarm
    labels: [bear, fox, nothing]
    actions: {bear: siren, fox: none, nothing: none}
    costs: [{did: none, right: siren, cost: 20}, {cost: 1}]
sites: [creek]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, at_least: 90%}]}]
""")
HEAT = parse_policy("""
rollout: heat
timezone: UTC
levers: [{id: alarm, number: {in: C, from: 0, to: 40, tolerance: 1}, costs: [{cost: 1}]}]
sites: [creek]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, at_least: 90%}]}]
""")


def history(*cases, usual="bear", policy=POLICY):
    """Return the records of 50 usual cases, on which all agree at .9, and of the given ones.

    A case: key, model, confidence, people's answers, outcome.
    """
    cases = [*((f"u{n:02}", usual, 0.9, [usual], None) for n in range(50)), *cases]
    frames = (
        [{"case_key": c[0], "site": "creek", "attribute:lens": "old"} for c in cases],
        [{"case_key": c[0], "version": "v1", "value:alarm": c[1], "confidence": c[2]}
         for c in cases],
        [{"case_key": c[0], "reviewer": f"r{n}", "value:alarm": said, "exposure": "blind"}
         for c in cases for n, said in enumerate(c[3])],
        [{"case_key": c[0], "value:alarm": c[4]} for c in cases if c[4]],
    )  # fmt: skip
    schemas = (
        build_cases_schema(["lens"]),
        build_predictions_schema(["alarm"]),
        build_decisions_schema(["alarm"]),
        build_outcomes_schema(["alarm"]),
    )
    made = [pl.DataFrame(f, schema=s) for f, s in zip(frames, schemas, strict=True)]
    nothing = pl.DataFrame(schema=REMARK_SCHEMA)
    records = RecordFrames(*made, nothing, nothing, {})
    placed = pl.DataFrame(
        schema={
            "case_key": pl.String,
            "window": pl.String,
            "unit": pl.String,
            "occurred_us": pl.Int64,
        }
    )
    return records, placed, policy


def list_losses(records, placed, policy):
    return build_losses(rank_losses(records, policy), records, placed)


def kinds(*cases, **given):
    return {loss.case_key: loss.kind for loss in list_losses(*history(*cases, **given))}


def test_a_sure_model_against_all_people_is_confident_and_wrong():
    known = ("n", "nothing", 0.8, ["nothing"], None)
    (loss,) = list_losses(*history(("x", "nothing", 0.95, ["bear"], None), known))
    assert (loss.kind, loss.human, loss.model, loss.cost) == (
        CONFIDENT_DIFFERENT,
        "bear",
        "nothing",
        20.0,
    )
    assert loss.loss == pytest.approx(-log(0.05))
    assert (loss.votes, loss.attributes) == ((("bear", 1),), (("lens", "old"),))


def test_an_unsure_divergence_is_listed_as_such_and_not_in_the_report():
    unsure = ("x", "bear", 0.4, ["fox"], None)
    assert kinds(unsure) == {"x": UNSURE}
    (figures,) = compute_losses(*history(unsure))
    assert (figures.counts[UNSURE], figures.top) == (1, ())


def test_an_unsure_model_does_not_hide_that_the_outcome_is_against_all():
    assert kinds(("x", "bear", 0.4, ["bear"], "fox")) == {"x": UNSURE}


def with_probabilities(found, **by_case):
    """Return a history whose predictions list probabilities."""
    records, placed, policy = found
    rows = [(key, "v1", label, p) for key, given in by_case.items() for label, p in given.items()]
    frame = pl.DataFrame(rows, schema=PROBABILITY_SCHEMA, orient="row")
    return replace(records, probabilities=frame), placed, policy


def test_the_loss_is_that_of_the_stored_probability_of_the_human_label():
    found = history(("x", "bear", 0.95, ["fox"], None))
    listed = with_probabilities(found, x={"bear": 0.95, "fox": 0.04, "nothing": 0.01})
    assert list_losses(*listed)[0].loss == pytest.approx(-log(0.04))
    left_out = with_probabilities(found, x={"bear": 0.95, "nothing": 0.03})
    assert list_losses(*left_out)[0].loss == pytest.approx(-log(0.02))
    assert list_losses(*found)[0].loss == pytest.approx(-log(0.05))


SETS = parse_policy("""
rollout: bears
timezone: UTC
levers: [{id: alarm, labels: [bear, fox], many: true, overlap: 50%}]
sites: [creek]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, at_least: 90%}]}]
""")


def test_the_loss_of_a_set_is_the_sum_over_its_labels():
    cases = [
        ("x", "(none of them)", 0.7, ["bear;fox"], None),
        ("y", "bear", 0.6, ["fox"], None),
        ("z", "bear", 0.9, ["fox;wolf"], None),
        ("near", "bear;fox", 0.9, ["bear"], None),
    ]
    listed = with_probabilities(
        history(*cases, policy=SETS),
        x={"bear": 0.04, "fox": 0.05},
        y={"bear": 0.9},  # a label has none: the confidence decides
        z={"bear": 0.9, "fox": 0.2},
    )
    losses = {loss.case_key: loss for loss in list_losses(*listed)}
    assert losses["x"].loss == pytest.approx(-log(0.04) - log(0.05))
    assert losses["y"].loss == pytest.approx(-log(0.4))
    assert losses["z"].loss == pytest.approx(-log(0.1)), "no set of the labels"
    assert losses.keys() == {"x", "y", "z"}, "sets that agree are on no list"
    assert losses["x"].kind == CONFIDENT_DIFFERENT


def test_stored_probabilities_set_what_counts_as_sure():
    """Six foxes of which the model knew half and half lift the threshold of fox to .5."""
    foxes = [(f"f{n}", "fox", 0.9, ["fox"], None) for n in range(6)]
    found = history(*foxes, ("x", "fox", 0.6, ["bear"], None))
    assert {loss.case_key: loss.kind for loss in list_losses(*found)} == {"x": UNSURE}
    half = {f"f{n}": {"fox": 0.5, "bear": 0.5} for n in range(6)}
    listed = list_losses(*with_probabilities(found, **half))
    assert {loss.case_key: loss.kind for loss in listed} == {"x": CONFIDENT_DIFFERENT}


def test_where_people_say_what_the_model_says_the_loss_is_that_of_the_outcome():
    found = history(("x", "bear", 0.95, ["bear"], "nothing"))
    listed = with_probabilities(found, x={"bear": 0.95, "fox": 0.04, "nothing": 0.01})
    assert list_losses(*listed)[0].loss == pytest.approx(-log(0.01))


def test_where_the_outcome_sides_with_a_sure_model_a_person_is_suspected():
    found = history(("x", "bear", 0.95, ["fox"], "bear"))
    (loss,) = list_losses(*found)
    assert (loss.kind, loss.outcome) == (SUSPECTED_HUMAN_ERROR, "bear")
    assert loss.cost == 20.0  # what the person's answer does where a bear is


def test_one_person_against_another_and_a_sure_model_is_suspected():
    (loss,) = list_losses(*history(("x", "bear", 0.95, ["bear", "fox"], None)))
    assert (loss.kind, loss.human, loss.cost) == (SUSPECTED_HUMAN_ERROR, "fox", 20.0)


def test_a_sure_model_that_is_right_is_no_loss():
    assert kinds(("x", "bear", 0.95, ["bear"], "bear")) == {}


def test_without_a_witness_no_person_is_suspected():
    assert kinds(("x", "bear", 0.95, ["fox"], None)) == {"x": CONFIDENT_DIFFERENT}


def test_two_people_against_one_and_a_sure_model_are_a_split():
    assert kinds(("x", "bear", 0.95, ["bear", "fox", "fox"], None)) == {"x": REVIEWERS_SPLIT}


def test_people_who_differ_are_a_split_where_the_model_is_unsure():
    found = history(("x", "bear", 0.5, ["bear", "fox", "fox", "fox"], None))
    (loss,) = list_losses(*found)
    assert (loss.kind, loss.human, loss.loss) == (REVIEWERS_SPLIT, "fox", pytest.approx(log(2)))
    assert loss.votes == (("fox", 3), ("bear", 1))


def test_where_the_outcome_is_against_all_the_sure_model_was_wrong():
    found = history(("x", "bear", 0.95, ["bear"], "nothing"))
    (loss,) = list_losses(*found)
    assert (loss.kind, loss.human, loss.model, loss.cost) == (
        CONFIDENT_DIFFERENT,
        "bear",
        "bear",
        1.0,
    )


def test_a_person_whom_the_outcome_proves_right_is_not_suspected():
    assert kinds(("x", "bear", 0.95, ["bear", "fox"], "fox")) == {"x": CONFIDENT_DIFFERENT}


@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_certainty_has_a_loss_that_is_a_number(confidence):
    found = history(("x", "bear", confidence, ["bear", "fox"], None))
    (loss,) = list_losses(*found)
    assert 0 < loss.loss < 14


def test_dear_and_sure_comes_first():
    found = history(
        ("cheap", "bear", 0.999, ["fox"], None),
        ("dear", "nothing", 0.9, ["bear"], None),
        ("n", "nothing", 0.8, ["nothing"], None),
    )
    assert [loss.case_key for loss in list_losses(*found)] == ["dear", "cheap"]


def test_losses_of_equal_weight_are_ordered_by_version_and_kind():
    """A loss that is unknown weighs nothing, as one that costs nothing."""
    records, _, policy = history(
        ("slip", "fox", 0.95, ["nothing"], "fox"),  # nobody does anything about either
        ("split", "bear", None, ["bear", "fox", "fox"], None),
        ("f", "fox", 0.9, ["fox"], None),
    )
    older = records.predictions.with_columns(version=pl.lit("v0"))
    both = replace(records, predictions=pl.concat([records.predictions, older]))
    rows = rank_losses(both, policy).select("version", "case_key", "kind").rows()
    assert rows == [
        ("v0", "split", REVIEWERS_SPLIT),
        ("v0", "slip", SUSPECTED_HUMAN_ERROR),
        ("v1", "split", REVIEWERS_SPLIT),
        ("v1", "slip", SUSPECTED_HUMAN_ERROR),
    ]


def test_each_case_may_list_its_labels_in_another_order():
    found = history(("x", "bear", 0.95, ["fox"], None))
    listed = with_probabilities(
        found,
        u00={"bear": 0.9, "fox": 0.07, "nothing": 0.03},
        x={"nothing": 0.01, "bear": 0.95, "fox": 0.04},
    )
    assert list_losses(*listed)[0].loss == pytest.approx(-log(0.04))


def test_only_the_first_are_listed_and_all_are_counted():
    found = history(*((f"x{n}", "bear", 0.95, ["fox"], None) for n in range(MAX_LISTED + 5)))
    (figures,) = compute_losses(*found)
    assert (len(figures.top), figures.counts[CONFIDENT_DIFFERENT], figures.compared) == (
        MAX_LISTED,
        MAX_LISTED + 5,
        75,
    )
    assert len(list_losses(*found)) == MAX_LISTED + 5


def test_without_confidences_only_witnesses_speak():
    cases = (("x", "bear", None, ["fox"], None), ("y", "bear", None, ["fox"], "bear"))
    records, placed, policy = history(*cases)
    bare = records.predictions.with_columns(confidence=pl.lit(None, pl.Float64))
    (figures,) = compute_losses(replace(records, predictions=bare), placed, policy)
    assert (figures.missing_data, figures.confidence_thresholds, figures.without_confidence) == (
        NO_CONFIDENCES,
        (),
        52,
    )
    assert [(loss.case_key, loss.kind, loss.loss) for loss in figures.top] == [
        ("y", SUSPECTED_HUMAN_ERROR, None)
    ]


def test_each_label_has_its_own_threshold():
    records, *_ = history(("a", "fox", 0.6, ["fox"], None), ("b", "fox", 0.5, ["fox"], None))
    found = classify_cases(records, "v1", POLICY.levers[0]).thresholds
    assert {row.label: round(row.confidence, 3) for row in found} == {"bear": 0.9, "fox": 0.55}


def test_no_threshold_without_pairs():
    records, *_ = history()
    undecided = replace(records, decisions=records.decisions.clear())
    assert classify_cases(undecided, "v1", POLICY.levers[0]).thresholds == ()


def test_numbers_within_the_tolerance_are_no_split():
    cases = (
        ("near", "20", 0.95, ["20.5", "19.6"], None),
        ("far", "30", 0.95, ["20", "20.4"], None),
        ("some", "20", 0.5, ["20", "25"], None),
    )
    assert kinds(*cases, usual="20", policy=HEAT) == {
        "far": CONFIDENT_DIFFERENT,
        "some": REVIEWERS_SPLIT,
    }


def test_a_failed_answer_is_no_loss():
    assert kinds(("x", None, None, ["bear", "fox"], "bear")) == {}


def test_the_order_of_the_rows_changes_no_digit():
    """The same records give the same report, byte for byte."""
    rows = pl.DataFrame(
        {
            "human": ["bear", "none"] * 1_000,
            "model": ["bear", "none"] * 1_000,
            "probability": [0.5 + 0.4 / number for number in range(1, 2_001)],
        }
    )
    lever = Lever("x", ("bear", "none"))
    shuffled = {
        compute_confidence_thresholds(rows.sample(fraction=1, shuffle=True, seed=seed), lever)
        for seed in range(20)
    }
    assert len(shuffled) == 1


SHARES = {f"u{n:02}": {"bear": 0.9, "fox": 0.06, "nothing": 0.04} for n in range(50)}


def note_calls(monkeypatch, owner, name, note):
    called = getattr(owner, name)

    def noting(*args, **options):
        note(*args)
        return called(*args, **options)

    monkeypatch.setattr(owner, name, noting)


@pytest.mark.parametrize("keys", ["abc", "cab", "bca"])
def test_equal_losses_whose_last_digits_differ_are_in_the_order_of_their_keys(keys):
    noise = dict(zip("abc", (0.3, 0.1 + 0.2, 0.3 - 1e-16), strict=True))
    rows = pl.DataFrame(
        {"case_key": list(keys), "loss": [noise[key] for key in keys], "cost": [7.0] * 3}
    )
    assert "".join(sort_losses(rows)["case_key"]) == "abc"


def test_no_frame_with_a_row_for_each_label_is_joined(monkeypatch):
    """A million cases of ten labels were joined four times with ten million rows."""
    joined = []
    records, _, policy = with_probabilities(history(), **SHARES)
    shuffled = replace(records, decisions=records.decisions.reverse())
    note_calls(
        monkeypatch, pl.DataFrame, "join",
        lambda frame, other: joined.append(max(frame.height, other.height)),
    )  # fmt: skip
    rank_losses(shuffled, policy)
    assert records.probabilities.height == 3 * records.cases.height
    assert max(joined) == records.cases.height


def test_cases_of_one_vote_each_in_one_order_are_neither_grouped_nor_looked_up(monkeypatch):
    """A million cases took 10 s: grouped, joined five times, and paired once more."""
    unlike = ("x", "fox", 0.95, ["bear"], None)
    shares = {**SHARES, "x": {"bear": 0.05, "fox": 0.9, "nothing": 0.05}}
    records, _, policy = with_probabilities(history(unlike), **shares)
    joined, grouped = [], []
    note_calls(
        monkeypatch, pl.DataFrame, "join",
        lambda frame, other: joined.append(max(frame.height, other.height)),
    )  # fmt: skip
    note_calls(monkeypatch, pl.DataFrame, "group_by", lambda frame, *_: grouped.append(frame))
    assert rank_losses(records, policy)["case_key"].to_list() == ["x"]
    assert max(joined) == 1, "only what differs is joined"
    assert [frame.columns for frame in grouped if frame.height] == [
        ["human", "model", "probability"]
    ], "all cases are grouped once, by label, for the thresholds"
