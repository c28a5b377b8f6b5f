"""The fixed script: what clients and people ask of a small rollout, in this order, at these times.

Two days of one trail with two cameras: records come in, late, twice and contradicting; gates are
met, two people approve, a cell widens twice; reports are made and sent, a case is left out of
training; the cell is narrowed, stopped, resumed; the policy is loosened; old records are purged
and come again. After each tick three slots are free, so that a
client who has to try again does so before the next thing happens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rollout.engine.records.records import Case, Decision, Outcome, Prediction
from rollout.kernel.calendar.instants import Cell

START = datetime(2027, 6, 1, tzinfo=UTC)
TICK = timedelta(hours=1)
POLICY = """\
rollout: trail
timezone: UTC
levers:
  - {id: alarm, labels: [bear, none], actions: {bear: ring, none: wait}}
sites: [creek, lake]
stages: [{id: supervised, blind: 50%, lasts: 60h}, {id: autonomous, audit: 80%, lasts: 50h}]
evidence: {unit: case, grace: 1h, missing_at_most: 50%, outside: blind,
  sources: {vouched: [{account: box, within: 1h}], accounts: [{account: desk, reviewers: ["*"]}]}}
gates:
  - {to: supervised, require: [{measure: agreement, at_least: 60%}], risk: 20%,
     minimum: {units: 5, days: 1, reviewers: 1}, approvals: 2}
  - {to: autonomous, require: [{measure: agreement, at_least: 63%}], risk: 20%,
     minimum: {units: 5, days: 1, reviewers: 1}, approvals: [operator, safety]}
guards:
  - {measure: agreement, at_least: 50%, false_alarm_every: 100}
retention: {cases: 25h}
reports: [{name: morning, every: day, at: 07:00, to: [rangers]}]
tick: 1h
"""
LOOSER = POLICY.replace("at_least: 63%", "at_least: 61%")
CREEK = Cell("creek", "always")


def at(hours: float) -> datetime:
    """Return the instant so many hours after the start."""
    return START + timedelta(hours=hours)


@dataclass(frozen=True)
class Step:
    """One thing that a client asks.

    Attributes:
        name, path: which it is, and the path through the program that it takes.
        at: when it is asked first.
        ask: asks it of a replica, at an instant, and returns what was answered.
    """

    name: str
    path: str
    at: datetime
    ask: Callable[[Any, datetime], Any]

    @property
    def ticks(self) -> bool:
        """Say whether it is a tick: asked again a slot later, and not at once."""
        return self.path == "tick"


def build_case_records(
    key, hour, *, site="creek", label="bear", verdict="bear", by="rae", judged=None
):
    """Return a case, what the model said of it, and what a person did."""
    when, later = at(hour), at(hour + 0.05 if judged is None else judged)
    return [
        Case(key=key, site=site, occurred_at=when, window="always"),
        Prediction(key=key, version="v1", answers={"alarm": label}, at=when, latency_ms=90.0),
        Decision(
            key=key, reviewer=by, answers={"alarm": verdict}, exposure="blind", submitted_at=later
        ),
    ]


def first():
    """Return a first batch: twelve cases, one of them wrong in form, one told of before it came."""
    good = [record for i in range(11) for record in build_case_records(f"a{i}", i * 0.05)]
    early = build_case_records("late", 0.4)[2]  # its case comes hours later
    bad = Case(key="", site="creek", occurred_at=at(0.2), window="always")
    return [*good, early, bad, *build_case_records("l0", 0.3, site="lake")]


def second():
    """Return a batch with repeats, a contradiction, a late case, and decisions of long ago."""
    again = first()[:9]
    other = Prediction(key="a1", version="v1", answers={"alarm": "none"}, at=at(0.05))
    late = build_case_records("late", 0.4)[:2]
    old = [
        record
        for i in range(1)
        for record in build_case_records(f"b{i}", 1.2 + i * 0.1, judged=1.6)
    ]
    harm = Outcome(key="a2", at=at(4), answers={"alarm": "bear"}, source="ranger")
    return [*again, other, *late, *old, harm]


def third():
    """Return cases of the widened cell, one of them answered wrongly, one never judged."""
    good = [
        record
        for i in range(16)
        for record in build_case_records(f"c{i}", 11.05 + i * 0.04, by="sam")
    ]
    wrong = build_case_records("c-wrong", 11.7, label="none", by="sam")
    return [*good, *wrong, *build_case_records("c-open", 11.75)[:2]]


def build_open_case():
    """Return a case that a client asks about, with its prediction; nobody has judged it yet."""
    return build_case_records("q", 11.85)[:2]


def script() -> tuple[Step, ...]:
    """Return the steps, in order."""
    return (
        Step("create", "apply", at(0), lambda r, t: r.apply(POLICY, "ana", t)),
        Step("send first", "ingest", at(0.7), lambda r, t: r.send(first(), t)),
        _tick(3),
        Step("begin reports", "report", at(3.1), lambda r, t: r.look_for_reports(t)),
        Step("send second", "ingest", at(6.1), lambda r, t: r.send(second(), t)),
        _approve(6.2, "widening", "eve", evidence="0" * 64),
        _approve(6.3, "widening", "bo"),
        _approve(6.4, "widening", "dan"),
        _tick(8),
        Step("look for reports", "report", at(8.3), lambda r, t: r.look_for_reports(t)),
        Step("deliver", "outbox", at(9.3), lambda r, _: r.deliver()),
        Step("choose", "cleaning", at(10.6), lambda r, t: r.choose("dan", "a0", "drop", t)),
        Step("send third", "ingest", at(11.9), lambda r, t: r.send(third(), t)),
        Step("ask", "assign", at(11.92), lambda r, t: r.ask(*build_open_case(), t)),
        Step("claim", "review", at(11.94), lambda r, t: r.claim("tim", t)),
        Step("judge", "review", at(11.96), lambda r, t: r.judge("tim", "bear", t)),
        _tick(13),
        _approve(16.1, "widening", "bo"),
        _approve(16.2, "widening", "cy"),
        Step(
            "ask report", "on demand", at(16.4), lambda r, t: r.ask_report("ana", at(0), at(8), t)
        ),
        _tick(17),
        Step("narrow", "narrow", at(20.1), lambda r, t: r.narrow("dan", (CREEK,), "supervised", t)),
        Step("stop", "stop", at(20.2), lambda r, t: r.stop("bo", t)),
        Step("ask resume", "resume", at(20.3), lambda r, t: r.ask_resume("bo", t)),
        _approve(20.4, "resume", "bo"),
        _approve(20.5, "resume", "ana"),
        _approve(20.6, "resume", "dan"),
        _tick(21),
        Step("edit", "apply", at(24.1), lambda r, t: r.apply(LOOSER, "ana", t)),
        _approve(24.2, "policy", "ana"),
        _approve(24.3, "policy", "bo"),
        _approve(24.4, "policy", "cy"),
        _tick(25),
        Step("purge", "purge", at(28.1), lambda r, t: r.purge(t)),
        Step("send purged", "ingest", at(28.2), lambda r, t: r.send(first(), t)),
        _tick(29),
        _tick(33),
    )


def _tick(hour):
    return Step(f"tick {hour}", "tick", at(hour), lambda replica, when: replica.tick(when))


def _approve(hour, kind, who, **cited):
    name = f"{who} approves {kind} {hour}"
    return Step(name, "approve", at(hour), lambda r, t: r.approve(kind, who, name, t, **cited))
