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
    zone = policy.zone_of(shown.site)
    if stage is None:
        asks, yes = _at_large(stood, shown)
        return Question(asks, yes, None, zone)
    where = place(shown.site, shown.window)
    asks, yes = _of_cell(stood, shown, stage, where)
    return Question(asks, yes, at + stage.lasts, zone)


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
    does = "deciding by itself" if stage.model_decides else "acting under supervision"
    return does + _named(stage)


def _named(stage: Stage) -> str:
    return "" if stage.id in USUAL else f" (stage {stage.id})"


def _of_cell(stood: Standing, shown: Proposal, stage: Stage, where: str) -> tuple[str, str]:
    version = shown.version
    match shown.kind:
        case "renewal":
            does = f"{version} go on {acting_so(stage)} {where}"
            return f"Let {does}?", f"Approving lets {does}"
        case "takeover":
            holder = stood.scope.holder(Cell(shown.site, shown.window))
            old = holder if holder not in {None, version} else "the acting version"
            does = f"{version} take the place of {old} {where}"
            return f"Let {does}?", f"Approving lets {does}, {acting_so(stage)},"
    does = f"{version} {acts(stage)} {where}"
    return f"Let {does}?", f"Approving lets {does}"


def _at_large(stood: Standing, shown: Proposal) -> tuple[str, str]:
    match shown.kind:
        case "resume":
            cells = several(max(len(shown.readings) - 1, 0), "cell")
            back = f"Approving gives back what stop {shown.about} withholds in {cells}"
            return f"Resume after stop {shown.about}?", f"{back}, less what lapsed meanwhile"
        case "policy":
            many = several(max(len(shown.readings) - 1, 0), "thing")
            number = stood.scope.policy_number
            yes = f"Approving puts it in the place of policy {number} and loosens {many}"
            return "Put a looser policy in force?", yes
        case "clock":
            back = f"sets the ledger's time back to {shown.about}"
            yes = f"Approving {back}; what lapsed stays lapsed"
            return "Set the ledger's time back to the clock's?", yes
    where = place(shown.site, shown.window)
    return (
        f"{shown.kind.capitalize()} of {shown.version} to {shown.to} {where}?",
        "The policy knows this cell or stage no more",
    )


def meaning(stood: Standing, shown: Proposal, at: datetime) -> Meaning | None:
    """Say what a proposal about a cell allows, None of others."""
    stage = stage_of(stood, shown)
    if stage is None:
        return None
    policy, cell = stood.policy, Cell(shown.site, shown.window)
    at = at if stood.scope.at is None else max(at, stood.scope.at)
    here = acting(stood.scope, policy, cell, at)
    rung = policy.rungs.index(stage.id)
    now = SHADOW if here is None else policy.rungs[here[1]]
    return Meaning(
        now=now,
        now_says=_now_says(policy, here, shown.version),
        then=stage.id,
        then_says=_then_says(policy, stage, shown.version),
        lapses_to=policy.rungs[rung - 1],
        not_allowed=_not_allowed(policy, cell, rung, at, shown),
        unanswered=tuple(_unanswered(policy)),
        lasts=stage.lasts,
    )


def _now_says(policy: Policy, here: tuple[str, int] | None, version: str) -> str:
    if here is None:
        return f"People decide and see nothing of {version}."
    return _then_says(policy, policy.stage(here[1]), here[0])


def _then_says(policy: Policy, stage: Stage, version: str) -> str:
    unit = "episodes" if policy.evidence.unit == "episode" else "cases"
    blind = f"In {stage.blind * 100:g} % of {unit} people answer without seeing it"
    if stage.model_decides:
        audit = f"{(stage.audit or 0) * 100:g} % of that is judged afterwards"
        return f"{version} decides by itself; {audit}." + (f" {blind}." if stage.blind else "")
    rest = f"{(1 - stage.blind) * 100:g} % of {unit}"
    seen = f"In {rest} the person sees what {version} proposes and confirms or overrides it"
    return f"{seen}." + (f" {blind}." if stage.blind else "")


def _not_allowed(policy: Policy, cell: Cell, rung: int, at: datetime, shown: Proposal) -> str:
    stage, ceiling = policy.stage(rung), policy.ceiling(cell, at)
    alone = "" if stage.model_decides else f"{shown.version} does nothing by itself. "
    if rung == len(policy.stages):
        return f"{alone}There is no stage above it."
    if ceiling <= rung:
        return f"{alone}The policy allows no more than {policy.rungs[ceiling]} here: the ceiling."
    return f"{alone}Going on to {policy.rungs[rung + 1]} asks for a proposal of its own."


def _unanswered(policy: Policy) -> list[str]:
    """Say for each lever what happens where nobody answers in time."""
    said = []
    for lever in policy.levers:
        of = "" if len(policy.levers) == 1 else f"{lever.id}: "
        if lever.answer_within is None or lever.unanswered is None:
            said.append(f"{of}The case waits: the policy sets no time to answer.")
        else:
            said.append(f"{of}After {took(lever.answer_within)}: {lever.unanswered}.")
    return said


def lede(shown: Proposal, *, met: bool) -> str:
    """Say how far it is: whether its conditions were met, who has said yes, how many decide."""
    if shown.state == APPROVED:
        return "All approvals are there."
    if shown.state != OPEN:
        return CLOSED[shown.state]
    every = "Every condition of the gate was met when it was raised. " if met else ""
    yes = [one.by for one in shown.approvals]
    has = "has" if len(yes) == 1 else "have"
    said = f"{listed(yes)} {has} approved" if yes else "Nobody has approved yet"
    more = "one" if shown.approvals_missing == 1 else str(shown.approvals_missing)
    others = "more " if yes else ""
    decide = "person decides" if shown.approvals_missing == 1 else "people decide"
    return f"{every}{said}; {more} {others}{decide}."


def told(says: str, *names: str) -> str:
    """Make a sentence of a refusal; one that begins with a name leaves it as it is written.

    >>> told("v2 may not yet", "v2"), told("no cell fits")
    ('v2 may not yet.', 'No cell fits.')
    """
    whole = sentence(says)
    named = any(says.startswith(f"{name} ") for name in names if name)
    return says[:1] + whole[1:] if named else whole


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
    quiet = took(policy.after_rejection)
    back = "An approval is taken back by narrowing, which needs one person."
    return f"Rejecting keeps it quiet for {quiet}. {back}"
