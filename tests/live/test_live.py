"""The live loop on a database: what it decides is what replay decides on the same records."""

import heapq
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import count

import polars as pl
import pytest

from rollout.data.counting.count_queue import CountQueue
from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.commands import (
    AcknowledgeIncident,
    Actor,
    ApproveProposal,
    ProposeResume,
    StopCells,
)
from rollout.engine.decide.scope import find_acting_version
from rollout.engine.events import IncidentOpened, ProposalRaised, Widened
from rollout.engine.slots.options import ReplayOptions
from rollout.features.demo.catalog import MAIL_ROOM, build_replay_request, find_example
from rollout.features.records.record_import import VersionStatements, import_records
from rollout.features.replay.requests import read_request_records
from rollout.kernel.calendar.instants import to_instant
from rollout.kernel.errors import EvidenceChangedError, ProposalClosedError
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command, load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.chance import list_unsealed_events
from tests.engine.slots.stories import Story, a_history, prepared

pytestmark = pytest.mark.simulation

ANA, BO = Actor("ana"), Actor("bo")
POLICY = """
rollout: story
timezone: UTC
levers:
  - id: alarm
    labels: [bear, fox, none]
    actions: {bear: ring, fox: wait, none: wait}
    costs: [{did: wait, right: ring, cost: 5}, {cost: 1}]
sites: [s0, {id: s1, timezone: America/Denver, wave: 2}]
windows: [{id: day, hours: "06:00-18:00"}, {id: night, hours: 24/7}]
stages: [{id: supervised, blind: 50%, lasts: 40h}, {id: autonomous, audit: 80%, lasts: 60h}]
evidence: {unit: UNIT, grace: 1h, missing_at_most: 50%, outside: blind, releases: 2}
gates:
  - {to: supervised, require: [{measure: agreement, at_least: 50%}], risk: 20%,
     minimum: {units: 3, days: 1, reviewers: 1}, approvals: [operator]}
  - {to: autonomous, require: [{measure: agreement, at_least: 70%}], risk: 20%,
     minimum: {units: 8, days: 1, reviewers: 2}, approvals: [operator, safety]}
guards:
  - {measure: agreement, at_least: 50%, false_alarm_every: 10}
  - {measure: override, at_most: 30%, false_alarm_every: 10}
  - {measure: failures, at_most: 20%, over: 6h, then: suspend, false_alarm_every: 20}
  - {measure: latency_p95, at_most: 1s, over: 4h, then: suspend, false_alarm_every: 20}
  - {measure: harm, at_most: 1, over: 24h, then: shadow}
waves: {stage: supervised, hold: 3h}
tick: 1h
"""
on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
BY_CASE = POLICY.replace("UNIT", "case")
BY_EPISODE = POLICY.replace("UNIT", "episode, episode_span: 30m")
STORY = Story(
    seed=3, slots=100, busy=2.5, late=0.15, missing=0.03, quiet=True, versions=2, on_grid=False
)


def written(database, name="story"):
    with database.begin_read() as transaction:
        stood = load_rollout_state(transaction, name)
        return tuple(Ledger(transaction, stood.rollout).list_events())


def scope_of(database, name="story"):
    with database.begin_read() as transaction:
        return load_rollout_state(transaction, name).scope


def count_waiting(database, name="story"):
    with database.begin_read() as transaction:
        return CountQueue(
            transaction, load_rollout_state(transaction, name).rollout
        ).count_waiting()


class People:
    """They approve what is raised, as replay's simulated people do."""

    def __init__(self, database, name, after):
        self.database, self.name, self.after = database, name, after
        self.queue, self.turn = [], count()

    def hear(self, events):
        proposals = scope_of(self.database, self.name).proposals
        for event in events or ():
            if isinstance(event, ProposalRaised) and event.proposal in proposals:
                self.read(proposals[event.proposal], event.at)
            if isinstance(event, IncidentOpened) and event.fact:
                by, at = Actor("simulated-1"), event.at + self.after
                self.plan(AcknowledgeIncident(at=at, by=by, incident=event.incident))
                for proposal in proposals.values():
                    if event.incident in proposal.unconfirmed:
                        self.read(proposal, event.at)

    def read(self, proposal, at):
        for number, group in enumerate(proposal.needs, start=1):
            self.plan(
                ApproveProposal(
                    at=at + self.after,
                    by=Actor(f"simulated-{number}", (group,)),
                    proposal=proposal.id,
                    evidence_hash=proposal.evidence_hash,
                )
            )

    def plan(self, command):
        heapq.heappush(self.queue, (command.at, next(self.turn), command))

    def act(self, until):
        while self.queue and self.queue[0][0] <= until:
            approval = heapq.heappop(self.queue)[2]
            with suppress(ProposalClosedError, EvidenceChangedError):
                self.hear(
                    execute_command(self.database, self.name, lambda _, command=approval: command)
                )


def live(database, text, slots, after, *, before_slot):
    """Apply a policy, then tick through the slots with people who approve."""
    policy = parse_policy(text)
    first = to_instant(slots[0], policy.tick)
    apply_policy(database, text, ANA, first, salt=bytes(32), service_salt=bytes(32))
    ticker, people = None, People(database, policy.rollout, after)
    for slot in slots:
        ticker = before_slot(slot, to_instant(slot, policy.tick)) or ticker
        people.act(to_instant(slot, policy.tick))
        people.hear(ticker.tick(to_instant(slot, policy.tick)))
    return written(database, policy.rollout)


def replayed(history, policy, after, until=None, trained_until=None):
    made = prepared(history, policy, trained_until=trained_until)
    done = made.run(ReplayOptions(approval_delay=after, skip_idle_slots=False))
    slots = range(done.first_slot, (until or done.last_slot) + 1)
    return slots, [e for e in done.events if e.at <= to_instant(slots[-1], policy.tick)]


def decide_live_and_replayed(database, text, history, after):
    """Return the events of a live rollout and of a replay on the same records."""
    policy = parse_policy(text)
    slots, expected = replayed(history, policy, after)
    before_slot = all_at_first(database, policy.rollout, history)
    return live(database, text, slots, after, before_slot=before_slot), expected


def all_at_first(database, name, history, trained_until=None):
    """Return what imports everything before the first slot, and makes the ticker then."""
    tickers = []

    def before_slot(_slot, at):
        if tickers:
            return None
        stated = VersionStatements(trained_until or {})
        import_records(database, name, history, at, stated)
        tickers.append(Ticker(database, name, "one"))
        return tickers[0]

    return before_slot


@pytest.mark.parametrize(
    ("url", "text"),
    [("sqlite", BY_CASE), ("sqlite", BY_EPISODE), ("postgresql", BY_CASE)],
    ids=["sqlite-case", "sqlite-episode", "postgresql-case"],
    indirect=["url"],
)
def test_live_and_replay_of_the_same_records_give_the_same_events(database, text):
    policy = parse_policy(text)
    history, after = a_history(STORY, policy), timedelta(minutes=20)
    slots, expected = replayed(history, policy, after)
    before_slot = all_at_first(database, "story", history)
    found = live(database, text, slots, after, before_slot=before_slot)
    kinds = Counter(type(event).__name__ for event in expected)
    assert kinds["Widened"] >= 3
    assert kinds["Narrowed"] >= 1
    assert kinds["Suspended"] >= 1
    assert list_unsealed_events(found) == list_unsealed_events(expected)
    with database.begin_read() as transaction:
        stood = load_rollout_state(transaction, "story")
        assert Ledger(transaction, stood.rollout).verify().revision == len(found)
    assert find_evidence_faults(database) == []


def find_evidence_faults(database):
    """Count all evidence anew; return what differs."""
    report = EvidenceCheck(database, "story").check_all()
    assert report.units > 0
    return report.faults


@on_sqlite
def test_records_that_come_in_as_they_are_made_give_the_same_events(database):
    policy = parse_policy(BY_CASE)
    history, after = a_history(replace(STORY, slots=70), policy), timedelta(minutes=20)
    slots, expected = replayed(history, policy, after)

    def before_slot(slot, at):
        if (slot - slots[0]) % 10:
            return None
        come = until(history, at + 9 * policy.tick)  # the rest is not there yet
        import_records(database, "story", come, at)
        return Ticker(database, "story", "one")

    found = live(database, BY_CASE, slots, after, before_slot=before_slot)
    assert any(isinstance(event, Widened) for event in expected)
    assert list_unsealed_events(found) == list_unsealed_events(expected)
    assert find_evidence_faults(database) == []


def until(history, at):
    """Return what had been recorded by an instant."""
    return replace(
        history,
        cases=history.cases.filter(pl.col("occurred_at") <= at),
        predictions=history.predictions.filter(pl.col("at") <= at),
        decisions=history.decisions.filter(pl.col("at") <= at),
        outcomes=history.outcomes.filter(pl.col("at") <= at),
    )


@on_sqlite
def test_five_days_of_the_mail_room_are_the_same_live(database):
    order = build_replay_request(find_example(MAIL_ROOM))
    text = order.policy.read_text(encoding="utf-8").replace("days: 7", "days: 3")
    text = text.replace("units: 200", "units: 100")
    policy = parse_policy(text)
    whole = read_request_records(order, policy)
    end = whole.cases["occurred_at"].min() + timedelta(days=5)
    cases = whole.cases.filter(pl.col("occurred_at") < end)
    known = {
        kind: getattr(whole, kind).join(cases.select("case_key"), on="case_key", how="semi")
        for kind in ("predictions", "decisions", "outcomes")
    }
    history, after = replace(whole, cases=cases, **known), timedelta(hours=4)
    slots, expected = replayed(history, policy, after, trained_until=order.trained_until)
    before_slot = all_at_first(database, "mail-room", history, order.trained_until)
    found = live(database, text, slots, after, before_slot=before_slot)
    assert any(isinstance(event, Widened) for event in expected)
    assert list_unsealed_events(found) == list_unsealed_events(expected)


@on_sqlite
def test_a_missed_night_is_one_pass_and_the_evidence_is_all_there(database):
    policy = parse_policy(BY_CASE)
    history = a_history(replace(STORY, slots=40), policy)
    slots, _ = replayed(history, policy, None)
    ticker = begun(database, history, slots[0])
    ticker.tick(to_instant(slots[0], policy.tick))
    events = ticker.tick(to_instant(slots[-1], policy.tick))
    assert any(isinstance(event, ProposalRaised) for event in events)
    assert count_waiting(database) == 0
    assert ticker.tick(to_instant(slots[-2], policy.tick)) is None


def begun(database, history, slot, owner="one"):
    """Return a ticker of a new rollout that has the whole history."""
    policy = parse_policy(BY_CASE)
    at = to_instant(slot, policy.tick)
    apply_policy(database, BY_CASE, ANA, at, salt=bytes(32), service_salt=bytes(32))
    import_records(database, "story", history, at)
    return Ticker(database, "story", owner)


@pytest.fixture
def widened(database):
    """Return a ticker and the next instant, just after a first cell was widened."""
    policy = parse_policy(BY_CASE)
    history = a_history(replace(STORY, slots=60), policy)
    slots, _ = replayed(history, policy, None)
    ticker, people = begun(database, history, slots[0]), People(database, "story", policy.tick / 3)
    for slot in slots:
        at = to_instant(slot, policy.tick)
        people.act(at)
        events = ticker.tick(at)
        people.hear(events)
        if any(isinstance(event, Widened) for event in events):
            return ticker, policy, at + policy.tick / 2
    raise AssertionError("nothing was ever widened")


def stages(database, policy, at):
    scope = scope_of(database)
    found = (find_acting_version(scope, policy, cell, at) for cell in policy.cells)
    return [here and here[1] for here in found]


@on_sqlite
def test_a_stop_holds_for_the_next_question_and_no_tick_undoes_it(database, widened):
    ticker, policy, at = widened
    assert any(stages(database, policy, at))
    command = StopCells(at=at, by=BO, cells=policy.cells, reason="smoke")
    execute_command(database, "story", lambda _: command)
    assert not any(stages(database, policy, at))
    for _ in range(6):
        at += policy.tick
        ticker.tick(at)
        assert not any(stages(database, policy, at))
    assert {stop.by for stop in scope_of(database).stops.values()} == {"bo"}


@on_sqlite
def test_a_resume_takes_two_people_and_a_tick(database, widened):
    ticker, policy, at = widened

    def now():
        return scope_of(database)

    stop = StopCells(at=at, by=BO, cells=policy.cells)
    execute_command(database, "story", lambda _: stop)
    (name,) = now().stops
    execute_command(database, "story", lambda _: ProposeResume(at=at, by=BO, stop=name))
    (resume,) = [p for p in now().proposals.values() if p.kind == "resume"]
    for person, group in zip(("ana", "cy"), resume.needs, strict=False):
        by = Actor(person, (group,))
        approval = ApproveProposal(
            at=at, by=by, proposal=resume.id, evidence_hash=resume.evidence_hash
        )
        execute_command(database, "story", lambda _, command=approval: command)
    assert now().stops
    ticker.tick(at + policy.tick)
    assert not now().stops


@on_sqlite
def test_an_approval_of_other_evidence_is_refused_and_writes_nothing(database):
    policy = parse_policy(BY_CASE)
    history = a_history(replace(STORY, slots=40), policy)
    slots, _ = replayed(history, policy, None)
    ticker = begun(database, history, slots[0])
    at = to_instant(slots[-1], policy.tick)
    ticker.tick(at)
    before = written(database)
    (name, *_) = scope_of(database).proposals
    with pytest.raises(EvidenceChangedError):
        execute_command(
            database,
            "story",
            lambda _: ApproveProposal(at=at, by=ANA, proposal=name, evidence_hash="0" * 64),
        )
    assert written(database) == before


def test_importing_twice_changes_nothing(database):
    policy = parse_policy(BY_CASE)
    history = a_history(replace(STORY, slots=20), policy)
    slots, _ = replayed(history, policy, None)
    at = to_instant(slots[0], policy.tick)
    ticker = begun(database, history, slots[0])
    waiting = count_waiting(database)
    assert waiting > 0
    counts = import_records(database, "story", history, at)
    assert {verdict for kind in counts.values() for verdict in kind} == {"duplicate"}
    assert counts["case"]["duplicate"] == history.cases.height
    assert count_waiting(database) == waiting
    ticker.tick(to_instant(slots[-1], policy.tick))
    again = import_records(database, "story", history, at)
    assert again == counts
    assert count_waiting(database) == 0


@on_sqlite
def test_a_record_that_says_something_else_is_a_conflict(database):
    history = a_history(replace(STORY, slots=10), parse_policy(BY_CASE))
    slots, _ = replayed(history, parse_policy(BY_CASE), None)
    begun(database, history, slots[0])
    moved = replace(history, cases=history.cases.with_columns(site=pl.lit("s9")))
    counts = import_records(database, "story", moved, to_instant(slots[0], timedelta(hours=1)))
    assert dict(counts["case"]) == {"conflict": history.cases.height}
    assert set(counts["prediction"]) == {"duplicate"}


def test_of_two_tickers_one_does_the_slot(database):
    policy = parse_policy(BY_CASE)
    history = a_history(replace(STORY, slots=40), policy)
    slots, _ = replayed(history, policy, None)
    one = begun(database, history, slots[0])
    other, at = Ticker(database, "story", "two"), to_instant(slots[-1], policy.tick)
    assert one.tick(at) is not None
    before = written(database)
    assert other.tick(at) is None
    assert written(database) == before
    assert other.tick(at + policy.tick) is not None


def test_a_policy_that_loosens_waits_and_one_that_tightens_holds(database):
    policy = parse_policy(BY_CASE)
    at = to_instant(500_000, policy.tick)
    first = apply_policy(database, BY_CASE, ANA, at)
    assert first.is_created
    assert "is created" in first.text
    stricter = apply_policy(database, BY_CASE.replace("at_least: 70%", "at_least: 80%"), ANA, at)
    assert stricter.text == "policy 2 of story is in force"
    looser = apply_policy(database, BY_CASE, ANA, at)
    assert "proposed as P-1" in looser.text
    assert "nothing changed" in apply_policy(database, BY_CASE, ANA, at).text
    needs = next(iter(scope_of(database).proposals.values()))
    for name, group in zip(("bo", "cy"), needs.needs, strict=True):
        approval = ApproveProposal(
            at=at, by=Actor(name, (group,)), proposal="P-1", evidence_hash=needs.evidence_hash
        )
        execute_command(database, "story", lambda _, command=approval: command)
    Ticker(database, "story", "one").tick(at + policy.tick)
    assert scope_of(database).policy_number == 3
    assert scope_of(database).policy_hash == policy.hash


def test_who_comes_second_decides_again(database):
    policy = parse_policy(BY_CASE)
    at = to_instant(500_000, policy.tick)
    apply_policy(database, BY_CASE, ANA, at)
    of_s0 = tuple(cell for cell in policy.cells if cell.site == "s0")
    asked = []

    def everywhere(stood):
        asked.append(stood.scope.revision)
        if len(asked) == 1:  # between reading and writing, somebody else stops a site
            first = StopCells(at=at, by=BO, cells=of_s0)
            execute_command(database, "story", lambda _: first)
        return StopCells(at=at, by=ANA, cells=policy.cells)

    (stopped,) = execute_command(database, "story", everywhere)
    assert asked == [2, 3]
    assert set(stopped.cells) == set(policy.cells).difference(of_s0)
