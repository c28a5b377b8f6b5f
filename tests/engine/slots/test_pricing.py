"""A model that earns more widens though it differs; one that only agrees does not."""

import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from api.proposals.path_chart import build_path_charts
from rollout.engine.evidence.case_placement import place_cases
from rollout.engine.evidence.outcome_resolution import resolve_outcome_units
from rollout.engine.evidence.version_uses import NO_USES, drop_undrawn
from rollout.engine.files.column_map import ColumnError
from rollout.engine.slots.options import ReplayOptions
from rollout.engine.words.formatting import format_local_time
from rollout.features.replay.replay import replay_files
from rollout.features.replay.requests import ReplayRequest
from rollout.features.reports.figures.report_identity import describe_promises
from rollout.features.reports.inputs import evidence_inputs
from rollout.features.reports.inputs.evidence_inputs import MAX_GAIN_POINTS, MIN_GAIN_POINTS
from rollout.features.reports.pages.charts import draw_charts
from rollout.features.reports.pages.html_report import render_html_report
from rollout.features.reports.pages.report_tiles import build_cell_rows, build_tiles
from rollout.features.reports.pages.section_summaries import SECTIONS
from rollout.features.reports.pages.summary import describe_results
from rollout.features.reports.pages.text_report import render_message_summary, render_text_report
from rollout.kernel.calendar.instants import find_slot_before
from rollout.kernel.policy.gates import GainReading, read_gate
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.statistics.sampling import compute_sampling_values
from rollout.kernel.words import say_alarms, say_reading
from tests.engine.slots.facts import compute_replay_facts
from tests.engine.slots.pricing import POLICY, SALT, list_widenings, replay_pricing, write_stream


def read_gain(replayed):
    """Return the reading of the gate to `half` at the end."""
    ((cell, version),) = replayed.result.views
    evidence = replayed.result.views[cell, version].read_evidence(replayed.result.last_slot)
    reading = read_gate(replayed.policy, cell, 2, 1.0, evidence.attempt, evidence.entered)
    return next(item.gain for item in reading.readings if item.gain is not None)


@pytest.fixture(scope="module")
def earning(tmp_path_factory):
    """The replay of a model that earns 5 EUR more and differs in 4 of 10 sales."""
    folder = tmp_path_factory.mktemp("pricing")
    stream = {"gain": 5, "differs": 0.4, "days": 24}
    trial_at = dict(list_widenings(replay_pricing(folder, **stream, days_only=True)))["trial"]
    return replay_pricing(folder, **stream, shares=((trial_at, 0.1),))


def test_a_model_that_earns_more_widens_although_it_differs(earning):
    assert [stage for stage, _ in list_widenings(earning)] == ["trial", "half"]
    reading = next(
        reading
        for event in earning.result.events
        for reading in getattr(event, "readings", ())
        if reading.condition["measure"] == "gain"
    )
    text = say_reading(reading)
    assert " by the model, " in text
    assert "without outcome, log E 5." in text


def test_its_interval_holds_what_it_truly_brings(earning):
    gain = read_gain(earning)
    lower, upper = gain.interval
    assert lower < 5 < upper
    assert gain.bound < gain.estimate < upper


@pytest.mark.slow
def test_a_model_that_only_agrees_passes_no_gate_on_gain(tmp_path):
    replayed = replay_pricing(tmp_path, gain=0, differs=0.02, days=24)
    assert [stage for stage, _ in list_widenings(replayed)] == ["trial"]
    assert read_gain(replayed).log_e < 3
    facts = compute_replay_facts(replayed)
    condition = facts.evidence[0].gate.conditions[0]
    assert (condition.measure, condition.met) == ("gain", False)
    assert condition.bound < condition.estimate
    page = render_html_report(facts, view="engineer")
    assert "gain of profit at least 0 EUR" in page


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["as before", "", "9999", None])
def test_a_threshold_below_zero_passes_a_model_that_acts_and_none_that_leaves_its_cases(
    tmp_path, answer
):
    """What is not answered, or out of range, brings as much as people do: the gate below fails."""
    policy = POLICY.replace("at_least: 0}", "at_least: -6}").replace(
        "at_least: -1,", "at_least: -8,"
    )
    stream = {"gain": 0, "differs": 0.02, "days": 24}
    trial_at = list_widenings(replay_pricing(tmp_path, policy, days_only=True, **stream))[0][1]
    paths = write_stream(tmp_path, **stream)
    (tmp_path / "policy.yaml").write_text(policy)
    if answer != "as before":
        is_later = pl.col("occurred_at").str.to_datetime(time_zone="UTC") >= trial_at
        rows = pl.read_csv(paths.predictions, infer_schema=False)
        label = pl.when(is_later).then(pl.lit(answer)).otherwise("label").alias("label")
        kept = rows.filter(~is_later) if answer is None else rows.with_columns(label)
        kept.write_csv(paths.predictions)
    request = ReplayRequest(tmp_path / "policy.yaml", paths, options=ReplayOptions(SALT))
    stages = [stage for stage, _ in list_widenings(replay_files(request))]
    assert ("half" in stages) == (answer == "as before")


@pytest.mark.slow
def test_the_report_begins_with_what_the_model_brought(earning):
    facts = compute_replay_facts(earning)
    (gain,) = facts.gains
    units = resolve_outcome_units(
        earning.records, earning.history, earning.policy, earning.policy.outcomes[0]
    )
    values = compute_sampling_values(SALT, "stage", units["unit"])
    ((_, version),) = earning.result.views
    history = next(iter(earning.result.views.values())).stage_history
    levels = history.find_own_levels(version, units["occurred"].to_numpy())
    of_model = units.filter(values >= np.array([2, 0.9, 0.5])[levels])["value"].drop_nulls()
    assert gain.model_units == len(of_model)
    assert gain.model_mean == pytest.approx(of_model.mean())
    assert gain.lower < 5 < gain.upper
    first = describe_results(facts)[0]
    assert first.startswith("shop · always, v1: the model brought +")
    assert "in the model's arm" in first
    assert "What the model brought" in render_html_report(facts, view="engineer")
    assert not gain.has_recorded_arms
    assert not gain.has_one_share  # a tenth, then a half: means over all units say another gain
    assert first.endswith("The model's share changed: the gain compares units of the same share.")
    (decided,) = (text for text in describe_results(facts) if text.startswith("The model decided"))
    assert "different from humans" in decided
    operator_page = render_html_report(facts, view="operator")
    (cell,) = facts.stages
    until = min(grant.until for grant in cell.grants)  # the trial's: the half ends with it
    assert f"the next grant ends {format_local_time(until, 'UTC', until)}" in operator_page


@pytest.mark.slow
def test_no_report_calls_a_more_profitable_answer_wrong(earning):
    facts = compute_replay_facts(earning)
    assert facts.model_cost.wrong_action.count > 30
    assert facts.model_cost.by_outcome == 0
    brought = "profit: better with the model in 0 of 1 comparison, worse in 0"
    summaries = {id_: section.summarize(facts) for id_, section in SECTIONS.items()}
    assert summaries["outcomes"] == brought
    assert all(summaries[id_].startswith(f"{brought}; ") for id_ in ("price", "divergences"))
    for view in ("operator", "engineer"):
        assert build_tiles(facts, view)[0].title == "What the model brought: profit"
        text = re.sub(r"<[^>]*>", "", render_html_report(facts, view=view))
        lines = re.findall(r"[^.>]*\b(?:wrong|wrongly|mistakes?|no outcomes)\b[^.<]*", text)
        assert not [line for line in lines if "name any reviewer" not in line]
    assert "wrong" not in render_text_report(facts)
    assert "wrong" not in render_message_summary(facts)


def test_without_outcomes_nothing_widens_on_gain(tmp_path):
    replayed = replay_pricing(tmp_path, gain=5, differs=0.1, days=16, missing=1.0)
    assert [stage for stage, _ in list_widenings(replayed)] == ["trial"]
    gain = read_gain(replayed)
    assert gain.log_e < 0
    assert gain.lacks_outcomes


@pytest.mark.slow
def test_a_model_that_loses_is_narrowed_by_its_guard(tmp_path):
    stream = {"gain": -12, "differs": 0.1, "days": 24}
    trial_at = dict(list_widenings(replay_pricing(tmp_path, **stream, days_only=True)))["trial"]
    replayed = replay_pricing(tmp_path, **stream, shares=((trial_at, 0.1),))
    narrowed = [e for e in replayed.result.events if type(e).__name__ == "Narrowed"]
    assert [event.to_stage for event in narrowed] == ["shadow"]
    text = say_alarms(narrowed[0].alarms)
    assert text.startswith("gain of profit at least -1 EUR: -")
    assert "EUR a unit so far, over " in text


def test_a_replay_that_skips_idle_slots_has_the_same_ledger(tmp_path):
    paths = write_stream(tmp_path, gain=5, differs=0.2, days=14, a_day=30)
    ledgers = []
    for skips in (True, False):
        options = ReplayOptions(SALT, skip_idle_slots=skips)
        request = ReplayRequest(tmp_path / "policy.yaml", paths, options=options)
        ledgers.append(replay_files(request).result.events)
    assert ledgers[0] == ledgers[1]


def test_units_count_when_their_deadline_passes_however_early_the_outcome(earning):
    units = resolve_outcome_units(
        earning.records, earning.history, earning.policy, earning.policy.outcomes[0]
    )
    assert (units["slot"] - units["occurred"]).is_between(48, 49).all()
    known = units.filter(pl.col("known_share") == 1)
    assert known["score"].to_numpy() == pytest.approx((known["value"].to_numpy() + 20) / 80)


def test_a_prediction_that_came_too_late_to_act_on_brings_no_unit(earning):
    policy, records = earning.policy, earning.records
    unused = replace(earning.history, uses=NO_USES)
    counts = []
    for minutes in (0, 5, 6, 26 * 60):  # after a day, outcomes are known
        cases = records.cases.select("case_key", "occurred_at")
        late = records.predictions.join(cases, on="case_key").with_columns(
            at=pl.col("occurred_at") + pl.duration(minutes=minutes)
        )
        changed = replace(records, predictions=late.drop("occurred_at"))
        units = resolve_outcome_units(changed, unused, policy, policy.outcomes[0])
        counts.append(len(units))
    assert counts == [24 * 40, 24 * 40, 0, 0]


def test_units_of_a_gain_are_the_cases_that_a_versions_sample_has(earning):
    policy, outcome = earning.policy, earning.policy.outcomes[0]
    is_drawn = pl.col("case_key").hash(seed=2) % 2 == 0
    draws = pl.when(is_drawn).then(pl.lit('{"v1":true}')).otherwise(pl.lit('{"v1":false}'))
    cases = earning.records.cases.with_columns(draws=draws)
    predictions = earning.records.predictions.filter(pl.col("case_key").hash(seed=1) % 3 != 0)
    records = drop_undrawn(replace(earning.records, cases=cases, predictions=predictions))
    history = replace(place_cases(records, policy, SALT), uses=earning.history.uses)
    units = resolve_outcome_units(records, history, policy, outcome)
    whole = resolve_outcome_units(earning.records, earning.history, policy, outcome)
    assert units.equals(whole.filter(is_drawn))
    assert 0.4 < len(units) / len(whole) < 0.6


@pytest.mark.parametrize("said", ["nothing", "late", "failed"])
def test_silence_or_failure_of_a_version_in_use_hides_no_unit_from_a_gain(earning, said):
    """Who knows the arm and what a case will bring could leave out the bad ones of one arm."""
    policy, records, outcome = earning.policy, earning.records, earning.policy.outcomes[0]
    whole = resolve_outcome_units(records, earning.history, policy, outcome)
    hidden = records.predictions["case_key"].hash(seed=1) % 3 == 0
    predictions = records.predictions.filter(~hidden)
    if said != "nothing":
        others = records.predictions.filter(hidden).join(records.cases, on="case_key")
        late = {"at": pl.col("occurred_at") + pl.duration(minutes=6)}
        failed = {"value:price": pl.lit(None, pl.String)}
        others = others.with_columns(**(late if said == "late" else failed))
        predictions = pl.concat([predictions, others.select(predictions.columns)])
    changed = replace(records, predictions=predictions)
    units = resolve_outcome_units(changed, earning.history, policy, outcome)
    assert units.equals(whole)


def test_each_unit_is_in_the_arm_of_its_sampling_value(earning):
    ((cell, version),) = earning.result.views
    view = earning.result.views[cell, version]
    condition = earning.policy.gates[1].require[0]
    arms = view.build_arms(condition.population.outcome, "decides", -(2**62))
    units = resolve_outcome_units(
        earning.records, earning.history, earning.policy, condition.population.outcome
    )
    values = compute_sampling_values(SALT, "stage", units["unit"])
    levels = view.stage_history.find_own_levels(version, units["occurred"].to_numpy())
    blind = np.array([np.nan, 0.9, 0.5])[levels]
    acting = levels > 0
    assert arms.is_model.tolist() == (values >= blind)[acting].tolist()
    assert arms.shares == pytest.approx(1 - blind[acting])
    assert not len(view.build_arms(condition.population.outcome, "proposes", -(2**62)))


def test_an_unknown_outcome_is_refused_with_the_known_ones(tmp_path):
    paths = write_stream(tmp_path, gain=0, differs=0.1, days=1)
    sent = tmp_path / "outcomes.jsonl"
    sent.write_text('{"case_key": "sale-1", "values": {"proft": 12.5}}\n')
    with pytest.raises(ColumnError, match="values have no 'proft'; the policy's outcomes: profit"):
        replay_files(ReplayRequest(tmp_path / "policy.yaml", replace(paths, outcomes=sent)))


def test_a_policy_that_earns_less_is_better_turned_round(tmp_path):
    less = POLICY.replace("better: more", "better: less")
    replayed = replay_pricing(tmp_path, less, gain=0, differs=0.1, days=9)
    units = resolve_outcome_units(
        replayed.records, replayed.history, replayed.policy, replayed.policy.outcomes[0]
    ).drop_nulls("value")
    assert units["score"].to_numpy() == pytest.approx((60 - units["value"].to_numpy()) / 80)
    promise = describe_promises(replayed.policy)[1]
    assert "at random and closed (profit after 2d, less is better); unknown" in promise
    assert "less is better" not in describe_promises(parse_policy(POLICY))[1]


@pytest.mark.slow
def test_of_many_units_fewer_bounds_are_drawn(earning, monkeypatch):
    monkeypatch.setattr(evidence_inputs, "MAX_GAIN_READINGS", 0)
    paths = compute_replay_facts(earning).evidence[0].path
    assert max(len(path.at) for path in paths if path.measure == "gain") <= MIN_GAIN_POINTS


@pytest.mark.slow
def test_the_course_of_a_gain_ends_in_the_gates_reading_and_is_drawn(earning):
    facts = compute_replay_facts(earning)
    (evidence,) = facts.evidence
    paths = [path for path in evidence.path if path.measure == "gain"]
    assert {path.to for path in paths} == {"half"}
    widened_at = dict(list_widenings(earning))["half"]
    path = paths[0]
    assert path.at[-1] <= widened_at
    assert 2 < len(path.at) <= MAX_GAIN_POINTS
    assert list(path.n) == sorted(path.n)
    assert all(low < high for low, high in zip(path.bound, path.estimate, strict=True))
    assert path.bound[-1] >= path.threshold == 0 > path.bound[0]
    before = replace(evidence, path=(path,))
    (chart,) = build_path_charts([before], "UTC")
    assert chart.title == "Gain of profit in EUR per unit of v1, towards half"
    assert "EUR" not in chart.text
    assert "that meets the threshold of 0. The band's upper edge is the gain so far" in chart.text
    assert [look.n for look in chart.looks][-1] == path.n[-1]
    assert ">+5<" in chart.wide  # round values need no decimals
    large = {name: tuple(1000 * v for v in getattr(path, name)) for name in ("bound", "estimate")}
    (chart,) = build_path_charts([replace(evidence, path=(replace(path, **large),))], "UTC")
    assert re.search(r">\+\d,\d{3}<", chart.wide)
    (drawn,) = draw_charts(replace(facts, evidence=(before,))).evidence
    assert f"threshold 0 met, n {path.n[-1]}" in drawn.latest_text
    assert "%" not in drawn.latest_text
    (row,) = build_cell_rows(replace(facts, evidence=(before,)))
    assert (row.estimate[0], row.threshold) == ("+", "gain threshold 0")


@pytest.mark.slow
def test_a_gain_without_a_bound_yet_is_drawn_at_the_lowest_amount(earning):
    (view,) = earning.result.views.values()
    path = next(p for p in compute_replay_facts(earning).evidence[0].path if p.measure == "gain")
    condition = earning.policy.gates[1].require[0]
    for at, bound in zip(path.at, path.bound, strict=True):
        slot = find_slot_before(at, earning.policy.tick)
        reading = GainReading(condition, view.attempt_window.get_arms(condition), path.risk)
        reading = replace(reading, units=reading.units.select(reading.units.slots <= slot))
        assert bound == (-80 if reading.bound is None else reading.bound)
    assert path.bound[0] == -80
