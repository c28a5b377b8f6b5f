"""A proposal in words: question, effect of an approval, result, and what delays it.

Once it is approved, the text says when it takes effect.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from api.web_kit.page import format_time_span
from rollout.engine.decide.proposals import list_proposal_holds
from rollout.engine.decide.scope import find_acting_version
from rollout.engine.decide.widening_steps import format_decided_floor
from rollout.engine.words.familiar_text import describe_familiar_cases, describe_unfamiliar_share
from rollout.engine.words.formatting import (
    format_quantity,
    format_zoned_time,
    join_words,
)
from rollout.engine.words.state_text import CLOSED_PROPOSALS, describe_hold
from rollout.features.cells.cell_table import UNFAMILIAR_DAYS, CellValuesSummary
from rollout.features.proposals.proposal_details import Proposal
from rollout.kernel.calendar.instants import ALWAYS_WINDOW, SHADOW, Cell
from rollout.kernel.policy.cell_evidence import describe_floor_cases, format_floor
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy.stages import (
    Stage,
    describe_decided,
    describe_sample_share,
    describe_share,
)
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


def describe_acting(stage: Stage) -> str:
    """Describe what a version does at a stage, after "let"."""
    if not stage.model_decides:
        return f"act under supervision{_format_stage_name(stage)}"
    return f"decide {_name_decided_cases(stage)}{_format_stage_name(stage)}"


def describe_continued_acting(stage: Stage) -> str:
    """Describe what a version does at a stage, after "go on"."""
    if not stage.model_decides:
        return f"acting under supervision{_format_stage_name(stage)}"
    return f"deciding {_name_decided_cases(stage)}{_format_stage_name(stage)}"


def _name_decided_cases(stage: Stage) -> str:
    return "by itself" if stage.share is None else f"{describe_decided(stage.share)},"


def _format_stage_name(stage: Stage) -> str:
    return "" if stage.id in COMMON_STAGES else f" (stage {stage.id})"


def _describe_cell_question(
    state: RolloutState, details: Proposal, stage: Stage, location: str
) -> tuple[str, str]:
    version = details.version
    match details.kind:
        case "renewal":
            action_text = f"{version} go on {describe_continued_acting(stage)} {location}"
            return f"Let {action_text}?", f"Approving lets {action_text}"
        case "takeover":
            acting_version = state.scope.get_holder(Cell(details.site, details.window))
            replaced_version = (
                acting_version if acting_version not in {None, version} else "the acting version"
            )
            action_text = f"{version} take the place of {replaced_version} {location}"
            return (
                f"Let {action_text}?",
                f"Approving lets {action_text}, {describe_continued_acting(stage)},",
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
