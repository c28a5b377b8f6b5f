"""Chains as people read them: the newest row first, looked through by kind, person, site and span.

A rollout's ledger is read whole or not at all; the house chain by admins alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rollout.core.events import Approved, ProposalRaised
from rollout.core.ledger import BrokenChainError, Row, event_of
from rollout.core.policy import Policy
from rollout.core.rights import Act, Caller, require
from rollout.services.ledgers import LedgerVerification
from rollout.services.service import Service
from rollout.store.chain_pages import ChainPages, KeptRow, Looked
from rollout.store.ledger import Head, Ledger
from rollout.store.rollouts import HOUSE_CHAIN, Rollout
from rollout.store.session import Transaction

__all__ = [
    "ChainPage",
    "KeptRow",
    "Looked",
    "cited",
    "house_lines",
    "house_page",
    "house_verification",
    "ledger_page",
]

AT_ONCE = 500  # rows that are looked at for a page of one site
MOST_LOOKED_AT = 20  # such looks for one page: a page may be short, its cursor goes on
HOUSE_NAME = "house"
LINES_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class ChainPage:
    """Some rows of a chain, the newest first.

    Attributes:
        name: of the rollout, or `house`.
        head: where the chain ends now.
        items: the rows.
        before: the revision that the next page comes before, None at the end.
        raised: the proposals that the rows cite, by id.
        approved: who said yes to each of them, in order.
        policy: the policy in force, None of the house.
    """

    name: str
    head: Head
    items: tuple[KeptRow, ...]
    before: int | None
    raised: dict[str, ProposalRaised] = field(default_factory=dict)
    approved: dict[str, list[str]] = field(default_factory=dict)
    policy: Policy | None = None


def ledger_page(
    service: Service,
    caller: Caller,
    name: str,
    looked: Looked,
    *,
    site: str = "",
    before: int | None = None,
    limit: int = 50,
) -> ChainPage:
    """Return some rows of a rollout's ledger, with what their words need.

    Args:
        service: the replica that is asked.
        caller: who asks.
        name: of the rollout.
        looked: what the rows must be.
        site: only rows about this site, or about a proposal or incident of it; "" for all.
        before: where the page before ended.
        limit: how many at most.

    Raises:
        UnknownRollout: there is none that the caller may see.
        NotAllowed: the caller may not read every site: a chain can't be read in part.
    """
    require(caller, Act.READ, name)
    stood = service.watch.confirmed(name).standing
    require(caller, Act.READ, name, tuple(stood.policy.site))
    with service.database.reading() as transaction:
        pages, rollout = ChainPages(transaction, stood.rollout), stood.rollout
        rows, further = _page(pages, looked, site, before, limit)
        raised, approved = cited(transaction, rollout, [kept.row for kept in rows])
        head = Ledger(transaction, rollout).head()
    return ChainPage(name, head, tuple(rows), further, raised, approved, stood.policy)


def house_page(
    service: Service,
    caller: Caller,
    looked: Looked,
    *,
    before: int | None = None,
    limit: int = 50,
) -> ChainPage:
    """Return some rows of the chain of people, rights and keys.

    Raises:
        NotAllowed: the caller is no admin of all rollouts.
    """
    require(caller, Act.ADMINISTER, "")
    with service.database.reading() as transaction:
        pages = ChainPages(transaction, HOUSE_CHAIN)
        rows, further = _page(pages, looked, "", before, limit)
        head = Ledger(transaction, HOUSE_CHAIN).head()
    return ChainPage(HOUSE_NAME, head, tuple(rows), further)


def house_lines(service: Service, caller: Caller) -> Iterator[str]:
    """Return an iterator over the house chain as lines of NDJSON without their ends.

    Raises:
        NotAllowed: the caller is no admin of all rollouts; judged before it is returned.
    """
    require(caller, Act.ADMINISTER, "")
    with service.database.reading() as transaction:
        last = Ledger(transaction, HOUSE_CHAIN).head().revision
    return _lines(service, last)


def house_verification(service: Service, caller: Caller) -> LedgerVerification:
    """Recompute every link of the house chain.

    Raises:
        NotAllowed: the caller is no admin of all rollouts.
    """
    require(caller, Act.ADMINISTER, "")
    with service.database.reading() as transaction:
        try:
            head = Ledger(transaction, HOUSE_CHAIN).verify()
        except BrokenChainError as broken:
            told, rows = str(broken), broken.line - 1
            return LedgerVerification(
                HOUSE_NAME, rows, "", intact=False, fault=told, head_matches=None
            )
    return LedgerVerification(
        HOUSE_NAME, head.revision, head.hash, intact=True, fault="", head_matches=None
    )


def _page(
    pages: ChainPages, looked: Looked, site: str, before: int | None, limit: int
) -> tuple[list[KeptRow], int | None]:
    """Return a page and where the next one goes on; of a site the rows are looked through here."""
    if not site:
        rows = pages.some(looked, before=before, limit=limit + 1)
        return rows[:limit], rows[limit - 1].row.revision if len(rows) > limit else None
    cited, found, place = pages.about(site), [], before
    for _ in range(MOST_LOOKED_AT):
        some = pages.some(looked, before=place, limit=AT_ONCE)
        for kept in some:
            place = kept.row.revision
            if _is_about(kept, site, cited):
                found.append(kept)
            if len(found) == limit:
                return found, place
        if len(some) < AT_ONCE:
            return found, None
    return found, place


def _is_about(kept: KeptRow, site: str, cited: frozenset[str]) -> bool:
    body = kept.row.fields
    cells = [body, *body.get("cells", ()), *body.get("restarted", ()), *body.get("cleared", ())]
    if any(cell.get("site") == site for cell in cells):
        return True
    return bool(cited & {body.get("proposal", ""), body.get("incident", "")})


def cited(
    transaction: Transaction, rollout: Rollout, rows: Sequence[Row]
) -> tuple[dict[str, ProposalRaised], dict[str, list[str]]]:
    """Return the proposals that rows cite, by id, and who said yes to each, in order."""
    raised = _raised(ChainPages(transaction, rollout), rows)
    return raised, _approved(transaction, rollout, raised, rows)


def _raised(pages: ChainPages, rows: Sequence[Row]) -> dict[str, ProposalRaised]:
    ids = {str(row.fields.get("proposal") or "") for row in rows} - {""}
    events = (event_of(kept.row) for kept in pages.at(pages.raised_in(ids)))
    return {e.proposal: e for e in events if isinstance(e, ProposalRaised)}


def _approved(
    transaction: Transaction,
    rollout: Rollout,
    raised: dict[str, ProposalRaised],
    rows: Sequence[Row],
) -> dict[str, list[str]]:
    """Return who said yes to the proposals that the rows cite, up to the newest of the rows."""
    yes: dict[str, list[str]] = {}
    if not raised:
        return yes
    first = min(ChainPages(transaction, rollout).raised_in(raised.keys()))
    until = max(row.revision for row in rows)
    for row in Ledger(transaction, rollout).rows(after=first, until=until, kinds=("Approved",)):
        event = event_of(row)
        if isinstance(event, Approved) and event.proposal in raised:
            yes.setdefault(event.proposal, []).append(event.by)
    return yes


def _lines(service: Service, last: int) -> Iterator[str]:
    for begin in range(0, last, LINES_AT_ONCE):
        with service.database.reading() as transaction:
            until = min(begin + LINES_AT_ONCE, last)
            some = list(Ledger(transaction, HOUSE_CHAIN).lines(after=begin, until=until))
        yield from some
