"""The cause of an incident as the service loads it: its population, and who reads what of it."""

from datetime import timedelta

import pytest

from rollout.data.counting.closed_units import PeriodRecords
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.features.incidents.incident_causes import load_incident_cause
from rollout.features.incidents.incident_impact import load_incident_impact
from rollout.features.reports.figures.incident_cause import BATCH_SIZE
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.clock import ManualClock
from rollout.live.service import build_service
from tests.api.bears import POLICY
from tests.console.divergences.divergence_rows import count
from tests.features.incidents.cause_town import (
    CASES,
    CHANGE,
    END,
    INCIDENT,
    OPENED,
    build_town,
    find_time,
    has_new_lens,
    is_wrong,
    open_incident,
    open_town,
)

pytestmark = pytest.mark.slow

VIEWER = Caller("vic", role_assignments=(AssignedRole("viewer"),))
OPERATOR = Caller("ana", role_assignments=(AssignedRole("viewer"), AssignedRole("operator")))
REVIEWER = Caller("eve", role_assignments=(AssignedRole("viewer"), AssignedRole("reviewer")))


@pytest.fixture
def service(database):
    return build_service(database, None, ManualClock(END))


@pytest.fixture
def town(database):
    build_town(database)


def load(service, caller, at=END):
    impact = load_incident_impact(service, caller, "bears", "I-1", at=at)
    return load_incident_cause(service, caller, "bears", impact, at=at)


def sum_units(cause):
    """Return the judged and the differing units of all times."""
    periods = (cause.before, cause.during, cause.after)
    return sum(p.n for p in periods), sum(p.count for p in periods)


def list_parts(loaded):
    """Return the judged units before the change, until the incident and since it."""
    return tuple(part.n for part in (loaded.cause.before, loaded.cause.during, loaded.cause.after))


@pytest.mark.slow
@pytest.mark.usefixtures("town")
def test_an_operator_finds_the_value_the_time_and_the_counts(service):
    loaded = load(service, OPERATOR)
    finding = loaded.cause.standout
    new = [n for n in range(CHANGE, CASES) if has_new_lens(n)]
    assert (finding.compared.source, finding.compared.kind) == ("attribute", "lens")
    assert (finding.compared.value, finding.compared.n) == ("new", len(new))
    assert finding.compared.count == sum(map(is_wrong, new))
    assert (finding.compared.rest_count, finding.compared.rest_n) == (0, CASES - CHANGE - len(new))
    assert loaded.started_at == find_time(CHANGE)
    assert (loaded.cause.before.n, loaded.cause.before.count) == (CHANGE, 3)
    assert (loaded.cause.during.n, loaded.cause.after.n) == (INCIDENT - CHANGE, CASES - INCIDENT)


@pytest.mark.usefixtures("town")
def test_operators_alone_read_reviewers(service):
    kinds = {}
    for caller in (VIEWER, OPERATOR):
        search = load(service, caller).cause.search
        compared = {value.source for value in search.values}
        kinds[caller.name] = compared | {source for source, _ in search.uncompared}
    assert kinds["vic"] == {"attribute", "answer", "hour", "weekday"}
    assert kinds["ana"] - kinds["vic"] == {"reviewer"}


@pytest.mark.usefixtures("town")
def test_at_most_a_week_after_the_incident_is_read(service):
    loaded = load(service, VIEWER, at=OPENED + timedelta(days=30))
    assert loaded.until == OPENED + timedelta(days=7)
    assert sum_units(loaded.cause)[0] == CASES


@pytest.mark.usefixtures("town")
def test_a_case_that_somebody_may_still_be_asked_about_is_in_no_figure(service, monkeypatch):
    counted = sum_units(load(service, VIEWER).cause)
    monkeypatch.setattr(PeriodRecords, "list_blind_cases", lambda *_: set(range(0, 10**6, 2)))
    judged = sum_units(load(service, VIEWER).cause)[0]
    assert counted[0] == CASES
    assert 0 < judged < 0.7 * CASES


@pytest.mark.slow
def test_figures_of_a_reviewer_move_by_whole_batches_of_closed_units(service, database):
    open_town(database)
    open_incident(database)
    before, moves, lagging = (0, 0), 0, 0
    parts = (0, 0, 0)
    grace = parse_policy(POLICY).evidence.grace
    for n in range(INCIDENT + 5, CASES + 3 * 40, 12):
        at = find_time(n)
        count(database, at=at)
        loaded = load(service, REVIEWER, at)
        judged = sum_units(loaded.cause)
        assert judged[0] <= sum(find_time(number) <= at - grace for number in range(CASES))
        assert loaded.batch == BATCH_SIZE
        assert judged == before or judged[0] - before[0] >= BATCH_SIZE
        parts_before, parts = parts, list_parts(loaded)
        assert all(
            n == n_before or abs(n - n_before) >= BATCH_SIZE
            for n, n_before in zip(parts, parts_before, strict=True)
        )
        lagging += judged[0] < sum_units(load(service, VIEWER, at).cause)[0]
        moves += judged != before
        before = judged
    assert moves > 1
    assert lagging > 1
