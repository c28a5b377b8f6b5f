"""The search: cases, proposals, sites, users and hashes, each found only where its page opens."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from api.console.page.page import render_page
from api.console.page.page_context import CurrentVisitor, Visitor
from api.console.page.text import encode_segment
from api.console.reviews.case_text import build_case_path
from rollout.core.errors import RefusalError
from rollout.core.scope.permissions import Permission
from rollout.services.access.users import load_accounts
from rollout.services.divergences.cases import find_case_site
from rollout.services.ledger.ledger_reader import find_entries_by_hash, find_proposals_by_hash
from rollout.services.proposals.proposal_details import load_proposal

router = APIRouter()
MAX_LENGTH: Final = 200  # maximum characters of a key
MIN_HASH_DIGITS: Final = 8
HASH_LENGTH: Final = 64
MAX_HITS: Final = 50


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A page that was found: what it is about, its name, its path and where it belongs."""

    kind: str
    name: str
    href: str
    place: str


@router.get("/search")
def search_console(
    request: Request, visitor: CurrentVisitor, q: Annotated[str, Query(max_length=2_000)] = ""
) -> Response:
    """Show the pages about what was typed that the visitor may open."""
    typed = q.strip()[:MAX_LENGTH]
    hits = list(_find_all(visitor, typed)) if typed and "\0" not in typed else []
    return render_page(
        request,
        visitor,
        "search",
        hits=hits[:MAX_HITS],
        hidden_count=max(0, len(hits) - MAX_HITS),
        typed={"q": typed},
    )


def _find_all(visitor: Visitor, typed: str) -> Iterator[SearchHit]:
    """Yield each page that is found, without those that the visitor may not open."""
    for cached_rollout in visitor.service.state_cache.load_all():
        rollout = cached_rollout.state.rollout.name
        if visitor.caller.can_see(rollout):
            for find in FINDERS:
                with suppress(RefusalError):  # not permitted, or unknown: it is not there for them
                    yield from find(visitor, rollout, typed)
    with suppress(RefusalError):
        for account in load_accounts(visitor.service.database, visitor.caller):
            if typed.casefold() == account.name.casefold():
                path = f"/settings/users/{encode_segment(account.name)}"
                yield SearchHit("User", account.name, path, "")


def _find_cells(visitor: Visitor, rollout: str, typed: str) -> Iterator[SearchHit]:
    policy = visitor.service.state_cache.load_rollout(rollout).state.policy
    for cell in policy.cells:
        is_readable = visitor.has_permission(Permission.READ, rollout, cell.site)
        if is_readable and typed.casefold() in cell.site.casefold():
            place = f"{encode_segment(cell.site)}/{encode_segment(cell.window)}"
            path = f"/rollouts/{encode_segment(rollout)}/cells/{place}"
            yield SearchHit("Cell", str(cell), path, rollout)


def _find_case(visitor: Visitor, rollout: str, typed: str) -> Iterator[SearchHit]:
    site = find_case_site(visitor.service.database, visitor.caller, rollout, typed)
    if site is not None:
        yield SearchHit("Case", typed, build_case_path(rollout, typed), f"{rollout}, {site}")


def _find_proposal(visitor: Visitor, rollout: str, typed: str) -> Iterator[SearchHit]:
    proposal = load_proposal(visitor.service, visitor.caller, rollout, typed.upper(), at=visitor.at)
    path = f"/rollouts/{encode_segment(rollout)}/proposals/{encode_segment(proposal.id)}"
    place = f"{rollout}, {proposal.site}" if proposal.site else rollout
    yield SearchHit("Proposal", proposal.id, path, place)


def _find_evidence(visitor: Visitor, rollout: str, typed: str) -> Iterator[SearchHit]:
    prefix = _parse_hash(typed)
    if prefix:
        for proposal in find_proposals_by_hash(visitor.service, visitor.caller, rollout, prefix):
            with suppress(RefusalError):  # at a site that they may not read
                yield from _find_proposal(visitor, rollout, proposal)


def _find_entries(visitor: Visitor, rollout: str, typed: str) -> Iterator[SearchHit]:
    prefix = _parse_hash(typed)
    if prefix:
        for revision in find_entries_by_hash(visitor.service, visitor.caller, rollout, prefix):
            path = f"/rollouts/{encode_segment(rollout)}/ledger"
            query = f"?kind=all&before={revision + 1}#r{revision}"
            yield SearchHit("Ledger entry", str(revision), path + query, rollout)


def _parse_hash(typed: str) -> str:
    """Return the digits of a hash or of its beginning, or "" if it is none.

    >>> _parse_hash("AB12 cd34"), _parse_hash("ab12"), _parse_hash("creek-0001")
    ('ab12cd34', '', '')
    """
    digits = "".join(typed.split()).lower()
    is_hash = MIN_HASH_DIGITS <= len(digits) <= HASH_LENGTH and set(digits) <= set(
        "0123456789abcdef"
    )
    return digits if is_hash else ""


Finder = Callable[[Visitor, str, str], Iterator[SearchHit]]
FINDERS: Final[tuple[Finder, ...]] = (
    _find_case,
    _find_proposal,
    _find_cells,
    _find_evidence,
    _find_entries,
)
