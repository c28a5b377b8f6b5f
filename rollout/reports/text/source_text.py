"""Sources of evidence in words."""

from collections.abc import Iterable
from dataclasses import dataclass

from rollout.core.policy.evidence_sources import BEFORE_SOURCES, IMPORTS, REVIEWS

KINDS = {
    REVIEWS: "reviews made here",
    IMPORTS: "imports",
    BEFORE_SOURCES: "before sources were stored",
}


@dataclass(frozen=True, slots=True)
class CountedSource:
    """Counted decisions of a source: one of `KINDS`, or an account's name."""

    source: str
    decisions: int
    reviewers: int


@dataclass(frozen=True, slots=True)
class CountedOutcomeSource:
    """Units whose outcomes are of a source: one of `KINDS`, or an account's name."""

    source: str
    units: int


def describe_outcome_sources(counts: Iterable[CountedOutcomeSource]) -> str:
    """Return one sentence for the sources of outcomes, "" for none.

    >>> describe_outcome_sources([CountedOutcomeSource("till", 1210)])
    'outcomes of 1,210 units: service account till'
    """
    texts = (
        f"outcomes of {count.units:,} {'unit' if count.units == 1 else 'units'}: "
        f"{KINDS.get(count.source) or f'service account {count.source}'}"
        for count in counts
    )
    return "; ".join(texts)


def describe_sources(counts: Iterable[CountedSource], *, is_recorded: bool = False) -> str:
    """Return one sentence for the sources of decisions, "" for none.

    Sources of recorded files are no accounts.

    >>> describe_sources([CountedSource("reviews", 210, 6), CountedSource("people", 30, 4)])
    '210 of 240 decisions: reviews made here; 30: service account people for 4 reviewers'
    """
    kind = "" if is_recorded else "service account "
    parts = [(count.decisions, _describe_source(count, kind)) for count in counts]
    total = sum(decisions for decisions, _ in parts)
    texts = [f"{decisions:,}: {text}" for decisions, text in parts]
    if texts:
        first, text = parts[0]
        noun = "decision" if total == 1 else "decisions"
        texts[0] = f"{first:,} of {total:,} {noun}: {text}"
    return "; ".join(texts)


def _describe_source(count: CountedSource, account_kind: str) -> str:
    kind = KINDS.get(count.source)
    reviewers = "reviewer" if count.reviewers == 1 else "reviewers"
    return kind or f"{account_kind}{count.source} for {count.reviewers:,} {reviewers}"
