"""Cells widen by stage and confidence floor: in stories, against a recount, and on real pictures.

The pictures and the human choices of them are those of ../shared/data/README.md (Peterson et al.
2019; networks of Northcutt et al. 2021 and Kerrigan et al. 2021); benchmarks/confidence_floors.py
replays them.
"""

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from benchmarks.confidence_floors import (
    DATA,
    MODELS,
    SETTINGS,
    compare_picture_methods,
    replay_pictures,
)
from rollout.engine.events import Narrowed, Widened
from rollout.engine.evidence.units import resolve_units
from rollout.engine.files.files import RecordPaths
from rollout.engine.slots.options import ReplayOptions
from rollout.features.replay.replay import build_replay_inputs, replay_files
from rollout.features.replay.requests import ReplayRequest
from rollout.features.reports.figures.facts import compute_report_facts
from rollout.features.reports.inputs.inputs import HUMAN, MODEL, assign_deciders
from rollout.features.reports.pages.html_report import render_html_report
from rollout.features.reports.pages.text_report import render_text_report
from rollout.kernel.calendar.instants import LAST_SLOT
from rollout.kernel.policy.cell_evidence import format_floor, list_floors
from rollout.kernel.policy.policy import Stage
from rollout.kernel.statistics.gate_thresholds import get_gate_threshold
from rollout.kernel.statistics.sampling import compute_sampling_value
from rollout.kernel.units import SILENT
from tests.engine.slots.stories import a_course, a_history, a_policy, a_story, prepared, seeded

FLOORS = (0.3, 0.6, 0.8)
needs_records = pytest.mark.skipif(
    not DATA.exists(), reason=f"the records are not on this machine: {DATA}"
)


def told(seed):
    """Return policy, story and course of a seed, with floors; None where floors are refused."""
    pick = seeded(seed)
    policy = a_policy(pick)
    story, course = a_story(pick, seed), a_course(pick, policy)
    if len(policy.levers) > 1 or policy.evidence.unit == "episode" or policy.observe:
        return None
    evidence = replace(policy.evidence, confidence_floors=(0.0, *FLOORS))
    return replace(policy, evidence=evidence, waves=None), story, course


def list_stories(start, end):
    return [seed for seed in range(start, end) if told(seed) is not None]


@cache
def replay(seed, *, skip=True):
    policy, story, course = told(seed)
    ready = prepared(a_history(story, policy), policy, course.salt)
    return ready, course, ready.run(replace(course, skip_idle_slots=skip))


def check_skipping(seeds):
    """Replay each story twice, with and without idle slots; return all events."""
    events = []
    for seed in seeds:
        quick, whole = (replay(seed, skip=skip)[2] for skip in (True, False))
        assert quick.events == whole.events
        assert quick.stage_histories == whole.stage_histories
        events += quick.events
    return events


@pytest.mark.slow
def test_skipping_slots_changes_no_ledger_with_floors():
    events = check_skipping(list_stories(0, 12))
    assert any(isinstance(event, Widened) and event.confidence_floors for event in events)


@pytest.mark.simulation
def test_skipping_slots_changes_no_ledger_with_floors_of_many_stories():
    events = check_skipping(list_stories(12, 60))
    kinds = {type(event).__name__ for event in events}
    assert kinds >= {"Widened", "Renewed", "TakenOver", "Narrowed", "GrantExpired"}
    steps = defaultdict(list)
    for event in events:
        if isinstance(event, Widened):
            floor = float(event.confidence_floors[0])
            steps[event.cell, event.version, event.to_stage].append(floor)
    assert any(later < floor for row in steps.values() for floor, later in pairwise(row))


def check_counts(seed):
    """Compare each floor's units with a recount, unit by unit; return how many were compared."""
    ready, course, result = replay(seed)
    confidence = {
        (row["case_key"], row["version"]): row["confidence"]
        for row in ready.history.predictions.to_dicts()
    }
    units = resolve_units(ready.placed.placed, result.policy).collect("polars")
    compared, frame = 0, units.to_native()
    for (cell, version), view in result.views.items():
        if view.state.attempt > 1:
            continue
        history = result.stage_histories[cell]
        for i, floor in enumerate(list_floors(result.policy.evidence)):
            rows = []
            for row in frame.filter(track="gate").to_dicts():
                if (row["site"], row["window"], row["version"]) != (
                    cell.site,
                    cell.window,
                    version,
                ):
                    continue
                level = int(history.find_levels(np.array([row["occurred"]]))[0])
                stage = result.policy.get_stage(level) if level else Stage("shadow", blind=1.0)
                drawn = compute_sampling_value(course.salt, "stage", row["unit"]) < stage.blind
                audit = compute_sampling_value(course.salt, "audit", row["unit"])
                drawn |= audit < (stage.audit or 0.0)
                sure = (confidence[row["case_key"], version] or 0) >= floor
                sure |= row["predicted"] in SILENT  # nobody knows how sure it would have been
                if row["excluded"] is None and drawn and sure:
                    rows.append((row["slot"], row["occurred"], row["predicted"] in SILENT))
            answered = [(slot, occurred) for slot, occurred, is_silent in rows if not is_silent]
            begin = min(answered)[1] if answered else LAST_SLOT  # what is silent before is no unit
            expected = sum(not is_silent or at >= begin for _, at, is_silent in rows)
            counts = view.floor_views[i].attempt_window.count_at(result.last_slot)
            assert counts.closed == expected
            compared += expected
    return compared


@pytest.mark.slow
def test_a_floor_counts_the_units_above_it_that_the_draw_of_the_stage_takes():
    seeds = list_stories(0, 12)
    assert sum(check_counts(seed) for seed in seeds) > 500
    assert any(h.ever_left_shadow for s in seeds for h in replay(s)[2].stage_histories.values())


@pytest.mark.simulation
def test_all_floors_at_the_threshold_are_rarely_ever_called_met():
    """1,000 runs of 3,000 cases, read after each case, .95 everywhere and at most 5 % wrong."""
    rng, line, risk = np.random.default_rng(20), 0.95, 0.05
    bands = rng.choice(5, (1000, 3000), p=[0.2, 0.2, 0.2, 0.2, 0.2])
    agrees = rng.random((1000, 3000)) < line
    wrong = {share: np.zeros(1000, dtype=bool) for share in (risk / 5, risk)}
    for floor in range(5):
        successes = np.cumsum((bands >= floor) & agrees, axis=1)
        failures = np.cumsum((bands >= floor) & ~agrees, axis=1)
        for share, runs in wrong.items():
            threshold = get_gate_threshold(line, share)
            for run in range(1000):
                runs[run] |= threshold.are_met(successes[run], failures[run]).any()
    assert wrong[risk / 5].mean() < risk
    assert wrong[risk].mean() > wrong[risk / 5].mean()


START, SOON = datetime(2027, 1, 4, tzinfo=UTC), timedelta(seconds=5)


def replay_rows(folder, policy, version, rows, *, skip=True):
    """Replay rows of key, the model's label, the human's, and confidence; 25 a slot."""
    request = write_rows(folder, policy, version, rows)
    options = ReplayOptions(approval_delay=timedelta(0), skip_idle_slots=skip)
    return replay_files(replace(request, options=options))


def write_rows(folder, policy, version, rows):
    """Write such rows and the policy as files; return the request to replay them."""
    predicted, decided = [], []
    site = "lisbon" if "lisbon" in policy else "lab"
    for i, (key, label, right, confidence) in enumerate(rows):
        at = START + timedelta(minutes=15 * (i // 25), seconds=20 * (i % 25))
        predicted.append((key, site, at.isoformat(), version, label, confidence))
        decided.append((key, "ann", right, (at + SOON).isoformat()))
    paths = RecordPaths(folder / "predictions.csv", folder / "decisions.csv")
    columns = ("case_key", "site", "occurred_at", "model_version", "label", "confidence")
    pl.DataFrame(predicted, columns, orient="row").write_csv(paths.predictions)
    columns = ("case_key", "reviewer", "label", "decided_at")
    pl.DataFrame(decided, columns, orient="row").write_csv(paths.decisions)
    (folder / "policy.yaml").write_text(policy, encoding="utf-8")
    return ReplayRequest(folder / "policy.yaml", paths)


MAIL = """
rollout: mail
timezone: UTC
levers: [{id: desk, labels: [claims, sales]}]
sites: [lisbon]
stages: [{id: supervised, blind: 100%, lasts: 3650d}]
evidence: {unit: case, grace: 1m, outside: blind, confidence_floors: [0%, 60%, 80%, 90%]}
gates:
  - to: supervised
    require: [{measure: agreement, at_least: 90%}]
    minimum: {units: 100, days: 0}
    approvals: [operator]
guards: [{measure: agreement, at_least: 93%, then: one-stage, false_alarm_every: 10000}]
tick: 15m
"""
BANDS = (0.3, 0.7, 0.85, 0.95)
EVERYWHERE, IN_A_BAND = (0.35, 0.8, 0.82, 0.84), (0.5, 0.55, 0.97, 0.99)


def replay_mail(folder, later, *, skip=True):
    """Replay 8,000 letters, 25 a slot; after 4,000 they agree as often as `later` says by band."""
    rng = np.random.default_rng(3)
    bands = rng.choice(4, 8000, p=[0.2, 0.2, 0.3, 0.3])
    shares = np.array([(0.5, 0.96, 0.97, 0.99), later])[(np.arange(8000) >= 4000).astype(int)]
    agrees = rng.random(8000) < shares[np.arange(8000), bands]
    rows = [
        (str(i), "claims" if agrees[i] else "sales", "claims", BANDS[bands[i]]) for i in range(8000)
    ]
    return replay_rows(folder, MAIL, "v1", rows, skip=skip)


TWO_STAGES = MAIL.replace(
    "lasts: 3650d}]", "lasts: 3650d}, {id: autonomous, audit: 100%, lasts: 3650d}]"
).replace(
    "guards:",
    """  - to: autonomous
    require: [{measure: agreement, at_least: 98%}]
    minimum: {units: 100, days: 0}
    approvals: [operator]
guards:""",
)


@pytest.mark.slow
def test_the_next_stage_is_read_at_the_floor_that_acts(tmp_path):
    rng = np.random.default_rng(4)
    bands = rng.choice(4, 3000)
    agrees = rng.random(3000) < np.array([0.5, 0.965, 0.965, 0.965])[bands]
    rows = [
        (str(i), "claims" if agrees[i] else "sales", "claims", BANDS[bands[i]]) for i in range(3000)
    ]
    files = replay_rows(tmp_path, TWO_STAGES, "v1", rows)
    assert list_steps(files)[-1] == ("supervised", "0.6")
    facts = compute_report_facts(build_replay_inputs(files))
    (evidence,) = facts.evidence
    page = render_html_report(facts)
    assert 'autonomous<span class="under">cases of confidence 0.6 or more</span>' in page
    assert (evidence.gate.to, evidence.gate.cases) == (
        "autonomous",
        "cases of confidence 0.6 or more",
    )
    (condition,) = (row for row in evidence.gate.conditions if row.threshold == 0.98)
    reached = agrees[bands > 0]
    assert condition.counts == (reached.sum(), (~reached).sum())
    assert sum(condition.counts) < evidence.decided_units  # of all floors
    found = f"98 %: {reached.sum():,} of {reached.size:,} ({reached.mean():.1%})"
    start = (
        "acts on cases of confidence 0.6 or more; autonomous for cases of confidence 0.6 or more"
    )
    text = evidence.next_step.replace("\N{NO-BREAK SPACE}", " ")
    assert text.startswith(f"{start}: agreement at least {found.replace('%)', ' %)')}")


def list_steps(files):
    """Return what opened and closed, in order: the stage and its floor."""
    return [
        (e.to_stage, e.confidence_floor if isinstance(e, Narrowed) else e.confidence_floors[0])
        for e in files.result.events
        if isinstance(e, Narrowed | Widened)
    ]


@pytest.mark.slow
def test_a_band_that_turns_bad_raises_the_floor_and_keeps_the_stage(tmp_path):
    files = replay_mail(tmp_path, IN_A_BAND)
    steps = list_steps(files)
    assert ("supervised", "0.6") in steps
    raised = steps.index(("supervised", "0.6")) + 1
    assert steps[raised] == ("supervised", "0.8")
    assert all(stage == "supervised" for stage, _ in steps)
    facts = compute_report_facts(build_replay_inputs(files))
    assert facts.hindsights == ()  # the stage stayed
    assert facts.evidence[0].next_step.startswith("acts on cases of confidence 0.")
    text = " ".join(render_text_report(facts).split())
    assert "v1 keeps supervised for cases of confidence 0.8 or more alone, guard:" in text
    assert replay_mail(tmp_path, IN_A_BAND, skip=False).result.events == files.result.events


@pytest.mark.slow
def test_a_model_that_turns_bad_everywhere_goes_to_shadow(tmp_path):
    files = replay_mail(tmp_path, EVERYWHERE)
    assert list_steps(files)[-1][0] == "shadow"
    (hindsight, *_) = compute_report_facts(build_replay_inputs(files)).hindsights
    assert hindsight.changed_at <= hindsight.began_at <= hindsight.narrowed_at
    assert hindsight.seen_at == hindsight.narrowed_at  # every case had a blind decision


LADDER_SHARES = {"cleanlab-cv": 0.730, "resnet-110": 0.733, "densenet-bc-L190-k40": 0.783}
WHOLE_SHARES = {"cleanlab-cv": 0.010, "resnet-110": 0.019, "densenet-bc-L190-k40": 0.597}
"""The share that the model decides, of a simulation that reads the gate alone, without slots."""


@needs_records
@pytest.mark.simulation
@pytest.mark.parametrize("model", MODELS)
def test_the_model_decides_pictures_that_it_is_sure_of(model):
    """Eight orders of the hundred of benchmarks/confidence_floors.py."""
    runs = [compare_picture_methods(model, seed, SETTINGS[0]) for seed in range(8)]
    ladder, whole = (np.mean([run[i].model_cost.cases / 2000 for run in runs]) for i in (0, 1))
    assert ladder == pytest.approx(LADDER_SHARES[model], abs=0.09)
    assert whole == pytest.approx(WHOLE_SHARES[model], abs=0.15)
    assert ladder > whole + 0.1


@pytest.mark.slow
@needs_records
def test_the_report_shows_agreement_by_band_and_who_decides(tmp_path):
    files = replay_pictures(tmp_path, "cleanlab-cv", 1, SETTINGS[0])
    inputs = build_replay_inputs(files)
    facts = compute_report_facts(inputs)
    (evidence,) = facts.evidence
    rows = {row.floor: row for row in evidence.floors}
    assert [*rows] == [format_floor(f) for f in list_floors(files.policy.evidence)]
    assert [row.state for row in rows.values()].count("acting") == 1
    bands = [row.band for row in rows.values()]
    assert sum(band.n for band in bands) == rows["0"].reached.n == evidence.decided_units
    assert bands[0].rate < bands[-1].rate - 0.2
    acting = next(float(row.floor) for row in rows.values() if row.state == "acting")
    deciders = assign_deciders(inputs).join(
        files.records.predictions.select("case_key", "confidence"), on="case_key"
    )
    late = deciders.sort("occurred_us").tail(200)
    expected = [MODEL if c >= acting else HUMAN for c in late["confidence"]]
    assert late["decider"].to_list() == expected
    page = render_html_report(facts)
    assert "Band up to the next" in page
    assert f"cases of confidence {acting} or more" in page
