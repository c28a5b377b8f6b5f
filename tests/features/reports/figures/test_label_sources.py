"""One label per case and lever: from whom it is, what it weighs, and what people chose about it."""

from dataclasses import replace

import polars as pl
import pytest

from rollout.engine.evidence.case_placement import place_cases
from rollout.engine.records.reviews import DROP, KEEP, RELABEL, CleaningChoice
from rollout.features.reports.figures.label_sources import (
    ASSIGNMENT_SCHEMA,
    HUMAN_SOURCES,
    MODEL_MADE,
    SOURCES,
    build_assignments,
    build_labelled_rows,
    select_training_rows,
)
from rollout.features.reports.inputs.inputs import HUMAN_CONFIRMS, MODEL
from tests.features.reports.conftest import NOON, Case, records_of


def rows(policy, *cases, assigned=(), choices=()):
    records = records_of(cases)
    placed = place_cases(records, policy, bytes(32)).cases
    told = pl.DataFrame(assigned, schema=ASSIGNMENT_SCHEMA, orient="row")
    found = build_labelled_rows(records, policy, placed, told, choices)
    return {row["case_key"]: row for row in found.iter_rows(named=True)}


def as_told(row):
    return row["label"], row["source"], row["weight"]


def choice(key, what, label=None, **more):
    return CleaningChoice(
        key=key, lever="alarm", choice=what, label=label, by="mia", at=NOON, **more
    )


def test_each_label_says_where_it_comes_from(bears):
    said = {"model": {"v1": "bear"}}
    found = rows(
        bears,
        Case("blind", human="bear", **said),
        Case("told", human="bear", exposure="assisted", **said),
        Case("after", human="bear", exposure="revealed", **said),
        Case("elsewhere", human="bear", exposure="unknown", **said),
        Case("true", human="bear", outcome="no-bear", **said),
        Case("alone", **said),
    )
    assert {key: row["source"] for key, row in found.items()} == {
        "blind": "blind",
        "told": "assisted",
        "after": "assisted",
        "elsewhere": "unknown",
        "true": "outcome",
        "alone": None,  # nobody says that the model acted on it
    }
    assert found["true"]["label"] == "no-bear"
    assert (found["blind"]["site"], found["blind"]["window"]) == ("creek", "day")


def test_what_was_judged_elsewhere_is_blind_where_the_policy_says_so(bears):
    policy = replace(bears, evidence=replace(bears.evidence, outside="blind"))
    found = rows(policy, Case("elsewhere", human="bear", exposure="unknown"))
    assert found["elsewhere"]["source"] == "blind"


def test_an_audited_row_stands_for_the_cases_that_nobody_looked_at(bears):
    said = {"model": {"v1": "bear"}}
    found = rows(
        bears,
        Case("audit", human="no-bear", **said),
        Case("alone", **said),
        Case("outside", human="bear", **said),  # judged, and not by the draw
        Case("confirmed", human="bear", exposure="assisted", **said),
        Case("true", human="bear", outcome="bear", **said),
        assigned=[
            ("audit", "v1", MODEL, 0.25),
            ("alone", "v1", MODEL, None),
            ("outside", "v1", MODEL, None),
            ("confirmed", "v1", HUMAN_CONFIRMS, None),
            ("true", "v1", MODEL, 0.25),
        ],
    )
    assert as_told(found["audit"]) == ("no-bear", "audit", 4.0)
    assert as_told(found["alone"]) == ("bear", "model-made", 1.0)
    assert as_told(found["outside"]) == ("bear", "blind", 1.0)
    assert as_told(found["confirmed"]) == ("bear", "assisted", 1.0)
    assert as_told(found["true"]) == ("bear", "outcome", 1.0)
    assert [found[key]["version"] for key in ("audit", "alone", "outside")] == ["v1", "v1", None]


def test_the_weights_of_peoples_rows_add_up_to_all_cases(bears):
    """A draw of a tenth: ten audits stand for a hundred cases of the model's."""
    said = {"model": {"v1": "bear"}}
    cases = [Case(f"m{n}", human="bear" if n < 10 else None, **said) for n in range(100)]
    people = [Case(f"p{n}", human="bear", **said) for n in range(25)]
    drawn = [(f"m{n}", "v1", MODEL, 0.1 if n < 10 else None) for n in range(100)]
    found = rows(bears, *cases, *people, assigned=drawn)
    frame = pl.DataFrame(list(found.values()), infer_schema_length=None)
    assert select_training_rows(frame, HUMAN_SOURCES)["weight"].sum() == pytest.approx(125)
    whole = select_training_rows(frame, SOURCES)
    assert (whole.height, whole["weight"].sum()) == (125, 125)


def test_people_who_differ_give_a_label_only_by_majority_or_afterwards(bears):
    three = [("ana", "bear"), ("bo", "bear"), ("cy", "no-bear")]
    found = rows(bears, Case("split", human=three[1:]), Case("two of three", human=three))
    assert as_told(found["two of three"])[:2] == ("bear", "blind")
    assert found["split"]["label"] is None
    records = records_of([Case("split", human=three[1:])])
    last = records.decisions.head(1).with_columns(
        pl.lit("dan").alias("reviewer"), pl.lit("revealed").alias("exposure")
    )
    records = replace(records, decisions=pl.concat([records.decisions, last]))
    placed = place_cases(records, bears, bytes(32)).cases
    (row,) = build_labelled_rows(
        records, bears, placed, pl.DataFrame(schema=ASSIGNMENT_SCHEMA)
    ).iter_rows(named=True)
    assert (row["label"], row["source"]) == ("bear", "assisted")


def test_a_new_label_is_by_somebody_who_saw_the_models(bears):
    cases = [Case(key, human="bear", outcome=None) for key in ("a", "b", "c", "d")]
    choices = [
        choice("a", RELABEL, "no-bear"),
        choice("b", DROP),
        choice("c", KEEP),
        choice("d", DROP),
        choice("d", KEEP),  # the last one holds
    ]
    found = rows(bears, *cases, choices=choices)
    assert as_told(found["a"]) == ("no-bear", "assisted", 1.0)
    assert as_told(found["c"]) == as_told(found["d"]) == ("bear", "blind", 1.0)
    assert [row["cleaned"] for row in found.values()] == [RELABEL, DROP, KEEP, KEEP]
    frame = pl.DataFrame(list(found.values()), infer_schema_length=None)
    assert select_training_rows(frame, HUMAN_SOURCES)["case_key"].to_list() == ["a", "c", "d"]


def test_a_new_label_leaves_the_draws_weight(bears):
    found = rows(
        bears,
        Case("audit", human="no-bear", model={"v1": "bear"}),
        assigned=[("audit", "v1", MODEL, 0.5)],
        choices=[choice("audit", RELABEL, "bear")],
    )
    assert as_told(found["audit"]) == ("bear", "assisted", 2.0)


def test_a_replay_decides_nothing_and_a_service_says_who_did(told):
    inputs, _ = told
    assert build_assignments(inputs).is_empty()
    live = build_assignments(replace(inputs, is_simulated=False))
    model = live.filter(pl.col("decider") == MODEL)
    assert 0 < model.drop_nulls("share").height < model.height
    assert set(model["share"].drop_nulls()) == {0.3}  # the audit share of autonomous
    assert live.filter(pl.col("decider") != MODEL)["share"].null_count() == live.height - len(model)


def test_an_unknown_source_is_refused(bears):
    frame = pl.DataFrame(list(rows(bears, Case("a", human="bear")).values()))
    with pytest.raises(ValueError, match=r"no source hearsay; there is blind, audit"):
        select_training_rows(frame, ["hearsay", MODEL_MADE])


def test_a_case_outside_every_site_and_time_keeps_its_row(bears):
    found = rows(bears, Case("gone", at=None, human="bear", hour=3))
    assert as_told(found["gone"]) == ("bear", "blind", 1.0)
    assert (found["gone"]["window"], found["gone"]["occurred_at"]) == (None, None)
