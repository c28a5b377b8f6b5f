"""Small histories built by hand, and replays of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache

import polars as pl
import pytest

from rollout.engine.evidence.case_placement import place_cases
from rollout.engine.evidence.frames import (
    REMARK_SCHEMA,
    RecordFrames,
    RecordKind,
    RowCount,
    build_cases_schema,
    build_decisions_schema,
    build_outcomes_schema,
    build_predictions_schema,
)
from rollout.engine.evidence.tallied_units import build_units
from rollout.engine.evidence.units import resolve_units
from rollout.engine.slots.engine import Replay
from rollout.engine.slots.options import ReplayOptions
from rollout.engine.slots.record_feed import HistoryFeeds
from rollout.features.reports.figures.facts import ReportFacts, compute_report_facts
from rollout.features.reports.inputs.inputs import ReportInputs, SourceSummary
from rollout.kernel.calendar.instants import to_instant
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files.reader import parse_policy

NOON = datetime(2026, 3, 2, 11, tzinfo=UTC)  # a Monday, noon in Vienna

BEARS = """
rollout: bear-alarm
timezone: Europe/Vienna
levers:
  - id: alarm
    labels: [bear, no-bear]
    actions: {bear: sound-alarm, no-bear: nothing}
    costs: [{did: nothing, right: sound-alarm, cost: 20}, {cost: 1}]
sites: [creek, meadow]
windows: [{id: day, hours: "06:00-18:00"}, {id: night, hours: 24/7}]
evidence: {unit: case, outside: unknown, grace: 1h, releases: 1}
stages: [{id: supervised, blind: 50%}, {id: autonomous, audit: 30%}]
gates:
  - {to: supervised, require: [{measure: agreement, at_least: 80%}], risk: 6.25%,
     minimum: {units: 40, days: 1}}
  - {to: autonomous, require: [{measure: agreement, at_least: 80%}], risk: 1.25%,
     minimum: {units: 20, days: 1}}
guards:
  - {measure: agreement, at_least: 75%, false_alarm_every: 500}
tick: 1h
"""


@dataclass(frozen=True)
class Case:
    """One case: what people and versions said of it, and how it turned out."""

    key: str
    at: datetime | None = NOON
    site: str = "creek"
    human: str | Sequence[tuple[str, str]] | None = None
    model: Mapping[str, str | None] = field(default_factory=dict)
    outcome: str | None = None
    exposure: str = "blind"
    episode: str | None = None
    hour: int | None = None

    @property
    def verdicts(self) -> Sequence[tuple[str, str]]:
        """Return (reviewer, label) of each decision; a plain label is by `ana`."""
        if self.human is None:
            return ()
        return (("ana", self.human),) if isinstance(self.human, str) else self.human


def records_of(cases: Iterable[Case]) -> RecordFrames:
    cases = list(cases)
    later = timedelta(minutes=10)
    rows = {
        RecordKind.CASES: [
            {"case_key": c.key, "site": c.site, "occurred_at": c.at, "episode": c.episode,
             "occurred_text": c.at.isoformat() if c.at else "29 February",
             "hour_written": c.at.hour if c.at and c.hour is None else c.hour}
            for c in cases
        ],
        RecordKind.PREDICTIONS: [
            {"case_key": c.key, "version": version, "value:alarm": label, "confidence": 0.9}
            for c in cases for version, label in c.model.items()
        ],
        RecordKind.DECISIONS: [
            {"case_key": c.key, "reviewer": who, "value:alarm": label, "unsure": label is None,
             "exposure": c.exposure, "seat": seat, "at": c.at + later if c.at else None}
            for c in cases for seat, (who, label) in enumerate(c.verdicts, start=1)
        ],
        RecordKind.OUTCOMES: [
            {"case_key": c.key, "value:alarm": c.outcome} for c in cases if c.outcome is not None
        ],
    }  # fmt: skip
    schemas = {
        RecordKind.CASES: build_cases_schema(),
        RecordKind.PREDICTIONS: build_predictions_schema(["alarm"]),
        RecordKind.DECISIONS: build_decisions_schema(["alarm"]),
        RecordKind.OUTCOMES: build_outcomes_schema(["alarm"]),
    }
    frames = {
        kind: pl.DataFrame(rows[kind], schema={n: schemas[kind][n] for n in schemas[kind]})
        for kind in schemas
    }
    nothing = pl.DataFrame(schema=REMARK_SCHEMA)
    read = {k: RowCount(f"{k}.csv", f.height, f.height) for k, f in frames.items()}
    return RecordFrames(*(frames[kind] for kind in schemas), nothing, nothing, read)


def inputs_of(cases: Iterable[Case], policy: Policy, salt: bytes = bytes(32)) -> ReportInputs:
    records = records_of(cases)
    history = place_cases(records, policy, salt)
    units = resolve_units(history.placed, policy).collect("polars").to_native()
    gathered = build_units(units, policy)
    versions = sorted(records.predictions["version"].unique())
    seen = {version: history.cases["occurred_at"].min() for version in versions}
    feeds = HistoryFeeds(records, history, policy)
    replayed = Replay(gathered, policy, feeds, seen, ReplayOptions(salt=salt)).run()
    return ReportInputs(
        policy=policy,
        events=replayed.events,
        timelines=replayed.stage_histories,
        evidence_views=replayed.views,
        units=units,
        records=records,
        cases=history.cases,
        unplaced=history.excluded,
        first=to_instant(replayed.first_slot, policy.tick),
        last=to_instant(replayed.last_slot, policy.tick),
        salt=salt,
        is_simulated=True,
        sources=(SourceSummary("policy.yaml", "0" * 64),),
        command="rollout replay policy.yaml --predictions p.csv --decisions d.csv",
        product="rollout-controller 0",
    )


def story() -> list[Case]:
    """Return six days at the creek: good, then wrong from the fifth morning on; a quiet meadow.

    By day a case every ten minutes; people see one bear in ten. v1 misses every twentieth case
    until 07:00 UTC on the fifth day, and from then on says the opposite of what is right.
    """
    cases = []
    for number in range(6 * 66):
        day, nth = divmod(number, 66)
        at = NOON.replace(hour=5, minute=30) + timedelta(days=day, minutes=10 * nth)
        right = "bear" if number % 10 == 0 else "no-bear"
        other = "no-bear" if right == "bear" else "bear"
        broken = at >= NOON + timedelta(days=4, hours=-4)
        wrong = broken or number % 20 == 7
        cases.append(
            Case(
                f"creek-{number:03}",
                at,
                human=[("ana" if nth % 2 else "bo", right)],
                model={"v1": other if wrong else right},
                outcome=right,
            )
        )
    lone = Case("meadow-0", NOON, site="meadow", human="no-bear", model={"v1": "no-bear"})
    return [*cases, lone]


@pytest.fixture(scope="session")
def bears() -> Policy:
    return parse_policy(BEARS)


@cache
def _build_story_facts() -> tuple[ReportInputs, ReportFacts]:
    inputs = inputs_of(story(), parse_policy(BEARS))
    return inputs, compute_report_facts(inputs)


@pytest.fixture(scope="session")
def told() -> tuple[ReportInputs, ReportFacts]:
    """Return the inputs and the facts of the story."""
    return _build_story_facts()


@pytest.fixture(scope="session")
def facts(told: tuple[ReportInputs, ReportFacts]) -> ReportFacts:
    return told[1]


@pytest.fixture(scope="session")
def replay_of(bears: Policy) -> Callable[..., ReportInputs]:
    """Return a function from cases to what a report of their replay is made of."""
    return lambda cases, policy=bears: inputs_of(cases, policy)


@pytest.fixture(scope="session")
def case() -> type[Case]:
    return Case
