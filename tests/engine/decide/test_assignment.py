"""Who decides one case, right now: a person whenever anything is in doubt."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.engine.decide.assignment import (
    NOT_DRAWN,
    UNKNOWN_DRAW,
    CaseQuestion,
    FallbackAction,
    _compute_turns,
    decide_assignment,
    find_open_span,
)
from rollout.kernel.calendar.instants import Site, Window
from rollout.kernel.calendar.opening_hours import find_next_change, is_open
from rollout.kernel.calendar.windows import find_window
from rollout.kernel.policy.policy import NEVER, EvidenceRules, Limit, Policy, Stage
from rollout.kernel.policy.stages import VersionRule
from rollout.kernel.statistics.sampling import compute_sampling_value
from rollout.kernel.units import Lever
from tests.factories import (
    AUTONOMOUS,
    CHANGE,
    CREEK,
    DAY,
    HEARTBEAT,
    HOUR,
    LAKE,
    MINUTE,
    NOON,
    RolloutDriver,
    alarm,
    autonomous,
    narrow_only,
    policy,
    supervised,
)

SALT = bytes(32)
UP = autonomous()
HALF = supervised()


def ask(rollout: RolloutDriver, key: str = "k", *, now=None, left=None, **asked):
    now = now or rollout.at
    question = {"site": "creek", "at": now, "version": "v1", "key": key, **asked}
    return decide_assignment(
        rollout.scope, rollout.policy, SALT, CaseQuestion(**question), now=now, time_left=left
    )


def key_below(share: float) -> str:
    """Return a key whose draw lies below a share."""
    return next(
        k for k in map(str, range(1000)) if compute_sampling_value(SALT, "stage", k) < share
    )


def test_the_reason_names_what_withholds_the_model():
    rollout = autonomous()
    rollout.tick({CREEK: alarm(HEARTBEAT, CHANGE)})
    assert ask(rollout).reason == "suspended: heartbeat at most 7200 s"
    rollout.stop()
    (stop,) = rollout.scope.stops
    assert ask(rollout).reason == f"stopped: {stop}"  # also while it is suspended
    assert ask(rollout, version="v9").reason == f"stopped: {stop}"
    elsewhere = RolloutDriver(policy(), "v1")
    elsewhere.stop(LAKE)
    assert ask(elsewhere).reason == "shadow: a human decides"


def key_above(share: float) -> str:
    return next(
        k for k in map(str, range(1000)) if compute_sampling_value(SALT, "stage", k) >= share
    )


# By stage


def test_in_shadow_a_person_decides_and_sees_nothing():
    answer = ask(RolloutDriver())
    told = (answer.decider, answer.stage, answer.exposure, answer.share)
    assert told == ("human", "shadow", "blind", 1.0)


def test_at_supervised_a_person_confirms_save_in_the_blind_share():
    blind, assisted = ask(HALF, key_below(0.5)), ask(HALF, key_above(0.5))
    assert (blind.decider, blind.exposure, blind.share) == ("human", "blind", 0.5)
    assert (assisted.decider, assisted.exposure, assisted.share) == ("human", "assisted", 0.5)
    assert {blind.stage, assisted.stage} == {"supervised"}


def test_at_autonomous_the_model_decides_and_no_answer_tells_of_an_audit():
    answers = {ask(UP, str(number)) for number in range(100)}
    assert [(answer.decider, answer.share) for answer in answers] == [("model", 1.0)]


def test_a_blind_share_of_an_autonomous_stage_is_decided_by_humans():
    stage = Stage("autonomous", blind=0.2, audit=0.5)
    rollout = autonomous(policy(stages=(policy().stages[0], stage)))
    assert ask(rollout, key_below(0.2)).decider == "human"
    by_model = {ask(rollout, str(number)) for number in range(100)} - {ask(rollout, key_below(0.2))}
    assert [(answer.decider, answer.share) for answer in by_model] == [("model", 0.8)]


def test_a_shared_stage_gives_the_model_its_share_and_shows_people_nothing():
    shared = Stage("autonomous", audit=0.2, share=0.1)
    rollout = autonomous(policy(stages=(policy().stages[0], shared)))
    answers = [ask(rollout, str(number)) for number in range(400)]
    by_people = [answer for answer in answers if answer.decider == "human"]
    assert {(answer.exposure, answer.share) for answer in by_people} == {("blind", 0.9)}
    assert 400 - len(by_people) == sum(
        compute_sampling_value(SALT, "stage", str(number)) >= 0.9 for number in range(400)
    )
    by_model = {answer for answer in answers if answer.decider == "model"}
    assert [round(answer.share, 9) for answer in by_model] == [0.1]


def test_an_episode_is_drawn_whole():
    rules = replace(policy().evidence, unit="episode")
    by_episode, by_case = supervised(policy(evidence=rules)), HALF
    assert len({ask(by_episode, str(n), episode="e").reason for n in range(20)}) == 1
    assert len({ask(by_case, str(n), episode="e").reason for n in range(20)}) == 2


def test_every_answer_names_the_revision_it_follows_from():
    assert {ask(UP).revision, ask(UP, site="moon").revision} == {UP.scope.revision}


# Doubt

DOUBTS = {
    "site": {"site": "moon"},
    "no site": {"site": ""},
    "version": {"version": "v9"},
    "no version": {"version": ""},
    "no key": {"key": ""},
    "later": {"at": UP.at + 5 * MINUTE + timedelta(microseconds=1)},
    "earlier": {"at": UP.at - 5 * MINUTE - timedelta(microseconds=1)},
    "no zone": {"at": UP.at.replace(tzinfo=None)},
    "no time": {"at": None},
}


@pytest.mark.parametrize("doubt", DOUBTS)
def test_a_person_decides_what_is_missing_unknown_or_askew(doubt):
    answer = ask(UP, **DOUBTS[doubt])
    assert (answer.decider, answer.stage, answer.exposure) == ("human", "shadow", "blind")


@pytest.mark.parametrize("askew", [-5 * MINUTE, 5 * MINUTE])
def test_five_minutes_askew_are_let_pass(askew):
    assert ask(UP, at=UP.at + askew).decider == "model"


@pytest.mark.parametrize("how", ["stop", "suspension", "retirement", "narrowing", "expiry"])
def test_whatever_withholds_the_grant_holds_for_the_next_question(how):
    rollout, now = autonomous(), None
    match how:
        case "stop":
            rollout.stop()
        case "suspension":
            rollout.tick({CREEK: alarm(HEARTBEAT)})
        case "retirement":
            rollout.retire()
        case "narrowing":
            rollout.narrow()
        case "expiry":
            now = rollout.at + 90 * DAY
    assert ask(rollout, now=now).decider == "human"


def floored() -> Policy:
    return policy(evidence=EvidenceRules(confidence_floor=0.8))


@pytest.mark.parametrize(
    ("confidence", "decider"),
    [
        (0.8, "model"),
        (1.0, "model"),
        (0.79, "human"),
        (None, "human"),
        (float("nan"), "human"),
        (float("inf"), "human"),
        (1.01, "human"),
    ],
)
def test_below_the_floor_or_without_a_usable_confidence_a_person_decides(confidence, decider):
    answer = ask(autonomous(floored()), confidence=confidence)
    assert (answer.decider, answer.stage) == (decider, "autonomous")
    assert decider == "model" or answer.reason == "below the confidence floor"


def test_without_a_floor_no_confidence_is_asked_for():
    assert ask(UP).decider == "model"


def windowed() -> RolloutDriver:
    windows = (Window("day", when={"weather": ("dry",)}), Window("night"))
    return autonomous(policy(windows=windows))


@pytest.mark.parametrize(
    ("attributes", "decider"),
    [({"weather": "dry"}, "model"), ({"weather": "wet"}, "human"), ({}, "human"), (None, "human")],
)
def test_an_attribute_that_a_window_asks_for_must_be_there(attributes, decider):
    assert ask(windowed(), attributes=attributes).decider == decider


def test_the_window_is_that_of_the_case():
    evening = NOON + timedelta(hours=7, minutes=58)  # day ends at 20:00
    rollout = autonomous()
    assert ask(rollout, now=evening).decider == "model"
    assert ask(rollout, now=evening, at=evening + 3 * MINUTE).decider == "human"


def test_a_challenger_is_not_asked_to_act():
    rollout = autonomous(policy(), "v1", "v2")
    assert ask(rollout, version="v2").decider == "human"


# Lease


def test_a_lease_is_the_sites_own_or_the_policys():
    assert ask(UP).lease == MINUTE
    sites = (Site("creek", "UTC", lease=2 * HOUR), Site("lake", "UTC"))
    assert ask(autonomous(policy(sites=sites))).lease == 2 * HOUR


LONG = policy(lease=12 * HOUR)


def test_a_lease_ends_with_the_window():
    assert ask(autonomous(LONG), now=NOON + 6 * HOUR).lease == 2 * HOUR


def test_a_lease_ends_with_the_grant():
    rollout = autonomous(policy(lease=12 * HOUR, windows=(Window("day"), Window("night"))))
    end = rollout.scope.get_cell_state(CREEK, "v1").grants[0].until
    assert ask(rollout, now=end - HOUR).lease == HOUR


def test_a_later_name_of_a_version_has_its_grants_and_its_sample():
    rollout = autonomous(policy(lease=12 * HOUR, windows=(Window("day"), Window("night"))))
    rollout.scope = replace(rollout.scope, aliases={"v1b": "v1"})
    end = rollout.scope.get_cell_state(CREEK, "v1").grants[0].until
    assert ask(rollout, now=end - HOUR, version="v1b").lease == HOUR
    rollout.policy = replace(rollout.policy, versions=(VersionRule("v1", sample=0.1),))
    for version in ("v1", "v1b"):
        answers = [ask(rollout, version=version, is_drawn=drawn) for drawn in (True, False, None)]
        assert [answer.decider for answer in answers] == ["model", "human", "human"], version
        assert [answer.reason for answer in answers[1:]] == [NOT_DRAWN, UNKNOWN_DRAW], version


def test_a_grant_that_has_ended_above_shortens_no_lease_below_it():
    stages = (policy().stages[0], replace(AUTONOMOUS, lasts=DAY))
    rollout = autonomous(policy(stages=stages))
    answer = ask(rollout, now=rollout.at + 2 * DAY)
    assert (answer.stage, answer.lease) == ("supervised", MINUTE)


def test_a_clock_set_back_lengthens_no_lease():
    rollout = autonomous(policy(lease=12 * HOUR, windows=(Window("day"), Window("night"))))
    rollout.at = rollout.scope.get_cell_state(CREEK, "v1").grants[0].until - HOUR
    rollout.stop(LAKE)  # an entry in the ledger
    assert ask(rollout, now=rollout.at - DAY).lease == HOUR


LIMITED = policy(lease=12 * HOUR, windows=(Window("day"),), limits=(Limit(ends=date(2027, 6, 9)),))


def test_a_lease_ends_with_the_last_day_that_a_limit_allows():
    end = datetime(2027, 6, 10, tzinfo=UTC)
    rollout = autonomous(LIMITED)
    assert ask(rollout, now=end - 13 * HOUR).lease == 12 * HOUR
    assert ask(rollout, now=end - HOUR).lease == HOUR
    assert ask(rollout, now=end).stage == "shadow"


def test_a_limit_elsewhere_ends_no_lease_here():
    elsewhere = (Limit(ends=date(2027, 6, 1), where=narrow_only(("lake",))),)
    rollout = autonomous(replace(LIMITED, limits=elsewhere, hash="x"))
    assert ask(rollout).lease == 12 * HOUR


def test_an_answer_for_people_may_be_used_as_long_as_the_sites_own_lease():
    sites = (Site("creek", "UTC", lease=2 * HOUR), Site("lake", "UTC"))
    rollout = RolloutDriver(policy(sites=sites))
    assert (ask(rollout).decider, ask(rollout).lease) == ("human", 2 * HOUR)
    assert ask(rollout, site="lake").lease == MINUTE


@pytest.mark.parametrize("left", [timedelta(0), -MINUTE])
def test_when_the_lease_of_a_copy_has_ended_a_person_decides(left):
    answer = ask(UP, left=left)
    assert (answer.decider, answer.stage, answer.exposure) == ("human", "shadow", "blind")
    assert (answer.reason, answer.lease) == ("the lease has ended", timedelta(0))


def test_an_answer_from_a_copy_lasts_no_longer_than_the_copy():
    assert ask(UP, left=MINUTE / 2).decider == "model"
    assert ask(UP, left=MINUTE / 2).lease == MINUTE / 2
    assert ask(UP, left=HOUR).lease == MINUTE


# Unanswered

SIREN = Lever(
    "alarm",
    labels=("bear", "none"),
    actions=("siren", "nothing"),
    answer_within=2 * MINUTE,
    unanswered="siren",
)
DOOR = replace(SIREN, id="door", answer_within=MINUTE, unanswered="shut")
LAMP = Lever("lamp", labels=("on", "off"), actions=("on", "off"))


@pytest.mark.parametrize("site", ["creek", "lake", "moon"])
def test_every_answer_says_what_is_done_when_nobody_answers_in_time(site):
    rollout = autonomous(policy(levers=(SIREN, LAMP, DOOR)))
    answer = ask(rollout, site=site)
    assert answer.fallbacks == (
        FallbackAction("alarm", "siren", 2 * MINUTE),
        FallbackAction("door", "shut", MINUTE),
    )
    assert answer.answer_within == MINUTE


def test_without_a_limit_people_are_waited_for():
    assert (ask(UP).fallbacks, ask(UP).answer_within) == ((), None)


# Windows, asked about once a day

HOURS = (
    "Mo-Fr 08:00-20:00",
    "22:00-02:00",
    "24/7",
    "sunrise-sunset",
    "PH",
    "02:15-02:45",
    "Jan 1-Mar 1",
    "23:00-24:00",
)
PLACES = (
    Site("vienna", "Europe/Vienna", country="AT", coordinates=(48.2, 16.4)),
    Site("chatham", "Pacific/Chatham", country="NZ", coordinates=(-44.0, -176.5)),
)


@pytest.mark.slow
@given(
    site=st.sampled_from(PLACES),
    hours=st.lists(st.sampled_from(HOURS), min_size=1, max_size=3),
    minute=st.integers(0, 400 * 96).map(lambda quarter: quarter * 15) | st.integers(0, 576_000),
    microsecond=st.sampled_from([0, 0, 1, 59_999_999]),
)
@settings(deadline=None, max_examples=300)
def test_what_is_remembered_of_a_day_is_what_the_hours_say(site, hours, minute, microsecond):
    at = datetime(2027, 1, 1, tzinfo=UTC) + timedelta(minutes=minute, microseconds=microsecond)
    windows = tuple(Window(str(n), said) for n, said in enumerate(hours))
    open_ones, since, changes = find_open_span(
        site, windows, at.astimezone(ZoneInfo(site.timezone))
    )
    assert [w.id for w in open_ones] == [w.id for w in windows if is_open(w.hours, site, at)]
    assert since <= at
    assert find_open_span(site, windows, since) == (open_ones, since, changes)
    following = [find_next_change(w.hours, site, at) for w in windows]
    assert changes == min((c for c in following if c is not None), default=NEVER)
    assert find_window(site, open_ones, at) == find_window(site, windows, at)


def test_hours_turn_at_their_very_instant():
    windows, night = (Window("day", "08:00-20:00"), Window("night")), NOON + 8 * HOUR
    for at, opens, changes in (
        (night - timedelta(microseconds=1), ["day", "night"], night),
        (night, ["night"], night + 12 * HOUR),
        (night + 12 * HOUR, ["day", "night"], night + DAY),
    ):
        held, _, following = find_open_span(Site("a", "UTC"), windows, at)
        assert ([w.id for w in held], following) == (opens, changes)


def test_sites_of_one_zone_share_what_the_clock_says():
    _compute_turns.cache_clear()
    windows = (Window("day", "08:00-20:00"), Window("night"))
    for n in range(50):
        find_open_span(Site(f"s{n}", "Europe/Vienna", country="AT", wave=n), windows, NOON)
    assert _compute_turns.cache_info().misses == 2


# Any question

FLOORED = autonomous(floored())


@pytest.mark.slow
@given(
    site=st.sampled_from(["creek", "lake", "moon", ""]),
    version=st.sampled_from(["v1", "v2", ""]),
    key=st.sampled_from(["", "1", "2", "3"]),
    askew=st.integers(-10, 10),
    later=st.integers(-100, 100),
    confidence=st.none() | st.floats(),
)
@settings(deadline=None, max_examples=200)
def test_the_model_decides_only_where_nothing_is_in_doubt(
    site, version, key, askew, later, confidence
):
    now = FLOORED.at + later * DAY
    asked = {"site": site, "version": version, "confidence": confidence}
    answer = ask(FLOORED, key, now=now, at=now + askew * MINUTE, **asked)
    assert answer.lease > timedelta(0)
    if answer.decider == "model":
        assert (site, version) == ("creek", "v1")
        assert key
        assert abs(askew) <= 5
        assert 0.8 <= confidence <= 1
        assert later < 90
