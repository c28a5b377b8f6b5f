"""Draft the section `expect` of a policy: the recorded traffic of one cell."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta

import polars as pl

from rollout.formats.policy.draft_import import quote_scalar
from rollout.formats.policy.draft_number import NUMBER_TOLERANCE, is_within_share
from rollout.formats.policy.draft_sets import compute_set_shares
from rollout.tally.frames import VALUE_PREFIX, RecordFrames

DAY = timedelta(days=1)
MIN_SHARE = 0.0005
"""Smallest share of a label that is drafted."""


def draft_expectation(
    records: RecordFrames,
    labels: Mapping[str, Sequence[str]],
    sites: Sequence[str],
    sets: Collection[str] = (),
) -> Iterator[str]:
    """Yield the lines of the section; none if nothing was recorded.

    Args:
        labels: by lever its labels, none for a number.
        sites: the sites of the policy; each is one cell.
        sets: the levers whose answers are sets of labels.
    """
    lines = [
        *_draft_rate(records, sites),
        *_draft_label_shares(records, labels, sets),
        *_draft_agreement(records, labels),
    ]
    if lines:
        yield "# Recorded traffic, for `rollout plan`; correct it if it will change. units_per_day"
        yield "# is of one cell without windows, labels and agreement are of all cells together."
        yield "# With windows, or cases without a decision (gates count them as disagreements),"
        yield "# name the files: `rollout plan policy.yaml --predictions FILE --decisions FILE`."
        yield "expect:"
        yield from (f"  {line}" for line in lines)


def _draft_rate(records: RecordFrames, sites: Sequence[str]) -> Iterator[str]:
    cases = records.cases.filter(pl.col("site").is_in(list(sites)))
    times = cases["occurred_at"].drop_nulls().sort()
    if not times.len():
        return
    span = times[-1] - times[0]
    days = max(1.0, span / DAY)
    unit = pl.coalesce("episode", "case_key")
    units = cases.filter(pl.col("occurred_at").is_not_null()).select(unit.n_unique()).item()
    yield f"units_per_day: {units / days / len(sites):.3g}".replace("e+0", "e+")


def _draft_label_shares(
    records: RecordFrames, labels: Mapping[str, Sequence[str]], sets: Collection[str]
) -> Iterator[str]:
    shares = []
    for lever, lever_labels in labels.items():
        answers = records.decisions[VALUE_PREFIX + lever].drop_nulls()
        compute_shares = compute_set_shares if lever in sets else _compute_shares
        for label, share in compute_shares(answers, lever_labels):
            if share >= MIN_SHARE:
                name = label if len(records.levers) == 1 else f"{lever}/{label}"
                shares.append(f"{quote_scalar(name)}: {share:.1%}")
    if shares:
        yield f"labels: {{{', '.join(shares)}}}"


def _compute_shares(answers: pl.Series, labels: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Yield the share of each label."""
    answers = answers.filter(answers.is_in(list(labels)))
    for label in labels:
        yield label, int((answers == label).sum()) / answers.len() if answers.len() else 0.0


def _draft_agreement(records: RecordFrames, labels: Mapping[str, Sequence[str]]) -> Iterator[str]:
    names = [VALUE_PREFIX + lever for lever in records.levers]
    decided = records.decisions.filter(~pl.col("unsure")).select("case_key", *names)
    predicted = records.predictions.select("case_key", *names)
    pairs = predicted.join(decided, on="case_key", suffix=" decided")
    if pairs.height:
        agrees = pl.all_horizontal(_build_agreement(lever, labels[lever]) for lever in labels)
        share = pairs.select(agrees.fill_null(value=False).mean()).item()
        yield f"agreement: {share:.1%}    # of {pairs.height:,} pairs of prediction and decision"


def _build_agreement(lever: str, labels: Sequence[str]) -> pl.Expr:
    predicted, decided = pl.col(VALUE_PREFIX + lever), pl.col(f"{VALUE_PREFIX}{lever} decided")
    if labels:
        return predicted == decided
    return is_within_share(predicted, decided, NUMBER_TOLERANCE)
