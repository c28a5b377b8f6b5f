"""What will happen in a rollout, by its policy, its ledger and the present."""

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from rollout.engine.decide.schedule import limit_to_sites, list_schedule
from rollout.engine.words.state_text import describe_entry
from rollout.kernel.calendar.instants import Site, Window
from rollout.kernel.policy.policy import Freeze, Limit, ReportPlan, Waves, Where
from tests.factories import (
    BO,
    CREEK,
    CY,
    DAN,
    DAY,
    LAKE,
    MET,
    NOON,
    TICK,
    RolloutDriver,
    policy,
)

TOKYO = Site("lake", "Asia/Tokyo", wave=2)
DAYS = 40


def coming(rollout, days=DAYS, at=None, drills=None):
    at = at or rollout.at
    return list_schedule(rollout.scope, rollout.policy, at, at + days * DAY, drills or {})


def of_kind(rollout, kind, **more):
    return [entry for entry in coming(rollout, **more) if entry.kind == kind]


def test_an_idle_rollout_has_no_entries():
    assert coming(RolloutDriver(policy())) == ()


def test_a_freeze_has_its_span_in_each_sites_own_zone():
    sites = (Site("creek", "UTC"), TOKYO, Site("pond", "UTC"))
    rollout = RolloutDriver(policy(sites=sites, freezes=(Freeze("Jun 05", "fair"),)))
    tokyo, utc = of_kind(rollout, "freeze")
    assert (tokyo.at, tokyo.until, tokyo.sites) == (
        datetime(2027, 6, 4, 15, tzinfo=UTC),
        datetime(2027, 6, 5, 15, tzinfo=UTC),
        ("lake",),
    )
    assert (utc.at, utc.sites) == (datetime(2027, 6, 5, tzinfo=UTC), ("creek", "pond"))
    assert of_kind(rollout, "freeze", at=NOON + 3.8 * DAY) == [tokyo, utc]  # it keeps its start
    assert of_kind(rollout, "freeze", at=NOON + 5 * DAY) == []


def test_ends_of_limits_are_those_of_the_sites_they_fit():
    limits = (
        Limit(ends=date(2027, 6, 30), where=Where(("creek",))),
        Limit(ends=date(2027, 6, 30), where=Where(("creek",), ("night",))),
        Limit(never_above="supervised"),
    )
    (end,) = coming(RolloutDriver(policy(limits=limits)))
    assert (end.kind, end.sites) == ("end", ("creek",))
    assert end.at == datetime(2027, 7, 1, tzinfo=UTC)


def test_a_wave_opens_when_the_one_before_will_have_held():
    waves = Waves("supervised", hold=7 * DAY)
    rollout = RolloutDriver(policy(waves=waves, windows=(Window("day"),)))
    assert of_kind(rollout, "wave") == []  # nobody knows when the first wave will have widened
    rollout.widen()
    (entry,) = of_kind(rollout, "wave")
    assert (entry.subject, entry.at, entry.sites) == ("2", rollout.at + 7 * DAY, ("lake",))


def test_grants_end_and_proposals_expire_or_take_effect():
    rollout = RolloutDriver(policy(freezes=(Freeze("Jun 02-03", "fair"),)))
    proposal = rollout.raised()
    (expiry,) = of_kind(rollout, "expiry")
    assert (expiry.subject, expiry.at, expiry.sites) == ("P-1", proposal.expires_at, ("creek",))
    rollout.approve(proposal, *rollout_people(proposal))
    assert [e.at - NOON for e in of_kind(rollout, "effect")] == [2 * TICK]  # by the next tick
    (effect,) = of_kind(rollout, "effect", at=NOON + DAY)
    assert effect.at == datetime(2027, 6, 4, tzinfo=UTC)
    rollout.tick({CREEK: MET})
    (grant,) = of_kind(rollout, "grant", days=100)
    assert (grant.subject, grant.detail, grant.at) == ("supervised", "v1", rollout.at + 90 * DAY)


def rollout_people(proposal):
    people = {"operator": [BO, DAN], "safety": [CY]}
    return [people[group].pop() for group in proposal.needs]


@pytest.mark.parametrize(("every", "expected"), [("day", 40), ("week", 5), ("month", 1)], ids=str)
def test_reports_are_due_in_the_rollouts_zone(every, expected):
    plan = ReportPlan("morning", every, "07:00", "operator")
    found = of_kind(RolloutDriver(policy(reports=(plan,))), "report")
    assert len(found) == expected
    assert {entry.at.hour for entry in found} == {7}


def test_a_drill_is_due_thirty_days_after_the_last_at_sites_with_a_grant():
    rollout = RolloutDriver(policy())
    assert of_kind(rollout, "drill") == []  # a stop would withhold nothing
    rollout.widen()
    (first,) = of_kind(rollout, "drill")
    assert (first.subject, first.sites, first.at) == ("first", ("creek",), rollout.at + TICK)
    drilled_at = rollout.at - 10 * DAY
    (due,) = of_kind(rollout, "drill", drills={"creek": drilled_at})
    assert (due.subject, due.at) == ("due", drilled_at + 30 * DAY)
    late = rollout.at + 20 * DAY
    (overdue,) = of_kind(rollout, "drill", drills={"creek": drilled_at}, at=late)
    assert (overdue.subject, overdue.at) == ("overdue", late + TICK)
    assert of_kind(rollout, "drill", at=rollout.at + 90 * DAY) == []  # the grant has ended


def test_drills_of_one_instant_are_one_entry():
    rollout = RolloutDriver(policy())
    rollout.widen()
    rollout.widen(LAKE)
    entry = of_kind(rollout, "drill")[0]
    assert describe_entry(entry, names_windows=True) == "First stop drill is due at creek, lake"
    four, five = (replace(entry, sites=tuple("abcde"[:n])) for n in (4, 5))
    assert describe_entry(four, names_windows=True).endswith(" at a, b, c, d")
    assert describe_entry(five, names_windows=True).endswith(" at a, b, c and 2 more sites")
    both = of_kind(rollout, "drill", drills={"creek": NOON})
    assert [describe_entry(entry, names_windows=True) for entry in both] == [
        "First stop drill is due at lake",
        "Stop drill is due at creek",
    ]


def test_a_reader_sees_only_their_sites_and_what_concerns_the_whole_rollout():
    plan = ReportPlan("morning", "month", "07:00", "operator")
    rollout = RolloutDriver(policy(freezes=(Freeze("Jun 05", "fair"),), reports=(plan,)))
    kept = list(limit_to_sites(coming(rollout), frozenset({"lake"})))
    assert [(entry.kind, entry.sites) for entry in kept] == [("freeze", ("lake",)), ("report", ())]
    assert [e.kind for e in limit_to_sites(coming(rollout), frozenset())] == ["report"]


def test_every_kind_has_its_sentence():
    plan = ReportPlan("morning", "month", "07:00", "operator")
    rollout = RolloutDriver(
        policy(
            freezes=(Freeze("Jun 05", "fair"),),
            limits=(Limit(ends=date(2027, 6, 30)),),
            reports=(plan,),
        )
    )
    texts = [describe_entry(entry, names_windows=True) for entry in coming(rollout)]
    assert "The trial ends at creek, lake: humans decide every case" in texts
    assert "Freeze (fair): nothing widens at creek, lake" in texts
    assert "Report morning (operator)" in texts
