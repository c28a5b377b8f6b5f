"""Policy pages: policy in force, earlier ones, and planning a new one, with faults and changes.

Only a planned text can be applied, and only while the policy it was planned against is in force.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import unified_diff
from types import MappingProxyType
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from markupsafe import Markup, escape

from api.policies.routes import EXAMPLE_POLICY, MAX_POLICY_BYTES
from api.web_kit.page import RUN_STARTED, encode_segment, redirect_to, render_page, say_refusal
from api.web_kit.page_context import CurrentVisitor, Form, SignedForm, Visitor, build_live_region
from rollout.engine.decide.permissions import Permission, require_permission
from rollout.engine.words.approver_warnings import format_group_counts, format_needs
from rollout.features.incidents.incidents import list_incident_channels
from rollout.features.policies import policies
from rollout.features.policies.policies import (
    RESTART_TITLE,
    PolicyChanges,
    load_policies,
    load_policy_by_number,
)
from rollout.kernel.channels import list_channel_warnings
from rollout.kernel.errors import (
    NotAllowedError,
    PolicyRefusedError,
    RefusalError,
    UnknownRolloutError,
)
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files.reader import InvalidPolicyError, PolicyFault, parse_policy
from rollout.live.work.user_runs import StepCallback, UserRun, UserRuns

OUTCOME_TEXTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "create": "Applying creates the rollout. Every cell starts in shadow: humans decide.",
        "unchanged": "Applying changes nothing: this policy is already in force or proposed.",
        "apply": "It loosens nothing, so applying it takes effect at once.",
        "propose": "It loosens, so applying it raises a proposal. Until users approve it, the "
        "policy in force stays.",
    }
)
MAX_LINES: Final = 6_000  # of both texts together; longer ones take seconds to compare
CONTEXT_LINES: Final = 3  # unchanged lines shown around a change
SIGNS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {"+": ("added", "+"), "-": ("removed", "−"), " ": ("same", " ")}
)


@dataclass(frozen=True, slots=True)
class PolicyDiffLine:
    """A line of the diff; kind `added`, `removed`, `same` or `gap` (omitted lines)."""

    kind: str
    sign: str
    text: str


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """A kind of change and its items."""

    what: str
    of: tuple[str, ...]


def escape_text(text: str) -> Markup:
    r"""Return escaped text whose percent signs the page leaves unchanged.

    Pages join numbers and percent signs by no-break spaces; typed text must stay as it is.
    """
    return Markup(str(escape(text)).replace(" %", "&#32;%"))  # noqa: S704 - escaped just here


def escape_for_textarea(text: str) -> Markup:
    """Return escaped text for a `textarea` or `pre`, which drop a first newline."""
    return Markup("\n") + escape_text(text)


def compare_policy_texts(before: str, after: str) -> tuple[PolicyDiffLine, ...] | None:
    """Return a line diff of two texts; None if they are too long."""
    old, new = before.splitlines(), after.splitlines()
    if len(old) + len(new) > MAX_LINES:
        return None
    return tuple(_list_diff_lines(unified_diff(old, new, n=CONTEXT_LINES, lineterm="")))


def _list_diff_lines(lines: Iterator[str]) -> Iterator[PolicyDiffLine]:
    has_started = False
    for line in lines:
        if line.startswith("@@"):
            if has_started:
                yield PolicyDiffLine("gap", "…", "")
            has_started = True
        elif has_started:
            kind, sign = SIGNS[line[:1]]
            yield PolicyDiffLine(kind, sign, line[1:])


def list_policy_changes(effect: PolicyChanges) -> tuple[PolicyChange, ...]:
    """Return what a policy would change, by kind; empty if nothing."""
    changes = (
        PolicyChange("It loosens", effect.looser_texts),
        PolicyChange("It needs approvals of", format_group_counts(effect.required_approvals)),
        PolicyChange("These cells are narrowed", effect.narrowed),
        PolicyChange(RESTART_TITLE, effect.restarted),
        PolicyChange("Grants and evidence are lost in", effect.cleared),
        PolicyChange("These proposals become void", effect.voided),
        PolicyChange("Its familiar cases would have sent to humans", effect.unfamiliar),
    )
    return tuple(change for change in changes if change.of)


router = APIRouter()
PolicyNumber = Annotated[int | None, Query(ge=1, le=2**31 - 1)]
EMPTY_POLICY_TEXT: Final = "paste a policy, as one YAML or JSON document"
OTHER_ROLLOUT_TEXT: Final = (
    "the text is of {}, not of {}; change its first line, or go to that rollout's page"
)
POLICY_CHANGED_TEXT: Final = (
    "policy {} came into force since this was planned, so it was not applied; your text is kept: "
    "plan it again and read what it changes now"
)
PATIENCE: Final = 3.0
"""Seconds for which a request waits for its plan; a longer one goes on without it."""
RELOAD_SECONDS: Final = 2
ROLLOUT_EXISTS_TEXT: Final = "there is a rollout {} already; change its policy on its own page"


@dataclass(frozen=True, slots=True)
class PolicyPlanView:
    """A plan on the page: planned text and policy in force ("" for none)."""

    text: str
    against: str
    planned: policies.PolicyPlan
    outcome: str
    changes: tuple[PolicyChange, ...]
    differences: tuple[PolicyDiffLine, ...] | None
    needs: str


@dataclass(frozen=True, slots=True)
class PlanOutcome:
    """A planned text with its plan, or why it was refused."""

    text: str
    plan_view: PolicyPlanView | None = None
    error: RefusalError | None = None


PlanRun = UserRun[str, PlanOutcome]
NO_OUTCOME: Final = PlanOutcome("")


@router.get("/rollouts/{rollout}/settings")
def show_policy(
    request: Request, visitor: CurrentVisitor, rollout: str, policy: PolicyNumber = None
) -> Response:
    """Show the policy in force or an earlier one, and the visitor's plan of another, once."""
    run = _find_run(request, visitor, rollout)
    if run is None or run.is_running:
        return _render_policy(request, visitor, rollout, number=policy, run=run)
    return _render_policy(request, visitor, rollout, outcome=_take_outcome(request, run))


@router.post("/rollouts/{rollout}/settings")
def submit_policy(
    request: Request, visitor: CurrentVisitor, rollout: str, form: SignedForm
) -> Response:
    """Plan a new text, or apply a planned one."""
    require_permission(visitor.caller, Permission.READ, rollout)
    text = form.get_raw_text("text")
    try:
        if form.has_field("apply"):
            return _apply_policy(visitor, rollout, text, form)
        run = _start_plan(request, visitor, rollout, text)
    except RefusalError as error:
        outcome = PlanOutcome(text, error=error)
        return _render_policy(request, visitor, rollout, outcome=outcome)
    if not run.wait(PATIENCE):
        return redirect_to(f"/rollouts/{encode_segment(rollout)}/settings?{RUN_STARTED}=1")
    outcome = _take_outcome(request, run)
    return _render_policy(request, visitor, rollout, outcome=outcome)


@router.get("/new")
def show_new_rollout(request: Request, visitor: CurrentVisitor) -> Response:
    """Show the form for the first policy of a new rollout, and the visitor's plan, once."""
    run = _find_run(request, visitor, "")
    if run is None or run.is_running:
        return _render_new_rollout(request, visitor, run=run)
    return _render_new_rollout(request, visitor, outcome=_take_outcome(request, run))


@router.post("/new")
def submit_new_rollout(request: Request, visitor: CurrentVisitor, form: SignedForm) -> Response:
    """Plan a new rollout, or create it."""
    text = form.get_raw_text("text")
    try:
        rollout_name = parse_typed_policy(text).rollout
        _check_new_rollout(visitor, rollout_name)
        if form.has_field("apply"):
            return _apply_policy(visitor, rollout_name, text, form)
        run = _start_plan(request, visitor, "", text)
    except RefusalError as error:
        return _render_new_rollout(request, visitor, outcome=PlanOutcome(text, error=error))
    if not run.wait(PATIENCE):
        return redirect_to(f"/new?{RUN_STARTED}=1")
    return _render_new_rollout(request, visitor, outcome=_take_outcome(request, run))


def _apply_policy(visitor: Visitor, rollout: str, text: str, form: Form) -> Response:
    service, current_hash = visitor.service, _get_policy_hash(visitor, rollout)
    if form.get_text("against") != current_hash:
        current_number = (
            "" if not current_hash else load_policies(service, visitor.caller, rollout)[0].number
        )
        raise PolicyRefusedError(POLICY_CHANGED_TEXT.format(current_number))
    result = policies.put_policy(
        service.database,
        visitor.caller,
        rollout,
        text,
        at=visitor.at,
        salts=(service.entropy(policies.SALT_BYTES), service.entropy(policies.SALT_BYTES)),
        channels=service.channels.shared_names,
    )
    if result.proposal:
        return redirect_to(
            f"/rollouts/{encode_segment(rollout)}/proposals/{encode_segment(result.proposal)}"
        )
    return redirect_to(f"/rollouts/{encode_segment(rollout)}/settings")


def _start_plan(request: Request, visitor: Visitor, rollout: str, text: str) -> PlanRun:
    """Start planning a text in a thread; "" is a new rollout."""

    def plan(run: PlanRun) -> PlanOutcome:
        try:
            return PlanOutcome(text, _plan_policy(visitor, rollout, text, run.record_step))
        except RefusalError as error:
            return PlanOutcome(text, error=error)

    subject = _name_plan(rollout)
    return _get_runs(request).start(visitor.caller, subject, plan, at=visitor.at)


def _find_run(request: Request, visitor: Visitor, rollout: str) -> PlanRun | None:
    """Return the visitor's run of a plan for a rollout; "" is a new one."""
    run = _get_runs(request).find(visitor.caller, at=visitor.at)
    return run if run is not None and run.subject == _name_plan(rollout) else None


def _take_outcome(request: Request, run: PlanRun) -> PlanOutcome:
    """Return the outcome of an ended run and forget it, or raise what it failed with."""
    _get_runs(request).forget(run)
    if run.result is None:
        raise run.failure or RuntimeError("a run ended without a result")
    return run.result


def _name_plan(rollout: str) -> str:
    return f"The plan for {rollout or 'a new rollout'}"


def _get_runs(request: Request) -> UserRuns[str, PlanOutcome]:
    runs: UserRuns[str, PlanOutcome] = request.app.state.plan_runs
    return runs


def _plan_policy(
    visitor: Visitor, rollout: str, text: str, on_step: StepCallback
) -> PolicyPlanView:
    """Return the plan of a text; of a new rollout, "", its name is in the text."""
    service, caller = visitor.service, visitor.caller
    policy = parse_typed_policy(text)
    rollout = rollout or policy.rollout
    if policy.rollout != rollout:
        raise PolicyRefusedError(OTHER_ROLLOUT_TEXT.format(policy.rollout, rollout))
    current_hash = _get_policy_hash(visitor, rollout)
    preview = policies.preview_policy(
        service,
        caller,
        text,
        at=visitor.at,
        channels=service.channels.shared_names,
        on_step=on_step,
    )
    current_text = policies.load_policy_at(service, caller, rollout).text if current_hash else ""
    return PolicyPlanView(
        text=text,
        against=current_hash,
        planned=preview,
        outcome=OUTCOME_TEXTS[preview.changes.outcome],
        changes=list_policy_changes(preview.changes),
        differences=compare_policy_texts(current_text, text) if current_hash else (),
        needs=format_needs(preview.changes.required_approvals),
    )


def parse_typed_policy(text: str) -> Policy:
    """Parse a policy text.

    Raises:
        InvalidPolicyError: it is invalid; one line per fault.
        PolicyRefusedError: it is empty or too long.
    """
    if not text.strip():
        raise PolicyRefusedError(EMPTY_POLICY_TEXT)
    if (size := len(text.encode())) > MAX_POLICY_BYTES:
        raise PolicyRefusedError(
            f"the policy has {size:,} bytes; at most {MAX_POLICY_BYTES:,} are allowed"
        )
    return parse_policy(text)


def _get_policy_hash(visitor: Visitor, rollout: str) -> str:
    """Return the hash of the policy in force, "" without a rollout."""
    try:
        return visitor.service.state_cache.reload_rollout(rollout).state.scope.policy_hash
    except UnknownRolloutError:
        return ""


def _check_new_rollout(visitor: Visitor, rollout_name: str) -> None:
    require_permission(visitor.caller, Permission.ADMINISTER, "")
    if _get_policy_hash(visitor, rollout_name):
        raise PolicyRefusedError(ROLLOUT_EXISTS_TEXT.format(rollout_name))


def _render_policy(
    request: Request,
    visitor: Visitor,
    rollout: str,
    *,
    number: int | None = None,
    outcome: PlanOutcome = NO_OUTCOME,
    run: PlanRun | None = None,
) -> Response:
    plan_view, error = outcome.plan_view, outcome.error
    live_region = build_live_region(request, visitor, rollout)
    service, caller = visitor.service, visitor.caller
    policy_records = load_policies(service, caller, rollout)
    policy_record, policy_text = load_policy_by_number(
        service, caller, rollout, number or policy_records[0].number
    )
    state = service.state_cache.reload_rollout(rollout).state
    open_proposals = [
        proposal for proposal in state.scope.proposals.values() if proposal.rules.changes_policy
    ]
    channel_names = list_incident_channels(state.policy)
    response = render_page(
        request,
        visitor,
        "policy",
        422 if error else 200,
        live=live_region if plan_view is None else None,
        run=run,
        rollout=rollout,
        zone=state.policy.timezone,
        records=policy_records,
        shown_record=policy_record,
        text=escape_for_textarea(policy_text),
        open_proposals=[(proposal, format_needs(proposal.needs)) for proposal in open_proposals],
        channels=[
            (channel_name, service.channels.mask_url(channel_name))
            for channel_name in channel_names
        ],
        unheard=list_channel_warnings(state.policy, service.channels.shared_names),
        plan=plan_view,
        applied=_get_applied_text(plan_view),
        reads_all_sites=all(
            visitor.has_permission(Permission.READ, rollout, site)
            for site in state.policy.sites_by_id
        ),
        may_apply=visitor.has_permission(Permission.ADMINISTER, rollout),
        **build_error_context(error, outcome.text, policy_text),
    )
    return _reload_while_running(response, run)


def _render_new_rollout(
    request: Request,
    visitor: Visitor,
    *,
    outcome: PlanOutcome = NO_OUTCOME,
    run: PlanRun | None = None,
) -> Response:
    plan_view, error = outcome.plan_view, outcome.error
    if not visitor.has_permission(Permission.ADMINISTER):
        error_text = (
            f"{visitor.name} may not make a rollout; it takes an admin of all rollouts: ask one"
        )
        raise NotAllowedError(error_text)
    response = render_page(
        request,
        visitor,
        "new_rollout",
        422 if error else 200,
        run=run,
        example=escape_for_textarea(EXAMPLE_POLICY),
        plan=plan_view,
        applied=_get_applied_text(plan_view),
        may_apply=True,
        **build_error_context(error, outcome.text, ""),
    )
    return _reload_while_running(response, run)


def _reload_while_running(response: Response, run: PlanRun | None) -> Response:
    """Let the browser ask again while a plan is made; works without scripts."""
    if run is not None:
        response.headers["Refresh"] = str(RELOAD_SECONDS)
    return response


def _get_applied_text(plan_view: PolicyPlanView | None) -> str:
    """Return the planned text for the form that applies it."""
    return "" if plan_view is None else escape_for_textarea(plan_view.text)


def build_error_context(
    error: RefusalError | None, text: str, fallback_text: str
) -> dict[str, object]:
    """Return faults, each with the typed line, and the typed text."""
    policy_faults: list[tuple[PolicyFault, str]] = []
    errors: dict[str, str] = {}
    if isinstance(error, InvalidPolicyError):
        lines = ("", *text.split("\n"))
        policy_faults = [(fault, lines[fault.line]) for fault in error.faults]
        count_text = "one fault" if len(policy_faults) == 1 else f"{len(policy_faults)} faults"
        errors = {"text": f"The policy is invalid: {count_text}, listed with lines below"}
    elif error is not None:
        errors = {"text": say_refusal(error)}
    return {
        "errors": errors,
        "faults": policy_faults,
        "typed": {"text": escape_for_textarea(text or fallback_text)},
        "kept": escape_text,
    }
