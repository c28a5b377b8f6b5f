"""What came of uploaded files; light, since each replica that shows results imports it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

STEPS: Final = (
    "reading the files",
    "drafting the policy",
    "planning",
    "replaying",
    "writing the report",
)
"""What a run does, in this order."""


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file, unpacked, and the rows that were read of it."""

    name: str
    sha256: str
    rows: int
    used: int


@dataclass(frozen=True, slots=True)
class UploadResult:
    """What came of two uploaded files.

    Attributes:
        policy_text: the draft, or the policy that was uploaded with them.
        is_drafted: whether it is a draft.
        reading: how the files were read, a line each; empty without a draft.
        plan: the text of `rollout plan`.
        summary: the text of `rollout replay`.
        report: its report, an HTML page.
        first, last: the replayed span.
        salt: SHA-256 of the salt of the sampling values.
    """

    policy_text: str
    policy_hash: str
    is_drafted: bool
    files: tuple[UploadedFile, ...]
    reading: tuple[str, ...]
    plan: str
    summary: str
    report: str
    first: datetime
    last: datetime
    salt: str
