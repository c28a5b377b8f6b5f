"""One tick over many cells: what `decide` costs when everything has changed and nothing follows."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import process_time

from reported_figures import report_figure

from rollout.engine.decide.commands import Tick
from rollout.engine.decide.decider import decide
from rollout.engine.decide.projection import apply_events
from rollout.engine.events import PolicyApplied, VersionFirstUsed
from rollout.kernel.calendar.instants import Site, Window
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.cell_evidence import EvidenceCounts, VersionEvidence
from rollout.kernel.policy.policy import EvidenceRules, Gate, Policy, Stage
from rollout.kernel.units import Lever

START = datetime(2027, 1, 1, tzinfo=UTC)
REQUIRED = (
    Condition(MEASURES["agreement"], 0.95),
    Condition(MEASURES["recall"], 0.85, label="damaged"),
    Condition(MEASURES["precision"], 0.85, label="damaged"),
    Condition(MEASURES["cost"], 0.05),
)


PLAIN = EvidenceRules()


def policy_of(cells: int, rules: EvidenceRules = PLAIN) -> Policy:
    """Return a policy with `cells` cells, four measures in its one gate."""
    return Policy(
        rollout="bench",
        timezone="UTC",
        levers=(Lever("parcel", ("damaged", "sound"), ("damaged", "sound")),),
        sites=tuple(Site(f"site-{number}", "UTC") for number in range(cells // 4)),
        windows=tuple(Window(f"window-{number}") for number in range(4)),
        stages=(Stage("supervised", blind=0.5),),
        evidence=rules,
        gates=(Gate("supervised", REQUIRED, risk=0.05),),
        hash="bench",
    )


def count_whole(number: int) -> EvidenceCounts:
    """Return evidence that lacks a little; that of many numbers differs."""
    more, agreed = number % 601, 378 + number % 601 - number % 7
    return EvidenceCounts(
        closed=400 + more,
        missing=4,
        days=20,
        reviewers=5,
        counts={
            ("agreement", None, None): (agreed, 22 + number % 7),
            ("recall", "damaged", None): (35 + number % 50, 5 + number % 3),
            ("precision", "damaged", None): (35 + number % 50, 6 + number % 3),
            ("cost", None, None): (agreed, 22 + number % 7),
        },
    )


def build_evidence(number: int, rules: EvidenceRules) -> VersionEvidence:
    """Return a cell's evidence, at each floor the same."""
    counted = count_whole(number)
    evidence = VersionEvidence(attempt=counted, entered=counted)
    if rules.higher_floors:
        evidence = replace(evidence, floors=(evidence,) * (1 + len(rules.higher_floors)))
    return evidence


def tick_over(cells: int, rules: EvidenceRules = PLAIN) -> Callable[[], str]:
    """Return a run of one tick over `cells` cells; one with other evidence is done beforehand."""
    policy = policy_of(cells, rules)
    scope = apply_events(
        [
            PolicyApplied(at=START, by="bench", number=1, policy_hash="bench"),
            VersionFirstUsed(at=START, by="bench", version="v1"),
        ]
    )

    def build_tick(first: int) -> Tick:
        numbered = enumerate(policy.cells, first)
        evidence = {(cell, "v1"): build_evidence(number, rules) for number, cell in numbered}
        return Tick(at=START + timedelta(days=30), evidence=evidence)

    decide(build_tick(len(policy.cells)), scope, policy)
    tick = build_tick(0)

    def run() -> str:
        start = process_time()
        events = decide(tick, scope, policy)
        each = (process_time() - start) / len(tick.evidence)
        changes = [f"{1 + len(rules.higher_floors)} floors"] if rules.higher_floors else []
        what = ", ".join(["one tick over changed cells", *changes])
        report_figure(what, "µs of CPU a cell", [each * 1e6])
        return f"{each * 1e6:.0f} µs of CPU a cell, {len(events)} events"

    return run
