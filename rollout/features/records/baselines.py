"""Baselines: how often humans did what before, with time span and importer."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from rollout.data.database.session import Database
from rollout.data.records.record_rows import Baselines
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.files.label_set_texts import parse_set
from rollout.engine.records.records import BaselineCount
from rollout.kernel.errors import RefusalError, describe_value_error
from rollout.kernel.policy.policy import Policy
from rollout.kernel.units import Lever, read_label_set
from rollout.live.rollout_state import load_rollout_state, write_rollout

MAX_COUNT = 2**31
EARLIEST_BASELINE = datetime(1900, 1, 1, tzinfo=UTC)


class BaselineRefusedError(RefusalError):
    """A baseline has unknown names or an invalid value; none was stored."""

    code = "baseline-refused"


def store_baselines(
    database: Database,
    caller: Caller,
    rollout_name: str,
    baseline_counts: Sequence[BaselineCount],
    at: datetime,
) -> int:
    """Store baselines, all or none, and return how many are new.

    A repeated baseline is not stored. Another number for the same cell, action and span replaces
    the earlier one, which stays readable.

    Raises:
        NotAllowedError: the caller does not administer the rollout.
        UnknownRolloutError: the caller sees no such rollout.
        BaselineRefusedError: one is invalid; names the first and what would be valid.
    """
    require_permission(caller, Permission.ADMINISTER, rollout_name)
    with write_rollout(database, rollout_name) as (transaction, state):
        for index, baseline_count in enumerate(baseline_counts):
            if fault := (
                _find_unknown_name(state.policy, baseline_count)
                or _find_invalid_value(baseline_count, at)
            ):
                raise BaselineRefusedError(f"number {index + 1}: {fault}; nothing was stored")
        levers = state.policy.levers_by_id
        new_baselines = [
            replace(
                row, imported_by=caller.name, action=_read_action(levers[row.lever], row.action)
            )
            for row in baseline_counts
        ]
        if fault := _find_repeated_set(baseline_counts, new_baselines):
            raise BaselineRefusedError(f"{fault}; nothing was stored")
        return sum(Baselines(transaction, state.rollout).add(new_baselines))


def load_baselines(
    database: Database, caller: Caller, rollout_name: str
) -> Sequence[BaselineCount]:
    """Return the current baselines of sites that the caller may read.

    Raises:
        NotAllowedError: the caller may not read the rollout.
        UnknownRolloutError: the caller sees no such rollout.
    """
    require_permission(caller, Permission.READ, rollout_name)
    with database.begin_read() as transaction:
        baselines = Baselines(
            transaction, load_rollout_state(transaction, rollout_name).rollout
        ).list_current()
    return [
        baseline
        for baseline in baselines
        if caller.has_permission(Permission.READ, rollout_name, baseline.site)
    ]


def _find_repeated_set(
    sent: Sequence[BaselineCount], new_baselines: Sequence[BaselineCount]
) -> str:
    """Return which set is sent in two spellings, or "": the later count would replace the other."""
    actions: dict[tuple[object, ...], str] = {}
    for index, (row, baseline) in enumerate(zip(sent, new_baselines, strict=True)):
        first = actions.setdefault(baseline.identity, row.action)
        if first != row.action:
            return f"number {index + 1}: {row.action} is the set {first}; add up their counts"
    return ""


def _find_unknown_name(policy: Policy, baseline_count: BaselineCount) -> str:
    windows = [window.id for window in policy.windows]
    if baseline_count.site not in policy.sites_by_id:
        return f"no site {baseline_count.site}; there is {', '.join(policy.sites_by_id)}"
    if baseline_count.window not in windows:
        return f"no window {baseline_count.window}; there is {', '.join(windows)}"
    if baseline_count.lever not in policy.levers_by_id:
        return f"no lever {baseline_count.lever}; there is {', '.join(policy.levers_by_id)}"
    lever = policy.levers_by_id[baseline_count.lever]
    if lever.many:
        return describe_value_error(_read_action, lever, baseline_count.action)
    if lever.number is None and baseline_count.action not in {*lever.actions, lever.unanswered}:
        return (
            f"{baseline_count.lever} has no action {baseline_count.action}; it has"
            f" {', '.join(lever.actions)}"
        )
    return ""


def _read_action(lever: Lever, action: str) -> str:
    """Return an action as it is stored: a set, which is its own action, as canonical text.

    Raises:
        ValueError: it is no set of the lever's labels.
    """
    return read_label_set(parse_set(action), lever.labels, lever.id) if lever.many else action


def _find_invalid_value(baseline_count: BaselineCount, at: datetime) -> str:
    if not 0 <= baseline_count.n < MAX_COUNT:
        return f"{baseline_count.n} is no count"
    if baseline_count.since.utcoffset() is None or baseline_count.until.utcoffset() is None:
        return "a time has no zone; add its offset"
    if not EARLIEST_BASELINE <= baseline_count.since < baseline_count.until <= at:
        return (
            f"{baseline_count.since.isoformat()} to {baseline_count.until.isoformat()} is no span"
            " of the past"
        )
    return ""
