"""One incident: what tripped, what it did, how it comes back, and that somebody has seen it."""

from typing import Final

from fastapi import APIRouter, Request, Response

from api.console.ledger import incident_text as words
from api.console.ledger.ledger_text import lines_told
from api.console.page.form import Signed
from api.console.page.page import page, to
from api.console.page.page_context import Visiting, Visitor
from api.console.page.revision import live
from api.console.page.stop_target import cell_value
from api.console.page.text import segment
from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.scope.permissions import Act
from rollout.reports.text.event_text import Zoned
from rollout.services.incidents.incident_impact import Aftermath, aftermath
from rollout.services.incidents.incidents import acknowledge, incident_of

router = APIRouter()
LONGEST: Final = 2_000  # letters of a note that are kept
TOO_LONG: Final = f"Shorten the note: at most {LONGEST:,} letters are kept"
BEFORE: Final = "{} had acknowledged it already, so your note was not kept: {}"


@router.get("/rollouts/{rollout}/incidents/{incident}")
def incident(request: Request, visitor: Visiting, rollout: str, incident: str) -> Response:
    """Show what tripped, what it did, and how it comes back."""
    return _shown(request, visitor, rollout, incident)


@router.post("/rollouts/{rollout}/incidents/{incident}")
def acknowledge_it(
    request: Request, visitor: Visiting, rollout: str, incident: str, form: Signed
) -> Response:
    """Say that somebody has seen it; it gives nothing back."""
    note = form.whole("note").strip()
    if len(note) > LONGEST:
        errors = {"note": TOO_LONG}
        return _shown(request, visitor, rollout, incident, errors=errors, typed={"note": note})
    database, caller = visitor.service.database, visitor.caller
    result = acknowledge(database, caller, rollout, incident, at=visitor.at, note=note)
    if not result.events and note:
        incident_details = incident_of(visitor.service, caller, rollout, incident)
        if (incident_details.acknowledged_by, incident_details.note) != (visitor.name, note):
            errors = {"": BEFORE.format(incident_details.acknowledged_by, note)}
            return _shown(request, visitor, rollout, incident, errors=errors)
    return to(f"/rollouts/{segment(rollout)}/incidents/{segment(incident)}")


def _shown(
    request: Request,
    visitor: Visitor,
    rollout: str,
    incident: str,
    *,
    errors: dict[str, str] | None = None,
    typed: dict[str, str] | None = None,
) -> Response:
    live_region = live(request, visitor, rollout)
    impact = aftermath(visitor.service, visitor.caller, rollout, incident, at=visitor.at)
    incident_details = impact.incident
    return page(
        request,
        visitor,
        "incident",
        422 if errors else 200,
        live=live_region,
        rollout=rollout,
        found=impact,
        told=incident_details,
        zone=impact.policy.zone_of(incident_details.site),
        tag=words.tag_of(incident_details.kind, incident_details.effect),
        heading=words.heading_of(impact),
        tripped=words.tripped(impact),
        did=words.did(impact),
        returns=words.returns(impact, visitor, rollout),
        counted=words.counted_rows(impact),
        told_lines=_lines(impact),
        reads_all=all(visitor.may(Act.READ, rollout, site) for site in impact.policy.site),
        own=frozenset(entry.row.revision for entry in impact.did),
        narrower=_narrower(impact),
        who_may=words.who_may(visitor, rollout, incident_details),
        errors=errors or {},
        typed=typed or {},
    )


def _narrower(found: Aftermath) -> str:
    """Return the incident's cell as the narrowing page names it, "" where nothing is left there."""
    cell = Cell(found.incident.site, found.incident.window)
    is_acting = any(
        affected_cell.cell == cell and affected_cell.now != SHADOW for affected_cell in found.cells
    )
    return cell_value(cell) if is_acting else ""


def _lines(found: Aftermath) -> tuple[object, ...]:
    """Return the rows about its cells in words, oldest first."""
    entries = (*found.earlier, *found.did, *found.since)
    describer = Zoned(found.policy, found.raised, found.approved, simulated=False, since=None)
    return lines_told(entries, describer)
