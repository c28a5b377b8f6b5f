from dataclasses import replace

import pytest

from rollout.features.reports.pages.text_report import render_text_report


def test_the_story_is_told_the_same_way(facts, snapshot):
    assert render_text_report(facts) == snapshot


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(facts, width):
    assert max(map(len, render_text_report(facts, width).splitlines())) <= width


def test_a_replay_says_that_nobody_allowed_it(facts):
    assert "simulated" in render_text_report(facts)
    real = replace(facts, identity=replace(facts.identity, simulated=False))
    assert "simulated" not in render_text_report(real)


@pytest.mark.parametrize(
    ("missing", "verdict"),
    [(None, "different from humans"), (1, "wrong or different from humans"), (0, "wrong")],
)
def test_only_an_outcome_says_that_a_decision_was_wrong(facts, missing, verdict):
    def know(price):
        return replace(price, by_outcome=0 if missing is None else price.known_cases - missing)

    hindsight = facts.hindsights[0]
    shown = replace(
        facts,
        model_cost=know(facts.model_cost),
        hindsights=(replace(hindsight, cost=know(hindsight.cost)),),
    )
    text = " ".join(render_text_report(shown).split())
    assert f"by itself: 31 of 165 {verdict} (18.79 %)" in text
    assert f"in that time, 24 of them {verdict}; with a human decision" in text


def test_long_timelines_are_cut_and_say_so(facts):
    widened = [h for h in facts.events if h.kind == "Widened"]
    long = replace(facts, events=tuple(widened[:1] * 50))
    assert "... and 10 more events, in report.html" in render_text_report(long)


def test_rows_that_count_as_failed_or_unsure_say_why(facts):
    noted = replace(facts.files[0], notes={"failed": 68, "unsure": 3, "other": 1})
    text = " ".join(render_text_report(replace(facts, files=(noted,))).split())
    assert "used, with a remark: 68 failed (no answer), 3 unsure (no answer), 1 other" in text


@pytest.mark.parametrize(
    ("agreed", "reason"),
    [(19, "needs more evidence (supervised: 3 more)"), (12, "the gate needs agreement")],
)
def test_a_cell_whose_estimate_is_within_the_threshold_needs_more_evidence(facts, agreed, reason):
    item = next(item for item in facts.evidence if item.gate and item.closed_units)
    condition = replace(
        item.gate.conditions[0],
        condition="agreement at least 80 %",
        measure="agreement",
        label=None,
        threshold=0.8,
        at_least=True,
        n=20,
        counts=(agreed, 20 - agreed),
        estimate=agreed / 20,
        met=False,
    )
    gate = replace(item.gate, met=False, missing=(), conditions=(condition,))
    shadow = replace(
        item, stage="shadow", decided_units=20, gate=gate, next_step="supervised: 3 more"
    )
    stages = [
        replace(stage, widened=0, intervals=())
        for stage in facts.stages
        if (stage.site, stage.window) == (item.site, item.window)
    ]
    text = render_text_report(replace(facts, evidence=(shadow,), stages=tuple(stages)))
    summary = " ".join(text.partition("Timeline")[0].split())
    assert f"stayed in shadow: {item.version}" in summary
    assert reason in summary


def test_each_version_that_waits_in_a_cell_has_its_next_step(facts):
    """Seen: of two versions held in a cell only the one with more units had one."""
    row = max(facts.evidence, key=lambda item: item.decided_units)
    other = replace(row, version="v2", decided_units=1, acting=False, next_step="more of v2")
    text = render_text_report(replace(facts, evidence=(*facts.evidence, other)))
    assert "    v2: More of v2.\n" in text
    row = next(item for item in facts.evidence if item.decided_units == 1)
    held = replace(facts, evidence=(*facts.evidence, replace(row, version="v2")))
    assert "; also held: v2." in " ".join(render_text_report(held).split())
    assert "also held" not in render_text_report(facts)
    replaced = replace(other, next_step="the newer v1 acts here; more of v2", successor="v1")
    text = render_text_report(replace(facts, evidence=(*facts.evidence, replaced)))
    assert "v2" not in text


def test_a_cell_with_missing_units_says_how_many_counted_and_why_others_did_not(facts):
    row = max(facts.evidence, key=lambda item: item.decided_units)
    losses = {"case received late": 2, "without a decision": 1}
    others = [replace(item, losses={}) for item in facts.evidence if item is not row]
    lost = replace(row, closed_units=row.decided_units + 3, losses=losses)
    text = " ".join(render_text_report(replace(facts, evidence=(*others, lost))).split())
    line = (
        f"Of {lost.closed_units} units {lost.decided_units} counted, 2 late, 1 without a decision"
    )
    assert text.count(line) == 1
    whole = replace(facts, evidence=(*others, replace(row, losses={})))
    assert " counted" not in render_text_report(whole).partition("Cells:")[2].partition("Rec")[0]
