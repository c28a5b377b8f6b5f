"""Stored ledgers: entries read by page and line, hashes verified, heads signed and compared.

A rollout's ledger is readable with permission for all its sites; the access ledger by admins.
"""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from rollout.data.access.tokens import AccessLedger, load_access_head
from rollout.data.database.rollouts import ACCESS_CHAIN, Rollout, Rollouts
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import (
    Ledger,
    LedgerEntry,
    LedgerFilter,
    LedgerPages,
    StoredLedgerHead,
)
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.events import ENGINE
from rollout.engine.ledger.access_events import CheckpointKeyUsed
from rollout.engine.ledger.ledger import (
    BrokenLedgerError,
    CanonicalRow,
    Checkpoint,
    CheckpointError,
    find_contradictions,
    parse_checkpoints,
    parse_event,
)
from rollout.engine.words.event_text import CitedProposals
from rollout.kernel.policy.policy import Policy
from rollout.live.checkpoint_keys import CheckpointSigner, CheckpointTargets, check_signatures
from rollout.live.rollout_state import RolloutState
from rollout.live.service import Service

__all__ = [
    "LedgerEntry",
    "LedgerFilter",
    "LedgerPage",
    "LedgerVerification",
    "iterate_access_ledger_lines",
    "iterate_ledger_lines",
    "load_access_ledger_page",
    "load_cited_proposals",
    "load_ledger_page",
    "verify_access_ledger",
    "verify_stored_ledger",
]

ROWS_PER_SEARCH = 500  # entries to filter at once for a page of one site
MAX_SEARCHES = 20  # for one page, which may be short
ACCESS_LEDGER_NAME = "access"
MAX_FOUND = 5  # entries or proposals with a hash: a prefix rarely fits two
ROWS_PER_TRANSACTION = 500  # so that a slow reader holds no transaction open


@dataclass(frozen=True, slots=True)
class LedgerPage:
    """A page of ledger entries, newest first.

    Attributes:
        head: the ledger's end now.
        next_before: the revision before which the next page begins; None at the end.
        cited: the proposals that the entries name.
        policy: the policy in force; None for the access ledger.
        actors: names of who wrote entries, sorted.
    """

    head: StoredLedgerHead
    items: tuple[LedgerEntry, ...]
    next_before: int | None
    cited: CitedProposals = field(default_factory=CitedProposals)
    policy: Policy | None = None
    actors: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class LedgerVerification:
    """The result of recomputing every hash of a ledger.

    Attributes:
        rows: intact entries from the first on.
        head: the hash of the last of them, "" without any.
        fault: where and how it breaks, or "".
        head_matches: whether it holds the requested entry; None without a request.
    """

    rollout: str
    rows: int
    head: str
    intact: bool
    fault: str
    head_matches: bool | None


def load_ledger_page(
    service: Service,
    caller: Caller,
    rollout_name: str,
    row_filter: LedgerFilter,
    *,
    site: str = "",
    before: int | None = None,
    limit: int = 50,
) -> LedgerPage:
    """Return a page of a rollout's ledger, with the proposals it names.

    `site` selects entries about a site and about its proposals and incidents; "" selects all.

    Raises:
        UnknownRolloutError: the caller sees no such rollout.
        NotAllowedError: the caller may not read every site; a ledger can't be read in part.
    """
    state = _load_readable_state(service, caller, rollout_name)
    with service.database.begin_read() as transaction:
        pages, rollout = LedgerPages(transaction, state.rollout), state.rollout
        entries, next_before = _find_page(pages, row_filter, site, before, limit)
        cited = load_cited_proposals(transaction, rollout, [entry.row for entry in entries])
        head, actors = Ledger(transaction, rollout).load_head(), pages.list_actors()
    return LedgerPage(head, tuple(entries), next_before, cited, state.policy, actors)


def find_proposals_by_hash(
    service: Service, caller: Caller, rollout_name: str, prefix: str
) -> tuple[str, ...]:
    """Return the newest proposals whose evidence hash begins so, at any site.

    Raises:
        NotAllowedError: the caller may not read anything of the rollout.
    """
    require_permission(caller, Permission.READ, rollout_name)
    state = service.state_cache.load_rollout(rollout_name).state
    with service.database.begin_read() as transaction:
        pages = LedgerPages(transaction, state.rollout)
        return tuple(pages.find_proposals_by_hash(prefix, MAX_FOUND))


def find_entries_by_hash(
    service: Service, caller: Caller, rollout_name: str, prefix: str
) -> tuple[int, ...]:
    """Return the newest revisions whose hash begins so.

    Raises:
        NotAllowedError: the caller may not read every site.
    """
    state = _load_readable_state(service, caller, rollout_name)
    with service.database.begin_read() as transaction:
        return tuple(LedgerPages(transaction, state.rollout).find_by_hash(prefix, MAX_FOUND))


def load_access_ledger_page(
    service: Service,
    caller: Caller,
    row_filter: LedgerFilter,
    *,
    before: int | None = None,
    limit: int = 50,
) -> LedgerPage:
    """Return a page of the access ledger.

    Raises:
        NotAllowedError: the caller is no admin of all rollouts.
    """
    require_permission(caller, Permission.ADMINISTER, "")
    with service.database.begin_read() as transaction:
        pages = LedgerPages(transaction, ACCESS_CHAIN)
        entries, next_before = _find_page(pages, row_filter, "", before, limit)
        head, actors = Ledger(transaction, ACCESS_CHAIN).load_head(), pages.list_actors()
    return LedgerPage(head, tuple(entries), next_before, actors=actors)


def iterate_ledger_lines(
    service: Service, caller: Caller, rollout_name: str, *, after: int = 0, limit: int | None = None
) -> Iterator[str]:
    """Return an iterator over ledger entries as NDJSON lines without line ends.

    It ends with the newest entry at the time of the call. Permissions are checked before it is
    returned.

    Raises:
        NotAllowedError: the caller may not read every site; a ledger can't be read in part.
    """
    state = _load_readable_state(service, caller, rollout_name)
    last_revision = state.scope.revision
    until = last_revision if limit is None else min(last_revision, after + limit)
    return _iterate_lines(service, state.rollout, after, until)


def iterate_access_ledger_lines(service: Service, caller: Caller) -> Iterator[str]:
    """Return an iterator over the access ledger as NDJSON lines.

    Raises:
        NotAllowedError: the caller is no admin of all rollouts.
    """
    require_permission(caller, Permission.ADMINISTER, "")
    with service.database.begin_read() as transaction:
        last_revision = Ledger(transaction, ACCESS_CHAIN).load_head().revision
    return _iterate_lines(service, ACCESS_CHAIN, 0, last_revision)


def _iterate_lines(service: Service, rollout: Rollout, after: int, until: int) -> Iterator[str]:
    for start in range(after, until, ROWS_PER_TRANSACTION):
        with service.database.begin_read() as transaction:
            end = min(start + ROWS_PER_TRANSACTION, until)
            lines = list(Ledger(transaction, rollout).list_lines(after=start, until=end))
        yield from lines


def verify_stored_ledger(
    service: Service,
    caller: Caller,
    rollout_name: str,
    *,
    revision: int | None = None,
    row_hash: str | None = None,
) -> LedgerVerification:
    """Recompute every hash of the stored ledger.

    Hashes alone show neither entries cut off at the end nor a completely rewritten ledger: for
    these, pass a revision and the hash that was seen there.

    Raises:
        NotAllowedError: the caller may not read every site.
    """
    state = _load_readable_state(service, caller, rollout_name)
    with service.database.begin_read() as transaction:
        ledger = Ledger(transaction, state.rollout)
        verification = _verify(ledger, rollout_name)
        if not verification.intact or revision is None or row_hash is None:
            return verification
        return replace(verification, head_matches=_has_row(ledger, revision, row_hash))


def verify_access_ledger(service: Service, caller: Caller) -> LedgerVerification:
    """Recompute every hash of the access ledger.

    Raises:
        NotAllowedError: the caller is no admin of all rollouts.
    """
    require_permission(caller, Permission.ADMINISTER, "")
    with service.database.begin_read() as transaction:
        return _verify(Ledger(transaction, ACCESS_CHAIN), ACCESS_LEDGER_NAME)


def _verify(ledger: Ledger, ledger_name: str) -> LedgerVerification:
    try:
        head = ledger.verify()
    except BrokenLedgerError as error:
        return LedgerVerification(
            ledger_name, error.line - 1, "", intact=False, fault=str(error), head_matches=None
        )
    return LedgerVerification(
        ledger_name, head.revision, head.hash, intact=True, fault="", head_matches=None
    )


def _has_row(ledger: Ledger, revision: int, row_hash: str) -> bool:
    rows = ledger.list_rows(after=revision - 1, until=revision)
    return any(row.hash == row_hash for row in rows)


def _load_readable_state(service: Service, caller: Caller, rollout_name: str) -> RolloutState:
    state = service.load_permitted_state(caller, Permission.READ, rollout_name)
    require_permission(caller, Permission.READ, rollout_name, tuple(state.policy.sites_by_id))
    return state


def _find_page(
    pages: LedgerPages, row_filter: LedgerFilter, site: str, before: int | None, limit: int
) -> tuple[list[LedgerEntry], int | None]:
    """Return a page and the start of the next."""
    if not site:
        entries = pages.list_page(row_filter, before=before, limit=limit + 1)
        return entries[:limit], entries[limit - 1].row.revision if len(entries) > limit else None
    cited_ids, site_entries, next_before = pages.list_ids_of_site(site), [], before
    for _ in range(MAX_SEARCHES):
        batch = pages.list_page(row_filter, before=next_before, limit=ROWS_PER_SEARCH)
        for entry in batch:
            next_before = entry.row.revision
            if _is_about(entry, site, cited_ids):
                site_entries.append(entry)
            if len(site_entries) == limit:
                return site_entries, next_before
        if len(batch) < ROWS_PER_SEARCH:
            return site_entries, None
    return site_entries, next_before


def _is_about(entry: LedgerEntry, site: str, cited_ids: frozenset[str]) -> bool:
    body = entry.row.fields
    located_bodies = [
        body,
        *body.get("cells", ()),
        *body.get("restarted", ()),
        *body.get("cleared", ()),
    ]
    if any(located_body.get("site") == site for located_body in located_bodies):
        return True
    return bool(cited_ids & {body.get("proposal", ""), body.get("incident", "")})


def load_cited_proposals(
    transaction: Transaction, rollout: Rollout, rows: Sequence[CanonicalRow]
) -> CitedProposals:
    """Return the proposals that entries name, and their approvers up to the newest entry."""
    pages = LedgerPages(transaction, rollout)
    ids = {str(row.fields.get("proposal") or "") for row in rows} - {""}
    revisions = pages.find_raising_revisions(ids)
    cited = CitedProposals.collect(
        parse_event(entry.row) for entry in pages.list_revisions(revisions)
    )
    if not cited.proposals:
        return cited
    for row in Ledger(transaction, rollout).list_rows(
        after=min(revisions), until=max(row.revision for row in rows), kinds=("Approved",)
    ):
        if row.fields["proposal"] in cited.proposals:
            cited.add_event(parse_event(row))
    return cited


SECOND_PLACE_TEXT: Final = (
    "Signed heads of ledgers are only in the folder of their key: who can write there and in the"
    " database can rewrite a ledger as a whole. Name a place elsewhere in ROLLOUT_CHECKPOINT_FILE"
    " or ROLLOUT_CHECKPOINT_CHANNEL."
)


def sign_heads(
    database: Database, signer: CheckpointSigner, at: datetime
) -> tuple[Checkpoint, ...]:
    """Return a signed checkpoint of each ledger that has entries, the access ledger first."""
    with database.begin_read() as transaction:
        access_head = load_access_head(transaction)
        heads = [(ACCESS_CHAIN.name, access_head.revision or 0, access_head.hash)]
        for rollout in Rollouts(transaction).list_all():
            head = Ledger(transaction, rollout).load_head()
            heads.append((rollout.name, head.revision, head.hash))
    return tuple(
        signer.sign(Checkpoint(name, revision, row_hash, at))
        for name, revision, row_hash in heads
        if revision
    )


def sign_head(
    service: Service, caller: Caller, rollout_name: str, signer: CheckpointSigner
) -> Checkpoint:
    """Return a signed checkpoint of one rollout's ledger.

    Raises:
        NotAllowedError: the caller may not read the rollout.
        UnknownRolloutError: the caller sees no such rollout.
    """
    require_permission(caller, Permission.READ, rollout_name)
    rollout = service.state_cache.reload_rollout(rollout_name).state.rollout
    with service.database.begin_read() as transaction:
        head = Ledger(transaction, rollout).load_head()
    return signer.sign(Checkpoint(rollout_name, head.revision, head.hash, service.clock.now()))


def announce_key(service: Service) -> None:
    """Write the public key to the access ledger, unless it is there."""
    signer = service.checkpoints.signer
    if signer is None:
        return
    with service.database.begin_write() as transaction:
        access_ledger = AccessLedger(transaction)
        if signer.public_key not in list_announced_keys(transaction):
            event = CheckpointKeyUsed(
                at=service.clock.now(), by=ENGINE, public_key=signer.public_key
            )
            access_ledger.append([event])


def list_announced_keys(transaction: Transaction) -> tuple[str, ...]:
    """Return the public keys in the access ledger, oldest first."""
    rows = Ledger(transaction, ACCESS_CHAIN).list_rows(kinds=(CheckpointKeyUsed.__name__,))
    return tuple(row.fields["public_key"] for row in rows)


def describe_weakness(targets: CheckpointTargets) -> str:
    """Describe why a ledger that is rewritten as a whole could pass, "" if nothing is known."""
    if targets.fault:
        return (
            f"No head of a ledger is signed: {targets.fault}. Until then a ledger that somebody"
            " rewrites as a whole passes every check."
        )
    if targets.signer is None or targets.has_second_place:
        return ""
    return SECOND_PLACE_TEXT


def append_checkpoints(path: Path, checkpoints: Sequence[Checkpoint]) -> Sequence[Checkpoint]:
    """Append the checkpoints whose heads are not the last ones in the file; return those.

    Raises:
        CheckpointError: the file can't be written, or holds something else.
    """
    try:
        text = path.read_text("utf-8") if path.exists() else ""
        last_hashes = (
            {
                checkpoint.ledger: checkpoint.hash
                for checkpoint in parse_checkpoints(text, str(path))
            }
            if text
            else {}
        )
        new = [
            checkpoint
            for checkpoint in checkpoints
            if last_hashes.get(checkpoint.ledger) != checkpoint.hash
        ]
        lines = "".join(checkpoint.format() + "\n" for checkpoint in new)
        with path.open("ab", buffering=0) as file:  # one write: replicas share the file
            file.write(lines.encode())
            os.fsync(file.fileno())
    except OSError as error:
        raise CheckpointError(f"{path} can't be written: {error.strerror}") from error
    return new


def read_checkpoints(path: Path, public_keys: Collection[str]) -> tuple[Checkpoint, ...]:
    """Return the checkpoints of a file; each is signed with one of the keys.

    Raises:
        CheckpointError: the file can't be read, or a line is of none of them.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error
    return tuple(check_signatures(parse_checkpoints(text, str(path)), public_keys, str(path)))


def find_rewritten_ledgers(database: Database, checkpoints: Sequence[Checkpoint]) -> Iterator[str]:
    """Describe each checkpoint that the stored ledgers contradict."""
    with database.begin_read() as transaction:
        rollouts = {
            rollout.name: rollout for rollout in (ACCESS_CHAIN, *Rollouts(transaction).list_all())
        }

        def find_hash(name: str, revision: int) -> str | None:
            if name not in rollouts:
                return None
            rows = Ledger(transaction, rollouts[name]).list_rows(after=revision - 1, until=revision)
            return next((row.hash for row in rows), None)

        yield from find_contradictions(checkpoints, find_hash)


class CheckpointPublisher:
    """Signs changed heads, and sends them to the service's file and channel."""

    def __init__(self, service: Service, send_text: Callable[[str, str], str]) -> None:
        """Publish nothing yet.

        Args:
            send_text: sends a text to the channel of a name; returns "" or the error.
        """
        self._service, self._send_text = service, send_text
        self._sent: dict[str, str] = {}

    def publish(self) -> str:
        """Publish the heads that have changed; return the errors of file and channel, or "".

        Each gets them though the other fails.
        """
        targets = self._service.checkpoints
        if targets.signer is None:
            return ""
        at, file_error = self._service.clock.now(), ""
        heads = sign_heads(self._service.database, targets.signer, at)
        try:
            if targets.file is not None:
                append_checkpoints(targets.file, heads)
        except CheckpointError as error:
            file_error = str(error)
        channel_error = self._send_new(targets.channel, heads) if targets.channel else ""
        return "; ".join(filter(None, (file_error, channel_error)))

    def _send_new(self, channel: str, heads: Sequence[Checkpoint]) -> str:
        """Send the heads that the channel lacks; return its error, or ""."""
        new = [
            checkpoint
            for checkpoint in heads
            if self._sent.get(checkpoint.ledger) != checkpoint.hash
        ]
        if not new:
            return ""
        error = self._send_text(channel, "\n".join(checkpoint.format() for checkpoint in new))
        if not error:
            self._sent.update({checkpoint.ledger: checkpoint.hash for checkpoint in new})
        return error
