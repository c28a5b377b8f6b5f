"""What a replica remembers never says other than the core would, and what it signs is read back."""

import hmac
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.data.database.append_failures import StoreError
from rollout.data.database.session import Database
from rollout.data.ledger.scopes import PendingStop
from rollout.data.records.versions import VersionInfo, VersionStore
from rollout.engine.decide.assignment import (
    CODE_LENGTH,
    SIGNATURE_DOMAIN,
    CaseQuestion,
    Permit,
    decide_assignment,
    sign_permit,
)
from rollout.engine.decide.assignment_table import MAX_SEGMENTS
from rollout.kernel.calendar.instants import Site, Window
from rollout.kernel.policy.cell_evidence import VersionEvidence
from rollout.kernel.policy.familiarity import (
    FAMILIAR,
    FamiliarAttribute,
    FamiliarityRule,
    ValueReading,
)
from rollout.kernel.policy.policy import EvidenceRules, Limit, Stage, Where
from rollout.live.clock import ManualClock
from rollout.live.service import KEY_REFRESH_INTERVAL, UNKNOWN_KEY_RETRY, PermitSigner
from rollout.live.state_cache import MAX_STALENESS, AssignmentCache, StateCache
from tests.factories import (
    AUTONOMOUS,
    BO,
    CREEK,
    CREEK_NIGHT,
    DAY,
    HOUR,
    MINUTE,
    NOON,
    SUPERVISED,
    RolloutDriver,
    autonomous,
    policy,
)
from tests.features import bear_field as field
from tests.properties import examples

SALT = bytes(32)
AUDITED = replace(AUTONOMOUS, blind=0.2, audit=0.5, lasts=40 * HOUR)
SITES = (Site("creek", "Europe/Vienna", lease=5 * HOUR), Site("lake", "America/Denver", wave=2))
ROLLOUTS = {
    "plain": autonomous(),
    "short": autonomous(policy(stages=(SUPERVISED, Stage("autonomous", audit=0.1, lasts=HOUR)))),
    "floor": autonomous(policy(evidence=EvidenceRules(confidence_floor=0.8))),
    "leases": autonomous(policy(sites=SITES, stages=(SUPERVISED, AUDITED))),
    "ends": autonomous(policy(limits=(Limit(ends=(NOON + DAY).date(), where=Where(("creek",))),))),
    "attributes": autonomous(
        policy(windows=(Window("day", when={"w": ("dry",)}), Window("night")))
    ),
    "shadow": RolloutDriver(),
    "familiar": autonomous(
        policy(evidence=EvidenceRules(familiar=FamiliarityRule((FamiliarAttribute(("w",)),))))
    ),
}
ROLLOUTS["familiar"].tick(
    {CREEK: VersionEvidence(values={("w", "dry"): ValueReading(FAMILIAR, 20, 20)})}
)
SPANS = st.sampled_from([timedelta(0), MINUTE, HOUR, 8 * HOUR, DAY, 40 * HOUR, 89 * DAY])
NEAR = st.timedeltas(min_value=-6 * MINUTE, max_value=6 * MINUTE)
MOMENTS = st.builds(lambda span, near: NOON + span + near, SPANS, NEAR)
CONFIDENCES = st.sampled_from([None, 0.0, 0.79, 0.8, 1.0, 1.01, float("nan")])
QUESTIONS = st.builds(
    CaseQuestion,
    site=st.sampled_from(["creek", "lake", "moon", ""]),
    at=st.sampled_from([NOON, NOON, NOON, None]),
    version=st.sampled_from(["v1", "v1", "v2", ""]),
    key=st.sampled_from([*map(str, range(20)), ""]),
    episode=st.sampled_from(["", "e1", "e2"]),
    confidence=CONFIDENCES,
    attributes=st.sampled_from([None, {}, {"w": "dry"}, {"w": "wet"}]),
)


@pytest.mark.slow
@examples(
    given(
        st.sampled_from(sorted(ROLLOUTS)),
        st.lists(
            st.tuples(MOMENTS, NEAR, st.lists(QUESTIONS, min_size=1, max_size=4)), max_size=12
        ),
    ),
    fast=40,
    whole=150,
)
def test_what_is_remembered_is_what_the_core_says(name, asked):
    rollout = ROLLOUTS[name]
    rulings = AssignmentCache(rollout.scope, rollout.policy, SALT)
    for now, near, questions in asked:
        there = [replace(q, at=q.at and now + near) for q in questions]
        found = [ruling.assignment for ruling in rulings.assign_questions(there, now)]
        wanted = [decide_assignment(rollout.scope, rollout.policy, SALT, q, now=now) for q in there]
        assert found == wanted


@pytest.mark.parametrize("turned", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("name", sorted(ROLLOUTS))
def test_what_is_remembered_ends_when_a_window_a_grant_or_a_lease_does(name, turned):
    rollout = ROLLOUTS[name]
    ends = [g.until for s in rollout.scope.cells.values() for g in s.grants]
    starts = [NOON, *(end - 2 * HOUR for end in ends)]
    moments = sorted({at + n * 7 * MINUTE for at in starts for n in range(-20, 140)})
    rulings = AssignmentCache(rollout.scope, rollout.policy, SALT)
    for now in reversed(moments) if turned else moments:
        asked = [CaseQuestion("creek", now, "v1", key, confidence=0.9) for key in "0123"]
        wanted = [decide_assignment(rollout.scope, rollout.policy, SALT, q, now=now) for q in asked]
        assert [ruling.assignment for ruling in rulings.assign_questions(asked, now)] == wanted, now


def test_cases_alike_share_one_ruling():
    rollout = ROLLOUTS["plain"]
    rulings = AssignmentCache(rollout.scope, rollout.policy, SALT)
    at = rollout.at
    asked = [CaseQuestion("creek", at, "v1", str(n)) for n in range(500)]
    assert len(set(rulings.assign_questions(asked, at))) == 1  # audited, or not


def test_made_up_versions_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr("rollout.engine.decide.assignment_table.MAX_SEGMENTS", 10)
    rollout = ROLLOUTS["plain"]
    rulings = AssignmentCache(rollout.scope, rollout.policy, SALT)
    at = rollout.at + MINUTE
    rulings.assign_questions([CaseQuestion("creek", at, f"v{n}", "k") for n in range(100)], at)
    assert len(rulings._table._segments) <= 10 < MAX_SEGMENTS


def test_an_edited_salt_that_is_empty_fails_questions_of_the_stage_alone():
    rollout = ROLLOUTS["plain"]
    rulings = AssignmentCache(rollout.scope, rollout.policy, b"")
    asked = [CaseQuestion(site, rollout.at, "v1", "k") for site in ("lake", "creek")]
    (human,) = rulings.assign_questions(asked[:1], rollout.at)
    assert human.assignment.decider == "human"
    with pytest.raises(ValueError, match="salt is empty"):
        rulings.assign_questions(asked, rollout.at)


# Permits


@pytest.mark.slow
@given(st.binary(min_size=1, max_size=100), st.text(), st.text())
def test_a_permit_is_signed_with_hmac(secret, case, version):
    text = sign_permit(Permit("model", 7, NOON, MINUTE), secret, 3, "ramps", case, version)
    said, code = text.rsplit(".", 1)
    about = "".join(f"{len(part)}:{part}" for part in (said, "ramps", case, version))
    assert (
        code == hmac.digest(secret, SIGNATURE_DOMAIN + about.encode(), "sha256").hex()[:CODE_LENGTH]
    )


@pytest.fixture
def clock():
    return ManualClock(NOON)


def permitting(database, clock):
    numbers = iter(range(1, 100))
    return PermitSigner(database, clock, lambda count: bytes([next(numbers)]) * count)


PERMIT = Permit("model", 7, NOON, MINUTE)


def test_the_first_key_is_made_when_it_is_needed_and_shared(database, other, clock):
    ours, theirs = permitting(database, clock), permitting(other, clock)
    assert ours.find_cached_key() is None
    text = ours.sign(PERMIT, "ramps")
    assert theirs.read_permit(text, "ramps") == PERMIT
    assert theirs.load_signing_key() == ours.load_signing_key() == ours.find_cached_key()


def test_a_replica_signs_with_a_turned_key_within_a_minute(database, other, clock):
    ours, theirs = permitting(database, clock), permitting(other, clock)
    ours.sign(PERMIT)
    theirs.sign(PERMIT)
    ours.rotate_key()
    assert theirs.load_signing_key() != ours.load_signing_key()
    clock.advance(timedelta(seconds=KEY_REFRESH_INTERVAL))
    assert theirs.find_cached_key() is None
    assert theirs.load_signing_key() == ours.load_signing_key()


def test_a_permit_of_a_new_key_is_read_where_the_key_was_not_known(database, other, clock):
    ours, theirs = permitting(database, clock), permitting(other, clock)
    old = theirs.sign(PERMIT)
    ours.sign(PERMIT)
    ours.rotate_key()
    new = ours.sign(PERMIT)
    assert (
        theirs.read_permit(new) is None
    )  # asked for a moment ago: strangers' text costs no reading
    clock.advance(timedelta(seconds=UNKNOWN_KEY_RETRY))
    assert [theirs.read_permit(text) for text in (old, new)] == [PERMIT, PERMIT]
    ours.rotate_key()
    assert ours.read_permit(old) is None


def test_a_replica_that_never_signed_reads_permits(database, other, clock):
    text = permitting(database, clock).sign(PERMIT)
    assert permitting(other, clock).read_permit(text) == PERMIT
    assert permitting(other, clock).read_permit(text, "ramps") is None


# The watch


@pytest.fixture
def watch(database, clock, monkeypatch):
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(0))
    field.autonomous(database)
    return StateCache(database, clock)


def test_nothing_older_than_half_a_second_is_at_hand(watch, clock):
    assert watch.find_cached("bears") is None
    watch.load_rollout("bears")
    clock.advance(timedelta(seconds=MAX_STALENESS - 0.001))
    assert watch.find_cached("bears") is not None
    clock.advance(timedelta(seconds=0.001))
    assert watch.find_cached("bears") is None


def test_a_boot_clock_that_fell_back_makes_nothing_fresh(watch, clock):
    clock.since_boot = 100.0
    watch.load_rollout("bears")
    clock.since_boot = 99.0
    assert watch.find_cached("bears") is None


def test_a_state_is_as_old_as_the_beginning_of_its_read(watch, clock, monkeypatch):
    load = watch._load_latest

    def load_slowly(*arguments):
        loaded = load(*arguments)
        clock.advance(timedelta(seconds=MAX_STALENESS))
        return loaded

    monkeypatch.setattr(watch, "_load_latest", load_slowly)
    watch.reload_rollout("bears")
    assert watch.find_cached("bears") is None


def test_a_stop_that_is_latched_during_a_read_makes_what_was_read_old(watch, monkeypatch):
    load = watch._load_latest
    stop = PendingStop("x", "bears", (CREEK,), BO, "fog", NOON, drill=False)

    def load_before_stop(*arguments):
        loaded = load(*arguments)
        watch._latches.latch(stop)
        return loaded

    monkeypatch.setattr(watch, "_load_latest", load_before_stop)
    assert not watch.reload_rollout("bears").state.scope.is_stopped(CREEK)
    assert watch.find_cached("bears") is None


def test_what_came_meanwhile_is_folded_and_what_did_not_change_is_kept(watch, database):
    first = watch.load_rollout("bears")
    assert watch.reload_rollout("bears").assignment_cache is first.assignment_cache
    field.widen(database, ("creek", "night"))
    later = watch.reload_rollout("bears")
    assert later.state.scope.get_holder(CREEK_NIGHT) == "v1"
    assert later.hashes[: len(first.hashes)] == first.hashes
    assert later.has_row(first.head.revision, first.head.hash)
    assert not first.has_row(later.head.revision, later.head.hash)


def test_a_chain_that_was_set_back_is_read_anew(watch):
    known = watch.load_rollout("bears")
    forged = replace(known, head=replace(known.head, hash="e" * 64), hashes=("e" * 64,) * 99)
    watch._rollouts["bears"] = forged
    found = watch.reload_rollout("bears")
    assert found.hashes[: len(known.hashes)] == known.hashes
    assert found.state.scope.era == 2
    assert all(found.state.scope.is_stopped(cell) for cell in found.state.policy.cells)
    assert watch.reload_rollout("bears").head == found.head


def test_what_was_lost_is_remembered_until_the_stop_is_written(watch, database, monkeypatch):
    known = watch.load_rollout("bears")
    forged = replace(known, head=replace(known.head, hash="e" * 64), hashes=("e" * 64,) * 99)
    watch._rollouts["bears"] = forged
    with monkeypatch.context() as patch:
        patch.setattr(Database, "begin_write", _refuse_to_write)
        with pytest.raises(StoreError):
            watch.reload_rollout("bears")
    assert watch.find_cached("bears") is None
    assert watch.load_rollout("bears").state.scope.era == 2


def _refuse_to_write(*_, **__):
    raise StoreError("the disk is full")


def test_a_version_that_was_told_is_known_without_a_new_row(watch, database):
    watch.reload_versions("bears")  # nothing is known yet, and that is no fault
    known = watch.load_rollout("bears")
    with database.begin_write() as transaction:
        VersionStore(transaction, known.state.rollout).record_info(
            VersionInfo("v2", "assignment"), at=NOON
        )
    assert set(watch.reload_rollout("bears").state.versions) == {"v1"}
    watch.reload_versions("bears")
    assert set(watch.load_rollout("bears").state.versions) == {"v1", "v2"}
