"""The highest row of a ledger that a box was ever told of: what it holds against a lost stop."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Head:
    """A row's place in its ledger; 0 and "" before anything was seen."""

    revision: int = 0
    hash: str = ""

    def follows(self, known: "Head") -> bool:
        """Say whether it may come after what is known: later, or the very same row."""
        return self.revision > known.revision or self == known


class Heads(Protocol):
    """Where the highest head is kept."""

    def highest(self) -> Head:
        """Return the highest head."""
        ...

    def keep(self, head: Head) -> None:
        """Keep a head."""
        ...


@dataclass(slots=True)
class HeadInMemory:
    """A head that a restart forgets."""

    head: Head = Head()

    def highest(self) -> Head:
        """Return the highest head."""
        return self.head

    def keep(self, head: Head) -> None:
        """Keep a head."""
        self.head = head


@dataclass(frozen=True, slots=True)
class HeadFile:
    """A head that outlives a restart, in a file; of a lease nothing ever does."""

    path: Path

    def highest(self) -> Head:
        """Return the highest head; none where there is no file.

        Raises:
            ValueError: the file holds something else; delete it only if the ledger began anew.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return Head(int(content["revision"]), str(content["hash"]))
        except FileNotFoundError:
            return Head()
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.path} holds no head: {error!r}") from error

    def keep(self, head: Head) -> None:
        """Keep a head; a crash meanwhile leaves the one before."""
        new_file = self.path.with_name(self.path.name + ".new")
        with new_file.open("w", encoding="utf-8") as file:
            json.dump({"revision": head.revision, "hash": head.hash}, file)
            file.flush()
            os.fsync(file.fileno())
        new_file.replace(self.path)
