"""Whether what a file's import counted adds up."""

from rollout.engine.evidence.frames import RowCount


def adds_up(count: RowCount) -> bool:
    """Return whether each row read is either used or rejected."""
    return count.rows == count.used + sum(count.rejected.values())
