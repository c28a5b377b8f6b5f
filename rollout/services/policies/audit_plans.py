"""What audits by confidence gain and cost, estimated from records.

Which cases will get worse is unknown, so the plan names both ends: the unsure ones alone, and all
alike.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from rollout.core.policy.policy import Policy
from rollout.core.policy.stages import Stage
from rollout.core.statistics.forecast import (
    AuditedGroup,
    estimate_detection_records,
    estimate_weighted_records,
)
from rollout.services.policies.guard_plans import PLANNED_DROPS
from rollout.tally.audit_weights import NO_CONFIDENCE


def format_audits(policy: Policy, band_counts: Sequence[int]) -> Iterator[str]:
    """Yield the gain and price of each stage with audits by confidence; nothing without any."""
    for stage in policy.stages:
        if not stage.unsure:
            continue
        yield f"AUDITS BY CONFIDENCE at {stage.id}"
        if not sum(band_counts):
            yield "  gain and price: unknown; pass recorded predictions with their confidence"
        else:
            yield from _format_stage(policy, stage, _compute_case_shares(stage, band_counts))
        yield ""


def compute_reviewed_share(stage: Stage, band_counts: Sequence[int]) -> float:
    """Return the share of all units that get a blind decision; the least without records."""
    if not (stage.unsure and sum(band_counts)):
        return stage.reviewed_share
    cases = _compute_case_shares(stage, band_counts)
    return _compute_mean(stage.reviewed_shares, cases)


def _compute_case_shares(stage: Stage, band_counts: Sequence[int]) -> list[float]:
    """Return the share of cases at each of the stage's audit shares, the least sure first."""
    sums = [0] * len(stage.reviewed_shares)
    for band, units in enumerate(band_counts):
        confidence = None if band <= NO_CONFIDENCE else (band - NO_CONFIDENCE - 1) / 100
        sums[stage.find_audit_band(confidence)] += units
    return [count / sum(sums) for count in sums]


def _format_stage(policy: Policy, stage: Stage, cases: Sequence[float]) -> Iterator[str]:
    shares = stage.reviewed_shares
    mean = _compute_mean(shares, cases)
    parts = [
        f"{part * 100:.3g} % below confidence {row.confidence:g}"
        for row, part in zip(stage.unsure, np.cumsum(cases[:-1]), strict=True)
    ]
    yield f"  cases: {', '.join(parts)}; reviewed blind: {mean * 100:.3g} % of all"
    yield (
        f"  price: gates count {shares[-1] * 100:.3g} % of all, so they wait"
        f" {mean / shares[-1]:.2g} times as long as with {mean * 100:.3g} % whatever the"
        " confidence; guards and renewals count all, weighted by the audits' shares"
    )
    for guard in policy.guards:
        condition = guard.condition
        drop = next((d for d in PLANNED_DROPS if d < condition.line), None)
        if condition.measure != "agreement" or condition.key[1] is not None or drop is None:
            continue
        every = guard.false_alarm_every
        uniform = estimate_detection_records(condition.line, every, drop)
        gain, price = (
            estimate_weighted_records(condition.line, every, _group(shares, cases, errors))
            for errors in _list_errors(cases, 1 - drop)
        )
        yield (
            f"  {condition}, fallen to {drop * 100:.0f} %: noticed after about {gain:,.0f} reviews"
            f" if unsure cases alone got worse, {price:,.0f} if all did; with {mean * 100:.3g} %"
            f" whatever the confidence after {uniform:,.0f}"
        )


def _compute_mean(shares: Sequence[float], cases: Sequence[float]) -> float:
    return sum(share * part for share, part in zip(shares, cases, strict=True))


def _list_errors(cases: Sequence[float], error: float) -> tuple[list[float], list[float]]:
    """Return the error rates by audit share with all errors among unsure cases, and alike."""
    unsure = sum(cases[:-1])
    among_unsure = min(error / unsure, 1.0) if unsure else 0.0
    rest = error - among_unsure * unsure
    among_sure = rest / cases[-1] if cases[-1] else 0.0
    return [*([among_unsure] * (len(cases) - 1)), among_sure], [error] * len(cases)


def _group(
    shares: Sequence[float], cases: Sequence[float], errors: Sequence[float]
) -> list[AuditedGroup]:
    """Return the reviewed cases of each audit share that has any."""
    reviewed = [share * part for share, part in zip(shares, cases, strict=True)]
    return [
        AuditedGroup(count / sum(reviewed), error, shares[-1] / share)
        for count, error, share in zip(reviewed, errors, shares, strict=True)
        if count
    ]
