"""How many cases sites send and who decides them, counted by hand."""

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import event

from rollout.core.errors import NotAllowedError
from rollout.core.records.records import Action, Prediction
from rollout.core.scope.commands import Actor
from rollout.core.scope.event_base import ENGINE
from rollout.core.scope.permissions import AssignedRole, Caller
from rollout.core.scope.record_events import RecordsPurged
from rollout.services.cells.site_traffic import SHOWN_DAYS, load_site_traffic
from rollout.services.engine.policy_application import apply_policy
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.services.engine.service import build_service
from rollout.services.erasure.case_erasure import erase_case
from rollout.services.erasure.erasure import ErasureRequest
from rollout.services.support.clock import ManualClock
from rollout.store.ledger.ledger import Ledger
from rollout.tally.batched_evidence import BATCH_SIZE
from tests.api.bears import POLICY
from tests.console.told_cases import case, tell
from tests.store.snapshots import filled_once

AT = datetime(2027, 6, 20, 9, 30, tzinfo=UTC)
ZONES = {"creek": "Asia/Kathmandu", "lake": "UTC"}
TEXT = POLICY.replace("sites: [creek,", "sites: [{id: creek, timezone: Asia/Kathmandu},")
VIEWER = Caller("vic", role_assignments=(AssignedRole("viewer"),))
REVIEWER = Caller("eve", role_assignments=(AssignedRole("viewer"), AssignedRole("reviewer")))
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def draw_cases(count=700, seed=3):
    """Return cases as (site, time, receipt, action by, assignment)."""
    rng = random.Random(seed)  # noqa: S311 - a seeded stream, no secret
    for _ in range(count):
        occurred = AT - rng.random() ** 2 * 16 * DAY
        received = min(AT, occurred + rng.random() * HOUR)
        yield (
            rng.choice(["creek", "lake"]),
            occurred,
            received,
            rng.choice([None, "person", "model"]),
            rng.choice([None, "human", "model"]),
        )


DRAWN = sorted(draw_cases(), key=lambda drawn: drawn[2])


@filled_once
def fill(database):
    apply_policy(database, TEXT, Actor("zoe"), AT - 20 * DAY, salt=bytes(32))
    for n, (site, occurred, received, by, decider) in enumerate(DRAWN):
        key = f"c{n}"
        records = [case(key, site=site, at=occurred)]
        answers = {"alarm": "bear"}
        records.append(
            Prediction(key=key, version="v1", answers=answers, at=occurred, decider=decider)
        )
        if by is not None:
            records.append(
                Action(
                    key=key,
                    lever="alarm",
                    action="siren",
                    by=by,
                    at=occurred,
                    permission="authorized",
                    version="v1",
                )
            )
        tell(database, *records, at=received)


@pytest.fixture
def service(database):
    fill(database)
    return build_service(database, None, ManualClock(AT))


def find_model(by, decider):
    """Return 1 or 0 for a known decider, else None."""
    known = by or decider
    return None if known is None else int(known == "model")


def count_by_hand(site, since, until):
    models = [
        find_model(by, decider)
        for drawn_site, occurred, _, by, decider in DRAWN
        if drawn_site == site and since <= occurred < until
    ]
    known = [model for model in models if model is not None]
    return len(models), len(known), sum(known)


@pytest.mark.slow
def test_cases_and_deciders_by_local_day_and_of_the_last_hour(service):
    traffic = load_site_traffic(service, VIEWER, "bears", at=AT)
    assert [site.site for site in traffic.sites] == ["creek", "lake"]
    for site in traffic.sites:
        assert len(site.days) == SHOWN_DAYS
        for span in (*site.days, site.last_hour):
            expected = count_by_hand(site.site, span.since, span.until)
            assert (span.cases, span.decided, span.decided_by_model) == expected
            assert span.per_hour == round(span.cases / ((span.until - span.since) / HOUR), 3)
            assert span.model_share == (
                span.decided_by_model / span.decided if span.decided else None
            )
        zone = ZoneInfo(ZONES[site.site])
        local = [day.since.astimezone(zone) for day in site.days]
        assert {f"{start:%H:%M}" for start in local} == {"00:00"}
        assert sum(day.cases for day in site.days) > 100
        assert (site.last_hour.since, site.days[-1].until) == (AT - HOUR, AT)
        assert site.last_hour.cases
    assert (traffic.purged_before, traffic.erased) == (None, 0)


def test_a_reviewer_reads_whole_batches_of_closed_cases(service):
    seen = load_site_traffic(service, REVIEWER, "bears", at=AT).sites
    exact = load_site_traffic(service, VIEWER, "bears", at=AT).sites
    batched = 0
    for site, other in zip(seen, exact, strict=True):
        assert site.batch == BATCH_SIZE
        assert (site.last_hour.decided, site.last_hour.model_share) == (0, None)
        assert site.last_hour.cases == other.last_hour.cases
        for day, exact_day in zip(site.days, other.days, strict=True):
            assert day.cases == exact_day.cases
            closed = [
                find_model(by, decider)
                for drawn_site, occurred, received, by, decider in DRAWN
                if drawn_site == site.site
                and day.since <= occurred < day.until
                and max(occurred, received) <= AT - DAY
            ]
            known = [model for model in closed if model is not None]
            whole = known[: len(known) // BATCH_SIZE * BATCH_SIZE]
            assert (day.decided, day.decided_by_model) == (len(whole), sum(whole))
            batched += bool(whole)
    assert batched


@pytest.mark.slow
def test_one_more_case_moves_no_share_of_a_reviewer_before_its_batch_is_whole(service):
    def read_shares(at):
        sites = load_site_traffic(service, REVIEWER, "bears", at=at).sites
        return {(s.site, d.since): (d.decided, d.decided_by_model) for s in sites for d in s.days}

    day = AT.replace(hour=0, minute=0) + DAY
    moves = []
    later = day + 2 * DAY
    for n in range(2 * BATCH_SIZE):
        at = day + n * MINUTE
        prediction = Prediction(
            key=f"n{n}", version="v1", answers={"alarm": "bear"}, at=at, decider="model"
        )
        tell(service.database, case(f"n{n}", site="lake", at=at), prediction, at=at)
        moves.append(read_shares(later)["lake", day])
    batch = (BATCH_SIZE, BATCH_SIZE)
    one_less = BATCH_SIZE - 1
    assert moves == [(0, 0)] * one_less + [batch] * BATCH_SIZE + [tuple(2 * n for n in batch)]


def test_a_corrected_case_and_action_count_once_as_they_are_now(service):
    def read(site):
        sites = {
            each.site: each for each in load_site_traffic(service, VIEWER, "bears", at=AT).sites
        }
        hour = sites[site].last_hour
        return hour.cases, hour.decided, hour.decided_by_model

    before = {site: read(site) for site in ZONES}
    done = {"key": "moved", "lever": "alarm", "action": "siren", "permission": "authorized"}
    done |= {"version": "v1", "at": AT - MINUTE}
    tell(
        service.database,
        case("moved", site="creek", at=AT - MINUTE),
        case("moved", site="lake", at=AT - MINUTE, revision=2),
        Action(by="model", **done),
        Action(by="person", **done, revision=2),
        at=AT,
    )
    assert read("creek") == before["creek"]
    assert [now - then for now, then in zip(read("lake"), before["lake"], strict=True)] == [1, 1, 0]


def test_a_caller_reads_the_own_sites_alone(service):
    cleo = Caller("cleo", role_assignments=(AssignedRole("viewer", "bears", "creek"),))
    traffic = load_site_traffic(service, cleo, "bears", at=AT)
    assert [site.site for site in traffic.sites] == ["creek"]
    assert traffic.erased is None
    rita = Caller("rita", role_assignments=(AssignedRole("reviewer", "bears"),))
    with pytest.raises(NotAllowedError):
        load_site_traffic(service, rita, "bears", at=AT)


def test_two_statements_count_all_sites(service):
    statements = []

    def note(_connection, _cursor, statement, *_):
        statements.append(statement)

    event.listen(service.database.engine, "before_cursor_execute", note)
    load_site_traffic(service, VIEWER, "bears", at=AT)
    event.remove(service.database.engine, "before_cursor_execute", note)
    assert sum("row_number" in statement for statement in statements) == 2


@pytest.mark.slow
def test_a_record_after_closing_moves_no_share_of_a_reviewer(service):
    def read(caller, at):
        sites = load_site_traffic(service, caller, "bears", at=at).sites
        days = [day for site in sites for day in site.days]
        return [(day.since, day.decided, day.decided_by_model) for day in days if day.decided]

    later = AT + 2 * DAY
    tell(service.database, case("open", at=later), at=later)
    before = {caller.name: read(caller, later) for caller in (VIEWER, REVIEWER)}
    for n, (_, occurred, *_) in enumerate(DRAWN):
        if n % 5 == 0:
            done = {"lever": "alarm", "action": "siren", "by": "person", "at": occurred}
            action = Action(key=f"c{n}", permission="authorized", revision=2, **done)
            tell(service.database, action, at=later)
    assert read(REVIEWER, later) == before["eve"]
    assert read(VIEWER, later) != before["vic"]


def test_purged_days_and_erased_cases_are_said(service):
    ada = Caller("ada", role_assignments=(AssignedRole("admin"),))
    site, occurred, *_ = DRAWN[-1]
    sites = load_site_traffic(service, VIEWER, "bears", at=AT).sites
    (full,) = (each for each in sites if each.site == site)
    erase_case(service.database, ErasureRequest(ada, "bears", "wished", AT), f"c{len(DRAWN) - 1}")
    before = AT - 10 * DAY
    purged = RecordsPurged(at=AT, by=ENGINE, before=before, tables=("cases",), counts=(3,))
    with service.database.begin_write() as transaction:
        state = load_rollout_state(transaction, "bears")
        Ledger(transaction, state.rollout).append([purged], after=state.scope.revision)
    traffic = load_site_traffic(service, VIEWER, "bears", at=AT)
    assert (traffic.erased, traffic.purged_before) == (1, before)
    for seen in traffic.sites:
        is_purged = [day.is_purged for day in seen.days]
        assert is_purged == [day.since < before for day in seen.days]
        assert {*is_purged} == {True, False}
        if seen.site == site:
            missing = {
                day.since: other.cases - day.cases
                for day, other in zip(seen.days, full.days, strict=True)
                if day.cases != other.cases
            }
            (since,) = missing
            assert since <= occurred < since + DAY
            assert missing[since] == 1
