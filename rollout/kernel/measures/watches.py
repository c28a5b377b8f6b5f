"""Measures that guards alone watch: moves of shares, harms, devices and silence."""

from datetime import timedelta
from typing import Final

from rollout.kernel.measures.base import Measure, Subject, ThresholdUnit, Watch

LATE_SHARE: Final = 0.05
"""A 95th percentile is above a threshold if a larger share is."""
MIN_AUDITS: Final = 20
"""With fewer audits the share of overdue ones would trip healthy cells."""
WEEK: Final = timedelta(days=7)
SHORT_SPAN: Final = timedelta(minutes=15)


class DriftMeasure(Measure):
    """How far a value's share of cases, or a human decision's, has moved."""

    name = "drift"
    definition = (
        "how far a value's share of cases (without `slice`: a human decision's) may have moved"
    )
    against = "cases speak for {subject}"
    example = "10%"
    unit = ThresholdUnit.SHARE
    guard_effect = "report"
    watch = Watch.LABELS
    needs_lever = True
    has_slices = True
    has_floors = False
    has_sets = False
    unnamed_subject = "decisions"


class Harm(Measure):
    """Outcomes that name a harm."""

    name = "harm"
    definition = "outcomes that name a harm"
    against = "outcomes name {subject}"
    example = "0"
    unit = ThresholdUnit.COUNT
    guard_effect = "shadow"
    guard_span = WEEK
    watch = Watch.HARMS
    subject = Subject.HARM
    has_version = False
    reads_more = True
    is_longer_stricter = True

    def describe_against(self, subject: str) -> str:
        """Return that outcomes name the harm, or any."""
        return super().describe_against(subject or "a harm")


class RecordMeasure(Measure):
    """A share of bad records, which a test watches."""

    unit = ThresholdUnit.PART
    watch = Watch.RECORDS


class Missing(RecordMeasure):
    """The share of closed units without a decision."""

    name = "missing"
    against = "units closed without a decision"
    gate_hint = "write evidence.missing_at_most"
    definition = "closed units without a decision"
    example = "10%"
    guard_effect = "report"
    guard_span = WEEK
    is_operational = True
    is_of_cell = True


class Unaudited(RecordMeasure):
    """The share of overdue audits."""

    name = "unaudited"
    against = "audits overdue"
    definition = "overdue audits, from 20 sampled on"
    example = "10%"
    guard_effect = "one-stage"
    guard_span = WEEK
    min_records = MIN_AUDITS
    reads_audits = True


class AnswerMeasure(RecordMeasure):
    """A share of bad answers of a site's devices."""

    guard_effect = "suspend"
    guard_span = SHORT_SPAN
    is_operational = True
    is_of_site = True
    reads_more = True


class LatencyMeasure(AnswerMeasure):
    """The 95th percentile of the time to answer."""

    name = "latency_p95"
    against = "answers were too slow"
    definition = "time to answer, 95th percentile"
    example = "20s"
    unit = ThresholdUnit.SECONDS
    reads_latency = True

    def find_share_limit(self, threshold: float) -> float:
        """Return the share that may be slower, whatever the threshold."""
        return LATE_SHARE

    def describe_counted(self, subject: str, threshold_text: str) -> str:
        """Return which answers are slow."""
        return f"answers slower than {threshold_text}"


class Failures(AnswerMeasure):
    """The share of failed answers."""

    name = "failures"
    against = "answers failed"
    definition = "failed answers"
    example = "2%"


class HeartbeatMeasure(Measure):
    """The open time since a site's last case or sign of life, whatever version acts there."""

    name = "heartbeat"
    definition = "open time since the site's last case or sign of life"
    against = "open hours without a sign of life"
    example = "2h"
    unit = ThresholdUnit.SECONDS
    guard_effect = "suspend"
    watch = Watch.SIGNS
    reads_more = True
    is_operational = True
