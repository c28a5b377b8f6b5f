"""Newest ledger head that a client knows; it detects a ledger set back."""

import json
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from rollout_client.durable_files import replace_file


class LedgerHead(NamedTuple):
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


NO_HEAD: Final = LedgerHead()


class HeadStore(Protocol):
    """Storage of the newest head."""

    def load(self) -> LedgerHead:
        """Return the newest head."""
        ...

    def store(self, head: LedgerHead) -> None:
        """Store a head."""
        ...


class MemoryHeadStore:
    """A head that a restart forgets."""

    __slots__ = ("head",)

    def __init__(self, head: LedgerHead = NO_HEAD) -> None:
        self.head = head

    def load(self) -> LedgerHead:
        """Return the newest head."""
        return self.head

    def store(self, head: LedgerHead) -> None:
        """Store a head."""
        self.head = head


class FileHeadStore:
    """A head in a file, which survives a restart."""

    __slots__ = ("path",)

    def __init__(self, path: Path) -> None:
        self.path = path

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
        except (KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"{self.path} holds no head: {error!r}") from error

    def store(self, head: LedgerHead) -> None:
        """Store a head atomically, and so that it outlasts a loss of power."""
        content = json.dumps(head._asdict()).encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.path, content)
