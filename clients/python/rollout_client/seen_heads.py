"""Newest ledger head that a client knows; it detects a ledger set back."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LedgerHead:
    """Revision and hash of a ledger entry; 0 and "" before the first.

    `era` grows with each restore of the database, which may lower the revision. `code` proves to
    the service that it gave out this head.
    """

    revision: int = 0
    hash: str = ""
    era: int = 1
    code: str = ""

    def follows(self, known_head: "LedgerHead") -> bool:
        """Return whether it is newer than `known_head` or equal."""
        is_same = (self.era, self.revision) == (known_head.era, known_head.revision)
        return self.is_newer_than(known_head) or (is_same and self.hash == known_head.hash)

    def is_newer_than(self, known_head: "LedgerHead") -> bool:
        """Return whether its entry was added after that of `known_head`."""
        return (self.era, self.revision) > (known_head.era, known_head.revision)


class HeadStore(Protocol):
    """Storage of the newest head."""

    def load(self) -> LedgerHead:
        """Return the newest head."""
        ...

    def store(self, head: LedgerHead) -> None:
        """Store a head."""
        ...


@dataclass(slots=True)
class MemoryHeadStore:
    """A head that a restart forgets."""

    head: LedgerHead = LedgerHead()

    def load(self) -> LedgerHead:
        """Return the newest head."""
        return self.head

    def store(self, head: LedgerHead) -> None:
        """Store a head."""
        self.head = head


@dataclass(frozen=True, slots=True)
class FileHeadStore:
    """A head in a file, which survives a restart."""

    path: Path

    def load(self) -> LedgerHead:
        """Return the newest head, an empty one without a file.

        Raises:
            ValueError: the file is malformed; delete it only if the ledger began anew.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return LedgerHead(
                int(content["revision"]),
                str(content["hash"]),
                int(content.get("era", 1)),
                str(content.get("code", "")),
            )
        except FileNotFoundError:
            return LedgerHead()
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.path} holds no head: {error!r}") from error

    def store(self, head: LedgerHead) -> None:
        """Store a head atomically."""
        new_file = self.path.with_name(self.path.name + ".new")
        with new_file.open("w", encoding="utf-8") as file:
            json.dump(asdict(head), file)
            file.flush()
            os.fsync(file.fileno())
        new_file.replace(self.path)
