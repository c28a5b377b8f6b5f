"""Snapshots of the scope as the service sends them, with their table."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from rollout_client.json_values import check_count, check_number, check_text
from rollout_client.leases import NO_TIME
from rollout_client.local_table import LocalTable, UnknownFormError, parse_instant, parse_table
from rollout_client.questions import LeasedAnswer, LocalQuestion
from rollout_client.rules import LEASE_ENDED, decide_by_table
from rollout_client.sampling import build_bucket_finder
from rollout_client.seen_heads import LedgerHead

__all__ = ["InvalidSnapshotError", "LocalScope", "UnknownFormError", "parse_head", "parse_snapshot"]

MALFORMED: Final = (AttributeError, LookupError, OverflowError, TypeError, ValueError)
"""What reading a malformed body may raise."""
MAX_LEASE: Final = timedelta(days=3650)


class InvalidSnapshotError(ValueError):
    """The response is no usable snapshot; the text gives the reason."""


class LocalScope(NamedTuple):
    """A scope at one revision, with all that answers need.

    Attributes:
        head: of the ledger at that revision.
        table: of the sites with leases.
        find_bucket: computes sampling buckets; None if the key may not.
        issued_at: the server's time of the response.
        scope_at: time of the ledger's last entry.
        leases: by site.
        permits: by site, sent with actions.
    """

    rollout: str
    head: LedgerHead
    table: LocalTable | None
    find_bucket: Callable[[str], int] | None
    issued_at: datetime
    scope_at: datetime | None
    leases: Mapping[str, timedelta]
    permits: Mapping[str, str]

    def __repr__(self) -> str:
        """Return which scope it is, without salt, permits and table."""
        return f"LocalScope({self.rollout!r}, revision {self.head.revision})"

    def decide(
        self, question: LocalQuestion, *, now: datetime, time_left: timedelta
    ) -> LeasedAnswer:
        """Return who decides, as the service would.

        A human for sites without a lease. `now` is by the server's clock.
        """
        lease = self.leases.get(question.site)
        if lease is None or self.table is None or self.find_bucket is None or time_left <= NO_TIME:
            return LeasedAnswer(LEASE_ENDED, NO_TIME)
        answer = decide_by_table(
            self.table, self.find_bucket, question, lease, now=now, scope_at=self.scope_at
        )
        return answer if answer.lease <= time_left else answer._replace(lease=time_left)


def parse_head(body: Mapping[str, Any]) -> LedgerHead:
    """Return the head of a parsed body of GET `scope`.

    Raises:
        InvalidSnapshotError: it has none.
    """
    try:
        return LedgerHead(
            check_count(body["revision"]),
            check_text(body["hash"]),
            check_count(body["era"]),
            check_text(body["head_code"]),
        )
    except MALFORMED as error:
        raise InvalidSnapshotError(f"no snapshot to decide by: {error!r}") from error


def parse_snapshot(body: Mapping[str, Any]) -> LocalScope:
    """Return the snapshot of a parsed body of GET `scope?form=table-1`.

    Raises:
        UnknownFormError: its table has a form that this program doesn't know.
        InvalidSnapshotError: a part is missing or malformed.
    """
    head = parse_head(body)
    try:
        return _parse_snapshot(body, head)
    except UnknownFormError:
        raise
    except MALFORMED as error:
        raise InvalidSnapshotError(f"no snapshot to decide by: {error!r}") from error


def _parse_snapshot(body: Mapping[str, Any], head: LedgerHead) -> LocalScope:
    sites = [site for site in body["sites"] if site["permit"]]
    leases = {check_text(site["site"]): _read_lease(site["lease"]) for site in sites}
    if len(leases) < len(sites):
        raise ValueError("a site has two leases")
    table = None if body["table"] is None else parse_table(body["table"])
    if leases.keys() - (() if table is None else table.sites.keys()):
        raise ValueError("the table lacks sites that have a lease")
    salt, scope_at = bytes.fromhex(body["salt"] or ""), body["scope_at"]
    return LocalScope(
        rollout=check_text(body["rollout"]),
        head=head,
        table=table,
        find_bucket=build_bucket_finder(salt, table.edges) if salt and table else None,
        issued_at=parse_instant(body["issued_at"]),
        scope_at=None if scope_at is None else parse_instant(scope_at),
        leases=leases,
        permits={site["site"]: check_text(site["permit"]) for site in sites},
    )


def _read_lease(seconds: Any) -> timedelta:
    lease = timedelta(seconds=check_number(seconds))
    if not NO_TIME <= lease <= MAX_LEASE:
        raise ValueError(f"a lease of {seconds} s is none")
    return lease
