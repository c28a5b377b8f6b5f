"""The cause of a cell or a filter: the same figures as of an incident, and who reads what of it."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from rollout.data.counting.closed_units import JudgedUnitStore, PeriodRecords
from rollout.engine.decide.permissions import AssignedRole, Caller, NotAllowedError
from rollout.features.incidents.incident_causes import load_cause, load_incident_cause
from rollout.features.incidents.incident_impact import load_incident_impact
from rollout.features.reports.figures.incident_cause import BATCH_SIZE
from rollout.kernel.calendar.instants import EPOCH, Cell, to_micros
from rollout.kernel.errors import RefusalError, UnknownCellError, UnknownVersionError
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.units import UnitSelection
from rollout.live.clock import ManualClock
from rollout.live.rollout_state import load_rollout_state
from rollout.live.service import build_service
from tests.api.bears import POLICY
from tests.console.divergences.divergence_rows import count
from tests.counted_work import counting_work
from tests.features.incidents.cause_town import (
    CASES,
    CHANGE,
    END,
    build_town,
    find_time,
    has_new_lens,
    is_wrong,
    open_town,
)

VIEWER = Caller("vic", role_assignments=(AssignedRole("viewer"),))
OPERATOR = Caller("ana", role_assignments=(AssignedRole("viewer"), AssignedRole("operator")))
REVIEWER = Caller("eve", role_assignments=(AssignedRole("viewer"), AssignedRole("reviewer")))
LAKE_VIEWER = Caller("lea", role_assignments=(AssignedRole("viewer", "bears", "lake"),))
CREEK = UnitSelection("v1", "creek", "day")
LOADERS = ("features/incidents", "data/counting")


@pytest.fixture
def service(database):
    return build_service(database, None, ManualClock(END))


@pytest.fixture
def town(database):
    build_town(database)


def load(service, caller=OPERATOR, query=CREEK, at=END):
    return load_cause(service, caller, "bears", query, at=at)


def sum_units(loaded):
    periods = (loaded.cause.before, loaded.cause.during, loaded.cause.after)
    return sum(p.n for p in periods), sum(p.count for p in periods)


@pytest.mark.slow
@pytest.mark.usefixtures("town")
def test_a_cell_and_all_cells_have_the_figures_of_the_incident(service):
    impact = load_incident_impact(service, OPERATOR, "bears", "I-1", at=END)
    expected = load_incident_cause(service, OPERATOR, "bears", impact, at=END)
    found = load(service)
    assert found.cause.search == expected.cause.search
    assert found.started_at == expected.started_at == find_time(CHANGE)
    assert found.cause.since == expected.cause.since
    assert found.cause.standout.compared.value == "new"
    everywhere = load(service, query=UnitSelection("v1"))
    assert (everywhere.site, everywhere.window) == ("", "")
    assert everywhere.cause.search == found.cause.search


@pytest.mark.usefixtures("town")
def test_a_filter_takes_days_and_attributes(service):
    new = [n for n in range(CASES) if has_new_lens(n)]
    loaded = load(service, query=UnitSelection("v1", "creek", "day", attributes={"lens": "new"}))
    assert sum_units(loaded) == (len(new), sum(map(is_wrong, new)))
    first = find_time(40)
    days = UnitSelection("v1", "creek", "day", since=first, until=find_time(80))
    assert sum_units(load(service, query=days)) == (40, sum(map(is_wrong, range(40, 80))))


@pytest.mark.usefixtures("town")
def test_wrong_filters_are_refused(service):
    with pytest.raises(UnknownCellError):
        load(service, query=UnitSelection("v1", "creek", "dusk"))
    with pytest.raises(UnknownVersionError):
        load(service, query=UnitSelection("v9"))
    with pytest.raises(RefusalError, match="begin has to be before"):
        load(service, query=UnitSelection("v1", since=END))
    with pytest.raises(RefusalError, match="at most 90 days"):
        load(service, query=UnitSelection("v1", since=END - timedelta(days=91)))
    with pytest.raises(NotAllowedError):
        load(service, LAKE_VIEWER)
    assert sum_units(load(service, LAKE_VIEWER, UnitSelection("v1"))) == (0, 0)


@pytest.mark.usefixtures("town")
def test_operators_alone_read_reviewers(service):
    for caller, names in ((VIEWER, False), (OPERATOR, True)):
        search = load(service, caller).cause.search
        compared = {value.source for value in search.values} | {s for s, _ in search.uncompared}
        assert ("reviewer" in compared) == names


@pytest.mark.usefixtures("town")
def test_a_case_that_somebody_may_still_be_asked_about_is_in_no_figure(service, monkeypatch):
    monkeypatch.setattr(PeriodRecords, "list_blind_cases", lambda *_, **__: set(range(0, 10**6, 2)))
    assert 0 < sum_units(load(service))[0] < 0.7 * CASES


@pytest.mark.usefixtures("town")
def test_who_may_be_asked_blind_singles_out_nothing(service):
    for query in (
        UnitSelection("v1", "creek", "day", since=find_time(3)),
        UnitSelection("v1", until=find_time(9)),
        UnitSelection("v1", "creek", attributes={"lens": "new"}),
    ):
        with pytest.raises(RefusalError, match="could single out a case"):
            load(service, REVIEWER, query)


@pytest.mark.usefixtures("town")
def test_who_may_be_asked_blind_reads_no_values(service):
    """A value's figures move by the few cases of a batch that have it."""
    cause = load(service, REVIEWER).cause
    assert (cause.findings, cause.new_values, cause.search.values) == ((), (), ())
    assert cause.before.n + cause.since.n > 0
    assert load(service, VIEWER).cause.findings


@pytest.mark.slow
def test_a_shorter_grace_closes_no_case_that_may_still_be_decided(service, database, monkeypatch):
    """Tasks keep the due time of the policy under which they were opened."""
    open_town(database)
    count(database, at=END)
    total = sum_units(load(service, REVIEWER))[0]
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "bears")
        store = JudgedUnitStore(transaction, state.rollout, Cell("creek", "day"), "v1")
        units = store.load_occurred(EPOCH, END, slots=range(10**7)).to_dicts()
    still_open = {
        unit["case_id"] for unit in units if unit["occurred"] >= to_micros(find_time(CHANGE))
    }
    assert 0 < len(still_open) < len(units)

    def list_blind(_records, _at, *, with_gold=True):
        return set() if with_gold else still_open  # as after an edit of the grace

    monkeypatch.setattr(PeriodRecords, "list_blind_cases", list_blind)
    shown = sum_units(load(service, REVIEWER))[0]
    assert 0 < shown <= len(units) - len(still_open) < total


def test_a_span_before_all_time_is_refused(service, database):
    open_town(database)
    with pytest.raises(RefusalError, match="no case is older than 1970"):
        load(service, VIEWER, UnitSelection("v1", until=datetime(1, 1, 5, tzinfo=UTC)))


@pytest.mark.usefixtures("town")
def test_an_attribute_that_no_case_has_filters_all_away(service):
    query = UnitSelection("v1", "creek", "day", attributes={"nope": "None"})
    assert sum_units(load(service, OPERATOR, query)) == (0, 0)


@pytest.mark.slow
def test_figures_of_a_reviewer_move_by_whole_batches_at_both_ends(service, database):
    open_town(database)
    grace, before, moves = parse_policy(POLICY).evidence.grace, (0, 0), 0
    parts = (0, 0, 0)
    for n in range(CHANGE, CASES + 60, 30):
        at = find_time(n)
        count(database, at=at)
        loaded = load(service, REVIEWER, at=at)
        judged = sum_units(loaded)
        assert loaded.batch == BATCH_SIZE
        assert judged[0] <= sum(find_time(number) <= at - grace for number in range(CASES))
        assert judged == before or abs(judged[0] - before[0]) >= BATCH_SIZE
        moves, before = moves + (judged != before), judged
        parts_before, parts = parts, list_parts(loaded)
        assert all(
            n == n_before or abs(n - n_before) >= BATCH_SIZE
            for n, n_before in zip(parts, parts_before, strict=True)
        )
    sizes = {
        sum_units(load(service, REVIEWER, at=END + timedelta(days=20, hours=hours)))[0]
        for hours in range(0, 120, 5)
    }
    ordered = sorted(sizes)
    assert all(more - less >= BATCH_SIZE for less, more in pairwise(ordered))
    assert len(sizes) > 2
    assert moves > 1


def list_parts(loaded):
    return tuple(part.n for part in (loaded.cause.before, loaded.cause.during, loaded.cause.after))


@pytest.mark.usefixtures("town")
@pytest.mark.parametrize("caller", [OPERATOR, REVIEWER], ids=["by unit", "in batches"])
def test_three_times_the_units_take_no_more_calls_and_statements(service, database, caller):
    """Units are read and searched by column: the figures are in benchmarks/README.md."""
    work, units = {}, {}
    for name, at in (("few", find_time(80)), ("many", find_time(CASES))):
        query = CREEK if caller is REVIEWER else UnitSelection("v1", "creek", "day", until=at)
        load(service, caller, query, at if caller is REVIEWER else END)  # imports and caches
        with counting_work(database, *LOADERS) as work[name]:
            loaded = load(service, caller, query, at if caller is REVIEWER else END)
        units[name] = sum_units(loaded)[0]
    assert units["many"] > 2.5 * units["few"] >= 100
    first_case = 1  # of the new lens
    assert 3 < work["many"]["statements"] <= work["few"]["statements"] + first_case
    assert work["many"]["calls"] < work["few"]["calls"] + 0.3 * (units["many"] - units["few"])
