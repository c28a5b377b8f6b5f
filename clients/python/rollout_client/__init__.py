"""Client library: decides locally by a table of the scope, with the standard library alone."""

from rollout_client.client import EdgeClient, LedgerRolledBackError, build_assignment_fields
from rollout_client.local_scope import InvalidSnapshotError, UnknownFormError
from rollout_client.questions import LocalQuestion
from rollout_client.seen_heads import FileHeadStore, LedgerHead, MemoryHeadStore

__all__ = [
    "EdgeClient",
    "FileHeadStore",
    "InvalidSnapshotError",
    "LedgerHead",
    "LedgerRolledBackError",
    "LocalQuestion",
    "MemoryHeadStore",
    "UnknownFormError",
    "build_assignment_fields",
]
