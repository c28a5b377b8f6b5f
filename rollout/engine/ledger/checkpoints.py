"""Checkpoints: signed heads of ledgers, stored where the ledger's database can't be reached.

A user who can write the database can rewrite a whole ledger, and every hash is right again. A
checkpoint kept elsewhere shows it: the ledger no longer has the row that was signed.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rollout.engine.ledger.ledger import to_canonical_json
from rollout.kernel.calendar.instants import from_micros, to_micros
from rollout.kernel.errors import RefusalError

DOMAIN: Final = b"rollout-checkpoint-1\n"
TYPES: Final = {
    "ledger": str, "revision": int, "hash": str, "at": int, "key": str, "signature": str,
}  # fmt: skip
SIGNED: Final = ("ledger", "revision", "hash", "at")


class CheckpointError(RefusalError):
    """A file of checkpoints that can't be read, or with a signature that isn't the key's."""

    code = "checkpoint"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a ledger at one time, signed with Ed25519.

    Attributes:
        ledger: the rollout, or `:access` for the access ledger, as its rows name it.
        revision, hash: of the last row then.
        at: when it was signed.
        key: the public key, in hex.
        signature: of `content`, in hex.
    """

    ledger: str
    revision: int
    hash: str
    at: datetime
    key: str = ""
    signature: str = ""

    @property
    def content(self) -> bytes:
        """Return the signed bytes."""
        values = {name: getattr(self, name) for name in SIGNED} | {"at": to_micros(self.at)}
        return DOMAIN + to_canonical_json(values).encode()

    def format(self) -> str:
        """Return the checkpoint as one line of JSON."""
        values = {name: getattr(self, name) for name in TYPES} | {"at": to_micros(self.at)}
        return to_canonical_json(values)


def parse_checkpoints(text: str, name: str) -> Iterator[Checkpoint]:
    """Yield the checkpoints of a file's text, one a line; blank lines are skipped.

    Raises:
        CheckpointError: a line is no checkpoint, or there is none; `name` is the file's.
    """
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise CheckpointError(f"{name} has no checkpoint; `rollout ledger checkpoint` writes one")
    for number, line in lines:
        try:
            values = json.loads(line)
        except ValueError:
            values = None
        if not isinstance(values, dict) or {k: type(v) for k, v in values.items()} != TYPES:
            raise CheckpointError(
                f"{name}, line {number}: is no checkpoint; `rollout ledger checkpoint` writes them"
            )
        yield Checkpoint(**values | {"at": from_micros(values["at"])})


def find_contradictions(
    checkpoints: Iterable[Checkpoint], find_hash: Callable[[str, int], str | None]
) -> Iterator[str]:
    """Describe each checkpoint whose row a ledger lacks or has otherwise.

    Args:
        find_hash: returns the hash of a ledger's revision, None if there is no such row.
    """
    for checkpoint in checkpoints:
        stored_hash = find_hash(checkpoint.ledger, checkpoint.revision)
        if stored_hash == checkpoint.hash:
            continue
        signed_at = checkpoint.at.isoformat(timespec="seconds")
        state_text = "is missing" if stored_hash is None else f"has the hash {stored_hash}"
        yield (
            f"{checkpoint.ledger}: row {checkpoint.revision} {state_text}; the checkpoint of"
            f" {signed_at} signed {checkpoint.hash}. The ledger was rewritten or set back since"
        )
