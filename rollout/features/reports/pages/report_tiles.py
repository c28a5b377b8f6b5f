"""Tiles on top of each reader's page, and the rows of the cell table.

A tile is one figure with its denominator. A row has the state, deciding evidence and next step of a
cell.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from rollout.engine.words.event_text import count_events
from rollout.engine.words.formatting import (
    NO_BREAK_SPACE,
    NO_DATA,
    capitalize_first,
    format_bound_value,
    format_cell_name,
    format_count,
    format_estimate,
    format_interval,
    format_local_time,
    format_percent,
    format_quantity,
    format_ratio,
    format_share_threshold,
    format_threshold,
    join_words,
)
from rollout.features.reports.figures.agreement import AgreementFigures
from rollout.features.reports.figures.calibration import HUMANS
from rollout.features.reports.figures.evidence_facts import EvidenceFacts, OpenProposal
from rollout.features.reports.figures.facts import ReportFacts
from rollout.features.reports.inputs.cell_facts import CellStages
from rollout.features.reports.pages.summary import (
    describe_arms,
    describe_gain,
    format_amount,
    format_gain_interval,
    select_agreements,
)
from rollout.kernel.calendar.instants import SHADOW
from rollout.kernel.measures import MEASURES
from rollout.kernel.statistics.intervals import Share

MIN_WRONG_SHARE = 0.00005  # smaller shares are 0.00 %
MAX_MARKERS = 16  # cells drawn one by one; of more cells only the counts are shown


@dataclass(frozen=True, slots=True)
class ReportTile:
    """One figure of a page.

    Attributes:
        title: what it is.
        value, unit: the figure, and what it counts.
        text: one or two sentences: denominator, comparison, what comes next.
        share: drawn as a bar; None draws none.
        stages: a stage marker is drawn for each.
    """

    title: str
    value: str
    unit: str
    text: str
    share: float | None = None
    stages: tuple[str, ...] = ()


def build_tiles(facts: ReportFacts, reader: str) -> tuple[ReportTile, ...]:
    """Return the tiles of `operator`, `engineer` or `auditor`.

    What the model brought comes before any figure of agreement.
    """
    gain_tiles = [_build_gain_tile(facts)] if facts.gains else []
    if reader == "operator":
        return (
            *gain_tiles,
            _build_stage_tile(facts),
            _build_alert_tile(facts),
            _build_approval_tile(facts),
            *([] if facts.gains else [_build_cost_tile(facts)]),
        )
    if reader == "engineer":
        return (
            *gain_tiles,
            *(_build_agreement_tile(item, facts) for item in select_agreements(facts)[-2:]),
            _build_slice_tile(facts),
            _build_calibration_tile(facts),
        )
    return (
        _build_ledger_tile(facts),
        _build_widening_tile(facts),
        _build_narrowing_tile(facts),
        _build_stop_tile(facts),
    )


def describe_stage_changes(facts: ReportFacts) -> str:
    """Return how often stages went up and down; as widenings where nothing else moved them."""
    raised = sum(cell.widened for cell in facts.stages)
    lowered = sum(cell.narrowed for cell in facts.stages)
    kinds, floors = count_events(facts.events)
    if (raised, lowered) == (kinds["Widened"], kinds["Narrowed"]):
        text = f"{format_quantity(raised, 'widening')}, {format_quantity(lowered, 'narrowing')}"
        steps = format_quantity(floors.total(), "change")
        return f"{text}; {steps} of a confidence floor" if floors else text
    changes = format_quantity(raised, "stage change")
    return f"{changes} up, {format_count(lowered)} down, suspensions and ends of grants among them"


def _build_stage_tile(facts: ReportFacts) -> ReportTile:
    stages = [cell.stage for cell in facts.stages]
    counts = Counter(stages)
    top = next(stage for stage in reversed(facts.policy.stages) if counts[stage])
    rest = [
        f"{counts[stage]} in {stage}"
        if stage == facts.policy.stages[0]
        else f"{counts[stage]} {stage}"
        for stage in reversed(facts.policy.stages)
        if stage != top and counts[stage]
    ]
    text = f"{join_words(rest)}. " if rest else ""
    order = sorted(stages, key=facts.policy.stages.index, reverse=True)
    return ReportTile(
        "Cells",
        value=f"{format_count(counts[top])} of {format_count(len(stages))}",
        unit=f"in {top}" if top == SHADOW else top,
        text=f"{text}{describe_stage_changes(facts)}.",
        stages=tuple(order) if len(order) <= MAX_MARKERS else (),
    )


def _build_alert_tile(facts: ReportFacts) -> ReportTile:
    incidents = facts.oversight.incidents
    if not incidents:
        return ReportTile("Alerts", "0", "incidents", "No guard raised an alarm.")
    last = incidents[-1]
    zone = facts.identity.zones.get(last.site or "", facts.identity.timezone)
    cell = format_cell_name(last.site, last.window) or "the rollout"
    at = format_local_time(last.at, zone, facts.identity.last)
    text = f"Last: {last.incident} in {cell}, {at}."
    if facts.pending_work.live:
        open_count = sum(incident.acknowledged_at is None for incident in incidents)
        text += f" {format_count(open_count)} not acknowledged."
    return _build_count_tile("Alerts", len(incidents), "incident", text)


def _build_approval_tile(facts: ReportFacts) -> ReportTile:
    proposals = facts.open_proposals
    text = f"{_describe_proposal(proposals[0])}." if proposals else "No proposal needs an approval."
    if len(proposals) > 1:
        text += f" {format_count(len(proposals) - 1)} more in the table of cells."
    if facts.pending_work.overdue:
        text += f" {format_quantity(facts.pending_work.overdue, 'review')} overdue."
    return _build_count_tile("Waiting approvals", len(proposals), "proposal", text)


def _describe_proposal(proposal: OpenProposal) -> str:
    return (
        f"{proposal.cell_name}: {proposal.kind} to {proposal.stage}"
        f" needs {format_quantity(proposal.needed, 'more approval')}, open until {proposal.until}"
    )


def _build_gain_tile(facts: ReportFacts) -> ReportTile:
    """Return what the model brought: the only gain, or in how many cells it is above zero."""
    compared = [gain for gain in facts.gains if gain.gain is not None]
    title = f"What the model brought: {join_words(sorted({gain.outcome for gain in facts.gains}))}"
    if not compared:
        return ReportTile(title, NO_DATA, "", "Nothing to compare yet.")
    if len(compared) == 1:
        (gain,) = compared
        value = "" if gain.gain is None else format_amount(gain.gain, gain.unit)
        text = f"{format_gain_interval(gain)} a unit at every look, 95 %. {describe_arms(gain)}"
        return ReportTile(title, value, "", text)
    above = sum(gain.lower > 0 for gain in compared)
    lowest = min(compared, key=lambda gain: gain.lower)
    return ReportTile(
        title,
        value=f"{format_count(above)} of {format_count(len(compared))}",
        unit="of cells, versions and outcomes",
        text=f"Gain above 0 at every look, 95 %. The lowest bound: {describe_gain(lowest)}",
    )


def _build_cost_tile(facts: ReportFacts) -> ReportTile:
    price = facts.model_cost
    title = f"{capitalize_first(price.words.wrong)} when the model decided"
    if not price.cases:
        return ReportTile(title, NO_DATA, "", "The model has decided no case.")
    text = f"{format_ratio(price.wrong_action)} actions by the model; 95{NO_BREAK_SPACE}% interval."
    if price.human_wrong_action is not None:
        humans = price.human_wrong_action / max(price.human_known_cases, 1)
        text += (
            f" {_name_human_cases(facts)}: {format_percent(humans, 2)},"
            f" {format_count(price.human_wrong_action)} of {format_count(price.human_known_cases)}."
        )
    if price.cost is not None:
        cost = _format_per_100(price.cost, price.known_cases)
        human = ""
        if price.human_cost is not None:
            human = f", humans {_format_per_100(price.human_cost, price.human_known_cases)}"
        text += f" Cost per 100 cases: {cost} {facts.policy.cost_in}{human}."
    return ReportTile(
        title,
        value=format_percent(price.wrong_action.rate, 2),
        unit="" if price.wrong_action.rate is None else _format_wrong_interval(price.wrong_action),
        text=text,
    )


def _name_human_cases(facts: ReportFacts) -> str:
    """Return on which cases humans are compared; a replay has decisions also without an audit."""
    price = facts.model_cost
    if facts.identity.simulated:
        others = price.cases - price.human_known_cases
        lack = "a human label" if price.by_outcome == price.cases else "an outcome or human label"
        return f"Humans in the history{f', on the cases with {lack}' if others else ''}"
    return "Humans on those of them with a blind decision"


def _format_wrong_interval(wrong: Share) -> str:
    """Format the interval with a lower end near zero as 0.00 %, as precise as the share."""
    if wrong.low is None or not 0 < wrong.low < MIN_WRONG_SHARE:
        return format_interval(wrong)
    return f"{0:.2f}{NO_BREAK_SPACE}% to {format_percent(wrong.high)}"


def _format_per_100(total: float, cases: int) -> str:
    return f"{100 * total / max(cases, 1):,.2f}"


def _build_agreement_tile(figures: AgreementFigures, facts: ReportFacts) -> ReportTile:
    title = f"Agreement of {figures.version}"
    if figures.agreement.rate is None:
        return ReportTile(title, NO_DATA, "", "No case has one human decision to compare with.")
    text = f"{format_ratio(figures.agreement)} cases with one human answer."
    units = {funnel.version: funnel.agreement.n for funnel in facts.funnels}.get(figures.version)
    if units is not None and units != figures.agreement.n:
        count_text = format_quantity(units, "unit")
        verb = "has" if units == 1 else "have"
        text += (
            f" {count_text} {verb} a human decision that can count:"
            " “From records to evidence” shows why."
        )
    if figures.cost is not None:
        text += f" Following it costs {figures.cost:.3f} {facts.policy.cost_in} per case."
    rate = figures.agreement.rate
    return ReportTile(
        title, format_percent(rate), format_interval(figures.agreement), text, share=rate
    )


def _build_slice_tile(facts: ReportFacts) -> ReportTile:
    slices = [row for search in facts.slice_searches for row in search.slices]
    compared = max((search.tested_slices for search in facts.slice_searches), default=0)  # of all
    text = f"{format_quantity(compared, 'slice')} (cases that share a value) compared."
    if slices:
        worst = max(slices, key=lambda row: row.at_least)
        text += f" Largest: {worst.name}, {format_percent(worst.share)} differ."
    return ReportTile("Slices that differ", format_count(len(slices)), "slices", text)


def _build_calibration_tile(facts: ReportFacts) -> ReportTile:
    rows = [row for row in facts.calibrations if row.ece is not None]
    if not rows:
        return ReportTile("Calibration error", NO_DATA, "", "No prediction has a confidence.")
    row = rows[-1]
    text = (
        f"{row.version} against {'humans' if row.reference == HUMANS else 'outcomes'}: mean"
        f" confidence {format_percent(row.mean_confidence)}, {row.words.right} in"
        f" {format_percent(row.right.rate)} of {format_quantity(row.n, 'case')}."
    )
    if row.largest_risk is not None and row.proven is not None:
        text += (
            f" Over all cells together, {format_percent(row.proven.share)} of the cases could be"
            f" decided with at most {format_share_threshold(row.largest_risk)} {row.words.wrong};"
            " single cells differ."
        )
    return ReportTile("Calibration error", format_percent(row.ece), "mean gap", text)


def _build_ledger_tile(facts: ReportFacts) -> ReportTile:
    ledger = facts.identity.ledger
    text = f"Append-only. The hash of the last entry begins {ledger.head[:16]}."
    noun = "entry" if ledger.rows == 1 else "entries"
    return ReportTile("Audit ledger", format_count(ledger.rows), noun, text)


def _build_widening_tile(facts: ReportFacts) -> ReportTile:
    kinds, floors = count_events(facts.events)
    simulated = " (simulated)" if facts.identity.simulated else ""
    steps = format_quantity(floors["Widened"], "more approved step")
    within = f" {steps} within a stage: to a lower confidence floor." if floors["Widened"] else ""
    text = (
        f"{format_quantity(kinds['Approved'], 'approval')}{simulated}.{within}"
        f" Also {format_quantity(kinds['Renewed'], 'renewal')},"
        f" {format_quantity(kinds['TakenOver'], 'takeover')} and"
        f" {format_quantity(kinds['ProposalRejected'], 'rejection')}."
    )
    return _build_count_tile("Widenings", kinds["Widened"], "widening", text)


def _build_narrowing_tile(facts: ReportFacts) -> ReportTile:
    kinds, floors = count_events(facts.events)
    steps = format_quantity(floors["Narrowed"], "rise")
    text = f"Within a stage: {steps} of a confidence floor. " if floors["Narrowed"] else ""
    text += (
        f"{format_quantity(kinds['Suspended'], 'suspension')},"
        f" {format_quantity(kinds['GrantExpired'], 'expired grant')}. Narrowing needs no approval."
    )
    return _build_count_tile("Narrowings", kinds["Narrowed"], "narrowing", text)


def _build_count_tile(title: str, count: int, noun: str, text: str) -> ReportTile:
    return ReportTile(title, format_count(count), noun if count == 1 else f"{noun}s", text)


def _build_stop_tile(facts: ReportFacts) -> ReportTile:
    oversight = facts.oversight
    drills = sum(stop.drill for stop in oversight.stops)
    stops = len(oversight.stops) - drills
    if facts.identity.simulated:
        return ReportTile("Stops", "0", "stops, 0 drills", "A replay contains no stops or drills.")
    last = oversight.last_drill
    text = (
        "The stop was never drilled."
        if last is None
        else f"Last drill: {format_local_time(last, facts.identity.timezone)}."
    )
    unit = f"{'stop' if stops == 1 else 'stops'}, {format_quantity(drills, 'drill')}"
    return ReportTile("Stops", format_count(stops), unit, text)


@dataclass(frozen=True, slots=True)
class CellSummaryRow:
    """One row of the cell table.

    `estimate`, `units_text`, `units`, `bound` and `threshold` are of the deciding measure, usually
    agreement, and of `version`; without data `units` is 0. `narrowings` names the versions that
    were narrowed: `v1 down 2×`.
    """

    cell: str
    stage: str
    version: str | None
    since: str
    narrowings: tuple[str, ...]
    estimate: str
    units_text: str
    units: int
    bound: str
    threshold: str
    next_step: str


def build_cell_rows(facts: ReportFacts) -> Iterator[CellSummaryRow]:
    """Yield a row for each cell, in the order of the policy."""
    for cell in facts.stages:
        leading = find_leading_evidence(facts, cell)
        estimate, n, bound, threshold = _describe_leading_evidence(leading)
        yield CellSummaryRow(
            cell=cell.cell_name,
            stage=cell.stage,
            version=leading.version if leading else None,
            since=format_local_time(
                cell.since, facts.identity.zones[cell.site], facts.identity.last
            ),
            narrowings=tuple(_describe_narrowings(cell, facts.policy.stages)),
            estimate=estimate,
            units_text=format_quantity(n, "unit") if n else "",
            units=n,
            bound=bound,
            threshold=threshold,
            next_step=leading.next_step if leading else "no data: humans decide",
        )


def find_leading_evidence(facts: ReportFacts, cell: CellStages) -> EvidenceFacts | None:
    """Return a cell's evidence of the acting version, else of the most decided one."""
    evidence = [item for item in facts.evidence if item.cell == cell.cell]
    return max(evidence, key=lambda item: (item.acting, item.decided_units), default=None)


def list_other_versions(facts: ReportFacts, leading: EvidenceFacts) -> list[EvidenceFacts]:
    """Return a cell's evidence of other versions with units that a newer one has not replaced."""
    return [
        item
        for item in facts.evidence
        if item.cell == leading.cell
        and item is not leading
        and item.successor is None
        and item.closed_units
    ]


def _describe_narrowings(cell: CellStages, stages: tuple[str, ...]) -> Iterator[str]:
    """Describe how often each version lost a stage in a cell."""
    counts = Counter(
        before.version
        for before, after in pairwise(cell.intervals)
        if stages.index(after.stage) < stages.index(before.stage)
    )
    yield from (f"{version} down {count}×" for version, count in counts.items())


def _describe_leading_evidence(evidence: EvidenceFacts | None) -> tuple[str, int, str, str]:
    """Return estimate, units, bound and threshold of agreement, or of another measure."""
    paths = [path for path in evidence.path if path.bound] if evidence else []
    if not paths:
        return NO_DATA, 0, NO_DATA, ""
    path = ([path for path in paths if MEASURES[path.measure].covers_all_labels] or paths)[-1]
    bound = format_bound_value(path.measure, path.bound[-1], path.threshold, at_least=path.at_least)
    sign = "≥" if path.at_least else "≤"
    estimate = format_estimate(path.measure, path.estimate[-1])
    name = "" if MEASURES[path.measure].covers_all_labels else f"{path.measure} "
    threshold = f"{name}threshold {format_threshold(path.measure, path.threshold)}"
    return estimate, path.n[-1], f"{sign} {bound}", threshold
