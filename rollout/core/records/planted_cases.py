"""Planted cases: declared by a user before anything else is known of them.

A file of declarations names each case and when it was declared.
"""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class PlantedDeclaration:
    """The key of a planted case, and when it was declared."""

    key: str
    declared_at: datetime
