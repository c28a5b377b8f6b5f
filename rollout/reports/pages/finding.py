"""One finding of a report: severity, title, text and the section with its details."""

from dataclasses import dataclass
from typing import Final

BAD, WARN, NOTE = "bad", "warn", "note"
SEVERITIES: Final = (BAD, WARN, NOTE)
OPERATOR, ENGINEER, AUDITOR = "operator", "engineer", "auditor"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know.

    Attributes:
        severity: `bad`, `warn` or `note`: the kind of its tag.
        tag: one word.
        title, text: what it is; then the figures, each with its denominator.
        section: id of the section with the details.
        readers: whose page lists it.
    """

    severity: str
    tag: str
    title: str
    text: str
    section: str
    readers: tuple[str, ...]
