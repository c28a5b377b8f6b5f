"""Chains as people read them: the newest row first, looked through by kind, person, site and span.

A rollout's ledger is read whole or not at all; the house chain by admins alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rollout.core.ledger.ledger import BrokenChainError, Row, event_of
from rollout.core.policy.policy import Policy
from rollout.core.scope.events import Approved, ProposalRaised
from rollout.core.scope.permissions import Act, Caller, require
from rollout.services.engine.service import Service
from rollout.services.ledger.ledger_pages import LedgerVerification
from rollout.store.database.rollouts import HOUSE_CHAIN, Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Head, Ledger
from rollout.store.ledger.ledger_pages import ChainPages, KeptRow, Looked

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
    state = service.watch.confirmed(name).standing
    require(caller, Act.READ, name, tuple(state.policy.site))
    with service.database.reading() as transaction:
        pages, rollout = ChainPages(transaction, state.rollout), state.rollout
        entries, next_before = _page(pages, looked, site, before, limit)
        cited_proposals, approvers = cited(transaction, rollout, [entry.row for entry in entries])
        head = Ledger(transaction, rollout).head()
    return ChainPage(
        name, head, tuple(entries), next_before, cited_proposals, approvers, state.policy
    )


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
        entries, next_before = _page(pages, looked, "", before, limit)
        head = Ledger(transaction, HOUSE_CHAIN).head()
    return ChainPage(HOUSE_NAME, head, tuple(entries), next_before)


def house_lines(service: Service, caller: Caller) -> Iterator[str]:
    """Return an iterator over the house chain as lines of NDJSON without their ends.

    Raises:
        NotAllowed: the caller is no admin of all rollouts; judged before it is returned.
    """
    require(caller, Act.ADMINISTER, "")
    with service.database.reading() as transaction:
        last_revision = Ledger(transaction, HOUSE_CHAIN).head().revision
    return _lines(service, last_revision)


def house_verification(service: Service, caller: Caller) -> LedgerVerification:
    """Recompute every link of the house chain.

    Raises:
        NotAllowed: the caller is no admin of all rollouts.
    """
    require(caller, Act.ADMINISTER, "")
    with service.database.reading() as transaction:
        try:
            head = Ledger(transaction, HOUSE_CHAIN).verify()
        except BrokenChainError as error:
            fault, intact_rows = str(error), error.line - 1
            return LedgerVerification(
                HOUSE_NAME, intact_rows, "", intact=False, fault=fault, head_matches=None
            )
    return LedgerVerification(
        HOUSE_NAME, head.revision, head.hash, intact=True, fault="", head_matches=None
    )


def _page(
    pages: ChainPages, looked: Looked, site: str, before: int | None, limit: int
) -> tuple[list[KeptRow], int | None]:
    """Return a page and where the next one goes on; of a site the rows are looked through here."""
    if not site:
        entries = pages.some(looked, before=before, limit=limit + 1)
        return entries[:limit], entries[limit - 1].row.revision if len(entries) > limit else None
    cited_ids, site_entries, next_before = pages.about(site), [], before
    for _ in range(MOST_LOOKED_AT):
        batch = pages.some(looked, before=next_before, limit=AT_ONCE)
        for entry in batch:
            next_before = entry.row.revision
            if _is_about(entry, site, cited_ids):
                site_entries.append(entry)
            if len(site_entries) == limit:
                return site_entries, next_before
        if len(batch) < AT_ONCE:
            return site_entries, None
    return site_entries, next_before


def _is_about(kept: KeptRow, site: str, cited: frozenset[str]) -> bool:
    body = kept.row.fields
    located_bodies = [
        body,
        *body.get("cells", ()),
        *body.get("restarted", ()),
        *body.get("cleared", ()),
    ]
    if any(located_body.get("site") == site for located_body in located_bodies):
        return True
    return bool(cited & {body.get("proposal", ""), body.get("incident", "")})


def cited(
    transaction: Transaction, rollout: Rollout, rows: Sequence[Row]
) -> tuple[dict[str, ProposalRaised], dict[str, list[str]]]:
    """Return the proposals that rows cite, by id, and who said yes to each, in order."""
    cited_proposals = _raised(ChainPages(transaction, rollout), rows)
    return cited_proposals, _approved(transaction, rollout, cited_proposals, rows)


def _raised(pages: ChainPages, rows: Sequence[Row]) -> dict[str, ProposalRaised]:
    ids = {str(row.fields.get("proposal") or "") for row in rows} - {""}
    events = (event_of(entry.row) for entry in pages.at(pages.raised_in(ids)))
    return {event.proposal: event for event in events if isinstance(event, ProposalRaised)}


def _approved(
    transaction: Transaction,
    rollout: Rollout,
    raised: dict[str, ProposalRaised],
    rows: Sequence[Row],
) -> dict[str, list[str]]:
    """Return who said yes to the proposals that the rows cite, up to the newest of the rows."""
    approvers: dict[str, list[str]] = {}
    if not raised:
        return approvers
    first_revision = min(ChainPages(transaction, rollout).raised_in(raised.keys()))
    last_revision = max(row.revision for row in rows)
    for row in Ledger(transaction, rollout).rows(
        after=first_revision, until=last_revision, kinds=("Approved",)
    ):
        event = event_of(row)
        if isinstance(event, Approved) and event.proposal in raised:
            approvers.setdefault(event.proposal, []).append(event.by)
    return approvers


def _lines(service: Service, last: int) -> Iterator[str]:
    for start in range(0, last, LINES_AT_ONCE):
        with service.database.reading() as transaction:
            until = min(start + LINES_AT_ONCE, last)
            lines = list(Ledger(transaction, HOUSE_CHAIN).lines(after=start, until=until))
        yield from lines
