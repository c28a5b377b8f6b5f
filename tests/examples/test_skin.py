"""The skin clinics: an average meets the threshold, one group doesn't, and the cell is held.

Seed 5 was chosen as a middling one of the seeds 0 to 9. In all ten the harbour's evenings stay in
shadow for both versions, nothing narrows, v1 opens Valley alone, and v2 replaces it there by day
and reaches autonomous in the harbour by day. In nine v2 reaches autonomous at Hill by day (with
seed 9 it stays in shadow), in nine Hill's evenings stay in shadow (not with seed 4), and in eight
v2 replaces v1 in Valley's evenings (not with 0 and 6). Dates may differ by the spread of the ten
and three days on each side.
"""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from rollout.engine.events import Narrowed, Suspended, TakenOver, Widened
from rollout.features.demo.catalog import build_replay_request, find_example
from rollout.features.replay.replay import build_replay_inputs, replay_files
from rollout.features.reports.inputs.inputs import MODEL, assign_deciders
from rollout.kernel.calendar.instants import Cell
from tests.docs.pages import ROOT
from tests.engine.slots.facts import compute_replay_facts

pytestmark = pytest.mark.simulation

FOLDER = ROOT / "examples/skin"
FIRST = datetime(2025, 9, 1, tzinfo=UTC)
HELD, RARE = Cell("harbour", "evening"), Cell("hill", "evening")
THRESHOLD = 0.85


def replay(policy):
    request = build_replay_request(find_example("skin"))
    return replay_files(replace(request, policy=FOLDER / policy))


@pytest.fixture(scope="module")
def replayed():
    return replay("policy.yaml")


@pytest.fixture(scope="module")
def facts(replayed):
    return compute_replay_facts(replayed)


@pytest.fixture(scope="module")
def familiar():
    return replay("familiar.yaml")


def widenings(replayed):
    """Return the day of each widening or takeover, by cell, version and stage."""
    return {
        (event.cell, event.version, event.to_stage): (event.at - FIRST) / timedelta(days=1)
        for event in replayed.result.events
        if isinstance(event, Widened | TakenOver)
    }


def find_evidence(facts, cell, version):
    (evidence,) = (
        item
        for item in facts.evidence
        if (item.site, item.window, item.version) == (cell.site, cell.window, version)
    )
    return evidence


def conditions(facts, cell, version):
    """Return the conditions of the next gate, by what they are about."""
    gate = find_evidence(facts, cell, version).gate
    return {item.condition: item for item in gate.conditions}


def test_the_held_cell_is_never_widened_for_any_version(replayed):
    assert HELD not in {cell for cell, _, _ in widenings(replayed)}


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_in_the_held_cell_the_average_passes_and_one_group_does_not(facts, version):
    gate = conditions(facts, HELD, version)
    assert gate["agreement at least 85 %"].met
    assert gate["agreement of tone=light at least 85 %"].met
    dark = gate["agreement of tone=dark at least 85 %"]
    assert not dark.met
    assert dark.estimate < 0.80
    assert dark.n > 250  # not for want of evidence


def test_overall_agreement_meets_the_threshold_at_every_clinic(facts):
    (first,) = (item for item in facts.agreements if item.version == "v1")
    assert {item.name for item in first.by_site} == {"harbour", "hill", "valley"}
    assert all(item.agreement.low > THRESHOLD for item in first.by_site)
    dark, light = first.by_attribute["tone"]
    assert dark.agreement.high < 0.80
    assert light.agreement.low > 0.93
    assert dark.cost_interval[0] > 4 * light.cost_interval[1]


def test_the_page_has_agreement_and_cost_by_group_with_their_intervals(facts):
    rows = [
        f"| {item.version} | {group.name} | {format_rate(group.agreement)} |"
        f" {group.cost:.2f} ({group.cost_interval[0]:.2f} to {group.cost_interval[1]:.2f}) |"
        for item in facts.agreements
        for group in item.by_attribute["tone"]
    ]
    assert "\n".join(rows) in (FOLDER / "README.md").read_text("utf-8")


def format_rate(share):
    return f"{share.rate:.1%} ({share.low:.1%} to {share.high:.1%})".replace("%", " %")


def test_the_average_of_each_group_stays_within_its_intervals_by_version(facts):
    by_version = {item.version: item.by_attribute["tone"] for item in facts.agreements}
    (dark_1, light_1), (dark_2, light_2) = by_version["v1"], by_version["v2"]
    assert dark_2.agreement.low > dark_1.agreement.high
    assert light_2.agreement.high > light_1.agreement.low


EXPECTED = {  # cell, version and stage: days since 1 September, spread of ten seeds and 3 days
    (Cell("valley", "day"), "v1", "supervised"): (7, 17),
    (Cell("valley", "evening"), "v1", "supervised"): (14, 38),
    (Cell("valley", "day"), "v1", "autonomous"): (24, 38),
    (Cell("harbour", "day"), "v2", "supervised"): (32, 60),
    (Cell("harbour", "day"), "v2", "autonomous"): (44, 76),
    (Cell("hill", "day"), "v2", "supervised"): (32, 73),
    (Cell("hill", "day"), "v2", "autonomous"): (44, 84),
    (Cell("valley", "day"), "v2", "autonomous"): (44, 79),
}


@pytest.mark.parametrize("step", EXPECTED, ids=lambda step: f"{step[0]} {step[1]} {step[2]}")
def test_the_other_cells_widen_when_the_story_says(replayed, step):
    earliest, latest = EXPECTED[step]
    assert earliest <= widenings(replayed)[step] <= latest


def test_v1_opens_only_where_the_group_never_came(replayed):
    assert {cell.site for cell, version, _ in widenings(replayed) if version == "v1"} == {"valley"}


def test_v2_replaces_v1_where_v1_acts(replayed):
    takeovers = [event for event in replayed.result.events if isinstance(event, TakenOver)]
    assert {event.cell for event in takeovers} == {Cell("valley", "day"), Cell("valley", "evening")}
    assert {(event.replaced_version, event.version) for event in takeovers} == {("v1", "v2")}


def test_no_gate_leads_back_to_the_replaced_version(facts):
    replaced = find_evidence(facts, Cell("valley", "day"), "v1")
    assert replaced.next_step == "the newer v2 acts here; only an operator can restore v1"
    assert replaced.gate is None


def test_nothing_narrows(replayed):
    assert not [e for e in replayed.result.events if isinstance(e, Narrowed | Suspended)]


def test_too_few_of_a_group_hold_the_gate_by_name(facts, replayed):
    assert RARE not in {cell for cell, _, _ in widenings(replayed)}
    dark = conditions(facts, RARE, "v2")["agreement of tone=dark at least 85 %"]
    assert not dark.met
    assert dark.estimate > THRESHOLD  # good so far, and too few to say so
    assert dark.n < 80
    assert re.search(r"tone=dark.*about \d+ more", find_evidence(facts, RARE, "v2").next_step)


def test_plain_rules_would_have_opened_the_held_cell(facts, replayed):
    place = ("harbour", "evening", "v1")
    naive = [n for n in facts.naive_openings if (n.site, n.window, n.version) == place]
    assert len(naive) == 3
    assert all(item.wrong.count > 100 for item in naive)
    assert all(item.wrong.count > 3 * item.human_wrong.count for item in naive)
    records = replayed.records
    confident = (
        records.predictions.filter((pl.col("version") == "v1") & (pl.col("confidence") >= 0.9))
        .join(replayed.history.cases.filter(site="harbour", window="evening"), on="case_key")
        .join(records.decisions, on="case_key", suffix="_human")
    )
    agrees = (confident["value:triage"] == confident["value:triage_human"]).mean()
    assert agrees > THRESHOLD  # confidence says little, so this rule opens the cell as well


def count_deciders(replayed, version):
    """Return how many cases of each group the model and people decided above shadow."""
    cases = assign_deciders(build_replay_inputs(replayed)).filter(pl.col("version") == version)
    tones = replayed.records.cases.select("case_key", tone="attribute:tone")
    rows = cases.join(tones, on="case_key").group_by("tone", "decider").len().iter_rows()
    return {(tone, decider == MODEL): count for tone, decider, count in rows}


def test_familiar_opens_every_clinic_and_leaves_the_group_to_people(familiar):
    opened = {cell for cell, version, _ in widenings(familiar) if version == "v1"}
    assert HELD in opened
    assert {cell.site for cell in opened} == {"harbour", "hill", "valley"}
    counts = count_deciders(familiar, "v1")
    assert ("dark", True) not in counts
    assert counts["dark", False] > 400
    assert counts["light", True] > 1000


def test_the_two_policies_differ_in_familiar_alone():
    lines = [(FOLDER / name).read_text("utf-8") for name in ("policy.yaml", "familiar.yaml")]
    first, second = (text.partition("timezone:")[2].splitlines() for text in lines)
    (added,) = (line for line in second if line not in first)
    assert added.strip().startswith("familiar:")
    assert [line for line in second if line != added] == first
