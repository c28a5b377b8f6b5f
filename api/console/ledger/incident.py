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
    done = acknowledge(database, caller, rollout, incident, at=visitor.at, note=note)
    if not done.events and note:
        seen = incident_of(visitor.service, caller, rollout, incident)
        if (seen.acknowledged_by, seen.note) != (visitor.name, note):
            errors = {"": BEFORE.format(seen.acknowledged_by, note)}
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
    live_parts = live(request, visitor, rollout)
    found = aftermath(visitor.service, visitor.caller, rollout, incident, at=visitor.at)
    told = found.incident
    return page(
        request,
        visitor,
        "incident",
        422 if errors else 200,
        live=live_parts,
        rollout=rollout,
        found=found,
        told=told,
        zone=found.policy.zone_of(told.site),
        tag=words.tag_of(told.kind, told.effect),
        heading=words.heading_of(found),
        tripped=words.tripped(found),
        did=words.did(found),
        returns=words.returns(found, visitor, rollout),
        counted=words.counted_rows(found),
        told_lines=_lines(found),
        reads_all=all(visitor.may(Act.READ, rollout, name) for name in found.policy.site),
        own=frozenset(kept.row.revision for kept in found.did),
        narrower=_narrower(found),
        who_may=words.who_may(visitor, rollout, told),
        errors=errors or {},
        typed=typed or {},
    )


def _narrower(found: Aftermath) -> str:
    """Return the incident's cell as the narrowing page names it, "" where nothing is left there."""
    own = Cell(found.incident.site, found.incident.window)
    acts = any(one.cell == own and one.now != SHADOW for one in found.cells)
    return cell_value(own) if acts else ""


def _lines(found: Aftermath) -> tuple[object, ...]:
    """Return the rows about its cells in words, oldest first."""
    rows = (*found.earlier, *found.did, *found.since)
    told = Zoned(found.policy, found.raised, found.approved, simulated=False, since=None)
    return lines_told(rows, told)
