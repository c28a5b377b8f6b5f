"""The page of counting rules: what newer ones would change, and the form that proposes them."""

from fastapi import APIRouter, Request, Response

from api.console.page.form import SignedForm
from api.console.page.page import redirect_to, render_page
from api.console.page.page_context import CurrentVisitor, Visitor
from api.console.page.text import encode_segment
from rollout.core.errors import RefusalError
from rollout.core.scope.permissions import Permission
from rollout.reports.text.formatting import capitalize_first
from rollout.services.policies.rules_plan import load_rules_plan, propose_rules

router = APIRouter()


@router.get("/rollouts/{rollout}/settings/rules")
def show_rules(request: Request, visitor: CurrentVisitor, rollout: str) -> Response:
    """Show what the newest counting rules would change."""
    return _render_rules(request, visitor, rollout)


@router.post("/rollouts/{rollout}/settings/rules")
def submit_rules(
    request: Request, visitor: CurrentVisitor, rollout: str, form: SignedForm
) -> Response:
    """Propose the newest counting rules on the plan that was shown."""
    try:
        result = propose_rules(
            visitor.service, visitor.caller, rollout, form.get_text("evidence"), at=visitor.at
        )
    except RefusalError as error:
        return _render_rules(request, visitor, rollout, error)
    return redirect_to(
        f"/rollouts/{encode_segment(rollout)}/proposals/{encode_segment(result.proposal)}"
    )


def _render_rules(
    request: Request, visitor: Visitor, rollout: str, error: RefusalError | None = None
) -> Response:
    plan = load_rules_plan(visitor.service, visitor.caller, rollout, at=visitor.at)
    return render_page(
        request,
        visitor,
        "rules",
        422 if error else 200,
        rollout=rollout,
        plan=plan,
        may_propose=visitor.has_permission(Permission.ADMINISTER, rollout),
        errors={} if error is None else {"": capitalize_first(str(error))},
    )
