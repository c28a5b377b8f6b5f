"""The ledgers: what ever changed what is allowed, whether the chain is whole, and its lines."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.console.ledger.ledger_filter import Sought, sought
from api.console.ledger.ledger_text import GROUPS, HOUSE_GROUPS, lines_of
from api.console.page.form import Form, Signed
from api.console.page.page import page, to
from api.console.page.page_context import Visiting, Visitor
from api.console.page.revision import live
from api.console.page.text import segment
from rollout.core.scope.permissions import Act
from rollout.services.cells.overview import rollouts_of
from rollout.services.ledger.ledger_pages import LedgerVerification, ledger_lines, verification
from rollout.services.ledger.ledger_reader import (
    ChainPage,
    house_lines,
    house_page,
    house_verification,
    ledger_page,
)

router = APIRouter()
NDJSON: Final = "application/x-ndjson"
ROWS: Final = 50
MOST_REVISION: Final = 2**31 - 1
Before = Annotated[int | None, Query(ge=1, le=MOST_REVISION)]
ASK_BOTH: Final = "Give the revision and the hash that you saw there, both or neither"


@dataclass(frozen=True, slots=True)
class Choice:
    """A ledger that can be opened, or why it can't."""

    name: str
    rows: int
    href: str
    withheld: str


@router.get("/ledger")
def choose(request: Request, visitor: Visiting) -> Response:
    """Show which ledgers there are; who may read just one is shown that."""
    choices = _choices(visitor)
    if len(choices) == 1 and not choices[0].withheld:
        return to(choices[0].href)
    return page(request, visitor, "ledgers", choices=choices)


@router.get("/rollouts/{rollout}/ledger")
def ledger(request: Request, visitor: Visiting, rollout: str, before: Before = None) -> Response:
    """Show a rollout's ledger, the newest row first."""
    return _ledger(request, visitor, rollout, before)


@router.post("/rollouts/{rollout}/ledger")
def verify(request: Request, visitor: Visiting, rollout: str, form: Signed) -> Response:
    """Recompute every link, and show the ledger with what was found."""
    known_row, errors = _seen_earlier(form)
    if errors:
        return _ledger(request, visitor, rollout, None, typed=form, errors=errors)
    verification_result = verification(
        visitor.service, visitor.caller, rollout, revision=known_row[0], row_hash=known_row[1]
    )
    return _ledger(request, visitor, rollout, None, found=verification_result, typed=form)


@router.get("/rollouts/{rollout}/ledger/lines")
def export(visitor: Visiting, rollout: str) -> Response:
    """Give the rows as they are kept, a line each: what `rollout ledger verify` checks."""
    return _file(ledger_lines(visitor.service, visitor.caller, rollout), f"{rollout}-ledger")


@router.get("/ledger/house")
def house(request: Request, visitor: Visiting, before: Before = None) -> Response:
    """Show the chain of people, rights and keys."""
    return _house(request, visitor, before)


@router.post("/ledger/house")
def verify_house(request: Request, visitor: Visiting, _form: Signed) -> Response:
    """Recompute every link of it, and show it with what was found."""
    verification_result = house_verification(visitor.service, visitor.caller)
    return _house(request, visitor, None, verification_result)


@router.get("/ledger/house/lines")
def export_house(visitor: Visiting) -> Response:
    """Give its rows as they are kept, a line each."""
    return _file(house_lines(visitor.service, visitor.caller), "house")


def _choices(visitor: Visitor) -> tuple[Choice, ...]:
    database = visitor.service.database
    choices = [
        _choice(visitor, rollout_item.name, rollout_item.revision)
        for rollout_item in rollouts_of(database, visitor.caller)
    ]
    if visitor.may(Act.ADMINISTER):
        choices.append(Choice("People, rights and keys", 0, "/ledger/house", ""))
    return tuple(choices)


def _choice(visitor: Visitor, name: str, rows: int) -> Choice:
    sites = visitor.service.watch.rollout(name).standing.policy.site
    hidden_sites = [site for site in sites if not visitor.may(Act.READ, name, site)]
    return Choice(name, rows, f"/rollouts/{segment(name)}/ledger", ", ".join(hidden_sites))


def _ledger(
    request: Request,
    visitor: Visitor,
    rollout: str,
    before: int | None,
    *,
    found: LedgerVerification | None = None,
    typed: Form | None = None,
    errors: dict[str, str] | None = None,
) -> Response:
    service, caller = visitor.service, visitor.caller
    live_region = live(request, visitor, rollout)
    timezone = _zone(visitor, rollout)
    search = sought(request, GROUPS, timezone)
    ledger_rows = ledger_page(
        service, caller, rollout, search.looked, site=search.site, before=before, limit=ROWS
    )
    assert ledger_rows.policy is not None  # noqa: S101 - a rollout's ledger has one
    return _shown(
        request,
        visitor,
        ledger_rows,
        search,
        found,
        {**search.errors, **(errors or {})},
        typed,
        live=live_region,
        rollout=rollout,
        zone=timezone,
        sites=tuple(ledger_rows.policy.site),
        groups=GROUPS,
    )


def _house(
    request: Request, visitor: Visitor, before: int | None, found: LedgerVerification | None = None
) -> Response:
    search = sought(request, HOUSE_GROUPS, visitor.zone)
    ledger_rows = house_page(
        visitor.service, visitor.caller, search.looked, before=before, limit=ROWS
    )
    errors = dict(search.errors)
    return _shown(
        request,
        visitor,
        ledger_rows,
        search,
        found,
        errors,
        None,
        zone=visitor.zone,
        sites=(),
        groups=HOUSE_GROUPS,
    )


def _shown(
    request: Request,
    visitor: Visitor,
    chain: ChainPage,
    search: Sought,
    found: LedgerVerification | None,
    errors: dict[str, str],
    form: Form | None,
    **shown: object,
) -> Response:
    typed = {**search.typed, **_typed(form)}
    next_path = "" if chain.before is None else request.url.path + search.query(before=chain.before)
    return page(
        request,
        visitor,
        "ledger",
        422 if errors else 200,
        chain=chain,
        lines=lines_of(chain),
        search=search,
        found=found,
        errors=errors,
        typed=typed,
        further=next_path,
        newest=request.url.path + search.query(),
        is_first="before" not in request.query_params,
        **shown,
    )


def _typed(form: Form | None) -> dict[str, str]:
    names = ("seen-revision", "seen-hash")
    return {name: "" if form is None else form.one(name) for name in names}


def _seen_earlier(form: Form) -> tuple[tuple[int | None, str | None], dict[str, str]]:
    """Return the row that the reader saw earlier, and what is wrong with how it was typed."""
    revision, row_hash = form.one("seen-revision"), form.one("seen-hash")
    if not revision and not row_hash:
        return (None, None), {}
    if not (revision and row_hash):
        return (None, None), {"seen-hash" if revision else "seen-revision": ASK_BOTH}
    is_valid = revision.isascii() and revision.isdigit() and len(revision) < len(str(MOST_REVISION))
    if not is_valid:
        return (None, None), {"seen-revision": "Write the revision as a whole number, as 214"}
    return (int(revision), "".join(row_hash.split()).lower()), {}


def _zone(visitor: Visitor, rollout: str) -> str:
    """Return the rollout's zone, the reader's where they may not know the rollout."""
    if not visitor.caller.sees(rollout):
        return visitor.zone
    return visitor.service.watch.rollout(rollout).standing.policy.timezone


def _file(lines: Iterable[str], name: str) -> Response:
    headers = {
        "Content-Disposition": f'attachment; filename="{name}.jsonl"',
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(_ended(lines), media_type=NDJSON, headers=headers)


def _ended(lines: Iterable[str]) -> Iterator[str]:
    return (f"{line}\n" for line in lines)
