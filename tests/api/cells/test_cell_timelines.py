"""The timeline of a cell: the figures of its evidence, in buckets, and in batches for reviewers."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise

import pytest

from api.cells.schemas import Timeline
from rollout.engine.decide.commands import Actor, OpenIncident
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.evidence.evidence_view import BATCH_SIZE
from rollout.features.cells.overview import load_cell_timeline
from rollout.features.records.record_import import import_records
from rollout.features.reports.figures.cell_timeline import (
    MAX_BUCKETS,
    TimelineSource,
    build_cell_timeline,
)
from rollout.features.reports.inputs.cell_facts import (
    TimelinePoint,
    TimelineRequest,
    TimelineVersion,
)
from rollout.kernel.calendar.instants import Cell, to_instant
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.clock import ManualClock
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker
from tests.api.bears import V1, founded, widened
from tests.console.divergences.divergence_rows import count
from tests.console.told_cases import judged as judged_case
from tests.counted_work import counting_work
from tests.data.snapshots import filled_once
from tests.engine.slots.stories import a_history
from tests.factories import DAY, HOUR, NOON, TICK
from tests.factories import policy as bears_policy
from tests.live.test_live import BY_CASE, STORY, replayed

CREEK = Cell("creek", "day")
PATH = f"{V1}/cells/creek/day/timeline"
READER = Caller("vic", role_assignments=(AssignedRole("viewer"),))
REVIEWER = Caller("eve", role_assignments=(AssignedRole("viewer"), AssignedRole("reviewer")))


def empty_source(policy: Policy, **changes):
    """Return a source without any unit or event."""
    source = TimelineSource(CREEK, policy, None, {}, {}, (), (), None, -1)
    return replace(source, **changes)


@pytest.fixture
def told(database, service, clock):
    """Return a rollout with records, none of them counted yet, and its instants of ticks."""
    _, instants = build_story()
    tell_story(database)
    clock.advance(instants[-1] + HOUR - clock.now())
    return instants


@cache
def build_story():
    """Return records, and the instants of their ticks."""
    policy = parse_policy(BY_CASE)
    history = a_history(replace(STORY, slots=60), policy)
    slots, _ = replayed(history, policy, None)
    return history, [to_instant(slot, policy.tick) for slot in slots]


@filled_once
def tell_story(database):
    history, (first, *_) = build_story()
    apply_policy(database, BY_CASE, Actor("zoe"), first, salt=bytes(32), service_salt=bytes(32))
    import_records(database, "story", history, first)


@filled_once
def tick(database, at):
    Ticker(database, "story", "one").tick(at)


def load(service, caller, at, cell, **span):
    return load_cell_timeline(service, caller, "story", TimelineRequest(cell, **span), at=at)


def list_cells(service):
    return service.state_cache.reload_rollout("story").state.policy.cells


def judged(timeline):
    return sum(point.judged for version in timeline.versions for point in version.points)


@pytest.mark.slow
def test_a_timeline_has_the_figures_of_the_cells_evidence(client, door, service, database, told):
    tick(database, told[-1])
    door.let_in("vic", AssignedRole("viewer"))
    compared, client = 0, client.by("vic")  # ana may be asked for blind reviews
    for cell in list_cells(service):
        path = f"/v1/rollouts/story/cells/{cell.site}/{cell.window}"
        drawn = client.get(f"{path}/timeline?from=1990-01-01T00:00:00Z").json()
        for facts in client.get(path).json()["evidence"]:
            series = [p for p in facts["path"] if p["measure"] == drawn["measure"]]
            version = [v for v in drawn["versions"] if v["version"] == facts["version"]]
            if not series or not version:
                continue
            bounds = [p["bound"] for p in version[0]["points"] if p["bound"] is not None]
            assert bounds[-1] == pytest.approx(series[-1]["bound"][-1], abs=1e-6)
            assert sum(p["judged"] for p in version[0]["points"]) >= facts["decided_units"]
            compared += 1
        counted = sum(b["human"] + b["confirmed"] + b["model"] for b in drawn["buckets"])
        assert counted >= max(f["closed_units"] for f in client.get(path).json()["evidence"])
    assert compared


@pytest.mark.slow
def test_a_version_can_be_chosen_and_changes_nobody_elses_figures(service, database, told):
    tick(database, told[-1])
    cell = list_cells(service)[0]
    every = load(service, READER, told[-1], cell)
    chosen = every.versions[-1].version
    one = load(service, READER, told[-1], cell, version=chosen)
    assert one.versions == every.versions[-1:]
    assert one.buckets == every.buckets


@pytest.mark.slow
def test_figures_move_for_a_reviewer_by_whole_batches_alone(service, database, told):
    cells, seen, moved = list_cells(service), {}, 0
    for at in told[::3]:
        tick(database, at)
        for cell in cells:
            timeline = load(service, REVIEWER, at, cell)
            assert timeline.batch == BATCH_SIZE
            points = [point for version in timeline.versions for point in version.points]
            assert all(point.bound is None for point in points)
            for version in timeline.versions:
                before = seen.get((cell, version.version), (0, 0))
                total = sum(point.judged for point in version.points)
                agreed = sum(point.judged * (point.value or 0) for point in version.points)
                now = (total, round(agreed))
                added = total - before[0]
                assert added == 0 or added >= BATCH_SIZE
                assert added or now == before
                moved += added > 0
                seen[cell, version.version] = now
    assert moved
    operators = sum(judged(load(service, READER, told[-1], cell)) for cell in cells)
    assert operators > sum(judged(load(service, REVIEWER, told[-1], cell)) for cell in cells)


@pytest.mark.slow
def test_no_difference_of_spans_tells_a_reviewer_of_less_than_a_batch(service, database, told):
    tick(database, told[-1])
    cell = max(list_cells(service), key=lambda c: judged(load(service, READER, told[-1], c)))
    version = load(service, READER, told[-1], cell).versions[0].version
    first = told[0] - DAY
    sums = [
        judged(load(service, REVIEWER, told[-1], cell, since=first, until=until, version=version))
        for until in told[1::2]
    ]
    steps = [later - earlier for earlier, later in pairwise(sums)]
    assert all(step == 0 or step >= BATCH_SIZE for step in steps)
    assert any(steps)


@pytest.mark.parametrize(
    ("span", "bucket"),
    [
        (HOUR, "hour"),
        (DAY, "hour"),
        (3 * DAY, "day"),
        (399 * DAY, "day"),
        (401 * DAY, "week"),
        (731 * DAY, "week"),
        (4_000 * DAY, "4 weeks"),
        (20_000 * DAY, "52 weeks"),
    ],
)
def test_buckets_are_named_and_at_most_four_hundred(span, bucket):
    until = datetime(2027, 6, 1, 10, 30, tzinfo=UTC)
    timeline = build_cell_timeline(
        empty_source(bears_policy()), until - span, until, is_batched=False
    )
    starts = [item.since for item in timeline.buckets]
    assert timeline.bucket == bucket
    assert 1 <= len(starts) <= MAX_BUCKETS
    assert starts == sorted(set(starts))
    assert starts[0] <= until - span < until
    assert all(start < until for start in starts)
    if bucket != "hour":
        assert {(start.hour, start.minute) for start in starts} == {(0, 0)}  # by the site's clock
        assert until - starts[-1] <= {"day": DAY, "week": 7 * DAY}.get(bucket, 364 * DAY)


def test_a_cell_without_a_unit_is_drawn_empty(client, database):
    founded(database, NOON)
    timeline = client.get(PATH).json()
    assert {b["human"] + b["confirmed"] + b["model"] for b in timeline["buckets"]} == {0}
    assert [point for version in timeline["versions"] for point in version["points"]] == []
    assert timeline["gaps"] == []


def test_a_time_whose_records_were_deleted_is_marked():
    source = empty_source(bears_policy(), purged_before=NOON - 10 * DAY)
    timeline = build_cell_timeline(source, NOON - 30 * DAY, NOON, is_batched=False)
    (gap,) = timeline.gaps
    assert (gap.kind, gap.since, gap.until) == ("purged", timeline.since, NOON - 10 * DAY)
    later = build_cell_timeline(source, NOON - 5 * DAY, NOON, is_batched=False)
    assert later.gaps == ()


def test_stages_and_events_stand_where_they_happened(client, database, clock):
    founded(database, NOON)
    widened(database, NOON)
    clock.advance(NOON + 3 * TICK - clock.now())
    client.post(f"{V1}/stops", json={"cells": [{"site": "creek", "window": "day"}]})
    timeline = client.get(PATH).json()
    kinds = [mark["kind"] for mark in timeline["marks"]]
    assert kinds.index("ProposalRaised") < kinds.index("Approved") < kinds.index("Widened")
    assert kinds[-1] == "Stopped"
    assert all(" of " not in mark["text"].replace("widening of", "") for mark in timeline["marks"])
    assert all(later >= earlier for earlier, later in pairwise(m["at"] for m in timeline["marks"]))


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("version=v9", 404, "unknown-version"),
        ("from=2099-01-01T00:00:00Z", 422, "refused"),
        ("from=soon", 422, "malformed"),
    ],
)
def test_a_span_or_version_that_is_not_there_is_refused(client, database, query, status, code):
    founded(database, NOON)
    answer = client.get(f"{PATH}?{query}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_the_longest_list_of_days_takes_less_than_150_kb():
    empty = build_cell_timeline(
        empty_source(bears_policy()), NOON - 399 * DAY, NOON, is_batched=False
    )
    points = tuple(
        TimelinePoint(bucket, 1_000, 0.987654, 0.923456) for bucket in range(len(empty.buckets))
    )
    full = replace(
        empty,
        buckets=tuple(replace(b, human=1_000, confirmed=1_000, model=1_000) for b in empty.buckets),
        versions=tuple(TimelineVersion(f"v{n}", n == 0, points) for n in range(3)),
    )
    assert len(points) == MAX_BUCKETS
    assert len(Timeline.model_validate(full).model_dump_json()) < 150_000


@filled_once
def fill_two_years(database, gap):
    """Store and count judged cases of creek, one every `gap` days, and two incidents a month."""
    founded(database, NOON)
    for number, days in enumerate(range(0, 731, 15)):
        incident = OpenIncident(
            at=NOON + days * DAY, kind="unauthorized", reason=str(number), cell=CREEK
        )
        execute_command(database, "bears", lambda _, command=incident: command)
    for days in range(0, 731, gap):
        judged_case(
            database, f"c{days}", at=NOON + days * DAY, model="bear" if days % 5 else "none"
        )
    count(database, at=NOON + 731 * DAY)


@pytest.mark.slow
def test_two_years_take_as_few_steps_and_bytes_for_many_cases_as_for_few(database):
    """So they stay within 300 ms and 150 kB: the figures are in benchmarks/README.md."""
    work, cases, texts = {}, {}, {}
    now = NOON + 731 * DAY + HOUR
    for gap in (4, 1):  # the second time adds the cases between
        fill_two_years(database, gap)
        service = build_service(database, None, ManualClock(now))
        request = TimelineRequest(CREEK, since=NOON)
        for _ in range(2):  # the first has imports and caches
            with counting_work(database, "") as work[gap]:
                timeline = load_cell_timeline(service, READER, "bears", request, at=now)
        cases[gap] = judged(timeline)
        texts[gap] = Timeline.model_validate(timeline).model_dump_json()
        assert timeline.bucket == "week"
        assert len(timeline.buckets) <= MAX_BUCKETS
    assert cases[1] > 3.9 * cases[4] > 700
    assert 0 < work[1]["statements"] <= work[4]["statements"]
    assert work[1]["calls"] < work[4]["calls"] + 0.3 * (cases[1] - cases[4])
    assert len(texts[4]) * 0.9 < len(texts[1]) < 50_000
