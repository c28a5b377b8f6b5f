"""The list of losses, computed in columns, is that of a referee that reads case after case."""

from random import Random

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.evidence.frames import (
    PROBABILITY_SCHEMA,
    REMARK_SCHEMA,
    RecordFrames,
    build_cases_schema,
    build_decisions_schema,
    build_outcomes_schema,
    build_predictions_schema,
)
from rollout.features.reports.inputs.losses import classify_cases, rank_losses
from tests.features.reports.inputs.plain_losses import (
    RecordedCase,
    find_plain_losses,
    find_plain_thresholds,
)
from tests.features.reports.inputs.test_losses import HEAT, POLICY, SETS
from tests.properties import examples

POLICIES = {"labels": POLICY, "sets": SETS, "numbers": HEAT}
ANSWERS = {
    "labels": ("bear", "bear", "fox", "nothing", "wolf"),  # the policy knows no wolf
    "sets": ("bear", "fox", "bear;fox", "(none of them)", "fox;wolf"),
    "numbers": ("20", "20", "20.5", "21.4", "30", "50"),  # 50 is out of range
}
STORED_LABELS = {"labels": ("nothing", "bear", "fox"), "sets": ("fox", "bear"), "numbers": ()}
SHARES = st.integers(0, 32).map(lambda n: n / 97)


@st.composite
def histories(draw, form):
    """Draw cases: mostly of one vote, with probabilities for all labels, some, or none."""
    answers = st.sampled_from(ANSWERS[form])
    most_votes = draw(st.sampled_from([1, 3]))
    stored = draw(st.sampled_from(["none", "all", "some"]))
    labels = {"none": (), "all": STORED_LABELS[form], "some": STORED_LABELS[form]}[stored]
    shares = (
        st.dictionaries(st.sampled_from(labels), SHARES)
        if labels and stored == "some"
        else st.fixed_dictionaries(dict.fromkeys(labels, SHARES))
    )
    case = st.tuples(
        st.none() | answers,
        st.none() | st.sampled_from([0.0, 0.4, 0.9, 1.0]),
        st.lists(answers, min_size=most_votes == 1, max_size=most_votes),
        st.none() | st.none() | answers,
        shares,
    )
    rows = draw(st.lists(case, max_size=12))
    return [RecordedCase(f"c{place:02}", *row) for place, row in enumerate(rows)]


def build_records(cases, order):
    """Return the records of the cases, each frame in the order that `order` makes of it."""
    rows = (
        [{"case_key": case.key, "site": "creek"} for case in cases],
        [
            {"case_key": case.key, "version": "v1", "value:alarm": case.model,
             "confidence": case.confidence}
            for case in cases
        ],
        [
            {"case_key": case.key, "reviewer": f"r{n}", "value:alarm": vote, "exposure": "blind"}
            for case in cases for n, vote in enumerate(case.votes)
        ],
        [{"case_key": case.key, "value:alarm": case.outcome} for case in cases if case.outcome],
        [
            {"case_key": case.key, "version": "v1", "label": label, "probability": share}
            for case in cases for label, share in case.stored.items()
        ],
    )  # fmt: skip
    schemas = (
        build_cases_schema(),
        build_predictions_schema(["alarm"]),
        build_decisions_schema(["alarm"]),
        build_outcomes_schema(["alarm"]),
        PROBABILITY_SCHEMA,
    )
    *frames, probabilities = (
        pl.DataFrame(order(part), schema=schema) for part, schema in zip(rows, schemas, strict=True)
    )
    nothing = pl.DataFrame(schema=REMARK_SCHEMA)
    return RecordFrames(*frames, nothing, nothing, {}, probabilities=probabilities)


@pytest.mark.slow
@pytest.mark.parametrize("form", POLICIES)
@examples(given(data=st.data(), seed=st.none() | st.integers(0, 99)), fast=8, whole=100)
def test_losses_are_those_of_the_referee(form, data, seed):
    policy = POLICIES[form]
    (lever,) = policy.levers
    cases = data.draw(histories(form))

    def order(rows):
        return rows if seed is None else Random(seed).sample(rows, len(rows))  # noqa: S311

    records = build_records(cases, order)
    rows = rank_losses(records, policy)
    expected = find_plain_losses(cases, lever)
    by_key = {loss.key: loss for loss in expected}
    for row in rows.iter_rows(named=True):
        loss = by_key[row["case_key"]]
        assert (row["human"], row["model"], row["cost"], row["kind"]) == (
            loss.human, loss.model, loss.cost, loss.kind,
        )  # fmt: skip
        assert (row["loss"] is None) == (loss.loss is None)
        assert (row["loss"] or 0.0) == pytest.approx(loss.loss or 0.0, rel=1e-12, abs=1e-12)
    # cases whose losses differ beyond the 12th digit are equal, and in the order of their keys
    ranks = [(round_rank(by_key[key].rank), key) for key in rows["case_key"]]
    assert ranks == sorted(ranks)
    assert len(ranks) == len(expected)
    classified = classify_cases(records, "v1", lever)
    reviewed = [case for case in cases if case.model is not None and case.votes]
    assert classified.compared == len(reviewed)
    assert {row.label: row.confidence for row in classified.thresholds} == pytest.approx(
        find_plain_thresholds(reviewed, lever)
    )


def round_rank(rank):
    return tuple(round(part, 9) if isinstance(part, float) else part for part in rank[:-1])
