"""Sign the heads of stored ledgers, and compare stored ledgers with signed heads."""

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from rollout.core.ledger.checkpoints import (
    Checkpoint,
    CheckpointError,
    find_contradictions,
    parse_checkpoints,
)
from rollout.core.scope.permissions import Caller, Permission, require_permission
from rollout.services.engine.service import Service
from rollout.services.support.checkpoint_keys import CheckpointSigner, check_signatures
from rollout.store.access.access_ledger import load_access_head
from rollout.store.database.rollouts import ACCESS_CHAIN, Rollouts
from rollout.store.database.session import Database
from rollout.store.ledger.ledger import Ledger


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
        with path.open("a", encoding="utf-8") as file:
            file.writelines(checkpoint.format() + "\n" for checkpoint in new)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CheckpointError(f"{path} can't be written: {error.strerror}") from error
    return new


def read_checkpoints(path: Path, public_key: str) -> tuple[Checkpoint, ...]:
    """Return the checkpoints of a file; each is signed with the key.

    Raises:
        CheckpointError: the file can't be read, or a line is not the key's.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error
    return tuple(check_signatures(parse_checkpoints(text, str(path)), public_key, str(path)))


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
