"""A proposal in words: question, effect of an approval, result, evidence, and what delays it.

Once it is approved, the text says when it takes effect.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from api.web_kit.figures import format_arm_counts
from api.web_kit.page import format_time_span
from rollout.engine.decide.proposals import (
    list_proposal_holds,
)
from rollout.engine.decide.scope import find_acting_version
from rollout.engine.decide.widening_steps import format_decided_floor
from rollout.engine.words.formatting import (
    capitalize_first,
    format_bound_value,
    format_count,
    format_estimate,
    format_percent,
    format_quantity,
    format_zoned_time,
    join_words,
)
from rollout.engine.words.rule_text import describe_familiar_cases, describe_unfamiliar_share
from rollout.engine.words.state_text import CLOSED_PROPOSALS, describe_hold
from rollout.features.cells.cell_table import UNFAMILIAR_DAYS, CellValuesSummary
from rollout.features.proposals.proposal_details import Proposal
from rollout.features.proposals.proposal_evidence import (
    GateMinimumProgress,
    ProposalEvidence,
    ReadingComparison,
)
from rollout.kernel.calendar.instants import ALWAYS_WINDOW, SHADOW, Cell
from rollout.kernel.facts import RECENT_DAYS
from rollout.kernel.measures import Condition, Statistic
from rollout.kernel.policy.cell_evidence import describe_floor_cases, format_floor
from rollout.kernel.policy.gates import round_down
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy.stages import (
    Stage,
    describe_decided,
    describe_sample_share,
    describe_share,
)
from rollout.kernel.statistics.evidence import ConditionEvidence
from rollout.live.rollout_state import RolloutState

OPEN, APPROVED = "open", "approved"
COMMON_STAGES: Final = frozenset({"supervised", "autonomous"})
"""Stages whose effect the sentences name without the stage."""


@dataclass(frozen=True, slots=True)
class ProposalQuestion:
    """A proposal in words.

    Attributes:
        asks: heading, a question.
        yes: effect of an approval, without its end.
        until: end if applied now; None if it doesn't end by itself.
        zone: timezone of its times.
    """

    asks: str
    yes: str
    until: datetime | None
    zone: str


@dataclass(frozen=True, slots=True)
class GrantMeaning:
    """What a grant allows, for a proposal about a cell.

    Attributes:
        current_stage: the cell's stage.
        current_text: its meaning for the acting version.
        proposed_stage: the proposed stage.
        proposed_text: its meaning.
        lapses_to: the stage after the grant ends.
        not_allowed: what stays forbidden.
        fallback_texts: what happens without an answer in time.
        lasts: duration of the grant.
    """

    current_stage: str
    current_text: str
    proposed_stage: str
    proposed_text: str
    lapses_to: str
    not_allowed: str
    fallback_texts: tuple[str, ...]
    lasts: timedelta


def build_question(state: RolloutState, details: Proposal, at: datetime) -> ProposalQuestion:
    """Describe what a proposal would do if applied at an instant."""
    policy, stage = state.policy, find_proposed_stage(state, details)
    timezone = policy.get_timezone(details.site)
    if stage is None:
        heading, approval_text = _describe_general_question(state, details)
        return ProposalQuestion(heading, approval_text, None, timezone)
    location = describe_location(details.site, details.window) + _name_floor(details)
    heading, approval_text = _describe_cell_question(state, details, stage, location)
    return ProposalQuestion(heading, approval_text, at + stage.lasts, timezone)


def find_proposed_stage(state: RolloutState, details: Proposal) -> Stage | None:
    """Return the proposed stage, or None if the policy lacks a stage."""
    policy, cell = state.policy, Cell(details.site, details.window)
    if cell not in policy.cell_set or details.to not in policy.stage_ids[1:]:
        return None
    return policy.get_stage(policy.stage_ids.index(details.to))


def describe_location(site: str, window: str) -> str:
    """Format a cell as a location in a sentence.

    >>> (
    ...     describe_location("meadow", "night"),
    ...     describe_location("ramp-a", "dry hours"),
    ...     describe_location("lab", "always"),
    ... )
    ('at meadow by night', 'at ramp-a in “dry hours”', 'at lab')
    """
    if window == ALWAYS_WINDOW:
        return f"at {site}"
    return f"at {site} by {window}" if window in {"day", "night"} else f"at {site} in “{window}”"


def _name_floor(details: Proposal) -> str:
    """Return for which cases a stage is proposed, "" without several confidence floors."""
    floors = details.confidence_floors
    return f" for {describe_floor_cases(format_floor(floors[0]))}" if floors else ""


def describe_acting(stage: Stage, *, continues: bool = False) -> str:
    """Describe what a version does at a stage, after "let", or "go on" if it continues."""
    name = "" if stage.id in COMMON_STAGES else f" (stage {stage.id})"
    if not stage.model_decides:
        return f"{'acting' if continues else 'act'} under supervision{name}"
    decided_text = "by itself" if stage.share is None else f"{describe_decided(stage.share)},"
    return f"{'deciding' if continues else 'decide'} {decided_text}{name}"


def _describe_cell_question(
    state: RolloutState, details: Proposal, stage: Stage, location: str
) -> tuple[str, str]:
    version = details.version
    match details.kind:
        case "renewal":
            action_text = f"{version} go on {describe_acting(stage, continues=True)} {location}"
            return f"Let {action_text}?", f"Approving lets {action_text}"
        case "takeover":
            acting_version = state.scope.get_holder(Cell(details.site, details.window))
            replaced_version = (
                acting_version if acting_version not in {None, version} else "the acting version"
            )
            action_text = f"{version} take the place of {replaced_version} {location}"
            return (
                f"Let {action_text}?",
                f"Approving lets {action_text}, {describe_acting(stage, continues=True)},",
            )
    action_text = f"{version} {describe_acting(stage)} {location}"
    return f"Let {action_text}?", f"Approving lets {action_text}"


def _describe_general_question(state: RolloutState, details: Proposal) -> tuple[str, str]:
    match details.kind:
        case "resume":
            cells = format_quantity(len(details.texts), "cell")
            effect_text = f"Approving restores what stop {details.about} withholds in {cells}"
            return (
                f"Resume after stop {details.about}?",
                f"{effect_text}, without what lapsed meanwhile",
            )
        case "policy":
            count_text = format_quantity(len(details.texts), "setting")
            number = state.scope.policy_number
            approval_text = f"Approving replaces policy {number} and loosens {count_text}"
            return "Apply a looser policy?", approval_text
    location = describe_location(details.site, details.window)
    return (
        f"{details.kind.capitalize()} of {details.version} to {details.to} {location}?",
        "The policy no longer has this cell or stage",
    )


def build_meaning(
    state: RolloutState,
    details: Proposal,
    at: datetime,
    values: CellValuesSummary | None = None,
) -> GrantMeaning | None:
    """Return what a proposal about a cell allows; None for other kinds.

    Args:
        values: the attribute values that the version met there; None if the policy asks for none.
    """
    stage = find_proposed_stage(state, details)
    if stage is None:
        return None
    policy, cell = state.policy, Cell(details.site, details.window)
    at = at if state.scope.at is None else max(at, state.scope.at)
    acting_version = find_acting_version(state.scope, policy, cell, at)
    stage_level = policy.stage_ids.index(stage.id)
    current_stage = SHADOW if acting_version is None else policy.stage_ids[acting_version[1]]
    return GrantMeaning(
        current_stage=current_stage,
        current_text=_describe_current_stage(state, cell, acting_version, details.version),
        proposed_stage=stage.id,
        proposed_text=_describe_stage(policy, stage, details.version)
        + _describe_floor(*map(format_floor, details.confidence_floors[:1])),
        lapses_to=policy.stage_ids[stage_level - 1],
        not_allowed=" ".join(
            filter(
                None,
                (
                    _describe_restrictions(policy, cell, stage_level, at, details),
                    *(
                        f"{describe_sample_share(version, share)}; humans decide the others."
                        for version, share in policy.samples_by_version.items()
                        if version == details.version
                    ),
                    describe_familiar_cases(policy),
                    describe_unfamiliar_share(values.recent, UNFAMILIAR_DAYS) if values else "",
                ),
            )
        ),
        fallback_texts=tuple(_describe_fallbacks(policy)),
        lasts=stage.lasts,
    )


def _describe_current_stage(
    state: RolloutState, cell: Cell, acting_version: tuple[str, int] | None, version: str
) -> str:
    if acting_version is None:
        return f"Humans decide and see nothing of {version}."
    policy, (holder, stage_level) = state.policy, acting_version
    text = _describe_stage(policy, policy.get_stage(stage_level), holder)
    cell_state = state.scope.get_cell_state(cell, holder)
    return text + _describe_floor(format_decided_floor(policy, cell_state, stage_level))


def _describe_floor(floor: str = "") -> str:
    """Say who decides the cases below a confidence floor; "" without several."""
    if not floor:
        return ""
    cases = f"of confidence below {floor}" if float(floor) else "that have no confidence"
    return f" Humans decide cases {cases}."


def _describe_stage(policy: Policy, stage: Stage, version: str) -> str:
    is_episode = policy.evidence.unit == "episode"
    unit, explanation = ("episodes", " (groups of cases)") if is_episode else ("cases", "")
    blind_text = f"In {stage.blind * 100:g} % of {unit} humans answer without seeing it"
    if stage.model_decides:
        audits = f"{(stage.audit or 0) * 100:g} % of its decisions"
        audit_text = f"humans check {audits} afterwards (audits)"
        if stage.share is not None:
            return f"{describe_share(version, stage.share)}; {audit_text}."
        return f"{version} decides by itself; {audit_text}." + (
            f" {blind_text}." if stage.blind else ""
        )
    rest_share = f"{(1 - stage.blind) * 100:g} % of {unit}{explanation}"
    assisted_text = (
        f"In {rest_share} a human sees what {version} proposes and confirms or overrides it"
    )
    return f"{assisted_text}." + (f" {blind_text}." if stage.blind else "")


def _describe_restrictions(
    policy: Policy, cell: Cell, stage_level: int, at: datetime, details: Proposal
) -> str:
    stage, ceiling = policy.get_stage(stage_level), policy.compute_ceiling(cell, at)
    restriction = "" if stage.model_decides else f"{details.version} does nothing by itself. "
    if stage_level == len(policy.stages):
        return f"{restriction}There is nothing above this stage."
    if ceiling <= stage_level:
        return (
            f"{restriction}The policy allows at most {policy.stage_ids[ceiling]} here: the ceiling."
        )
    return f"{restriction}Widening to {policy.stage_ids[stage_level + 1]} needs another proposal."


def _describe_fallbacks(policy: Policy) -> list[str]:
    """Describe for each lever what happens without an answer in time."""
    texts = []
    for lever in policy.levers:
        prefix = "" if len(policy.levers) == 1 else f"{lever.id}: "
        if lever.answer_within is None or lever.unanswered is None:
            texts.append(f"{prefix}The case waits: the policy sets no time to answer.")
        else:
            texts.append(
                f"{prefix}After {format_time_span(lever.answer_within)} without an answer,"
                f" the action is {lever.unanswered}."
            )
    return texts


def describe_progress(details: Proposal, *, is_met: bool) -> str:
    """Describe conditions met, approvals so far and approvals needed."""
    if details.state == APPROVED:
        return "All approvals are given."
    if details.state != OPEN:
        return CLOSED_PROPOSALS[details.state].meaning
    gate_text = "Every condition of the gate was met when it was raised. " if is_met else ""
    approvers = [approval.by for approval in details.approvals]
    verb = "has" if len(approvers) == 1 else "have"
    approved_text = f"{join_words(approvers)} {verb} approved" if approvers else "No approvals yet"
    missing_text = format_quantity(details.approvals_missing, "more approval")
    return f"{gate_text}{approved_text}; needs {missing_text}."


def describe_rejection(details: Proposal) -> str:
    """Describe the effect of a rejection and how to withdraw an approval."""
    if not details.site:
        return "Rejecting closes it; it can be proposed again."
    quiet_period = format_time_span(Policy.after_rejection)
    hint = "An approver can still reject until it is applied. Later, narrow to take scope back."
    return f"After a rejection nothing is proposed here for {quiet_period}. {hint}"


def describe_effect(
    state: RolloutState, details: Proposal, at: datetime, *, has_turned: bool = False
) -> str:
    """Describe the effect of the visitor's approval, or what an approved proposal waits for."""
    if has_turned:
        return "It has no effect as the evidence stands now: the next tick voids the proposal."
    hold = describe_proposal_hold(state, details, at)
    if details.state != APPROVED and details.approvals_missing > 1:
        remaining_text = format_quantity(details.approvals_missing - 1, "more approval")
        hold_text = f"; then it waits for the {hold}" if hold else ""
        return f"After yours it needs {remaining_text}{hold_text}."
    prefix = "" if details.state == APPROVED else "Yours is the last approval: it "
    effect = (
        f"waits for the {hold}"
        if hold
        else f"takes effect within {format_time_span(state.policy.tick)}"
    )
    return f"{prefix}{effect}." if prefix else f"It {effect}."


def describe_proposal_hold(state: RolloutState, details: Proposal, at: datetime) -> str:
    """Describe what would delay a proposal now, "" if nothing would.

    An observing policy grants nothing.
    """
    scope = state.scope
    proposal = scope.proposals.get(details.id)
    if proposal is None:
        return ""
    holds = list_proposal_holds(
        scope, state.policy, proposal, at if scope.at is None else max(at, scope.at)
    )
    zone = state.policy.get_timezone(details.site)
    return " and the ".join(
        describe_hold(hold, lambda until: format_zoned_time(until, zone, at)) for hold in holds
    )


def find_grant_end(state: RolloutState, details: Proposal) -> datetime | None:
    """Return when a pending renewal's grant ends, if that is before the proposal closes."""
    if not details.rules.extends_grant or details.state not in {OPEN, APPROVED}:
        return None
    cell_state = state.scope.get_cell_state(Cell(details.site, details.window), details.version)
    ends = [grant.until for grant in cell_state.grants if grant.stage == details.to]
    return min((end for end in ends if end < details.expires_at), default=None)


NO_VALUE: Final = "–"


MET, NOT_MET = "met", "not met"


TURNED_TEXT: Final = (
    "the counts speak rather against the threshold than for it: an e-value below 1; or a minimum"
    " isn't met"
)


@dataclass(frozen=True, slots=True)
class ConditionRow:
    """A condition in the table; `now` describes today's evidence."""

    name: str
    counted: str
    share: str
    bound: str
    threshold: str
    met: bool
    now: str


@dataclass(frozen=True, slots=True)
class RequirementRow:
    """A minimum of the gate: its count, its threshold, whether it is met."""

    name: str
    have: str
    threshold: str
    met: bool


def build_condition_rows(
    readings: tuple[ReadingComparison, ...], policy: Policy
) -> tuple[ConditionRow, ...]:
    """Return the rows of the conditions whose figures could be parsed."""
    return tuple(
        _build_row(reading, reading.frozen, policy)
        for reading in readings
        if reading.frozen is not None
    )


def _build_row(
    reading: ReadingComparison, frozen: ConditionEvidence, policy: Policy
) -> ConditionRow:
    return ConditionRow(
        name=_format_row_name(frozen.condition, policy),
        counted=format_evidence_counts(frozen, policy),
        share=format_evidence_estimate(frozen),
        bound=format_evidence_bound(frozen),
        threshold=frozen.condition.threshold_text
        if frozen.condition.at_least
        else f"at most {frozen.condition.threshold_text}",
        met=frozen.is_met,
        now=_describe_change(reading.current, frozen, policy),
    )


def _format_row_name(condition: Condition, policy: Policy) -> str:
    """Return the measure, for costs with its unit: `Cost, mean days late per unit`."""
    name, unit = capitalize_first(condition.name), condition.find_unit(policy.charter.cost_in)
    if condition.population.has_gain:
        return f"{name}, per unit"
    return f"{name}, mean {unit} per unit" if unit else name


def _describe_change(
    current: ConditionEvidence | None, frozen: ConditionEvidence, policy: Policy
) -> str:
    if current is None:
        return "no longer required"
    if current.counts == frozen.counts:
        return "unchanged"
    bound = format_evidence_bound(current)
    side = "at least" if current.condition.at_least else "at most"
    least = "" if bound == NO_VALUE else f", {side} {bound}"
    return f"{format_evidence_counts(current, policy)}{least}: {MET if current.is_met else NOT_MET}"


def format_evidence_counts(evidence: ConditionEvidence, policy: Policy) -> str:
    """Format the counts: agreeing units for shares, units by cost level for costs."""
    counts = evidence.counts
    if evidence.condition.measure.statistic is Statistic.MEAN:
        levels = zip(policy.cost_levels, counts, strict=True)
        return (
            ", ".join(
                f"{format_count(count)} at cost {level:g}" for level, count in levels if count
            )
            or "0"
        )
    if evidence.condition.measure.statistic is Statistic.DIFFERENCE:
        return format_arm_counts(counts)
    if len(counts) == 2:
        return f"{format_count(counts[0])} of {format_count(sum(counts))}"
    return f"{format_count(sum(counts))} with two decisions"


def format_evidence_estimate(evidence: ConditionEvidence) -> str:
    """Format the observed share or mean cost."""
    if evidence.estimate is None:
        return NO_VALUE
    if evidence.condition.population.has_gain:
        return evidence.condition.population.outcome.format_amount(evidence.estimate)
    return format_estimate(evidence.condition.measure.name, evidence.estimate)


def format_evidence_bound(evidence: ConditionEvidence) -> str:
    """Format the bound with enough digits not to read like its threshold."""
    if evidence.bound is None:
        return NO_VALUE
    condition = evidence.condition
    if condition.population.has_gain:
        return condition.population.outcome.format_amount(round_down(evidence.bound))
    return format_bound_value(
        condition.measure.name, evidence.bound, condition.threshold, at_least=condition.at_least
    )


def describe_void_risk(evidence: ProposalEvidence) -> str:
    """Describe what becomes of a proposal whose gate isn't met now, "" if it is met."""
    if evidence.has_turned:
        return f"The evidence has turned ({TURNED_TEXT}): the next tick voids this proposal."
    current = [reading.current for reading in evidence.readings if reading.current is not None]
    if all(condition.is_met for condition in current):
        return ""
    return (
        "The evidence doesn't meet the gate now, but an approval still counts and the last one "
        f"still takes effect: only evidence that has turned ({TURNED_TEXT}) voids the proposal."
    )


def build_requirement_rows(progress: GateMinimumProgress) -> tuple[RequirementRow, ...]:
    """Return the rows of the gate's minimums, as counted now."""
    decided, closed, minimum = progress.decided, progress.closed, progress.minimum
    days, limit = f"Missing, last {RECENT_DAYS} days", progress.missing_at_most
    return (
        _build_minimum_row("Units", decided.decided, minimum.units),
        _build_minimum_row("Days", decided.days, minimum.days),
        _build_minimum_row("Reviewers", decided.reviewers, minimum.reviewers),
        _build_missing_row("Missing units", (closed.missing, closed.closed), limit),
        _build_missing_row(days, (closed.recent_missing, closed.recent_closed), limit),
    )


def _build_missing_row(
    name: str, counts: tuple[int, int], missing_at_most: float
) -> RequirementRow:
    missing, closed = counts
    share_text = f", {format_percent(missing / closed)}" if closed else ""
    return RequirementRow(
        name,
        f"{format_count(missing)} of {format_count(closed)}{share_text}",
        f"at most {format_percent(missing_at_most, 0)}",
        missing <= missing_at_most * closed,
    )


def _build_minimum_row(name: str, count: int, minimum: int) -> RequirementRow:
    return RequirementRow(
        name, format_count(count), f"at least {format_count(minimum)}", count >= minimum
    )
