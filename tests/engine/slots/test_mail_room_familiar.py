"""The mail room's new form under `familiar`: never familiar to v1, so clerks decide it."""

from dataclasses import replace
from datetime import UTC, datetime

import polars as pl
import pytest

from rollout.engine.events import FamiliarityChanged, IncidentOpened, Narrowed
from rollout.features.replay.replay import build_replay_inputs, replay_records
from rollout.features.replay.requests import read_request_records
from rollout.features.reports.figures.funnel import compute_unfamiliar_cases
from rollout.features.reports.inputs.inputs import MODEL, assign_deciders
from rollout.features.reports.pages.summary import describe_unfamiliar
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy.familiarity import FamiliarAttribute, FamiliarityRule
from rollout.kernel.policy_files.reader import load_policy
from tests.engine.slots.test_mail_room_story import ORDER

LISBON_DAY = Cell("lisbon", "day")
FORM_CAME = datetime(2025, 10, 20, 5, tzinfo=UTC)  # 06:00 in Lisbon
NARROWED = datetime(2025, 10, 20, 10, tzinfo=UTC)  # when the guard takes the cell back without it
EVENING = datetime(2025, 10, 20, 20, tzinfo=UTC)
RULE = FamiliarityRule((FamiliarAttribute(("form",)),), at_least=20)

pytestmark = pytest.mark.simulation


def replay_lisbon(rule: FamiliarityRule | None):
    """Replay Lisbon's letters until the evening of the new form, under v1."""
    order_policy = load_policy(ORDER.policy)
    policy = replace(order_policy, evidence=replace(order_policy.evidence, familiar=rule))
    records = read_request_records(ORDER, policy)
    is_kept = (pl.col("site") == "lisbon") & (pl.col("occurred_at") < EVENING)
    cases = records.cases.filter(is_kept)
    parts = {
        kind: getattr(records, kind).join(cases.select("case_key"), on="case_key", how="semi")
        for kind in ("predictions", "decisions", "outcomes")
    }
    parts["predictions"] = parts["predictions"].filter(pl.col("version") == "v1")
    return replay_records(ORDER, policy, replace(records, cases=cases, **parts))


@pytest.fixture(scope="module")
def replays():
    return {name: replay_lisbon(rule) for name, rule in (("without", None), ("with", RULE))}


def list_new_letters(done) -> pl.DataFrame:
    """Return the letters of the new form until the guard narrows, with who decided them."""
    lever = done.policy.levers[0]
    records = done.records
    letters = (
        assign_deciders(build_replay_inputs(done))
        .join(records.cases.select("case_key", "attribute:form", "occurred_at"), on="case_key")
        .join(records.predictions.select("case_key", model="value:digit"), on="case_key")
        .join(records.outcomes.select("case_key", truth="value:digit"), on="case_key")
    )
    letters = letters.filter(
        pl.col("attribute:form") == "new",
        pl.col("window") == "day",
        pl.col("occurred_at").is_between(FORM_CAME, NARROWED, closed="left"),
    )
    bins = {label: lever.find_action(label) for label in lever.labels}
    bin_of = {name: pl.col(name).replace_strict(bins) for name in ("model", "truth")}
    return letters.with_columns(misrouted=bin_of["model"] != bin_of["truth"])


def test_the_rule_prevents_all_29_misrouted_letters_of_the_new_form(replays):
    without, kept = (list_new_letters(replays[name]) for name in ("without", "with"))
    is_model = pl.col("decider") == MODEL
    assert without.height == kept.height == 95
    assert without.filter(pl.col("model") != pl.col("truth")).height == 37
    assert without.filter(is_model & pl.col("misrouted")).height == 29
    assert kept.filter(is_model).height == 0
    assert set(kept["unfamiliar"]) == {"form=new"}


def test_the_incident_comes_at_nine_and_the_cell_stays_open_for_the_old_form(replays):
    events = replays["with"].result.events
    assert not [event for event in events if isinstance(event, Narrowed)]
    (incident,) = [event for event in events if isinstance(event, IncidentOpened)]
    assert (incident.cell, incident.kind) == (LISBON_DAY, "unfamiliar")
    assert incident.at == datetime(2025, 10, 20, 9, tzinfo=UTC)
    assert incident.cause_text == "unfamiliar: form=new, 31 units judged today, 21 of 31 agree"
    changes = [event for event in events if isinstance(event, FamiliarityChanged)]
    assert [s for event in changes for s in event.statuses] == [
        "familiar", "familiar", "few", "mistaken",
    ]  # fmt: skip


def test_gates_and_guards_count_no_letter_of_the_new_form(replays):
    """Each is counted apart: what is left of the cell is what clerks and v1 saw before."""
    view = replays["with"].result.views[LISBON_DAY, "v1"]
    is_new = ["new" in c.attribute_values for c in view.unit_classes.classes]
    counted = view.select_visible(view.rows.guard)
    assert not any(is_new[kind] for kind in counted.unit_class.tolist())
    assert any(is_new[kind] for kind in view.rows.guard.unit_class.tolist())


def test_the_report_counts_the_letters_of_the_new_form_apart(replays):
    done = replays["with"]
    inputs = build_replay_inputs(done)
    (row,) = compute_unfamiliar_cases(inputs, assign_deciders(inputs))
    assert (row.site, row.window, row.version, row.values) == ("lisbon", "day", "v1", "form=new")
    assert (row.cases, row.model_cases, row.agreement.n) == (228, 228, 228)
    assert row.prevented >= 29
    (sentence,) = describe_unfamiliar([row])
    assert "228 cases with form=new" in sentence
    assert "went to humans, because v1 was not familiar with them" in sentence
    without = build_replay_inputs(replays["without"])
    assert compute_unfamiliar_cases(without, assign_deciders(without)) == ()


def test_a_replay_that_visits_every_slot_tells_the_same(replays):
    done = replays["with"]
    again = replay_records(
        replace(ORDER, options=replace(ORDER.options, skip_idle_slots=False)),
        done.policy,
        done.records,
    )
    assert again.result.events == done.result.events
