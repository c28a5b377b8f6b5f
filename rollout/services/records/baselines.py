"""The manual history: what people did before, with its span and who vouches for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rollout.core.errors import Refusal
from rollout.core.policy.policy import Policy
from rollout.core.scope.permissions import Act, Caller, require
from rollout.services.engine.rollout_state import standing
from rollout.store.database.session import Database
from rollout.store.records.baselines import Baseline, Baselines

MOST = 2**31
FIRST = datetime(1900, 1, 1, tzinfo=UTC)


class BaselineRefused(Refusal):
    """A baseline names what the policy has not, or a span that is none; nothing was kept."""

    code = "baseline-refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How often people did `action` in a cell from `since` up to `until` (outside)."""

    site: str
    window: str
    lever: str
    action: str
    n: int
    since: datetime
    until: datetime


def vouch(database: Database, caller: Caller, name: str, done: Sequence[Done], at: datetime) -> int:
    """Keep what people did before, on the caller's word, and return how many are new.

    All of it is kept or nothing. The same again is not doubled; another number for the same cell,
    action and span takes the place of the earlier one, which stays readable.

    Raises:
        NotAllowed: the caller does not administer the rollout.
        UnknownRollout: there is none that they may see.
        BaselineRefused: names the first that can't be, and what would be right.
    """
    require(caller, Act.ADMINISTER, name)
    with database.writing() as transaction:
        state = standing(transaction, name)
        for index, baseline_count in enumerate(done):
            if fault := _fault(state.policy, baseline_count, at):
                raise BaselineRefused(f"number {index + 1}: {fault}; nothing was kept")
        new_baselines = [_vouched(baseline_count, caller.name) for baseline_count in done]
        return sum(Baselines(transaction, state.rollout).add(new_baselines))


def baselines_of(database: Database, caller: Caller, name: str) -> Sequence[Baseline]:
    """Return the baselines that hold, of the sites that the caller may read.

    Raises:
        NotAllowed: the caller may not read the rollout.
        UnknownRollout: there is none that they may see.
    """
    require(caller, Act.READ, name)
    with database.reading() as transaction:
        baselines = Baselines(transaction, standing(transaction, name).rollout).holding()
    return [baseline for baseline in baselines if caller.may(Act.READ, name, baseline.site)]


def _vouched(one: Done, by: str) -> Baseline:
    return Baseline(
        site=one.site,
        window=one.window,
        lever=one.lever,
        action=one.action,
        n=one.n,
        since=one.since,
        until=one.until,
        vouched_by=by,
    )


def _fault(policy: Policy, one: Done, at: datetime) -> str:
    """Say what is wrong with one; "" where nothing is."""
    return _unknown(policy, one) or _odd(one, at)


def _unknown(policy: Policy, one: Done) -> str:
    windows = [window.id for window in policy.windows]
    if one.site not in policy.site:
        return f"no site {one.site}; there is {', '.join(policy.site)}"
    if one.window not in windows:
        return f"no window {one.window}; there is {', '.join(windows)}"
    if one.lever not in policy.lever:
        return f"no lever {one.lever}; there is {', '.join(policy.lever)}"
    lever = policy.lever[one.lever]
    if lever.number is None and one.action not in {*lever.actions, lever.unanswered}:
        return f"{one.lever} has no action {one.action}; it has {', '.join(lever.actions)}"
    return ""


def _odd(one: Done, at: datetime) -> str:
    if not 0 <= one.n < MOST:
        return f"{one.n} is no count"
    if one.since.utcoffset() is None or one.until.utcoffset() is None:
        return "a time has no zone; add its offset"
    if not FIRST <= one.since < one.until <= at:
        return f"{one.since.isoformat()} to {one.until.isoformat()} is no span of the past"
    return ""
