"""A proposal as a question: what it asks, what a yes means, what became of it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from api.console.page.time_format import took
from rollout.core.calendar.sites import ALWAYS, SHADOW, Cell
from rollout.core.policy.policy import Policy, Stage
from rollout.core.scope.scope import acting
from rollout.reports.text.formatting import listed, sentence, several
from rollout.services.engine.rollout_state import Standing
from rollout.services.proposals.proposal_details import Proposal

OPEN, APPROVED = "open", "approved"
WIDENING, RENEWAL, TAKEOVER = "widening", "renewal", "takeover"
RESUME, POLICY, CLOCK = "resume", "policy", "clock"
USUAL: Final = frozenset({"supervised", "autonomous"})
"""Stages whose names say no more than the sentence does."""


@dataclass(frozen=True, slots=True)
class Question:
    """A proposal in words.

    Attributes:
        asks: the heading, a question.
        yes: what a yes lets happen, without until when.
        until: until when, applied now; None where it does not end by itself.
        zone: the clock that its times are told by.
    """

    asks: str
    yes: str
    until: datetime | None
    zone: str


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a grant allows, said of a proposal about a cell.

    Attributes:
        now: the stage on which the cell stands.
        now_says: what that means, of whichever version acts.
        then: the stage that is proposed.
        then_says: what it means.
        lapses_to: where the cell goes when the grant ends.
        not_allowed: what stays out of reach.
        unanswered: what happens where nobody answers.
        lasts: for how long.
    """

    now: str
    now_says: str
    then: str
    then_says: str
    lapses_to: str
    not_allowed: str
    unanswered: tuple[str, ...]
    lasts: timedelta


def question(stood: Standing, shown: Proposal, at: datetime) -> Question:
    """Say what a proposal asks, were it applied at an instant."""
    policy, stage = stood.policy, stage_of(stood, shown)
    timezone = policy.zone_of(shown.site)
    if stage is None:
        heading, approval_text = _at_large(stood, shown)
        return Question(heading, approval_text, None, timezone)
    location = place(shown.site, shown.window)
    heading, approval_text = _of_cell(stood, shown, stage, location)
    return Question(heading, approval_text, at + stage.lasts, timezone)


def stage_of(stood: Standing, shown: Proposal) -> Stage | None:
    """Return the stage that is proposed in a cell, None where the policy knows one of them not."""
    policy, cell = stood.policy, Cell(shown.site, shown.window)
    if cell not in policy.known or shown.to not in policy.rungs[1:]:
        return None
    return policy.stage(policy.rungs.index(shown.to))


def place(site: str, window: str) -> str:
    """Say a cell as a place in a sentence.

    >>> place("meadow", "night"), place("ramp-a", "dry hours"), place("lab", "always")
    ('at meadow by night', 'at ramp-a in “dry hours”', 'at lab')
    """
    if window == ALWAYS:
        return f"at {site}"
    return f"at {site} by {window}" if window in {"day", "night"} else f"at {site} in “{window}”"


def acts(stage: Stage) -> str:
    """Say what a version does at a stage, after “let”."""
    return ("decide by itself" if stage.model_decides else "act under supervision") + _named(stage)


def acting_so(stage: Stage) -> str:
    """Say the same after “go on”."""
    action_text = "deciding by itself" if stage.model_decides else "acting under supervision"
    return action_text + _named(stage)


def _named(stage: Stage) -> str:
    return "" if stage.id in USUAL else f" (stage {stage.id})"


def _of_cell(stood: Standing, shown: Proposal, stage: Stage, where: str) -> tuple[str, str]:
    version = shown.version
    match shown.kind:
        case "renewal":
            action_text = f"{version} go on {acting_so(stage)} {where}"
            return f"Let {action_text}?", f"Approving lets {action_text}"
        case "takeover":
            acting_version = stood.scope.holder(Cell(shown.site, shown.window))
            replaced_version = (
                acting_version if acting_version not in {None, version} else "the acting version"
            )
            action_text = f"{version} take the place of {replaced_version} {where}"
            return f"Let {action_text}?", f"Approving lets {action_text}, {acting_so(stage)},"
    action_text = f"{version} {acts(stage)} {where}"
    return f"Let {action_text}?", f"Approving lets {action_text}"


def _at_large(stood: Standing, shown: Proposal) -> tuple[str, str]:
    match shown.kind:
        case "resume":
            cells = several(max(len(shown.readings) - 1, 0), "cell")
            effect_text = f"Approving gives back what stop {shown.about} withholds in {cells}"
            return f"Resume after stop {shown.about}?", f"{effect_text}, less what lapsed meanwhile"
        case "policy":
            count_text = several(max(len(shown.readings) - 1, 0), "thing")
            number = stood.scope.policy_number
            approval_text = (
                f"Approving puts it in the place of policy {number} and loosens {count_text}"
            )
            return "Put a looser policy in force?", approval_text
        case "clock":
            effect_text = f"sets the ledger's time back to {shown.about}"
            approval_text = f"Approving {effect_text}; what lapsed stays lapsed"
            return "Set the ledger's time back to the clock's?", approval_text
    location = place(shown.site, shown.window)
    return (
        f"{shown.kind.capitalize()} of {shown.version} to {shown.to} {location}?",
        "The policy knows this cell or stage no more",
    )


def meaning(stood: Standing, shown: Proposal, at: datetime) -> Meaning | None:
    """Say what a proposal about a cell allows, None of others."""
    stage = stage_of(stood, shown)
    if stage is None:
        return None
    policy, cell = stood.policy, Cell(shown.site, shown.window)
    at = at if stood.scope.at is None else max(at, stood.scope.at)
    acting_version = acting(stood.scope, policy, cell, at)
    stage_level = policy.rungs.index(stage.id)
    current_stage = SHADOW if acting_version is None else policy.rungs[acting_version[1]]
    return Meaning(
        now=current_stage,
        now_says=_now_says(policy, acting_version, shown.version),
        then=stage.id,
        then_says=_then_says(policy, stage, shown.version),
        lapses_to=policy.rungs[stage_level - 1],
        not_allowed=_not_allowed(policy, cell, stage_level, at, shown),
        unanswered=tuple(_unanswered(policy)),
        lasts=stage.lasts,
    )


def _now_says(policy: Policy, here: tuple[str, int] | None, version: str) -> str:
    if here is None:
        return f"People decide and see nothing of {version}."
    return _then_says(policy, policy.stage(here[1]), here[0])


def _then_says(policy: Policy, stage: Stage, version: str) -> str:
    unit = "episodes" if policy.evidence.unit == "episode" else "cases"
    blind_text = f"In {stage.blind * 100:g} % of {unit} people answer without seeing it"
    if stage.model_decides:
        audit_text = f"{(stage.audit or 0) * 100:g} % of that is judged afterwards"
        return f"{version} decides by itself; {audit_text}." + (
            f" {blind_text}." if stage.blind else ""
        )
    rest_share = f"{(1 - stage.blind) * 100:g} % of {unit}"
    assisted_text = (
        f"In {rest_share} the person sees what {version} proposes and confirms or overrides it"
    )
    return f"{assisted_text}." + (f" {blind_text}." if stage.blind else "")


def _not_allowed(policy: Policy, cell: Cell, rung: int, at: datetime, shown: Proposal) -> str:
    stage, ceiling = policy.stage(rung), policy.ceiling(cell, at)
    restriction = "" if stage.model_decides else f"{shown.version} does nothing by itself. "
    if rung == len(policy.stages):
        return f"{restriction}There is no stage above it."
    if ceiling <= rung:
        return (
            f"{restriction}The policy allows no more than {policy.rungs[ceiling]} here: the"
            " ceiling."
        )
    return f"{restriction}Going on to {policy.rungs[rung + 1]} asks for a proposal of its own."


def _unanswered(policy: Policy) -> list[str]:
    """Say for each lever what happens where nobody answers in time."""
    texts = []
    for lever in policy.levers:
        prefix = "" if len(policy.levers) == 1 else f"{lever.id}: "
        if lever.answer_within is None or lever.unanswered is None:
            texts.append(f"{prefix}The case waits: the policy sets no time to answer.")
        else:
            texts.append(f"{prefix}After {took(lever.answer_within)}: {lever.unanswered}.")
    return texts


def lede(shown: Proposal, *, met: bool) -> str:
    """Say how far it is: whether its conditions were met, who has said yes, how many decide."""
    if shown.state == APPROVED:
        return "All approvals are there."
    if shown.state != OPEN:
        return CLOSED[shown.state]
    gate_text = "Every condition of the gate was met when it was raised. " if met else ""
    approvers = [approval.by for approval in shown.approvals]
    verb = "has" if len(approvers) == 1 else "have"
    approved_text = (
        f"{listed(approvers)} {verb} approved" if approvers else "Nobody has approved yet"
    )
    missing_text = "one" if shown.approvals_missing == 1 else str(shown.approvals_missing)
    more_word = "more " if approvers else ""
    decide_text = "person decides" if shown.approvals_missing == 1 else "people decide"
    return f"{gate_text}{approved_text}; {missing_text} {more_word}{decide_text}."


def told(says: str, *names: str) -> str:
    """Make a sentence of a refusal; one that begins with a name leaves it as it is written.

    >>> told("v2 may not yet", "v2"), told("no cell fits")
    ('v2 may not yet.', 'No cell fits.')
    """
    capitalized = sentence(says)
    starts_with_name = any(says.startswith(f"{name} ") for name in names if name)
    return says[:1] + capitalized[1:] if starts_with_name else capitalized


CLOSED: Final = {
    "applied": "It was approved and holds since then, unless something narrowed it again.",
    "rejected": "It was rejected; nothing changed.",
    "void": "It lost its ground before it was applied; nothing changed.",
    "expired": "It closed without enough approvals; nothing changed.",
}


def rejecting(shown: Proposal, policy: Policy) -> str:
    """Say what a no sets off, and how a yes is taken back."""
    if not shown.site:
        return "Rejecting closes it; it can be asked for again."
    quiet_period = took(policy.after_rejection)
    hint = "An approval is taken back by narrowing, which needs one person."
    return f"Rejecting keeps it quiet for {quiet_period}. {hint}"
