"""The page that explains terms, states and drawings."""

from fastapi import APIRouter, Request, Response

from api.web_kit.cell_view import build_common_legend
from api.web_kit.page import render_page
from api.web_kit.page_context import CurrentVisitor
from rollout.engine.words.state_text import CELL_STATES

router = APIRouter()


@router.get("/glossary")
def show_words(request: Request, visitor: CurrentVisitor) -> Response:
    """Show the explanations."""
    legend = build_common_legend(has_shares=True)
    return render_page(
        request, visitor, "glossary", legend=legend, cell_states=CELL_STATES.values()
    )
