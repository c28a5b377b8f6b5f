"""Gates over a wave in a policy file: where they are refused, what an edit means, the plan."""

import pytest

from rollout.core.policy.record_definition import compute_definition, is_redefined
from rollout.core.policy.wave_conditions import WaveCondition
from rollout.core.scope.policy_diff import list_looser_rules
from rollout.formats.policy.reader import InvalidPolicyError, parse_policy
from rollout.services.policies.planning import build_policy_plan, format_plan

POLICY = """
rollout: bears
timezone: UTC
levers: [{id: alarm, labels: [bear, none]}]
sites: [creek, lodge, ridge, {id: far, wave: 2}]
stages: [{id: supervised, blind: 20%}, {id: autonomous, audit: 10%}]
outcomes: [{id: profit, from: -20, to: 60, in: EUR, better: more, closes: 14d}]
evidence: {unit: case}
waves: {stage: supervised}
gates: [{to: supervised, require: [ROW]}]
"""
ROW = "{measure: agreement, at_least: 95%, pool: wave, each_at_least: 85%}"
ALONE = "{measure: agreement, at_least: 95%}"


def find_faults(row=ROW, old="", new=""):
    with pytest.raises(InvalidPolicyError) as refusal:
        read(row, old, new)
    return str(refusal.value)


def read(row=ROW, old="", new=""):
    assert old in POLICY
    return parse_policy(POLICY.replace("ROW", row, 1).replace(old, new, 1))


def test_a_wave_has_both_thresholds_and_a_guard_below_the_lower_one():
    policy = read()
    assert policy.gates[0].require == (
        WaveCondition("agreement", 0.95, at_least=True, each_line=0.85),
    )
    assert policy.guards[0].threshold_text == "agreement at least 79 %"


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("{measure: agreement, at_least: 95%, pool: wave}", "such as each_at_least: 85%"),
        (ROW.replace("85%", "95%"), "95% is not below at_least: 95%; write less, or remove pool"),
        (ROW.replace("85%", "0%"), "'0%' can never be proven; write more than 0%"),
        (ROW.replace("pool: wave, ", ""), "applies to the cells of a wave; write pool: wave too"),
        (ROW.replace("wave", "site"), "does not apply to agreement; leave it out"),
        ("{measure: cost, at_most: 0.2, pool: wave}", "wave is for agreement, precision, recall"),
        (
            "{measure: gain, of: profit, at_least: 0, pool: wave}, " + ALONE,
            "not for gain; write pool: site or rollout",
        ),
        (ROW.replace("}", ", slice: form}"), "slice: can't be counted over a wave yet"),
        (ROW.replace("}", ", of: planted}"), "of: can't be counted over a wave yet"),
        (
            ROW + ", {measure: gain, of: profit, at_least: 0}",
            "can't be read yet where gates on gain count other cells; remove one of them",
        ),
    ],
)
def test_a_row_without_a_meaning_is_refused_with_what_to_do(row, fault):
    assert fault in find_faults(row)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("waves: {stage: supervised}\n", "", "has no waves; add waves: {stage: supervised}, or re"),
        ("to: supervised", "to: autonomous", "the model decides at autonomous, and a single cell"),
        (
            "unit: case",
            "unit: case, confidence_floors: [0%, 80%]",
            "can't be read yet where several confidence floors share the risk",
        ),
        (
            "unit: case",
            "unit: case, familiar: {attributes: [form], line: 90%}",
            "can't be read yet where evidence.familiar sends other cases to humans",
        ),
        (
            "gates:",
            "guards: [{measure: agreement, at_least: 85%, windows: [always]}]\ngates:",
            "85 % is not above the guard's 85 % of agreement, which would narrow the cell again",
        ),
        (
            "gates:",
            "guards: [{measure: agreement, at_least: 70%, pool: wave}]\ngates:",
            "is for gates, and a guard watches each cell by itself; leave it out",
        ),
        ("[creek,", f"[{', '.join(f's{i}' for i in range(99))}, creek,", "wave 1 has 102 sites"),
    ],
)
def test_a_policy_that_changes_the_list_or_its_units_is_refused(old, new, fault):
    assert fault in find_faults(old=old, new=new)


def test_the_list_is_part_of_the_definition_so_it_never_changes_under_its_evidence():
    pooled, alone = read(), read(ALONE)
    creek = pooled.cells[0]
    assert is_redefined(alone, pooled, creek)
    assert is_redefined(pooled, read(old="ridge, {", new="{"), creek)
    assert is_redefined(pooled, read(old="{id: far, wave: 2}", new="far"), creek)
    assert not is_redefined(
        pooled, read(old="{id: far", new="{id: away, wave: 2}, {id: far"), creek
    )
    assert not is_redefined(pooled, read(ROW.replace("85%", "80%")), creek)
    assert compute_definition(alone, creek) == compute_definition(
        read(ALONE, "waves: {stage: supervised}\n", ""), creek
    )


def test_a_new_clock_of_one_site_is_other_evidence_for_all_of_its_list():
    """Its losses would leave the sums of its neighbours, whose attempts would go on."""
    moved = {"old": "lodge,", "new": "{id: lodge, timezone: Asia/Tokyo},"}
    creek, lodge, _, far = read().cells
    assert all(is_redefined(read(), read(**moved), cell) for cell in (creek, lodge))
    assert not is_redefined(read(), read(**moved), far)
    assert not is_redefined(read(ALONE), read(ALONE, **moved), creek)


def test_counting_together_is_looser_and_each_cell_by_itself_is_not():
    pooled, alone = read(), read(ALONE)
    [sentence] = [s for s in list_looser_rules(alone, pooled) if "supervised" in s]
    assert sentence == "supervised no longer asks for agreement at least 95 %"
    assert not [s for s in list_looser_rules(pooled, alone) if "supervised" in s]
    lower = read(ROW.replace("85%", "80%"))
    assert any("in each cell at least 80 %" in s for s in list_looser_rules(pooled, lower))
    shorter = read(old="ridge, {", new="{")
    sentences = list_looser_rules(pooled, shorter)
    assert any(
        "supervised counts another list of cells together: creek, lodge" in s for s in sentences
    )


def test_plan_names_the_promise_its_price_and_what_each_cell_needs():
    with_traffic = {"old": "waves:", "new": "expect: {units_per_day: 40, agreement: 98.5%}\nwaves:"}
    text = " ".join(format_plan(build_policy_plan(read(**with_traffic))).split())
    assert "supervised asks one question of all cells of a wave and window" in text
    assert "(sites: 3 in wave 1 and 1 in wave 2)" in text
    assert "is at least 95 % and no cell is below 85 %; a single cell may be below 95 %" in text
    assert "The price: a cell without data, or one below 85 %, keeps all of them" in text
    assert "decisions in each cell of the wave, if all are alike" in text
    alone = " ".join(format_plan(build_policy_plan(read(ALONE, **with_traffic))).split())
    assert "one question" not in alone
