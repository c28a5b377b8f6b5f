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


def count_whole() -> EvidenceCounts:
    """Return evidence that lacks a little."""
    return EvidenceCounts(
        closed=400,
        missing=4,
        days=20,
        reviewers=5,
        counts={
            ("agreement", None, None): (378, 22),
            ("recall", "damaged", None): (35, 5),
            ("precision", "damaged", None): (35, 6),
            ("cost", None, None): (378, 22),
        },
    )


def tick_over(cells: int, rules: EvidenceRules = PLAIN) -> Callable[[], str]:
    """Return a run of one tick over `cells` cells, the first one done beforehand."""
    policy = policy_of(cells, rules)
    counted = count_whole()
    version_evidence = VersionEvidence(attempt=counted, entered=counted)
    if rules.higher_floors:
        floors = (version_evidence,) * (1 + len(rules.higher_floors))
        version_evidence = replace(version_evidence, floors=floors)
    scope = apply_events(
        [
            PolicyApplied(at=START, by="bench", number=1, policy_hash="bench"),
            VersionFirstUsed(at=START, by="bench", version="v1"),
        ]
    )
    evidence = {(cell, "v1"): version_evidence for cell in policy.cells}
    tick = Tick(at=START + timedelta(days=30), evidence=evidence)
    decide(tick, scope, policy)

    def run() -> str:
        start = process_time()
        events = decide(tick, scope, policy)
        each = (process_time() - start) / len(evidence)
        changes = [f"{1 + len(rules.higher_floors)} floors"] if rules.higher_floors else []
        what = ", ".join(["one tick over changed cells", *changes])
        report_figure(what, "µs of CPU a cell", [each * 1e6])
        return f"{each * 1e6:.0f} µs of CPU a cell, {len(events)} events"

    return run
