"""Draft the smallest policy that fits recorded files."""

from pathlib import Path

from rollout.formats.columns import DEFAULT, columns_from_flags, read_columns
from rollout.formats.policy_draft import draft_policy
from rollout.formats.record_files import Sources, read_records

LEVER = "answer"  # the id under which a draft calls the one lever; the author renames it


def draft(
    sources: Sources,
    *,
    rollout: str,
    timezone: str,
    columns: Path | None = None,
    mapped: tuple[str, ...] = (),
) -> str:
    """Return the text of a policy for the records in `sources`, with comments that teach.

    Raises:
        ColumnFault: a column that is needed is missing; the text says how to map it.
        ValueError: the files hold no label or no site.
    """
    levers = [LEVER]
    base = DEFAULT if columns is None else read_columns(columns, levers=levers)
    records = read_records(
        sources,
        levers=levers,
        zones={},
        default_zone=timezone,
        columns=columns_from_flags(mapped, levers=levers, base=base),
    )
    return draft_policy(records, rollout=rollout, timezone=timezone)
