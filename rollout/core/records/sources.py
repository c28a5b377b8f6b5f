"""Where a decision came from, and whether the policy names that source.

The kind is set when a record is received, by the policy in force then, and stored with it. So an
edit of the policy's sources changes neither what was counted nor what a recount gives.
"""

from typing import Final

REVIEWS, IMPORTS, ACCOUNT, UNNAMED = "reviews", "imports", "account", "unnamed"
"""Kinds: reviews made here, imports, an account that the policy names, and none of these."""
FILE_PREFIX: Final = "file:"
"""Prefix of the sender of an imported record; the SHA-256 of the file follows."""


def build_file_sender(sha256: str) -> str:
    """Return the sender of the records of a file."""
    return FILE_PREFIX + sha256
