"""Stop latency by site, from leases and earlier policies in the ledger."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from rollout.core.calendar.instants import from_micros
from rollout.core.ledger.ledger import CanonicalRow
from rollout.core.policy.policy import Policy
from rollout.services.engine.rollout_state import RolloutState, parse_stored_policy
from rollout.services.engine.state_cache import MAX_STALENESS
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.policies import PolicyTexts

STALENESS = timedelta(seconds=MAX_STALENESS)
MINUTE, HOUR, DAY = 60, 3_600, 86_400  # seconds


@dataclass(frozen=True, slots=True)
class StopLatency:
    """Seconds after the answer by which a stop holds at a site."""

    site: str
    within_seconds: float


@dataclass(frozen=True, slots=True)
class StopHistory:
    """Earlier stops and policies.

    Attributes:
        stop_reasons: by stop id.
        last_drill: None before the first.
        replaced_policies: earlier policies, with the time of their end.
    """

    stop_reasons: Mapping[str, str]
    last_drill: datetime | None
    replaced_policies: tuple[tuple[datetime, Policy], ...]


def load_stop_history(transaction: Transaction, state: RolloutState) -> StopHistory:
    """Return earlier stops and policies, up to the state's revision."""
    ledger, until = Ledger(transaction, state.rollout), state.scope.revision
    rows = list(ledger.list_rows(until=until, kinds=("Stopped", "PolicyApplied")))
    stop_rows = [row for row in rows if row.kind == "Stopped"]
    applied_rows = [row for row in rows if row.kind == "PolicyApplied"]
    drill_times = [_parse_row_time(row) for row in stop_rows if row.fields["drill"]]
    texts = PolicyTexts(transaction, state.rollout).load_texts(
        {row.fields["policy_hash"] for row in applied_rows[:-1]}
    )
    end_times = [_parse_row_time(row) for row in applied_rows[1:]]
    return StopHistory(
        stop_reasons={row.fields["stop"]: row.fields["reason"] for row in stop_rows},
        last_drill=max(drill_times, default=None),
        replaced_policies=tuple(
            (end, parse_stored_policy(texts[row.fields["policy_hash"]]))
            for end, row in zip(end_times, applied_rows, strict=False)
        ),
    )


def _parse_row_time(row: CanonicalRow) -> datetime:
    return from_micros(row.at)


def compute_stop_latencies(
    stop_history: StopHistory, policy: Policy, sites: Iterable[str], at: datetime
) -> tuple[StopLatency, ...]:
    """Return the stop latency at each site: replica staleness plus lease.

    An answer under a longer lease of an earlier policy is valid for the rest of it.
    """
    return tuple(
        StopLatency(site, _compute_stop_latency(stop_history, policy, site, at).total_seconds())
        for site in sites
    )


def _compute_stop_latency(
    stop_history: StopHistory, policy: Policy, site: str, at: datetime
) -> timedelta:
    remaining_leases = [
        find_lease(old_policy, site) - (at - end)
        for end, old_policy in stop_history.replaced_policies
        if site in old_policy.sites_by_id
    ]
    return STALENESS + max(find_lease(policy, site), *remaining_leases, timedelta(0))


def find_lease(policy: Policy, site: str) -> timedelta:
    """Return how long an answer may be used at a site."""
    site_lease = policy.sites_by_id[site].lease
    return policy.lease if site_lease is None else site_lease


def describe_stop_latency(latencies: Sequence[StopLatency]) -> str:
    """Describe stop latencies, shortest first, equal sites together."""
    sites_by_latency: dict[float, list[str]] = {}
    for latency in sorted(latencies, key=lambda latency: latency.within_seconds):
        sites_by_latency.setdefault(latency.within_seconds, []).append(latency.site)
    latency_texts = (
        f"{_join_with_and(sites)} within {format_stop_latency(seconds)}"
        for seconds, sites in sites_by_latency.items()
    )
    return f"the model stops acting on earlier assignments at {', '.join(latency_texts)}"


def format_stop_latency(seconds: float) -> str:
    """Format a stop latency in at most two units, rounded up, as it is a promise.

    >>> [format_stop_latency(seconds) for seconds in (0.5, 10.5, 60.5, 3_599.5)]
    ['1 s', '11 s', '1 min 1 s', '1 h']
    >>> [format_stop_latency(seconds) for seconds in (43_200.5, 86_399.5, 86_400.5)]
    ['12 h 1 min', '1 d', '1 d 1 h']
    """
    step = 1 if seconds < HOUR else MINUTE if seconds < DAY else HOUR
    remaining, parts = ceil(seconds / step) * step, []
    for size, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (1, "s")):
        count, remaining = divmod(remaining, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts) or "0 s"


def _join_with_and(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
