"""A rollout's ledger as it is read: row by row as it is stored, and verified link by link."""

from collections.abc import Iterator
from dataclasses import dataclass

from rollout.core.ledger.ledger import BrokenChainError
from rollout.core.scope.permissions import Act, Caller, require
from rollout.services.engine.rollout_state import Standing
from rollout.services.engine.service import Service
from rollout.store.ledger.ledger import Ledger

AT_ONCE = 500  # rows in one transaction: a slow reader holds none open


@dataclass(frozen=True, slots=True)
class LedgerVerification:
    """What recomputing every link of a chain found.

    Attributes:
        rollout: whose chain.
        rows: how many rows are whole, from the first one on.
        head: the hash of the last of them, "" without any.
        intact: whether the chain is.
        fault: where it breaks and how, "" where it is whole.
        head_matches: whether it holds the row that was asked about; None where none was.
    """

    rollout: str
    rows: int
    head: str
    intact: bool
    fault: str
    head_matches: bool | None


def ledger_lines(
    service: Service, caller: Caller, name: str, *, after: int = 0, limit: int | None = None
) -> Iterator[str]:
    """Return an iterator over the rows after a revision, as lines of NDJSON without their ends.

    What was appended since it was begun is left out. Rights are judged before it is returned.

    Raises:
        NotAllowed: the caller may not read every site: a chain can't be read in part.
    """
    stood = _readable(service, caller, name)
    last = stood.scope.revision
    return _lines(service, stood, after, last if limit is None else min(last, after + limit))


def _lines(service: Service, stood: Standing, after: int, until: int) -> Iterator[str]:
    for begin in range(after, until, AT_ONCE):
        with service.database.reading() as transaction:
            ledger = Ledger(transaction, stood.rollout)
            some = list(ledger.lines(after=begin, until=min(begin + AT_ONCE, until)))
        yield from some


def verification(
    service: Service,
    caller: Caller,
    name: str,
    *,
    revision: int | None = None,
    row_hash: str | None = None,
) -> LedgerVerification:
    """Recompute every link of the stored chain.

    A chain by itself shows no rows cut off at its end and no hashes all made anew: give a
    revision and the hash that was seen there, and it says whether the chain holds that row.

    Raises:
        NotAllowed: the caller may not read every site.
    """
    stood = _readable(service, caller, name)
    asked = None if revision is None or row_hash is None else (revision, row_hash)
    with service.database.reading() as transaction:
        ledger = Ledger(transaction, stood.rollout)
        try:
            head = ledger.verify()
        except BrokenChainError as broken:
            return LedgerVerification(
                name, broken.line - 1, "", intact=False, fault=str(broken), head_matches=None
            )
        holds = None if asked is None else _holds(ledger, *asked)
    return LedgerVerification(
        name, head.revision, head.hash, intact=True, fault="", head_matches=holds
    )


def _holds(ledger: Ledger, revision: int, row_hash: str) -> bool:
    rows = ledger.rows(after=revision - 1, until=revision)
    return any(row.hash == row_hash for row in rows)


def _readable(service: Service, caller: Caller, name: str) -> Standing:
    require(caller, Act.READ, name)
    stood = service.watch.confirmed(name).standing
    require(caller, Act.READ, name, tuple(stood.policy.site))
    return stood
