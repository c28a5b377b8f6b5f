"""Sign the heads of stored ledgers, and compare stored ledgers with signed heads."""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from rollout.data.access.access_ledger import AccessLedger, load_access_head
from rollout.data.database.rollouts import ACCESS_CHAIN, Rollouts
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.events import ENGINE
from rollout.engine.ledger.access_events import CheckpointKeyUsed
from rollout.engine.ledger.ledger import (
    Checkpoint,
    CheckpointError,
    find_contradictions,
    parse_checkpoints,
)
from rollout.live.checkpoint_keys import CheckpointSigner, CheckpointTargets, check_signatures
from rollout.live.service import Service

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
