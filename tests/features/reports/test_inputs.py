"""A report of the store and one of a replay: the same records give the same figures."""

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from rollout.data.database.session import Database
from rollout.data.records.records import RecordStore
from rollout.data.records.versions import VersionInfo, VersionStore
from rollout.engine.decide.commands import Actor, ApproveProposal
from rollout.engine.evidence.units import resolve_units
from rollout.engine.files.files import RecordPaths
from rollout.engine.records.records import Case, Decision, Prediction
from rollout.engine.slots.options import ReplayOptions
from rollout.features.records.record_import import import_records
from rollout.features.replay.replay import build_replay_inputs, replay_records
from rollout.features.replay.requests import ReplayRequest, read_request_records
from rollout.features.reports.figures.facts import compute_report_facts
from rollout.features.reports.figures.funnel import STILL_OPEN, WITHHELD
from rollout.features.reports.inputs.inputs import ReportInputs
from rollout.features.reports.inputs.inputs import assign_deciders as standing_of
from rollout.features.reports.pages.findings import list_data_findings
from rollout.features.reports.pages.json_report import to_plain_values
from rollout.features.reports.stored_inputs import (
    NothingToReportError,
    ReportPeriod,
    load_report_inputs,
    load_whole_period,
)
from rollout.kernel.calendar.instants import find_slot_after, to_instant
from rollout.kernel.policy.evidence_sources import BEFORE_SOURCES, RegisteredUnits
from rollout.kernel.policy_files.reader import load_policy, parse_policy
from rollout.kernel.units import MISSING
from rollout.live.evidence.unit_counting import queue_new_cases
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command, load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.data.databases import fresh
from tests.engine.slots.stories import a_history, prepared
from tests.factories import DAY, HOUR, NOON
from tests.features import bear_field as field
from tests.features.review_room import ANA, MINUTE, Room, policy_text
from tests.live.stored_cases import queue_stored_cases
from tests.live.test_live import BY_CASE, BY_EPISODE, STORY, all_at_first, live, scope_of

pytestmark = pytest.mark.simulation

on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
AFTER = timedelta(minutes=20)
EASY = BY_CASE.replace("at_least: 70%", "at_least: 50%")  # so that the model decides
SHORT = replace(STORY, slots=60)
RECORDS = Path(__file__).parents[4] / "shared/data/camera-traps"
POLICY = Path(__file__).parents[3] / "config/policies/camera-traps.yaml"
MAY_DIFFER = {
    "cleaning": "work lists are kept by a service",
    "report_version": "a replay is final",
    "identity": "names its program, command, inputs, and a chain of other people",
    "pending_work": "nobody waits for a replay",
    "feedback_loops": "a replay reads who decided off the records, a service off its own draws",
    "files": "the store kept records and no files",
    "rejected_examples": "what could not be read of a file never came to the store",
    "events": "people are not made up",
    "cell_timelines": "a service counts more revisions, those of stored records",
}
"""What a report of the store may say otherwise than one of a replay, and why."""


def of_replay(history, policy, until=None):
    made = prepared(history, policy)
    done = made.run(ReplayOptions(approval_delay=AFTER, skip_idle_slots=False))
    return ReportInputs(
        policy=policy,
        events=done.events,
        timelines=done.stage_histories,
        evidence_views=done.views,
        units=made_units(made, policy),
        records=history,
        cases=made.placed.cases,
        unplaced=made.placed.excluded,
        first=to_instant(done.first_slot, policy.tick),
        last=to_instant(done.last_slot, policy.tick),
        salt=bytes(32),
        is_simulated=True,
    )


def made_units(made, policy):
    return resolve_units(made.placed.placed, policy).collect("polars").to_native()


def of_store(database, name, at=None, since=None, until=None):
    with database.begin_read() as transaction:
        stood = load_rollout_state(transaction, name)
        whole = load_whole_period(transaction, stood, at)
        span = ReportPeriod(since or whole.since, until or whole.until, at)
        return load_report_inputs(transaction, stood, span)


def sections(inputs):
    """Return the figures; files don't say who registered their cases."""
    return to_plain_values(compute_report_facts(replace(inputs, registered=())))


def leaves(value, path=""):
    """Yield every figure of a report with its path."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from leaves(one, f"{path}.{name}")
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from leaves(one, f"{path}[{number}]")
    else:
        yield path, value


def apart(found, expected):
    """Return the sections in which two reports differ."""
    return {name for name in expected if found[name] != expected[name]}


def told_apart(found, expected):
    """Return the last part of the path of each figure that differs."""
    one, other = dict(leaves(found)), dict(leaves(expected))
    differ = (path for path in {*one, *other} if one.get(path, "") != other.get(path, ""))
    return {path.rpartition(".")[2].partition("[")[0] for path in differ}


def with_hours(history, policy):
    """Return a history that says the hour of each case on its site's clock."""
    hours = [
        at.astimezone(ZoneInfo(policy.sites_by_id[site].timezone)).hour
        for site, at in history.cases.select("site", "occurred_at").iter_rows()
    ]
    cases = history.cases.with_columns(hour_written=pl.Series(hours, dtype=pl.Int8))
    return replace(history, cases=cases)


def lived(database, text, story):
    """Live a story through; return what a report of its replay is made of."""
    policy = parse_policy(text)
    history = with_hours(a_history(story, policy), policy)
    expected = of_replay(history, policy)
    first, last = (find_slot_after(at, policy.tick) for at in (expected.first, expected.last))
    everything = all_at_first(database, "story", history)
    live(database, text, range(first, last + 1), AFTER, before_slot=everything)
    return expected


@pytest.mark.parametrize(
    ("url", "text", "story"),
    [
        ("sqlite", EASY, STORY),
        ("sqlite", BY_EPISODE, SHORT),
        ("postgresql", BY_CASE, SHORT),
    ],
    ids=["sqlite-case", "sqlite-episode", "postgresql-case"],
    indirect=["url"],
)
def test_the_same_records_give_the_same_figures_live_and_in_replay(database, text, story):
    expected = lived(database, text, story)
    found = of_store(database, "story", at=expected.last)
    one, other = sections(found), sections(expected)
    assert apart(one, other) <= set(MAY_DIFFER)
    assert any(cell["widened"] for cell in one["stages"])
    assert (one["model_cost"]["cases"] > 0) == (story is STORY)
    made = {"simulated", "name", "sha256", "command", "product", "head"}
    made |= {"rows"}  # of the ledger: a replay counts no stored records
    assert told_apart(one["identity"], other["identity"]) <= made
    timelines = (
        [event for event in each["events"] if event["kind"] != "RecordsCounted"]
        for each in (one, other)
    )
    assert told_apart(*timelines) <= {"simulated", "by", "text", "short_text", "revision"}
    assert told_apart(one["cell_timelines"], other["cell_timelines"]) <= {"revision"}
    assert any(cell["marks"] for cell in one["cell_timelines"])
    assert one["detector_courses"] or story is not STORY
    cases = expected.records.cases.height
    assert found.registered == (RegisteredUnits(BEFORE_SOURCES, cases, 0),)
    findings = list_data_findings(compute_report_facts(found))
    ((text, readers),) = (
        (each.text, each.readers) for each in findings if each.title == "Who registered cases"
    )
    assert readers == ("operator", "engineer", "auditor")
    assert text == f"Cases registered by: before sources were stored {cases:,}."
    assert found.pending_units.is_empty()
    assert not found.withheld_count
    assert one["identity"]["ledger"]["head"] == found.ledger_rows[-1].hash


@on_sqlite
def test_two_halves_of_a_span_hold_each_case_once(database):
    policy = parse_policy(BY_EPISODE)
    history = a_history(replace(STORY, slots=40), policy)
    first = history.cases["occurred_at"].min()
    at = history.cases["occurred_at"].max() + DAY
    apply_policy(database, BY_EPISODE, Actor("ana"), first, salt=bytes(32), service_salt=bytes(32))
    import_records(database, "story", history, at)
    Ticker(database, "story", "one").tick(at)
    whole = of_store(database, "story", at=at)
    middle = whole.first + (whole.last - whole.first) / 4
    halves = [
        of_store(database, "story", at=at, since=since, until=until)
        for since, until in ((whole.first, middle), (middle, whole.last))
    ]
    for part in ("units", "cases"):
        counted = [getattr(one, part).height for one in (*halves, whole)]
        assert min(counted) > 0
        assert counted[0] + counted[1] == counted[2]
    assert halves[0].events == tuple(e for e in whole.events if e.at <= middle)
    assert halves[0].last == middle


def assert_steps_add_up(funnel):
    """Every step is the one before without its losses: open and withheld cases have a row."""
    for before, after in pairwise(funnel.steps):
        assert before.remaining - sum(after.lost.values()) == after.remaining


@on_sqlite
def test_units_that_are_not_closed_yet_are_said_to_wait(database):
    field.set_up_field(database, NOON - DAY)
    keep(database, "late", NOON)
    keep(database, "early", NOON - DAY + MINUTE)
    Ticker(database, "bears", "one").tick(NOON + HOUR)
    told = of_store(database, "bears", at=NOON + HOUR)
    facts = compute_report_facts(told)
    (funnel,) = facts.funnels
    closed = next(step for step in funnel.steps if step.name == "closed")
    assert (closed.remaining, closed.lost) == (1, {STILL_OPEN: 1})
    assert_steps_add_up(funnel)
    assert told.pending_units["case_key"].to_list() == ["late"]
    assert told.counted_until == NOON + HOUR
    assert told.closes_at == told.last + DAY
    edition = facts.report_version
    assert (edition.state, edition.uncounted_units, edition.due) == (
        "provisional",
        1,
        told.closes_at,
    )


@on_sqlite
def test_a_decision_that_arrived_after_its_unit_had_closed_is_none_as_for_the_gate(database):
    """Its own time lies within the grace, so records alone would resolve it as counted."""
    blind = field.POLICY.replace("{unit: case}", "{unit: case, outside: blind}")
    field.set_up_field(database, NOON - DAY, policy=blind)
    keep(database, "late", NOON - DAY + MINUTE)
    keep(database, "punctual", NOON - DAY + MINUTE)
    at = NOON - DAY + HOUR
    decided = {"reviewer": "ana", "exposure": "blind", "submitted_at": at}
    decided |= {"answers": {"alarm": "none"}}
    store(database, Decision(key="punctual", **decided), at=at)
    Ticker(database, "bears", "one").tick(NOON + HOUR)
    store(database, Decision(key="late", **decided), at=NOON + HOUR + MINUTE)
    Ticker(database, "bears", "one").tick(NOON + 2 * HOUR)
    found = of_store(database, "bears", at=NOON + 2 * HOUR)
    facts = compute_report_facts(found)
    ((_, view),) = found.evidence_views.items()
    (funnel,) = facts.funnels
    assert (len(view.rows.gate), funnel.agreement.n) == (2, 1)
    assert funnel.steps[-1].lost == {"arrived after the unit closed": 1}
    assert funnel.steps[-2].remaining == 2
    (evidence,) = (row for row in facts.evidence if row.closed_units)
    assert evidence.missing_reasons == {"arrived after the unit closed": 1}


@on_sqlite
def test_a_unit_without_three_verdicts_is_not_said_to_be_late_where_one_suffices_now(database):
    """Its decision arrived in time: only the older definition counted it as missing."""
    three_verdicts = field.POLICY.replace(
        "{unit: case}", "{unit: case, outside: blind, verdicts: 3}"
    )
    one_verdict = field.POLICY.replace("{unit: case}", "{unit: case, outside: blind}")
    field.set_up_field(database, NOON - DAY, policy=three_verdicts)
    keep(database, "punctual", NOON - DAY + MINUTE)
    at = NOON - DAY + HOUR
    decided = {"reviewer": "ana", "exposure": "blind", "submitted_at": at}
    store(database, Decision(key="punctual", **decided, answers={"alarm": "none"}), at=at)
    Ticker(database, "bears", "one").tick(NOON + HOUR)
    is_gate = pl.col("track") == "gate"
    first = of_store(database, "bears", at=NOON + HOUR)
    assert first.units.filter(is_gate)["decided"].to_list() == [MISSING]
    apply_policy(database, one_verdict, Actor("ana"), NOON + HOUR)
    raised = scope_of(database, "bears").proposals["P-1"]
    for name in ("bo", "cy"):
        by = Actor(name, ("operator",))
        approval = ApproveProposal(
            at=NOON + HOUR, by=by, proposal=raised.id, evidence_hash=raised.evidence_hash
        )
        execute_command(database, "bears", lambda _, command=approval: command)
    Ticker(database, "bears", "one").tick(NOON + 2 * HOUR)
    found = of_store(database, "bears", at=NOON + 2 * HOUR)
    assert found.units.filter(is_gate)["decided"].to_list() == ["none"]
    assert found.late_units.is_empty()


@on_sqlite
def test_a_span_without_time_or_before_the_rollout_is_refused(database):
    apply_policy(database, BY_CASE, Actor("ana"), NOON, salt=bytes(32), service_salt=bytes(32))
    with pytest.raises(NothingToReportError, match="let the span end after it"):
        of_store(database, "story", at=NOON + DAY, since=NOON - 2 * DAY, until=NOON - DAY)
    with pytest.raises(NothingToReportError, match="is not before"):
        of_store(database, "story", at=NOON + DAY, since=NOON + HOUR, until=NOON + HOUR)


@on_sqlite
def test_nothing_of_a_case_that_may_still_be_judged_blind_is_in_a_report(database):
    room = Room(database)
    room.arrive("case-1", "case-2", label="fox").done(ANA, "fox")
    told = of_store(database, "bears", at=room.at, until=room.at + MINUTE)
    assert told.records.cases["case_key"].to_list() == ["case-1"]
    assert told.records.predictions["case_key"].to_list() == ["case-1"]
    assert told.withheld_count == 1
    (funnel,) = compute_report_facts(told).funnels
    assert funnel.steps[1].lost == {WITHHELD: 1}
    assert_steps_add_up(funnel)
    assert [(w.site, w.open, w.overdue) for w in told.pending_reviews] == [("creek", 1, 0)]
    room.later(25 * HOUR)
    later = of_store(database, "bears", at=room.at)
    assert later.records.cases.height == 2
    assert [(w.site, w.open, w.overdue) for w in later.pending_reviews] == [("creek", 0, 1)]


@on_sqlite
def test_what_guards_have_seen_already_of_a_case_that_others_still_judge_is_left_out(database):
    room = Room(database, text=policy_text(verdicts=3))
    room.arrive("case-1", label="fox").done(ANA, "bear")
    with database.begin_write() as transaction:
        VersionStore(transaction, room.stood.rollout).record_info(
            VersionInfo("v1", "test"), at=room.at
        )
        queue_stored_cases(transaction, room.stood, ["case-1"], room.at)
    Ticker(database, "bears", "one").tick(room.later(HOUR).at)
    told = of_store(database, "bears", at=room.at)
    assert [len(sight.rows.guard) for sight in told.evidence_views.values()] == []
    Ticker(database, "bears", "one").tick(room.later(DAY).at)
    told = of_store(database, "bears", at=room.at)
    assert [len(sight.rows.guard) for sight in told.evidence_views.values()] == [1]


@on_sqlite
def test_who_decided_a_case_follows_from_the_policy_of_its_time(database):
    """An edit that audits more says nothing of the cases before it."""
    field.set_up_field(database, NOON - DAY)
    field.widen(database, ("creek", "day"))
    shares = "stages: [{id: supervised, blind: 80%}, {id: autonomous, audit: 60%}]\nevidence:"
    apply_policy(database, field.POLICY.replace("evidence:", shares), Actor("zoe"), NOON)
    rarely, often = field.keys(0.1, below=False, purpose="audit"), field.keys(0.6, purpose="audit")
    before, after = (key for key in rarely if key in often), NOON + HOUR
    keep(database, next(before), NOON - HOUR)
    keep(database, next(before), after)
    told = of_store(database, "bears", at=NOON + DAY)
    assert [era.policy.stages[1].audit for era in told.policy_periods] == [0.1, 0.6]
    placed = standing_of(told).sort("occurred_us")
    assert placed["decider"].to_list() == ["model", "model"]
    assert placed["audited"].to_list() == [False, True]


def keep(database, key, at):
    said = Prediction(key=key, version="v1", answers={"alarm": "none"}, at=at)
    store(database, Case(key=key, site="creek", occurred_at=at, window="day"), said, at=at)


def store(database, *records, at):
    with database.begin_write() as transaction:
        stood = load_rollout_state(transaction, "bears")
        kept = RecordStore(transaction, stood.rollout).store(records, received_at=at)
        queue_new_cases(transaction, stood, kept, at)


@pytest.fixture(scope="module")
def camera_traps(tmp_path_factory):
    """Return what reports of the real records with a time are made of: stored, and replayed."""
    if not RECORDS.exists():
        pytest.skip(f"the records are not on this machine: {RECORDS}")
    order = ReplayRequest(
        POLICY, RecordPaths(RECORDS / "predictions.csv", RECORDS / "decisions.csv")
    )
    policy, text = load_policy(POLICY), POLICY.read_text(encoding="utf-8")
    records = timed(read_request_records(order, policy))
    expected = build_replay_inputs(replay_records(order, policy, records))
    with fresh("sqlite", tmp_path_factory.mktemp("traps")) as url:
        database = Database(url)
        apply_policy(
            database, text, Actor("ana"), expected.first, salt=bytes(32), service_salt=bytes(32)
        )
        import_records(database, policy.rollout, records, expected.last)
        Ticker(database, policy.rollout, "one").tick(expected.last)
        yield sections(of_store(database, policy.rollout, at=expected.last)), sections(expected)
        database.close()


def timed(records):
    """Return records without the cases that have no time: the store takes none of these."""
    cases = records.cases.drop_nulls("occurred_at")
    known = {
        kind: getattr(records, kind).join(cases.select("case_key"), on="case_key", how="semi")
        for kind in ("predictions", "decisions", "outcomes")
    }
    return replace(records, cases=cases, **known)


def test_real_records_give_the_golden_figures_from_the_store(camera_traps):
    stored, replayed = camera_traps
    assert apart(stored, replayed) <= {*MAY_DIFFER, "funnels", "evidence", "sources"}
    assert told_apart(stored["sources"], replayed["sources"]) == {  # files say what is unlabelled
        "is_sample", "labelled", "labels", "missing", "predicted"
    }  # fmt: skip
    labels = "several labels by one reviewer"  # rejected rows of a file never came to the store
    assert told_apart(stored["evidence"], replayed["evidence"]) == {
        "next_step", labels, "no decision"
    }  # fmt: skip
    (found,), (funnel,), (other,) = (
        stored["agreements"], stored["funnels"], replayed["funnels"],
    )  # fmt: skip
    untimed = 4  # all of them agree, as people and as the model
    assert found["agreement"]["count"] == 9_958 - untimed
    assert found["agreement"]["n"] == 14_829 - untimed
    assert funnel["agreement"] == other["agreement"]
    lost = (sum(one["steps"][-1]["lost"].values()) for one in (funnel, other))
    assert len(set(lost)) == 1, "only the reason differs: several labels never came to the store"
    rows = {row["name"]: row for row in found["by_site"]}
    for site, n, agree, kappa in GOLDEN:
        share = rows[site]["agreement"]
        assert (share["n"], share["count"]) == (n, agree)
        assert rows[site]["kappa"] == pytest.approx(kappa, abs=5e-7)


GOLDEN = (
    ("36.2", 3007, 1884, 0.275203),
    ("46.2", 2161, 1551, 0.656646),
    ("59.1", 2128, 1090, 0.435365),
    ("46.1", 1088, 904, 0.790611),
    ("15.2", 1003, 726, 0.610962),
    ("22.1", 615, 346, 0.478905),
    ("44.1", 468, 327, 0.568624),
    ("36.1", 334, 163, 0.421062),
    ("15.1", 56, 37, 0.612527),
)
"""Sites of `tests/golden/test_camera_traps_figures.py` all of whose cases have a time."""
