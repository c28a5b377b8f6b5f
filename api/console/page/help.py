"""The words that the other pages use, and what each state of a cell means: text of a template."""

from typing import Final

from fastapi import APIRouter, Request, Response

from api.console.page.page import page
from api.console.page.page_context import Visiting
from api.console.page.stages import EMPTY, HATCHED, HELD, PEOPLE_DECIDE, SOLID, Mark

router = APIRouter()
LEGEND: Final = (
    Mark("shadow", "Sh", EMPTY, PEOPLE_DECIDE),
    Mark("supervised", "Su", HATCHED, "people confirm"),
    Mark("autonomous", "Au", SOLID, "model decides"),
    Mark("suspended or stopped", "Sh", HELD, PEOPLE_DECIDE),
)


@router.get("/words")
def words(request: Request, visitor: Visiting) -> Response:
    """Say what the words and the drawings mean."""
    return page(request, visitor, "words", legend=LEGEND)
