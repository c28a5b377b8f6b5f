"""The frozen evidence of a proposal, one line for each condition."""

from rollout.core.policy.outcomes import GAIN
from rollout.core.policy.policy import Policy
from rollout.reports.text.bound_text import COST_MEASURES, format_bound_value, format_estimate
from rollout.reports.text.formatting import format_count
from rollout.reports.text.reading_text import format_reading
from rollout.services.proposals.proposal_evidence import ProposalEvidence, ReadingComparison


def format_frozen_readings(evidence: ProposalEvidence, policy: Policy) -> tuple[str, ...]:
    """Return each condition with its threshold, the share so far and the bound."""
    return tuple(_format_line(reading, policy) for reading in evidence.readings)


def _format_line(reading: ReadingComparison, policy: Policy) -> str:
    frozen = reading.frozen
    if frozen is None or frozen.estimate is None or frozen.condition.measure == GAIN:
        return format_reading(reading.text, policy)
    condition, measure = frozen.condition, frozen.condition.measure
    if measure in COST_MEASURES or len(frozen.counts) != 2:
        line = format_reading(reading.text, policy)
    else:
        line = (
            f"{condition}: {format_estimate(measure, frozen.estimate)} so far"
            f" ({format_count(frozen.counts[0])} of {format_count(frozen.count)})"
        )
    if frozen.bound is None:
        return line
    bound = format_bound_value(measure, frozen.bound, condition.line, at_least=condition.at_least)
    return f"{line}, bound {bound}"
