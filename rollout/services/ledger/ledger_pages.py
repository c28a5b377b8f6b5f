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
    state = _readable(service, caller, name)
    last_revision = state.scope.revision
    return _lines(
        service, state, after, last_revision if limit is None else min(last_revision, after + limit)
    )


def _lines(service: Service, stood: Standing, after: int, until: int) -> Iterator[str]:
    for start in range(after, until, AT_ONCE):
        with service.database.reading() as transaction:
            ledger = Ledger(transaction, stood.rollout)
            lines = list(ledger.lines(after=start, until=min(start + AT_ONCE, until)))
        yield from lines


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
    state = _readable(service, caller, name)
    cited_row = None if revision is None or row_hash is None else (revision, row_hash)
    with service.database.reading() as transaction:
        ledger = Ledger(transaction, state.rollout)
        try:
            head = ledger.verify()
        except BrokenChainError as error:
            return LedgerVerification(
                name, error.line - 1, "", intact=False, fault=str(error), head_matches=None
            )
        head_matches = None if cited_row is None else _holds(ledger, *cited_row)
    return LedgerVerification(
        name, head.revision, head.hash, intact=True, fault="", head_matches=head_matches
    )


def _holds(ledger: Ledger, revision: int, row_hash: str) -> bool:
    rows = ledger.rows(after=revision - 1, until=revision)
    return any(row.hash == row_hash for row in rows)


def _readable(service: Service, caller: Caller, name: str) -> Standing:
    require(caller, Act.READ, name)
    state = service.watch.confirmed(name).standing
    require(caller, Act.READ, name, tuple(state.policy.site))
    return state
